"""What `evaluate` reads: its config, the datasets, the tokenizer, the model's description, the classifier."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fields.runtime.runs import read_json
from fields.signals.base import Signals
from fields.signals.seen import elsewhere, refuse_seen
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import at, fetch
from gpt.checkpoint import FILES as MODEL_FILES
from gpt.evaluation import items
from gpt.evaluation.features import Classifier
from gpt.evaluation.items import SignalSource, fields_row
from gpt.evaluation.metrics import EVALUATIONS, FEATURES, Evaluation
from gpt.options import EvaluateConfig
from tokenizers.base import WeightTokenizer

OTHERS = 0.05
"""Share of unknown signals from which on it is said that the samples' model has learnt from others."""


@dataclass
class Inputs:
    """Everything read from disk."""

    data: WeightDataset
    signals: Signals | None
    source: SignalSource | None
    tokenizer: WeightTokenizer | None
    bits: dict | None
    notes: list[str]


def read_inputs(config: EvaluateConfig) -> Inputs:
    """Open datasets, signals, tokenizer and the model's description; refuse what does not fit together."""
    config = located(config)
    data = WeightDataset.load(items.local_or_fetched(config.fields, "--fields"))
    if not len(data.splits.get("train", ())):
        raise ValueError(f"--fields {config.fields} has no training split: it has {', '.join(data.splits)}.")
    source = None if config.samples is None else items.open_source(config.samples, "--samples", config.split)
    notes: list[str] = []
    if source is not None and source.data is not None:
        seen = source.data.signals.get("seen") or ""
        refuse_seen(f"what made --samples {config.samples}", seen, data)
        if (share := elsewhere(seen, data)) > OTHERS:
            notes.append(
                f"about {share:.0%} of the signals that the model of --samples has learnt from are not among the training "
                "fields of --fields, so copies of those are not found, and the references may be of another kind"
            )
            print(f"warning: {notes[-1]}.", file=sys.stderr)
    tokenizer = open_tokenizer(config, data)
    bits, without = model_bits(config.model, data, tokenizer)
    if without:
        bits, notes = None, [*notes, without]
    signals, note = None, ""
    if evaluation_of(data).signals:
        signals, note = items.open_signals(data, config.signals, config.data_root)  # last: it may have to fetch them
    if signals is not None and len(torch.unique(signals.extent, dim=0)) > 1:
        note = "the signals have several sizes (fit with --resize N --crop for one), so fields are compared at one size"
        signals = None
    return Inputs(data, signals, source, tokenizer, bits, notes + ([note] if note else []))


def evaluation_of(data: WeightDataset) -> Evaluation:
    """How fields of this dataset's kind are evaluated."""
    return EVALUATIONS.get(data.kind.name, Evaluation())


def located(config: EvaluateConfig) -> EvaluateConfig:
    """Hub names with their revision; a model of the Hub fetched."""
    names = ("fields", "samples", "tokenizer", "references")
    found: dict[str, Any] = {name: at(getattr(config, name), config.revision) for name in names}
    model = at(config.model, config.revision)
    where = None if model is None else str(fetch(model, "model", patterns=MODEL_FILES, flag="--model"))
    return replace(config, **found, model=where)


def open_tokenizer(config: EvaluateConfig, data: WeightDataset) -> WeightTokenizer | None:
    """The tokenizer given, or the model's; refused where its fields are others than the dataset's."""
    path: Path | str | None = config.tokenizer
    if path is None and config.model is not None:
        found = [p for p in (Path(config.model) / part for part in ("tokenizer", "best/tokenizer")) if p.is_dir()]
        path = found[0] if found else None
    if path is None:
        return None
    from tokenizers.registry import load_tokenizer

    tokenizer = load_tokenizer(path, flag="--tokenizer")
    if tokenizer.field != data.config:
        differing = tokenizer.field.against(data.config)
        raise ValueError(
            f"--tokenizer {path} is for fields {tokenizer.field}, --fields has {data.config} ({differing})."
        )
    refuse_seen(f"--tokenizer {path}", tokenizer.seen, data)
    return tokenizer


@dataclass
class EvaluatedModel:
    """`model.json`, as far as an evaluation needs it; what is missing is not compared."""

    dataset: str | None = None
    tokenizer: str | None = None
    kind: str | None = None


def model_bits(
    path: Path | str | None, data: WeightDataset, tokenizer: WeightTokenizer | None
) -> tuple[dict | None, str]:
    """Validation bits per field of a model and of the per-position unigram, as its training run recorded them; or why none.

    Raises:
        ValueError: if the model was trained on other fields or tokens: its copies would be sought in data it never saw.
    """
    if path is None:
        return None, ""
    path = Path(path)
    described = next(
        (p for p in (path / "model.json", path / "best" / "model.json") if p.is_file()), path / "model.json"
    )
    info = read_json(described, "A model is made with: python scripts/train_gpt.py", EvaluatedModel)
    if info["dataset"] not in (None, data.fingerprint):
        raise ValueError(
            f"--model {path} was trained on fields {info['dataset']}, --fields are {data.fingerprint}. Give the dataset it was "
            "trained on."
        )
    if tokenizer is not None and info["tokenizer"] not in (None, tokenizer.fingerprint):
        raise ValueError(
            f"--model {path} has tokenizer {info['tokenizer']}, --tokenizer is {tokenizer.fingerprint}. Leave --tokenizer out."
        )
    bits = model_bits_of(info)
    if bits["model_bits_per_field"] is not None:
        return bits, ""
    flow = "--model is a flow, which gives no probabilities of codes"
    why = flow if info["kind"] == "flow" else "--model was trained without validation fields"
    return bits, f"{why}: no bits per field can be said"


def model_bits_of(info: dict) -> dict:
    """Validation bits per field of a model and of the unigram, its step, and whether it was told each field's label, from
    what model.json holds."""
    said = info.get("validation")
    bits = {k: v for k, v in said.items() if isinstance(v, (int, float))} if isinstance(said, dict) else {}
    return {
        "model_bits_per_field": bits.get("bits_per_field"),
        "unigram_bits_per_field": bits.get("unigram_bits_per_field"),
        "step": info.get("step"),
        "told_label": bool(info.get("label_names")),
    }


def open_classifier(config: EvaluateConfig, inputs: Inputs) -> tuple[Classifier | None, str]:
    """The classifier given, or one learnt from labelled training signals or their fields; and a note without one."""
    signals, data, features = inputs.signals, inputs.data, FEATURES.get(inputs.data.kind.name)
    if features is None:
        return None, f"{data.kind.name} have no classifier: FID and label accuracy cannot be said"
    held_out = labels = None
    if signals is not None and signals.labels is not None and len(torch.unique(signals.extent, dim=0)) == 1:
        held_out = _labelled(signals, signals.labels, "test")
        if config.classifier is not None:
            return features.with_accuracy(features.load(config.classifier), *held_out, signals.label_names), ""
        train, labels = _labelled(signals, signals.labels, "train")
        name, names = f"{signals.name} training images", signals.label_names
    elif config.classifier is not None:
        return features.load(config.classifier), ""
    elif data.label_names is not None:
        extent = items.common_extent(data, "train")
        train, labels = fields_row("", data, data.weights("train"), extent).images, data.labels("train")
        name, names = f"{data.signals.get('name')} training fields", data.label_names
    else:
        return None, "no labels and no --classifier: FID and label accuracy cannot be said"
    with torch.enable_grad():
        settings = {"name": name, "seed": config.seed, "label_names": names, "held_out": held_out}
        classifier, path = features.cached(config.classifiers, train, labels, **settings)
    print(f"classifier {classifier.fingerprint} from {name}: {path}")
    return classifier, ""


def _labelled(signals: Signals, labels: torch.Tensor, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    where = signals.indices(split)
    where = where[labels[where] >= 0]
    return signals.images(where), labels[where]
