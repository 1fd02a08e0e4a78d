"""The scorer of a comparison: one set of references, one classifier, and what all rows share, made once.

A row's pictures are compared with the references of --fields whatever weights they come from; copies are sought among
the fields that its GPT was trained on.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.runtime.runs import digest, read_json, write_json
from fields.storage.dataset import WeightDataset
from gpt.evaluation import items
from gpt.evaluation.baselines import (
    Setup,
    draw_pool,
    gaussian,
    held_out_fields,
    training_fields,
    training_images,
    unigram,
)
from gpt.evaluation.config import Inputs, open_classifier
from gpt.evaluation.evaluate import fitting, look_for_copies
from gpt.evaluation.features import Classifier
from gpt.evaluation.items import SignalSet
from gpt.evaluation.scores import Scorer
from gpt.evaluation.selection import protocol_text, select_references, select_samples
from gpt.experiments.compare_inputs import Entry
from gpt.experiments.compare_report import SHOWN
from gpt.options import EvaluateConfig

LARGEST = 2_000
"""Weights per field above which the Gaussian baseline, a P x P covariance, is left out."""


@dataclass
class SharedEvaluation:
    """References, and with them everything that does not depend on a tokenizer.

    Attributes:
        config: of the evaluation.
        inputs: the dataset of --fields and its signals.
        references: N held-out pictures.
        ids: their signals.
    """

    config: EvaluateConfig
    inputs: Inputs
    references: SignalSet
    ids: set[str]

    @classmethod
    def open(cls, comparison: Any, data: WeightDataset) -> "SharedEvaluation":
        """Of a CompareConfig and the dataset of its --fields."""
        names = ("fields", "out", "n", "signals", "data_root", "classifier", "classifiers", "seed")
        config = EvaluateConfig(**{name: getattr(comparison, name) for name in names})
        signals, note = items.open_signals(data, config.signals, config.data_root)
        inputs = Inputs(data, signals, None, None, None, [note] if note else [])
        refs, ids = select_references(config, inputs, None)
        if len(refs) < 2:
            raise ValueError(f"there is {len(refs)} held-out signal to compare with; a comparison needs 2 or more.")
        bench = cls(config, inputs, refs, ids)
        if config.classifier is not None:
            _ = bench.classifier  # a wrong file is refused before anything is trained
        return bench

    def check(self, entries: list[Entry]) -> None:
        """Refuse fields that cannot be compared with the references, and such as were learnt from them."""
        for entry in entries:
            channels, theirs = entry.data.config.out_dim, self.references.images.shape[3]
            if channels != theirs:
                raise ValueError(f"{entry.fields} makes pictures of {channels} channels, the references have {theirs}.")
            known = self.ids & set(entry.data.ids("train")) - {""}
            if known:
                raise ValueError(
                    f"{entry.fields} has other splits than --fields: {len(known)} of the {len(self.references)} "
                    f"held-out signals ({sorted(known)[0]}, ...) are training fields there. Fit it with the same "
                    "--split-seed."
                )

    @cached_property
    def classifier(self) -> Classifier | None:
        """The one of all rows."""
        classifier, note = open_classifier(self.config, self.inputs)
        self.inputs.notes += [note] if note else []
        return classifier

    @cached_property
    def scorer(self) -> Scorer:
        """The references with their distances and features."""
        return Scorer(self.references, self.classifier, self.config.seed)

    @cached_property
    def key(self) -> str:
        """Of references, classifier and seed: rows with the same key can be compared."""
        classifier = None if self.classifier is None else self.classifier.fingerprint
        return digest(self.references.images, classifier, self.config.seed)

    @property
    def extent(self) -> tuple[int, ...]:
        """Height and width of every picture."""
        return self.inputs.data.kind.extent_of(self.references.images)

    def setup(self, data: WeightDataset, tokenizer: Any = None) -> Setup:
        """What the lines of one weight dataset share."""
        n = len(self.references)
        return Setup(data, self.inputs.signals, tokenizer, self.extent, n, self.config.seed, self.ids)

    def line(self, entry: Entry) -> dict[str, Any]:
        """A row of the table: the samples, what the vocabulary lets through, and what it is without a GPT."""
        source = items.open_source(str(entry.folder / "samples"), "samples")
        inputs = Inputs(entry.data, self.inputs.signals, source, entry.tokenizer, None, [])
        samples = select_samples(self.config, inputs, self.references, self.classifier, None)
        assert samples is not None  # for its source is given
        setup = self.setup(entry.data, entry.tokenizer)
        line = self.scorer.line(samples)
        rounded = held_out_fields(setup)
        line["round_trip_fid"] = None if rounded is None else self.scorer.fid_of(rounded)
        line["unigram_fid"] = self.scorer.fid_of(unigram(setup, draw_pool(setup)[1]))
        line["novelty"] = look_for_copies(setup, [samples], samples, "fields")[0]["lines"][0]
        return line

    def common(self, path: Path, threads: int) -> list[dict[str, Any]]:
        """The lines without a tokenizer; kept in a file, for they are the same in the next comparison of the folder."""
        if path.is_file() and (known := read_json(path, "Delete it.", dict)).get("key") == self.key:
            return known["lines"]
        torch.set_num_threads(threads)
        setup = self.setup(self.inputs.data)
        pool, weights, labels = draw_pool(setup)
        found = [training_images(setup), training_fields(setup, pool, weights, labels)]
        found += [gaussian(setup, weights)] if weights.shape[1] <= LARGEST else []
        rows = fitting([row for row in found if row is not None], self.references, self.inputs)
        lines = [self.scorer.line(row) for row in rows]
        write_json(path, {"key": self.key, "lines": lines})
        return lines

    def shown(self, entry: Entry) -> Tensor:
        """(n, H, W, C): the first samples of a row, n <= SHOWN."""
        source = items.open_source(str(entry.folder / "samples"), "samples")
        data = source.data
        assert data is not None  # samples of a GPT are fields
        return data.kind.compared(data.config, data.weights("samples")[:SHOWN], self.extent)

    def describe(self) -> dict[str, Any]:
        """For JSON: protocol, references, classifier."""
        refs, data = self.references, self.inputs.data
        return {
            "protocol": protocol_text(self.config),
            "n": len(refs),
            "seed": self.config.seed,
            "references": {"name": refs.name, "notes": refs.notes, "drawn": digest(refs.images)},
            "fields": {"name": data.signals.get("name"), "fingerprint": data.fingerprint},
            "classifier": None if self.classifier is None else self.classifier.describe(),
            "notes": self.inputs.notes,
        }
