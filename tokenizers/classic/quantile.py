"""Quantile codes: buckets of about equal shares of the training weights, each decoding to the mean of its members."""

import numpy as np
import torch
from torch import Tensor

from tokenizers.base import WeightTokenizer
from tokenizers.classic import scalar_codes
from tokenizers.classic.kmeans import codebooks
from tokenizers.classic.options import QuantileConfig


class QuantileTokenizer(WeightTokenizer):
    """The bucket of each weight; values beyond the training range fall into the end buckets.

    Attributes:
        centres: (C, V) means of the buckets in standardised units, C codebooks; those past `counts` are padding.
        edges: (C, V - 1): bucket j holds edges[j - 1] < z <= edges[j].
        counts: (C,) buckets made per codebook.
    """

    centres: Tensor
    edges: Tensor
    counts: Tensor
    book: Tensor

    def __init__(self, config: QuantileConfig):
        super().__init__(config)
        number, book = codebooks(self.field, config.codebook)
        self.register_buffer("book", book, persistent=False)
        self.register_buffer("centres", torch.zeros(number, config.vocab_size))
        self.register_buffer("edges", torch.zeros(number, config.vocab_size - 1))
        self.register_buffer("counts", torch.zeros(number, dtype=torch.int64))

    def _fit(self, rows: Tensor, held_out: Tensor | None) -> int:
        z = self.standardizer(rows.to(self.n_codes.device)).cpu()
        size = self.config.vocab_size
        for c in range(len(self.counts)):
            varying = ((self.book == c) & ~self.standardizer.constant).cpu()
            values = z[:, varying].flatten().numpy() if bool(varying.any()) else np.zeros(1, np.float32)
            edges, centres = self._buckets(values)
            self.counts[c] = len(centres)
            self.centres[c] = scalar_codes.pad(torch.from_numpy(centres), size)
            if len(edges):
                self.edges[c] = scalar_codes.pad(torch.from_numpy(edges), size - 1)
        return int(self.counts.max())

    def _buckets(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Edges and centres for the standardised weights (n,) of one codebook, which may be sorted in place."""
        return buckets(values, self.config.vocab_size)

    def _encode(self, weights: Tensor) -> Tensor:
        s = self.standardizer
        return scalar_codes.encode_scalars(weights, s.mean, s.std, self.centres, self.edges, self.counts, self.book)

    @property
    def has_ordered_codes(self) -> bool:
        """Buckets are."""
        return True

    def code_spacing(self) -> float:
        """Median distance of neighbouring buckets."""
        return scalar_codes.gap(self.centres[0, : int(self.counts[0])])

    def _decode(self, ids: Tensor) -> Tensor:
        s = self.standardizer
        return scalar_codes.decode_scalars(ids, s.mean, s.std, self.centres, self.counts, self.book)


def buckets(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges and means of at most k buckets, none of them empty.

    Without frequent values the edges are `np.quantile(values, j / k)`. A value that fills a bucket's share alone gets
    one of its own, and the others share what remains: equal quantiles would make buckets of no width.

    Args:
        values: (n,) float32, sorted in place.
        k: buckets asked for.
    Returns:
        (k_eff - 1,) edges and (k_eff,) means, float64 ascending.
    """
    values.sort()
    first = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1])  # where each distinct value begins
    distinct = values[first].astype(np.float64)
    n = np.diff(np.append(first, len(values)))
    if len(distinct) <= k:
        return _edges_between(distinct, np.arange(len(distinct) - 1)), distinct
    heavy = _heavy(n, k)
    cuts, edges = _cuts(values, distinct, n, heavy, k)
    sums = np.add.reduceat(distinct * n, np.concatenate([[0], cuts + 1]))
    shares = np.add.reduceat(n, np.concatenate([[0], cuts + 1]))
    return edges, sums / shares


def _heavy(n: np.ndarray, k: int) -> np.ndarray:
    """Which distinct values fill a bucket alone: more than a k-th of what the heavier ones leave."""
    heavy = np.zeros(len(n), bool)
    order = np.argsort(-n)[: k - 1]
    rest, room = n.sum(), k
    for i in order:
        if n[i] <= 1 or n[i] * room < rest:
            break
        heavy[i] = True
        rest, room = rest - n[i], room - 1
    return heavy


def _cuts(values: np.ndarray, distinct: np.ndarray, n: np.ndarray, heavy: np.ndarray, k: int):
    """Indices i of `distinct` after which a bucket ends, at most k - 1, and the edges there."""
    if not heavy.any():
        return _quantile_cuts(values, distinct, k)
    around = np.flatnonzero(heavy)
    around = np.unique(np.concatenate([around - 1, around]))
    around = around[(around >= 0) & (around < len(distinct) - 1)]
    light = np.where(heavy, 0, n)
    steps = np.cumsum(light)
    for room in range(k, 0, -1):  # a frequent value in the middle of a bucket splits it: ask for fewer until all fit
        targets = steps[-1] * np.arange(1, room) / room
        cuts = np.unique(np.concatenate([around, np.searchsorted(steps, targets)]))
        cuts = cuts[cuts < len(distinct) - 1]
        if len(cuts) < k:
            return cuts, _edges_between(distinct, cuts)
    kept = around[: k - 1]
    return kept, _edges_between(distinct, kept)


def _quantile_cuts(values: np.ndarray, distinct: np.ndarray, k: int):
    """np.quantile's edges (linear interpolation), each between two distinct values."""
    at = np.arange(1, k) / k * (len(values) - 1)
    low = np.floor(at).astype(np.int64)
    left = values[low].astype(np.float64)
    right = values[np.minimum(low + 1, len(values) - 1)].astype(np.float64)
    edges = left + (right - left) * (at - low)
    cuts, kept = np.unique(np.searchsorted(distinct, edges, side="right") - 1, return_index=True)
    inside = (cuts >= 0) & (cuts < len(distinct) - 1)
    return cuts[inside], edges[kept][inside]


def _edges_between(distinct: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    return (distinct[cuts] + distinct[cuts + 1]) / 2
