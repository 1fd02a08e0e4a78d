"""Distances between all pairs of pictures, and the nearest row of a large set.

`l2` is the Euclidean distance over all pixels and channels; `dssim` is (1 - SSIM) / 2 with the SSIM of torchmetrics.
Nothing here draws samples or decides what a distance means: that is `fields.metrics.sets`.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from fields.runtime.resources import one_thread

SIGMA = 1.5
"""Standard deviation of SSIM's Gaussian window, in pixels (Wang et al. 2004)."""
K1, K2 = 0.01, 0.03
"""SSIM's two stabilisers, for values in [0, 1]."""
BLOCK = 256
"""Rows of a block of pairs: 256 x 1,000 floats stay in a core's cache."""


def l2(a: Tensor, b: Tensor | None = None) -> Tensor:
    """Euclidean distance over all pixels and channels, of every pair.

    Args:
        a: (N, ...).
        b: (M, ...), the same sizes; None compares `a` with itself.
    Returns:
        (N, M) float32.
    """
    # Float64: |x|^2 + |y|^2 - 2xy loses half of the digits where pictures nearly coincide, and those pairs matter here.
    x = a.flatten(1).double()
    y = x if b is None else b.flatten(1).double()
    _same_size(a, a if b is None else b)
    squared = x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T
    return squared.clamp_min(0).sqrt().float()


def dssim(a: Tensor, b: Tensor | None = None, *, progress: Callable[[int], None] | None = None) -> Tensor:
    """(1 - SSIM) / 2 of every pair: 0 for equal pictures, at most 1.

    SSIM is torchmetrics' `structural_similarity_index_measure(data_range=1)`: an 11 x 11 Gaussian window of sigma 1.5,
    pictures mirrored at the border, the mean over all pixels and channels. Sides under 6 pixels cannot be mirrored by
    5, so the sigma of that side is (side - 1) / 3.5 there, the widest whose window fits (`window_sigma`).

    A mean over a window is the same for all pairs of a picture, so means and variances are taken once per picture. What
    is left is the mean of x * y at each output pixel p, sum_q g(p, q) x(q) y(q): one matrix product per pixel, of
    (N, window) with (window, M).

    Args:
        a: (N, H, W, C) in [0, 1].
        b: (M, H, W, C); None compares `a` with itself and does half of the work.
        progress: called with the number of output pixels just done.
    Returns:
        (N, M) float32 in [0, 1].
    """
    _same_size(a, a if b is None else b)
    x = _Moments(a)
    y = x if b is None else _Moments(b)
    workers = min(torch.get_num_threads(), x.pixels)

    def part(worker: int) -> Tensor:
        total = torch.zeros(x.count, y.count, device=a.device)
        for pixel in range(worker, x.pixels, workers):
            _add_ssim(total, x, y, pixel, symmetric=b is None)
            if progress:
                progress(1)
        return total

    total = reduce(torch.add, _each_on_one_thread(part, workers))
    if b is None:
        total = total.triu() + total.triu(1).T
    return ((1 - total / (x.pixels * x.channels)) / 2).clamp(0, 1)


def _each_on_one_thread(work: Callable[[int], Tensor], workers: int) -> list[Tensor]:
    """`work(0)` .. `work(workers - 1)` side by side, each on a thread of its own.

    The products are small: split over threads one by one, they spend most of their time waiting for each other.
    """
    if workers < 2:
        return [work(0)]
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, range(workers)))


def window_sigma(side: int) -> float:
    """Sigma of the window along a side of so many pixels: 1.5, or less where 5 mirrored pixels would not fit."""
    return SIGMA if side >= 6 else max(side - 1, 0.35) / 3.5


def blur_matrix(side: int) -> Tensor:
    """The Gaussian window along one side with the border mirrored, as a matrix: (side, side), rows sum to 1."""
    sigma = window_sigma(side)
    radius = int(3.5 * sigma + 0.5)  # torchmetrics' rule: 5 for sigma 1.5
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    matrix = torch.zeros(side, side, dtype=torch.float64)
    for out in range(side):
        for offset, weight in zip(range(-radius, radius + 1), kernel, strict=True):
            source = abs(out + offset)  # mirrored without repeating the border pixel
            matrix[out, source if source < side else 2 * (side - 1) - source] += weight
    return matrix


class _Moments:
    """Blurred mean and variance of every picture, kept pixel by pixel."""

    def __init__(self, images: Tensor):
        self.count, self.height, self.width, self.channels = images.shape
        self.pixels = self.height * self.width
        self.images = images.float()
        self.down, self.across = (blur_matrix(n).to(images.device) for n in (self.height, self.width))
        exact = images.double()
        mean = self._blur(exact)
        variance = (self._blur(exact.square()) - mean.square()).clamp_min(0)
        # (pixels, C, N): the numbers of one output pixel lie side by side
        self.mean = mean.flatten(1, 2).permute(1, 2, 0).float().contiguous()
        self.variance = variance.flatten(1, 2).permute(1, 2, 0).float().contiguous()

    def _blur(self, images: Tensor) -> Tensor:
        return torch.einsum("ih,jw,nhwc->nijc", self.down, self.across, images)

    def window(self, pixel: int) -> tuple[Tensor, Tensor]:
        """What the window at one output pixel sees, (N, K, C), and its weights, (K,)."""
        row, column = divmod(pixel, self.width)
        rows, columns = self.down[row].nonzero()[:, 0], self.across[column].nonzero()[:, 0]
        r, c = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        weights = torch.outer(self.down[row, r], self.across[column, c])
        return self.images[:, r, c].flatten(1, 2), weights.flatten().float()


def _add_ssim(total: Tensor, x: _Moments, y: _Moments, pixel: int, *, symmetric: bool) -> None:
    """Add the SSIM of all pairs at one output pixel to (N, M), summed over channels; `symmetric`: the upper half."""
    (left, weights), (right, _) = x.window(pixel), y.window(pixel)
    c1, c2 = K1**2, K2**2
    for channel in range(x.channels):
        mean_x, mean_y = x.mean[pixel, channel], y.mean[pixel, channel]
        var_x, var_y = x.variance[pixel, channel], y.variance[pixel, channel]
        # [window, -mean, 1] . [2 window, 2 mean, c2] = 2 cov + c2: the correction rides along in the product
        u = torch.cat([left[:, :, channel] * weights, -mean_x[:, None], torch.ones_like(mean_x)[:, None]], dim=1)
        v = torch.cat([2 * right[:, :, channel], 2 * mean_y[:, None], torch.full_like(mean_y, c2)[:, None]], dim=1)
        light_x, square_x, spread_x = 2 * mean_x[:, None], mean_x.square()[:, None] + c1, var_x[:, None] + c2
        square_y = mean_y.square()
        for n in range(0, x.count, BLOCK):
            rows = slice(n, n + BLOCK)
            m = n if symmetric else 0
            top = (light_x[rows] * mean_y[m:]).add_(c1).mul_(u[rows] @ v[m:].T)
            bottom = (square_x[rows] + square_y[m:]).mul_(spread_x[rows] + var_y[m:])
            total[rows, m:].addcdiv_(top, bottom)


class Nearest(NamedTuple):
    """What `nearest` finds, (N,) each; inf and -1 where there is nothing to find."""

    distance: Tensor
    where: Tensor
    second: Tensor
    """Distance to the nearest row of another owner than the nearest row's; inf unless asked for."""


def nearest(
    queries: Tensor,
    chunks: Iterable[Tensor],
    *,
    owners: Tensor | None = None,
    skip: Tensor | None = None,
    second: bool = False,
) -> Nearest:
    """The nearest row of a large set by Euclidean distance, chunk by chunk: memory does not grow with the set.

    Args:
        queries: (N, ...).
        chunks: (n, ...) blocks of the set, in order.
        owners: (M,) int64, whom each row of the set belongs to (its signal); None = each row to itself.
        skip: (N,) int64, whose rows a query may not find (its own signal's), -1 for nobody's.
        second: look for the runner-up too.
    """
    queries = queries.flatten(1).float()
    count, start = len(queries), 0
    best, found = torch.full((count, 2), float("inf")), torch.zeros_like(queries)  # squared: nearest, runner-up
    whose, where = torch.full((count, 2), -1), torch.full((count,), -1)
    norms = queries.square().sum(1)[:, None]
    careful = torch.zeros(0, dtype=torch.int64) if skip is None else (skip >= 0).nonzero()[:, 0]
    for chunk in chunks:
        if not len(chunk):
            continue
        chunk = chunk.flatten(1).float()
        mine = torch.arange(start, start + len(chunk)) if owners is None else owners[start : start + len(chunk)]
        squared = torch.addmm(norms + chunk.square().sum(1)[None], queries, chunk.T, alpha=-2)  # (N, n)
        if skip is not None and len(careful):
            squared[careful] = squared[careful].masked_fill(skip[careful][:, None] == mine[None], float("inf"))
        low, at = squared.min(1)
        better = (low < best[:, 0]).nonzero()[:, 0]
        where[better], found[better] = at[better] + start, chunk[at[better]]
        candidates = [best, low[:, None]]
        names = [whose, mine[at][:, None]]
        if second:
            low, at = squared.masked_fill_(mine[at][:, None] == mine[None], float("inf")).min(1)
            candidates.append(low[:, None])
            names.append(mine[at][:, None])
        best, whose = _two_owners(torch.cat(candidates, 1), torch.cat(names, 1))
        start += len(chunk)
    # The search's own distances lose digits where rows nearly coincide; the winner's is taken again by subtraction.
    exact = (queries - found).double().square().sum(1).sqrt().float()
    runner_up = best[:, 1].clamp_min(0).sqrt() if second else torch.full((count,), float("inf"))
    return Nearest(torch.where(where < 0, float("inf"), exact), where, runner_up)


def _two_owners(distances: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest of (N, K) distances, and the smallest of another owner: (N, 2) distances, (N, 2) owners."""
    first = distances.argmin(1, keepdim=True)
    owner = owners.gather(1, first)
    others = distances.masked_fill(owners == owner, float("inf"))
    second = others.argmin(1, keepdim=True)
    return torch.cat([distances.gather(1, first), others.gather(1, second)], 1), torch.cat(
        [owner, owners.gather(1, second)], 1
    )


def _same_size(a: Tensor, b: Tensor) -> None:
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"pictures must have the same size to be compared, got {tuple(a.shape[1:])} and {tuple(b.shape[1:])} (height, width, "
            "channels). Render the fields at the references' size, or resize the pictures."
        )
