"""What is compared: samples and references from weight datasets, Hub ids or folders of pictures.

A line of the table is a `SignalSet` of readable pictures. Unreadable ones (weights or pixels that are not finite, files that
cannot be opened) are counted as failures, not dropped in silence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.runtime.runs import digest, read_json
from fields.signals.base import Signals
from fields.signals.options import SignalsConfig
from fields.signals.origin import locate
from fields.signals.registry import load_signals, refuse_others
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import fetch_fields, is_local

OLD_NAMES = {
    "SAMPLES": "samples",
    "training images": "training_images",
    "training fields": "training_fields",
    "per-position unigram": "unigram",
    "Gaussian": "gaussian",
    "mean of two": "mean_of_two",
    "training weights": "noise",
    "held-out fields after": "round_trip",
    "held-out fields,": "held_out",
}
"""Beginning of a line's name -> its kind, for evaluations that were written before lines had a kind."""
OURS = {
    "best/model.json": "a model",
    "model.json": "a model",
    "tokens.json": "tokens",
    "tokens/tokens.json": "a tokenizer",
}
"""Files of this project's other folders, whose pictures are sheets."""
DRAW = "Give weight fields or pictures; samples are drawn with: python scripts/sample.py --model DIR --out DIR"


def row_kind(row: dict) -> str:
    """The kind of a line of metrics.json."""
    known = next((kind for name, kind in OLD_NAMES.items() if row["name"].startswith(name)), "")
    return row.get("kind") or known


@dataclass
class SignalSet:
    """One line of the table.

    Attributes:
        name: the line's name.
        images: (N, H, W, C) readable pictures in [0, 1]; of other kinds of signals what `Kind.compared` returns.
        weights: (N, P) rows of the fields, None for pictures without fields.
        labels: (N,) intended classes, -1 for none, or None.
        tokens: (N, T) codes as sampled, or None.
        signals: (N,) positions of the training signals the pictures come from, -1 for none, or None.
        unreadable: how many more could not be read.
        kind: what it is, in one word; the key of its line in metrics.json.
        notes: what a reader must know.
    """

    name: str
    images: Tensor
    weights: Tensor | None = None
    labels: Tensor | None = None
    tokens: Tensor | None = None
    signals: Tensor | None = None
    unreadable: int = 0
    notes: list[str] = field(default_factory=list)
    kind: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def pick(self, indices: Tensor) -> "SignalSet":
        """The rows asked for; `unreadable` and the notes stay."""
        parts = {k: getattr(self, k) for k in ("images", "weights", "labels", "tokens", "signals")}
        picked: dict[str, Any] = {k: None if v is None else v[indices] for k, v in parts.items()}
        return replace(self, **picked)

    def readable(self) -> "SignalSet":
        """Without the pictures that are not finite, which are counted."""
        good = self.images.flatten(1).isfinite().all(1)
        if self.weights is not None:
            good &= self.weights.isfinite().all(1)
        row = self.pick(good.nonzero()[:, 0])
        row.unreadable += int((~good).sum())
        return row


@dataclass
class SignalSource:
    """A place pictures come from: fields to be rendered, or pictures as they are."""

    name: str
    fingerprint: str
    data: WeightDataset | None = None
    split: str = ""
    signals: Signals | None = None
    tokens: Tensor | None = None
    tokens_of: str | None = None
    left_out: int = 0
    """Sequences that the sampler drew but could not read as fields: failures, too."""

    @property
    def kind(self) -> str:
        """`fields` or `images`."""
        return "images" if self.data is None else "fields"

    def describe(self) -> dict:
        """For JSON; no local path."""
        return {"name": self.name, "kind": self.kind, "fingerprint": self.fingerprint, "split": self.split or None}

    @property
    def label_names(self) -> list[str] | None:
        """The classes, if any."""
        source = self.signals if self.data is None else self.data
        return None if source is None else source.label_names

    def row(self, extent: tuple[int, ...]) -> SignalSet:
        """All of it, readable pictures only; fields are rendered at `extent`, pictures must have it already."""
        if self.data is not None:
            weights = self.data.weights(self.split)
            images = self.data.kind.compared(self.data.config, weights, extent)
            return SignalSet(
                self.name, images, weights, self.data.labels(self.split), self.tokens, unreadable=self.left_out
            ).readable()
        signals = self.signals
        assert signals is not None  # it has one of the two
        images = signals.images(torch.arange(len(signals)))
        return SignalSet(self.name, images, labels=signals.labels, unreadable=len(signals.skipped)).readable()


def local_or_fetched(source: str, flag: str) -> Path:
    """A local folder: the path itself, or the data files of a Hub dataset `user/name`.

    Raises:
        FileNotFoundError: if it is neither, or cannot be fetched; the network is asked only for what is no local path.
    """
    path = Path(source)
    if path.exists():
        return path
    if is_local(source):
        raise FileNotFoundError(f"{flag} {source}: not a folder, and not a Hub name like user/name.")
    return fetch_fields(source, flag=flag)


def open_source(
    source: str, flag: str, split: str | None = None, prefer: tuple[str, ...] = ("samples",)
) -> SignalSource:
    """Samples or references of any kind: a folder with `field.json` holds fields, any other pictures.

    Args:
        source: a folder or a Hub id.
        flag: the flag it came from, for messages.
        split: of a weight dataset; None takes the first of `prefer` that is there, or the only one.
        prefer: splits in order.
    """
    path = local_or_fetched(source, flag)
    name = path.resolve().name if Path(source).exists() else source
    if not (path / "field.json").is_file():
        if made := next((made for name, made in OURS.items() if (path / name).is_file()), None):
            raise ValueError(f"{flag} {source} holds {made}, not fields or pictures. {DRAW}")
        signals = load_signals(SignalsConfig(signals=str(path)))
        print(f"{flag}: {len(signals)} pictures from {name}, {len(signals.skipped)} files unreadable")
        return SignalSource(name, digest(signals.describe(), signals.ids), signals=signals)
    data = WeightDataset.load(path)
    split = split or next((s for s in prefer if s in data.splits), None)
    if split is None:
        if len(data.splits) != 1:
            raise ValueError(f"{flag} {source} has the splits {', '.join(data.splits)}; choose one with --split.")
        split = next(iter(data.splits))
    data.split(split)  # refused by name if it is not there
    tokens, tokens_of = _tokens(path, split)
    if tokens is not None and len(tokens) != len(data.split(split)):
        raise ValueError(
            f"{flag} {source} holds {len(data.split(split))} fields and the codes of {len(tokens)}: they do not belong "
            "together. Draw the samples again, or delete the tokens folder."
        )
    left_out = _left_out(path) if split == "samples" else 0
    return SignalSource(name, data.fingerprint, data, split, tokens=tokens, tokens_of=tokens_of, left_out=left_out)


def _left_out(path: Path) -> int:
    """How many sequences the sampler's report counts as asked for but not saved."""
    if not (path / "samples.json").is_file():
        return 0
    report = read_json(path / "samples.json", "Draw the samples again.", dict)
    asked, saved = report.get("asked"), report.get("saved")
    return max(0, asked - saved) if isinstance(asked, int) and isinstance(saved, int) else 0


def _tokens(path: Path, split: str) -> tuple[Tensor | None, str | None]:
    """The codes beside sampled fields and the fingerprint of their tokenizer, if they are there."""
    if not (path / "tokens" / "tokens.json").is_file():
        return None, None
    from tokenizers.tokens import TokenDataset

    tokens = TokenDataset.load(path / "tokens")
    if split not in tokens.splits:
        return None, None
    return tokens.ids(split), tokens.tokenizer_fingerprint


def open_signals(data: WeightDataset, signals: str | None, data_root: Path | None) -> tuple[Signals | None, str]:
    """The signals that fields were fitted to, and a note: None and the reason where they cannot be had."""
    config, missing = locate(data.signals, data.origin, signals, data_root)
    if config is None:
        return None, missing
    name = config.signals
    try:
        found = load_signals(config)
        refuse_others(data.signals, (i for split in data.splits if split != "samples" for i in data.ids(split)), found)
        return (found, "") if found.comparable else (None, f"{found.name} are compared by their fields")
    except (FileNotFoundError, ValueError, OSError, RuntimeError) as error:
        if signals is not None or data_root is not None:
            raise
        return None, f"signals {name!r} could not be loaded: {error}"


def reference_split(counts: Mapping[str, int], asked: str | None = None) -> str:
    """The held-out split asked for, else `test`, or `validation` where there is no test split.

    Args:
        counts: signals of every split.
        asked: --reference-split.

    Raises:
        ValueError: if there is no such split, or it is the training split: a comparison with that measures copying.
    """
    held = [split for split in ("test", "validation") if counts.get(split)]
    there = ", ".join(split for split, count in counts.items() if count)
    if asked is not None and asked not in held:
        raise ValueError(
            f"--reference-split must be a held-out split ({' or '.join(held) or 'of which there is none'}), got {asked}: the "
            f"splits are {there}."
        )
    if not held:
        raise ValueError(
            f"there are no held-out references: the splits are {there}. Fit test signals too, or give --references."
        )
    return asked or held[0]


def common_extent(data: WeightDataset, split: str) -> tuple[int, ...]:
    """The extent (height and width) of most of a split's signals, or the median where they differ."""
    extents, counts = torch.unique(data.extent(split), dim=0, return_counts=True)
    most = 2 * int(counts.max()) > int(counts.sum())
    extent = tuple((extents[counts.argmax()] if most else data.extent(split).median(0).values).tolist())
    if not data.kind.known(extent):
        raise ValueError(f"the dataset does not state the size of its signals (split {split}). Give --signals.")
    return extent


def check_shapes(row: SignalSet, references: SignalSet) -> None:
    """Refuse pictures of another size or number of channels, naming both."""
    if len(row) and row.images.shape[1:] != references.images.shape[1:]:
        raise ValueError(
            f"{row.name} are pictures of {_size(row)}, the references ({references.name}) of {_size(references)}: they "
            "must agree. Resize the pictures, or evaluate fields, which are rendered at the references' size."
        )


def _size(row: SignalSet) -> str:
    return " x ".join(map(str, row.images.shape[1:]))


def fields_row(name: str, data: WeightDataset, weights: Tensor, extent: tuple[int, ...], **extra) -> SignalSet:
    """A row of fields of a dataset's kind and architecture, rendered at one extent."""
    return SignalSet(name, data.kind.compared(data.config, weights, extent), weights, **extra).readable()
