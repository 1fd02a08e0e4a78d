"""How close pictures are to their signals, and how close a set of pictures is to another set.

Set metrics work on matrices of distances (`fields.metrics.distances`) or on features; they neither draw nor render. In this
file there are S samples, the pictures that are evaluated, and R references, the pictures they are compared with.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

TIE = 1e-5
"""Distances this close (absolute below 1, else relative) count as equal: float32 rounding is not evidence."""


BOOTSTRAP_DRAWS = 1 << 20
"""Points drawn at once."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; `value` None where the number is not defined, `note` saying why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return asdict(self)


def mmd_scores(sr: Tensor) -> Tensor:
    """Distance of each reference to its nearest sample; the mean is MMD.

    Args:
        sr: (S, R) distances.
    Returns:
        (R,).
    """
    return sr.min(0).values


def coverage_scores(sr: Tensor) -> Tensor:
    """Whether each reference is the nearest one of some sample; the mean is COV. Of tied references the first counts.

    Args:
        sr: (S, R) distances.
    Returns:
        (R,) of 0 and 1.
    """
    hit = torch.zeros(sr.shape[1])
    hit[sr.argmin(1)] = 1
    return hit


def one_nn_scores(ss: Tensor, sr: Tensor, rr: Tensor) -> Tensor:
    """Whether each point's nearest other point is of its own set; the mean is the leave-one-out 1-NN accuracy, 1-NNA.

    Half is ideal. Where points of both sets are tied for nearest (within `TIE`), the point scores the share of its own
    set among them. So two sets that coincide point by point, all points distinct, score 0: each point's twin is in the
    other set, which is what copying the references looks like. Sets of one repeated picture score (N - 1) / (2N - 1),
    near 1/2: nothing tells them apart.

    Args:
        ss: (S, S) distances among samples.
        sr: (S, R) from samples to references.
        rr: (R, R) among references.
    Returns:
        (S + R,) in [0, 1], samples first.
    """
    infinity = float("inf")
    own = [ss.clone().fill_diagonal_(infinity), rr.clone().fill_diagonal_(infinity)]
    return torch.cat([_own_share(own[0], sr), _own_share(own[1], sr.T)])


def _own_share(own: Tensor, other: Tensor) -> Tensor:
    low = torch.minimum(own.amin(1), other.amin(1))
    limit = (low + TIE * low.clamp_min(1))[:, None]
    mine, theirs = (own <= limit).sum(1), (other <= limit).sum(1)
    return mine / (mine + theirs)


def bootstrap_mean(scores: Tensor, *, seed: int, strata: int | None = None, rounds: int = 1000) -> Estimate:
    """Mean of per-point scores with a 95 % percentile interval.

    Scores are resampled, not pictures: a picture drawn twice would be its own nearest neighbour at distance 0, and
    every nearest-neighbour metric of such a set is wrong. So the interval holds for the neighbourhoods as they are.

    Args:
        scores: (N,).
        seed: of the resampling.
        strata: if given, the first `strata` scores and the others are resampled apart (samples and references).
        rounds: of the bootstrap.
    """
    if not len(scores):
        return Estimate(None, note="no points")
    generator = torch.Generator().manual_seed(seed)
    means = torch.zeros(rounds, dtype=torch.float64)
    for part in scores.double().tensor_split([strata] if strata else []):
        at_once = max(1, BOOTSTRAP_DRAWS // max(len(part), 1))
        for i in range(0, rounds if len(part) else 0, at_once):
            shape = (min(at_once, rounds - i), len(part))
            means[i : i + at_once] += part[torch.randint(len(part), shape, generator=generator)].sum(1)
    low, high = torch.quantile(means / len(scores), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(float(scores.double().mean()), low, high)


def frechet(x: Tensor, y: Tensor) -> float:
    """Frechet distance of two Gaussians fitted to features (FID, arXiv:1706.08500, where the features are Inception's).

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2). With S1 = A^T A and S2 = B^T B the last trace is the sum of the singular
    values of A B^T: exact for rank-deficient covariances too (N below the number of features), where a matrix square
    root goes complex.

    Args:
        x: (N, D).
        y: (M, D).
    Returns:
        A number of at least 0; it falls as N grows, even for samples of one distribution.
    Raises:
        ValueError: for fewer than two rows on a side, or rows that are not finite.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a covariance needs at least 2 rows on each side, got {len(x)} and {len(y)}.")
    x, y = x.double(), y.double()
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("features must be finite; leave unreadable pictures out and count them as failures.")
    a, b = _factor(x), _factor(y)
    cross = torch.linalg.svdvals(a @ b.T).sum()
    distance = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * cross
    return max(float(distance), 0.0)


def _factor(x: Tensor) -> Tensor:
    """R with R^T R = the covariance of the rows (normalised by N - 1); at most D rows."""
    centred = (x - x.mean(0)) / math.sqrt(len(x) - 1)
    return torch.linalg.qr(centred, mode="r").R


def fid(x: Tensor, y: Tensor, *, seed: int, groups: int = 20) -> Estimate:
    """FID of features with an interval from a grouped jackknife; a note where N is small.

    Rows are left out in groups rather than drawn twice: repeated rows shrink the covariance's rank and push FID up.

    Args:
        x: (N, D) features of the samples.
        y: (M, D) features of the references.
        seed: of the grouping.
        groups: of the jackknife.
    """
    n, width = min(len(x), len(y)), x.shape[1]
    if n < 2:
        return Estimate(None, note=f"N = {n}: FID needs 2 pictures a side")
    value, note = frechet(x, y), f"N = {n} < {width} features: rank-deficient" if n < width else ""
    if n < 2 * groups:
        return Estimate(value, note=note)
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randperm(len(rows), generator=generator) % groups for rows in (x, y)]
    left = torch.tensor([frechet(x[parts[0] != g], y[parts[1] != g]) for g in range(groups)], dtype=torch.float64)
    error = math.sqrt((groups - 1) / groups * float((left - left.mean()).square().sum()))
    return Estimate(value, max(0.0, value - 1.96 * error), value + 1.96 * error, note)


def kid(x: Tensor, y: Tensor, *, seed: int, subsets: int = 100, size: int = 1000) -> Estimate:
    """Kernel distance of features (KID, arXiv:1801.01401): the unbiased squared MMD under a cubic kernel, by torchmetrics.

    The kernel is meant for numbers of order one: both sides are divided by the references' root mean square.

    Args:
        x: (N, D) features of the samples.
        y: (M, D) features of the references.
        seed: of the subsets.
        subsets: random subsets whose mean it is; the interval holds the middle 95 % of them.
        size: rows of a subset on each side, fewer where there are not as many.
    """
    n = min(len(x), len(y))
    if n < 2:
        return Estimate(None, note=f"N = {n}: KID needs 2 pictures a side")
    from torchmetrics.image.kid import poly_mmd

    generator, size = torch.Generator().manual_seed(seed), min(size, n)
    unit = y.double().square().mean().sqrt().clamp_min(1e-12)
    found = []
    for _ in range(subsets if n > size else 1):
        a, b = (rows[torch.randperm(len(rows), generator=generator)[:size]].double() / unit for rows in (x, y))
        found.append(poly_mmd(b, a))
    values = torch.stack(found)
    if len(values) == 1:
        return Estimate(float(values[0]))
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return Estimate(float(values.mean()), low, high)


def mann_whitney(a: Tensor, b: Tensor) -> float | None:
    """Mann-Whitney z of `a` against `b`: negative where `a` is smaller. Ties share ranks; no continuity correction.

    From scipy's ranks: its own `mannwhitneyu` gives U and p, and of |z| > 38 a p of 0.

    Args:
        a: (N,).
        b: (M,).
    Returns:
        z, 0 where all numbers are equal, None where a side is empty.
    """
    n, m = len(a), len(b)
    if not n or not m:
        return None
    from scipy.stats import rankdata, tiecorrect  # half a second

    ranks = rankdata(torch.cat([a, b]).double())
    spread = math.sqrt(n * m * (n + m + 1) / 12 * tiecorrect(ranks))
    return float(ranks[:n].sum() - n * (n + m + 1) / 2) / spread if spread > 1e-6 else 0.0
