"""The baselines of every table: training fields, round trips, noise, means and independent draws, as samples would be measured.

All draw N without replacement from a pool of training fields (at most `POOL` of them, at random), seeded. None of them
sees a reference.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fields.signals.base import Signals
from fields.storage.dataset import WeightDataset
from gpt.evaluation.items import SignalSet, fields_row
from tokenizers.base import WeightTokenizer

POOL = 20_000
"""Training fields from which statistics and codes are taken: plenty for a covariance, and bounded in memory."""
NOISE = 0.3
"""Standard deviations of the noise on training weights."""
ROUND_TRIP_SPLITS = ("validation", "test")


@dataclass
class Setup:
    """What all baselines share.

    Attributes:
        data: the fields.
        signals: what they were fitted to, None where it is not at hand.
        tokenizer: whose round trip and unigram are shown, or None.
        extent: of everything compared: height and width of every picture.
        n: pictures per line.
        seed: of every draw; each line has its own stream.
        references: signal ids of the references: not used for a baseline.
        label: the one class to which everything is restricted (predecessor's protocol), or None.
        replacement: whether lines are drawn with replacement (predecessor's protocol).
        reference_split: held-out split that the samples' novelty is compared with; None = the first that there is.
    """

    data: WeightDataset
    signals: Signals | None
    tokenizer: WeightTokenizer | None
    extent: tuple[int, ...]
    n: int
    seed: int
    references: set[str]
    label: int | None = None
    replacement: bool = False
    reference_split: str | None = None

    def stream(self, line: int) -> torch.Generator:
        """The generator of one line of the table."""
        return torch.Generator().manual_seed(self.seed * 1000 + line)

    def draw(self, of: int, generator: torch.Generator) -> Tensor:
        """N positions below `of`; fewer where there are not as many."""
        return draw_positions(of, self.n, generator, self.replacement)

    def candidates(self, split: str) -> Tensor:
        """Positions in a split of the dataset, one fit per signal, of the protocol's class if there is one."""
        first, labels = first_fits(self.data.ids(split)), self.data.labels(split)
        return first if self.label is None or labels is None else first[labels[first] == self.label]


def draw_positions(of: int, n: int, generator: torch.Generator, replacement: bool = False) -> Tensor:
    """n positions below `of`, at random: without replacement at most `of` of them, sorted."""
    if replacement and of:
        return torch.randint(of, (n,), generator=generator).sort().values
    return torch.randperm(of, generator=generator)[:n].sort().values


def baselines(setup: Setup, names: tuple[str, ...] | None = None) -> list[SignalSet]:
    """All lines but the samples', or those whose functions are named, in the table's order."""
    pool, weights, labels = draw_pool(setup)
    made: dict[str, Callable[[], SignalSet | None]] = {
        "training_images": lambda: training_images(setup),
        "training_fields": lambda: training_fields(setup, pool, weights, labels),
        "held_out_fields": lambda: held_out_fields(setup),
        "noise": lambda: noise(setup, weights, labels),
        "mean_of_two": lambda: mean_of_two(setup, weights),
        "unigram": lambda: unigram(setup, weights),
        "gaussian": lambda: gaussian(setup, weights),
    }
    rows = [make() for name, make in made.items() if names is None or name in names]
    return [row for row in rows if row is not None]


def draw_pool(setup: Setup) -> tuple[Tensor, Tensor, Tensor | None]:
    """Training fields that the lines draw from: positions, (N, P) weights, labels."""
    candidates = setup.candidates("train")
    pool = candidates[torch.randperm(len(candidates), generator=setup.stream(0))[:POOL].sort().values]
    return pool, setup.data.weights("train", pool), _take(setup.data.labels("train"), pool)


def training_images(setup: Setup) -> SignalSet | None:
    """Training signals as they are: what a perfect generator of pictures would score."""
    if setup.signals is None:
        return None
    where = setup.signals.indices("train")
    if setup.label is not None and setup.signals.labels is not None:
        where = where[setup.signals.labels[where] == setup.label]
    where = where[setup.draw(len(where), setup.stream(1))]
    labels = None if setup.signals.labels is None else setup.signals.labels[where]
    return SignalSet("training images", setup.signals.images(where), labels=labels, kind="training_images").readable()


def training_fields(setup: Setup, pool: Tensor, weights: Tensor, labels: Tensor | None) -> SignalSet:
    """Training fields: the upper reference for samples of fields."""
    pick = setup.draw(len(weights), setup.stream(2))
    owners = signal_numbers(setup.data)[pool[pick]]
    extra = {"labels": _take(labels, pick), "signals": owners, "kind": "training_fields"}
    return fields_row("training fields (upper reference)", setup.data, weights[pick], setup.extent, **extra)


def held_out_rows(setup: Setup) -> tuple[str, Tensor] | None:
    """Split and positions of N held-out fields, one per signal, whose signals are no references; None without any."""
    for split in ROUND_TRIP_SPLITS:
        if split not in setup.data.splits:
            continue
        ids = setup.data.ids(split)
        free = [i for i in setup.candidates(split).tolist() if not ids[i] or ids[i] not in setup.references]
        if free:
            return split, torch.tensor(free)[setup.draw(len(free), setup.stream(3))]
    return None


def held_out_fields(setup: Setup) -> SignalSet | None:
    """Held-out fields after the tokenizer's round trip: the upper reference for samples of tokens. References are left out."""
    found = held_out_rows(setup)
    if found is None:
        return None
    split, where = found
    weights, labels = setup.data.weights(split, where), setup.data.labels(split)
    name, kind = "held-out fields, no tokenizer given", "held_out"
    if setup.tokenizer is not None:
        weights, name = _round_trip(setup.tokenizer, weights), "held-out fields after round trip"
        kind = "round_trip"
    row = fields_row(name, setup.data, weights, setup.extent, labels=_take(labels, where), kind=kind)
    row.notes.append(f"{split} fields that are not references")
    return row


def noise(setup: Setup, weights: Tensor, labels: Tensor | None) -> SignalSet:
    """Training weights with noise: near copies, which MMD, COV and 1-NNA like."""
    generator = setup.stream(4)
    pick = setup.draw(len(weights), generator)
    spread = NOISE * weights.std(0, unbiased=False)
    noisy = weights[pick] + spread * torch.randn(len(pick), weights.shape[1], generator=generator)
    name = f"training weights + {NOISE} sd noise"
    return fields_row(name, setup.data, noisy, setup.extent, labels=_take(labels, pick), kind="noise")


def mean_of_two(setup: Setup, weights: Tensor) -> SignalSet:
    """The mean of two training fields, never of one with itself."""
    generator, many = setup.stream(5), len(weights)
    first = setup.draw(many, generator)
    shift = torch.randint(1, max(many, 2), (len(first),), generator=generator)
    mean = (weights[first] + weights[(first + shift) % max(many, 1)]) / 2
    return fields_row("mean of two training fields", setup.data, mean, setup.extent, kind="mean_of_two")


def unigram(setup: Setup, weights: Tensor) -> SignalSet:
    """Every position drawn on its own from the training rows: over codes with a tokenizer, else over weights."""
    generator = setup.stream(6)
    rows, name = weights, "per-position unigram of weights"
    if setup.tokenizer is not None:
        rows, name = encode_batches(setup.tokenizer, weights), "per-position unigram of tokens"
    count = setup.n if setup.replacement else min(setup.n, len(rows))
    pick = torch.randint(max(len(rows), 1), (count if len(rows) else 0, rows.shape[1]), generator=generator)
    drawn = rows.gather(0, pick)
    if setup.tokenizer is not None:
        drawn = decode_batches(setup.tokenizer, drawn)
    return fields_row(name, setup.data, drawn, setup.extent, kind="unigram")


def gaussian(setup: Setup, weights: Tensor) -> SignalSet:
    """A Gaussian in PCA space: all directions the pool spans, independent, with the pool's variances."""
    generator = setup.stream(7)
    mean = weights.double().mean(0)
    centred = weights.double() - mean
    variances, directions = torch.linalg.eigh(centred.T @ centred / max(len(weights) - 1, 1))
    keep = min(len(weights) - 1, weights.shape[1]) if len(weights) else 0
    scale = variances.clamp_min(0).sqrt()[len(variances) - keep :]
    count = setup.n if setup.replacement else min(setup.n, len(weights))
    z = torch.randn(count, keep, generator=generator, dtype=torch.float64)
    drawn = (mean + (z * scale) @ directions[:, len(variances) - keep :].T).float()
    return fields_row("Gaussian in PCA space", setup.data, drawn, setup.extent, kind="gaussian")


def first_fits(ids: list[str]) -> Tensor:
    """Positions of each signal's first fit; rows without an id stand alone.

    Two fits of one signal in a set would be each other's neighbours.
    """
    found: dict[str, int] = {}
    for i, name in enumerate(ids):
        found.setdefault(name or f"#{i}", i)
    return torch.tensor(list(found.values()), dtype=torch.int64)


def signal_numbers(data: WeightDataset) -> Tensor:
    """(N,) a number per training signal: several fits of one signal share it; rows without an id stand alone."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(s or f"#{i}", len(numbers)) for i, s in enumerate(data.ids("train"))])


@torch.no_grad()
def encode_batches(tokenizer, weights: Tensor, batch: int = 2048) -> Tensor:
    """(N, P) -> (N, T) codes, in batches."""
    tokenizer.eval()
    parts = [tokenizer.encode(weights[i : i + batch]) for i in range(0, len(weights), batch)]
    return torch.cat(parts) if parts else torch.zeros(0, tokenizer.tokens_per_field, dtype=torch.int64)


@torch.no_grad()
def decode_batches(tokenizer, ids: Tensor, batch: int = 2048) -> Tensor:
    """(N, T) -> (N, P), in batches."""
    tokenizer.eval()
    parts = [tokenizer.decode(ids[i : i + batch]) for i in range(0, len(ids), batch)]
    return torch.cat(parts).float() if parts else torch.zeros(0, tokenizer.field.size)


def _round_trip(tokenizer, weights: Tensor) -> Tensor:
    return decode_batches(tokenizer, encode_batches(tokenizer, weights))


def _take(labels: Tensor | None, pick: Tensor) -> Tensor | None:
    return None if labels is None else labels[pick]
