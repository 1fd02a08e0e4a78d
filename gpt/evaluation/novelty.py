"""Are the samples new? Nearest training neighbours in pixels and in weights, token copies, duplicates, near copies.

One pass over the whole training split, in chunks, answers for all lines of the table at once. Z_U is the Mann-Whitney
z of the samples' distances to their nearest training field against those of held-out fields: negative means that
samples lie nearer to the training set than unseen data do, so copying. Weights are compared after division by the
training standard deviation of each position, else a few wide positions would decide.

Whether a picture is a near copy depends on how crowded its place is: ones lie nearer to each other than eights do. So
the measure is the ratio of the distances to the nearest training signal and to the next one; a near copy has a smaller
ratio than 99 % of the held-out fields: about 1 % of new pictures are near copies by this measure. Two samples are near
duplicates where they lie nearer to each other than 99 % of the held-out fields to the training set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from fields.metrics.distances import nearest
from fields.metrics.sets import mann_whitney
from fields.runtime.console import bar
from fields.signals.base import Signals
from fields.storage.dataset import WeightDataset
from gpt.evaluation.baselines import Setup, encode_batches, signal_numbers
from gpt.evaluation.items import SignalSet, fields_row
from gpt.evaluation.metrics import Distance, search_of

CHUNK = 2048
NEAR = 0.01
"""Quantile of the held-out ratios (distances, between samples) below which a picture is a near copy."""


@dataclass
class Neighbours:
    """Distances of one line to its nearest training field.

    Attributes:
        pixels: (N,) Euclidean over pixels.
        where: (N,) position of the nearest in the training split.
        ratio: (N,) of `pixels` to the distance of the next signal's nearest.
        weights: (N,) Euclidean over standardised weights, None for pictures without fields.
    """

    pixels: Tensor
    where: Tensor
    ratio: Tensor
    weights: Tensor | None = None

    def copies(self, held_out: "Neighbours") -> Tensor:
        """(N,) bool: which are near copies."""
        return (self.ratio < torch.quantile(held_out.ratio, NEAR)) | (self.pixels == 0)


class TrainingSet:
    """The training split as chunks of pictures (rendered fields, or the signals themselves) and of weights."""

    def __init__(self, data: WeightDataset, extent: tuple[int, ...], signals: Signals | None = None):
        self.data, self.extent, self.signals = data, extent, signals
        self.drawable = signals is not None or data.kind.drawable(data.config, extent)
        self.distance = search_of(data.kind.name)
        self.kind = "training fields" if signals is None else "training images"
        self.positions = torch.zeros(0, dtype=torch.int64) if signals is None else signals.indices("train")
        self.owners = signal_numbers(data) if signals is None else torch.arange(len(self.positions))
        count, (total, square) = 0, torch.zeros(2, data.config.size, dtype=torch.float64)
        for batch in data.batches("train", CHUNK):
            count, total = count + len(batch), total + batch.double().sum(0)
            square = square + batch.double().square().sum(0)
        variance = (square / max(count, 1) - (total / max(count, 1)) ** 2) if count else torch.ones(data.config.size)
        floor = 1e-12 * variance.max().clamp_min(1e-12)
        self.scale = torch.where(variance > floor, variance, torch.ones_like(variance)).rsqrt().float()

    def __len__(self) -> int:
        return len(self.owners)

    def pictures(self) -> Iterator[Tensor]:
        """(n, H, W, C), in order."""
        if self.signals is None:
            for batch in self.data.batches("train", CHUNK):
                yield self.data.kind.compared(self.data.config, batch, self.extent)
        else:
            for at in range(0, len(self), CHUNK):
                yield self.signals.images(self.positions[at : at + CHUNK])

    def rows(self) -> Iterator[Tensor]:
        """(n, P) standardised weights, in order."""
        return (batch * self.scale for batch in self.data.batches("train", CHUNK))

    def picture(self, where: Tensor, chosen: Tensor) -> Tensor:
        """(n, H, W, C) thumbnails of the n chosen among positions in the training split."""
        if self.signals is not None:
            return self.signals.images(self.positions[where[chosen]])
        return self.data.kind.thumbnail(self.data.config, self.data.weights("train", where[chosen]), self.extent)

    def drawn(self, row: SignalSet, chosen: Tensor) -> Tensor:
        """(n, H, W, C) thumbnails of a row's members; pictures as they are."""
        if row.weights is None:
            return row.images[chosen]
        return self.data.kind.thumbnail(self.data.config, row.weights[chosen], self.extent)


def held_out_row(setup: Setup, training: TrainingSet) -> SignalSet | None:
    """Held-out data of the training set's kind: what new pictures' distances look like."""
    generator = setup.stream(8)
    for split in ("test", "validation") if setup.reference_split is None else (setup.reference_split,):
        if training.signals is not None:
            where = training.signals.indices(split)
            if len(where):
                images = training.signals.images(where[setup.draw(len(where), generator)])
                return SignalSet(f"held-out {split} images", images).readable()
        elif split in setup.data.splits and len(candidates := setup.candidates(split)):
            weights = setup.data.weights(split, candidates[setup.draw(len(candidates), generator)])
            return fields_row(f"held-out {split} fields", setup.data, weights, setup.extent)
    return None


def neighbours(rows: list[SignalSet], training: TrainingSet) -> list[Neighbours]:
    """Nearest training neighbours of all rows, two passes (pictures, weights) over the training split.

    A row whose `signals` are known does not find its own signal: training fields are compared with the others.
    """
    skip = torch.cat([_skip(row, training) for row in rows])
    lengths = [len(row) for row in rows]
    pictures = torch.cat([row.images.flatten(1) for row in rows])
    count = -(-len(training) // CHUNK)
    shown = bar(training.pictures(), desc="nearest in pixels", total=count, unit="chunk", leave=False)
    assert training.distance.search is not None  # see `search_of`
    near = training.distance.search(pictures, shown, owners=training.owners, skip=skip, second=True)
    ratio = torch.where(near.second.isfinite(), near.distance / near.second.clamp_min(1e-12), 1.0)
    parts = zip(*(v.split(lengths) for v in (near.distance, near.where, ratio)), strict=True)
    found = [Neighbours(*part) for part in parts]
    owned = [i for i, row in enumerate(rows) if row.weights is not None]
    if owned and training.signals is None:
        weights = torch.cat([row.weights * training.scale for row in rows if row.weights is not None])
        shown = bar(training.rows(), desc="nearest in weights", total=count, unit="chunk", leave=False)
        own_skip = torch.cat([_skip(rows[i], training) for i in owned])
        distances = nearest(weights, shown, owners=training.owners, skip=own_skip).distance
        for i, part in zip(owned, distances.split([lengths[i] for i in owned]), strict=True):
            found[i].weights = part
    return found


def _skip(row: SignalSet, training: TrainingSet) -> Tensor:
    if row.signals is None or training.signals is not None:
        return torch.full((len(row),), -1, dtype=torch.int64)
    return row.signals


def novelty_line(found: Neighbours, held_out: Neighbours | None) -> dict:
    """Novelty of one row for JSON: Z_U, medians, share of near copies; None where it cannot be said."""
    if held_out is not None and (not len(held_out.pixels) or not len(found.pixels)):
        held_out = None
    theirs = None if held_out is None else held_out.weights
    return {
        "z_u_pixels": None if held_out is None else mann_whitney(found.pixels, held_out.pixels),
        "z_u_weights": None if found.weights is None or theirs is None else mann_whitney(found.weights, theirs),
        "median_pixels": _median(found.pixels),
        "median_weights": _median(found.weights),
        "near_copies": None if held_out is None else float(found.copies(held_out).float().mean()),
    }


def _median(values: Tensor | None) -> float | None:
    if values is None or not len(values) or not values.isfinite().all():
        return None
    return float(values.double().quantile(0.5))  # between the two in the middle, where torch.median takes the lower one


def duplicates(row: SignalSet, limit: float | None, distance: Distance) -> dict:
    """Shares of a row's members that another member repeats: exactly in weights, in codes, nearly in pixels."""
    near = None
    if limit is not None and len(row):
        distances = distance.function(row.images).fill_diagonal_(float("inf"))
        near = float((distances.amin(1) < limit).float().mean())
    return {
        "weights": None if row.weights is None else repeated(row.weights),
        "tokens": None if row.tokens is None else repeated(row.tokens),
        "pixels_exact": repeated(row.images.flatten(1)),
        "pixels_near": near,
    }


def repeated(rows: Tensor) -> float | None:
    """Share of rows equal to some other row."""
    if not len(rows):
        return None
    _, place, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    return float((counts[place] > 1).float().mean())


def _key(row: Tensor) -> bytes:
    return blake2b(row.contiguous().numpy().tobytes(), digest_size=16).digest()


def token_copies(rows: list[SignalSet], setup: Setup) -> list[float | None]:
    """Share of each row's members whose codes are exactly a training field's; None without codes."""
    wanted = {i: [_key(k) for k in row.tokens.long()] for i, row in enumerate(rows) if row.tokens is not None}
    shares: list[float | None] = [None] * len(rows)
    if not wanted or setup.tokenizer is None:
        return shares
    total = -(-len(setup.data.split("train")) // CHUNK)
    shown = bar(setup.data.batches("train", CHUNK), desc="training codes", total=total, unit="chunk", leave=False)
    seen: set[bytes] = set()
    every = {key for keys in wanted.values() for key in keys}
    for batch in shown:
        seen |= every & {_key(row) for row in encode_batches(setup.tokenizer, batch)}
    for i, keys in wanted.items():
        shares[i] = sum(key in seen for key in keys) / len(keys) if keys else None
    return shares
