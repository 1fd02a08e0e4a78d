"""One code per weight: encoding by sorted thresholds, decoding by table. Shared by quantile buckets and scalar k-means.

Codes and edges live in standardised units, one list per codebook. What decides is the raw weight against thresholds
carried to each position's own units and rounded to float32 there, so that what `decode` writes is found again exactly.
Large batches look codes up in a fine grid first and search only next to a threshold: same ids, several times faster.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fields.runtime.resources import one_thread, share

TABLE = 4_000_000
"""Thresholds held at once, positions x codes."""
SMALL = 300_000
"""Weights below which building a grid does not pay."""
BLOCK = 262_144
"""Weights looked up at once: what fits the cache."""
CELLS = 65_536
MARGIN = 0.25
"""Of a cell: rounding may move a weight that far, so cells that near to a threshold are searched."""
CROWDED = 8
"""Thresholds in one cell from which on a plain search is faster."""


def codes_in_units(mean: Tensor, std: Tensor, values: Tensor) -> Tensor:
    """Standardised values (p, V) in each position's units, float32; float64 inside, so that order survives."""
    return torch.addcmul(mean.double()[:, None], std.double()[:, None], values.double()).float()


def thresholds(mean: Tensor, std: Tensor, centres: Tensor, edges: Tensor, counts: Tensor) -> Tensor:
    """Where one code ends and the next begins, in weights.

    Args:
        mean, std: (p,).
        centres: (p, V) ascending, those from counts on are padding.
        edges: (p, V - 1), centres[j] <= edges[j] <= centres[j + 1].
        counts: (p,) codes in use.
    Returns:
        (p, V - 1) ascending: a weight w has the code #{t < w}.
    """
    spots = codes_in_units(mean, std, centres)
    bounds = codes_in_units(mean, std, edges)
    bounds = torch.minimum(bounds, torch.nextafter(spots[:, 1:], torch.tensor(-torch.inf, device=spots.device)))
    # Codes that float32 cannot tell apart here become one, the last of them: the others get an empty interval.
    bounds = bounds.masked_fill(spots[:, 1:] == spots[:, :-1], -torch.inf).cummax(1).values
    order = torch.arange(bounds.shape[1], device=bounds.device)
    nearest = centres.abs().argmin(1, keepdim=True)  # a constant position always has the code nearest to 0
    fixed = torch.where(order < nearest, -torch.inf, torch.inf)
    bounds = torch.where((std == 0)[:, None], fixed, bounds)
    return bounds.masked_fill(order >= counts[:, None] - 1, torch.inf).contiguous()


def encode_scalars(
    weights: Tensor, mean: Tensor, std: Tensor, centres: Tensor, edges: Tensor, counts: Tensor, book: Tensor
) -> Tensor:
    """Code of each weight.

    Args:
        weights: (N, P) finite.
        mean, std: (P,).
        centres: (C, V) and edges: (C, V - 1), ascending, C codebooks.
        counts: (C,) codes in use.
        book: (P,) the codebook of each position, equal ones side by side.
    Returns:
        (N, P) int64.
    """
    out = torch.empty(weights.shape, dtype=torch.int64, device=weights.device)
    threads = torch.get_num_threads() if weights.device.type == "cpu" else 1
    with one_thread():
        _encode(weights, mean, std, centres, edges, counts, book, threads, out)
    return out


def _encode(weights, mean, std, centres, edges, counts, book, threads: int, out: Tensor) -> None:
    """`encode` into `out`."""
    step = max(1, TABLE // centres.shape[1])
    for begin, end, c in _runs(book, step):
        part = slice(begin, end)
        one = torch.full((end - begin,), c, device=book.device)
        bounds = thresholds(mean[part], std[part], centres[one], edges[one], counts[one])
        grid = None
        if len(weights) * (end - begin) >= SMALL:
            grid = Grid.of(edges[c, : int(counts[c]) - 1].double())
        if grid is None:
            out[:, part] = _search(weights[:, part], bounds)
        else:
            _look_up(weights[:, part], bounds, mean[part], std[part], grid, threads, out[:, part])


@one_thread()
def decode_scalars(ids: Tensor, mean: Tensor, std: Tensor, centres: Tensor, counts: Tensor, book: Tensor) -> Tensor:
    """(N, P) int64 -> (N, P) float32. Ids past a codebook's own count mean its last code."""
    out = torch.empty(ids.shape, device=ids.device)
    size = centres.shape[1]
    for begin, end, c in _runs(book, max(1, TABLE // size)):
        spots = codes_in_units(mean[begin:end], std[begin:end], centres[c].expand(end - begin, -1)).flatten()
        offsets = torch.arange(end - begin, device=ids.device) * size
        rows = max(1, BLOCK // (end - begin))
        for at in range(0, len(ids), rows):
            chosen = ids[at : at + rows, begin:end].clamp(max=int(counts[c]) - 1) + offsets
            out[at : at + rows, begin:end] = spots.index_select(0, chosen.reshape(-1)).view(chosen.shape)
    return out


def _runs(book: Tensor, step: int) -> list[tuple[int, int, int]]:
    """(begin, end, codebook) of stretches of at most `step` positions of one codebook."""
    values, sizes = torch.unique_consecutive(book, return_counts=True)
    stretches, at = [], 0
    for c, size in zip(values.tolist(), sizes.tolist(), strict=True):
        stretches += [(begin, min(begin + step, at + size), c) for begin in range(at, at + size, step)]
        at += size
    return stretches


def _search(weights: Tensor, bounds: Tensor) -> Tensor:
    """Binary search of each weight (n, p) in its position's thresholds (p, V - 1)."""
    return torch.searchsorted(bounds, weights.T.contiguous(), out_int32=True).T.long()


@dataclass(frozen=True)
class Grid:
    """An even grid over standardised values.

    Attributes:
        low, scale: cell i begins at low + i / scale.
        codes: (CELLS,) the code of a cell, or -1 - (its lowest code) where a threshold is near.
        most: thresholds near one cell, at most.
    """

    low: float
    scale: float
    codes: Tensor
    most: int

    @classmethod
    def of(cls, edges: Tensor) -> "Grid | None":
        """Of ascending edges (k - 1,) float64; None where a grid does not pay."""
        span = float(edges[-1] - edges[0]) if len(edges) > 1 else 0.0
        if span <= 0:
            return None
        scale = (CELLS - 6) / span
        low = float(edges[0]) - 3 / scale  # the first and the last cells are free of thresholds
        at = (edges - low) * scale
        cells = torch.arange(CELLS, dtype=torch.float64, device=edges.device)
        lowest = torch.searchsorted(at, cells - MARGIN)
        highest = torch.searchsorted(at, cells + 1 + MARGIN, right=True)
        most = int((highest - lowest).max())
        if most > CROWDED:
            return None
        return cls(low, scale, torch.where(lowest == highest, lowest, -1 - lowest), most)

    def safe(self, mean: Tensor, std: Tensor) -> Tensor:
        """(p,) bool: positions whose float32 thresholds stay within the margin of the exact ones."""
        reach = abs(self.low) + CELLS / self.scale
        error = (mean.double().abs() / std.double() + 4 * reach) * self.scale * 2.0**-23
        return (std > 0) & (error < MARGIN)


def _look_up(weights: Tensor, bounds: Tensor, mean: Tensor, std: Tensor, grid: Grid, threads: int, out: Tensor) -> None:
    """Codes of (n, p) weights into `out`: by grid, next to a threshold by comparing."""
    safe = grid.safe(mean, std)
    factor = torch.where(safe, grid.scale / std.double(), 0.0).float()
    start = torch.tensor(-grid.low * grid.scale, device=std.device)
    closed = torch.nn.functional.pad(bounds, (0, 1), value=torch.inf)  # (p, V): a step from the last code fails
    rows = max(1, BLOCK // weights.shape[1])

    def work(at: int) -> None:
        block = weights[at : at + rows]
        cell = torch.addcmul(start, block - mean, factor).clamp_(0, CELLS - 1).long()
        codes = grid.codes.index_select(0, cell.view(-1))  # (n p,)
        open_ = (codes < 0).nonzero().flatten()
        codes[open_] = _climb(block.reshape(-1)[open_], -1 - codes[open_], open_ % block.shape[1], closed, grid.most)
        out[at : at + rows] = codes.view_as(cell)

    share(work, range(0, len(weights), rows), threads)
    if not bool(safe.all()):
        out[:, ~safe] = _search(weights[:, ~safe], bounds[~safe].contiguous())


def _climb(weights: Tensor, codes: Tensor, positions: Tensor, closed: Tensor, most: int) -> Tensor:
    """Raise codes (m,) while their weight lies above the threshold."""
    flat, first = closed.view(-1), positions * closed.shape[1]
    for _ in range(most):
        codes = codes + (weights > flat[first + codes]).long()
    return codes


def pad(values: Tensor, size: int) -> Tensor:
    """(k,) float64 -> (size,) float32, the last one repeated."""
    return torch.cat([values, values[-1:].expand(size - len(values))]).float()


def gap(centres: Tensor) -> float:
    """Median distance of neighbours among ascending centres (k,)."""
    return float(centres.diff().median()) if len(centres) > 1 else 1.0
