"""k-means of numbers: exact steps on the sorted array, V log n each, so that millions of weights take moments.

On sorted data a cluster is an interval, and its sum is a difference of prefix sums (Lloyd 1982; Wu 1991). What remains
is the start: several are tried, one of them optimal on a coarse grid, and codes are moved from where they are least
missed to where they help most.
"""

from dataclasses import dataclass

import numpy as np

STEPS = 300
GRID = 1024
"""Candidate borders of the optimal start."""
GRID_CODES = 256
"""Most codes it is sought for: its cost grows with them, and many codes need it less."""
MOVES = 40


@dataclass(frozen=True)
class Sorted:
    """Sorted values with their prefix sums."""

    values: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    shift: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Sorted":
        """Sort `values` (n,) float32 in place."""
        values.sort()
        shift = float(values[len(values) // 2])  # sums of squares lose digits far from 0
        centred = np.subtract(values, shift, dtype=np.float64)
        sums = np.empty(len(values) + 1)
        squares = np.empty(len(values) + 1)
        sums[0] = squares[0] = 0.0
        np.cumsum(centred, out=sums[1:])
        np.square(centred, out=centred)
        np.cumsum(centred, out=squares[1:])
        return cls(values, sums, squares, shift)

    def cells(self, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count, mean and squared error of each interval between the cuts (k + 1 indices, 0 first and n last)."""
        n = np.diff(cuts)
        total, squares = np.diff(self.sums[cuts]), np.diff(self.squares[cuts])
        mean = total / np.maximum(n, 1)
        return n, mean + self.shift, np.maximum(squares - total * mean, 0.0)

    def cuts(self, centres: np.ndarray) -> np.ndarray:
        """Index where each centre's interval begins; a value half-way belongs to the lower centre."""
        middle = (centres[1:] + centres[:-1]) / 2
        inner = np.searchsorted(self.values, middle.astype(np.float32), side="right")
        return np.concatenate([[0], inner, [len(self.values)]])


def kmeans(values: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """Centres of at most k clusters.

    Args:
        values: (n,) float32, sorted in place.
        k: clusters asked for.
    Returns:
        (k_eff,) float64 ascending centres, fewer than k where there are fewer distinct values; and the squared error.
    """
    data = Sorted.of(values)
    distinct = distinct_values(values, k)
    if distinct is not None:
        return distinct.astype(np.float64), 0.0
    best, error = np.empty(0), np.inf
    for start in _starts(data, k):
        centres, found = _descend(data, start)
        if found < error:
            best, error = centres, found
    return _move(data, best, error, k)


def distinct_values(ordered: np.ndarray, k: int) -> np.ndarray | None:
    """The distinct values of a sorted array if there are at most k, else None (found early in most arrays)."""
    head = ordered[: 64 * k]
    if np.count_nonzero(np.diff(head)) >= k:
        return None
    steps = np.flatnonzero(np.diff(ordered))
    return ordered[np.concatenate([[0], steps + 1])] if len(steps) < k else None


POWERS = (2 / 3, 0.0, 1 / 3, 1.0)


def _starts(data: Sorted, k: int) -> list[np.ndarray]:
    """Starts: the density's cube root (Panter and Dite 1951, best for many codes), quantiles, their mixture, even."""
    starts = [_spread(data, k, power) for power in POWERS]
    return [*starts, _optimal(data, _borders(data), k)] if k <= GRID_CODES else starts


def _spread(data: Sorted, k: int, power: float) -> np.ndarray:
    """k values with the density f^(1 - power), f being the data's: equal masses of width w have f = 1 / w."""
    v, n = data.values, len(data.values)
    at = np.linspace(0, n - 1, min(n, max(4096, 32 * k))).astype(np.int64)
    knots = v[at].astype(np.float64)
    widths = np.diff(knots)
    steps = np.concatenate([[0.0], np.cumsum(widths**power if power else np.ones_like(widths))])
    return np.interp((np.arange(k) + 0.5) / k * steps[-1], steps, knots)


def _borders(data: Sorted) -> np.ndarray:
    """At most GRID + 1 indices where clusters may end: between all distinct values, or dense where codes may be."""
    v, n = data.values, len(data.values)
    if (distinct := distinct_values(v, GRID)) is not None:
        return np.append(np.searchsorted(v, distinct), n)
    values = np.concatenate([_spread(data, GRID // len(POWERS), power) for power in POWERS])
    return np.unique(np.concatenate([[0], np.searchsorted(v, values.astype(np.float32)), [n]]))


def _optimal(data: Sorted, borders: np.ndarray, k: int) -> np.ndarray:
    """Centres of the best k intervals that end at borders, by dynamic programming (Fisher 1958; Wang and Song 2011)."""
    n, s, q = borders.astype(np.float64), data.sums[borders], data.squares[borders]
    count = n[:, None] - n  # (end, begin)
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = q[:, None] - q - (s[:, None] - s) ** 2 / count
    cost = np.where(count > 0, np.maximum(cost, 0.0), np.inf)
    best, begins = cost[:, 0], []
    best[0] = 0.0
    for _ in range(min(k, len(borders) - 1) - 1):
        total = best + cost
        begin = total.argmin(1)
        best = np.minimum(np.take_along_axis(total, begin[:, None], 1)[:, 0], best)
        begins.append(begin)
    ends = [len(borders) - 1]
    for begin in reversed(begins):
        ends.append(int(begin[ends[-1]]))
    cuts = borders[np.unique([0, *ends])]
    _, mean, _ = data.cells(cuts)
    return mean


def _descend(data: Sorted, centres: np.ndarray) -> tuple[np.ndarray, float]:
    """Lloyd's steps until the error stands still; empty clusters are dropped."""
    before = np.inf
    for _ in range(STEPS):
        centres = np.unique(centres)
        n, mean, errors = data.cells(data.cuts(centres))
        centres, error = mean[n > 0], errors.sum()
        if error >= before * (1 - 1e-6):
            break
        before = error
    n, mean, errors = data.cells(data.cuts(centres))
    return mean[n > 0], float(errors.sum())


def _move(data: Sorted, centres: np.ndarray, error: float, k: int) -> tuple[np.ndarray, float]:
    """Put missing codes, then the least missed ones, where the error is largest, as long as it pays."""
    for _ in range(k):
        if len(centres) >= k or error == 0:
            break
        grown = _split(data, centres, k - len(centres))
        if len(grown) <= len(centres):
            break
        centres, error = _descend(data, grown)
    for _ in range(MOVES):
        if len(centres) < 3:
            break
        n, mean, _ = data.cells(data.cuts(centres))
        merged = (
            n[:-1] * n[1:] / np.maximum(n[:-1] + n[1:], 1) * np.diff(mean) ** 2
        )  # error added by joining neighbours
        i = int(merged.argmin())
        joined = (n[i] * mean[i] + n[i + 1] * mean[i + 1]) / (n[i] + n[i + 1])
        fewer = np.concatenate([mean[:i], [joined], mean[i + 2 :]])
        tried, found = _descend(data, _split(data, fewer, 1))
        if found >= error * (1 - 1e-5) or len(tried) < len(centres):
            break
        centres, error = tried, found
    return centres, error


def _split(data: Sorted, centres: np.ndarray, more: int) -> np.ndarray:
    """Split the clusters of the largest errors in two."""
    cuts = data.cuts(centres)
    n, mean, errors = data.cells(cuts)
    spread = np.sqrt(errors / np.maximum(n, 1))
    worst = np.argsort(-errors)[:more]
    worst = worst[errors[worst] > 0]
    kept = np.delete(mean, worst)
    return np.unique(np.concatenate([kept, mean[worst] - spread[worst], mean[worst] + spread[worst]]))
