"""Several weights a token: cutting rows into groups, k-means of vectors (scikit-learn), nearest code by blocks."""

import warnings

import torch
from torch import Tensor

from fields.runtime.resources import one_thread
from tokenizers.selection import draw

BLOCK = 1 << 17
"""Scores computed at once, rows x codes."""
MANY = 32_000
"""Points from which on mini-batches are used."""


def cut_groups(layers: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Cut a row into groups of consecutive weights that do not cross a layer.

    Args:
        layers: (P,) layer of each weight, ascending.
        group: weights a group.
    Returns:
        (T, group) int64 positions, P for padding; and (P,) int64: the place of weight p in the flattened groups.
    """
    size, rows = len(layers), []
    for layer in range(int(layers.max()) + 1):
        positions = (layers == layer).nonzero().flatten()
        missing = -len(positions) % group
        rows.append(torch.cat([positions, positions.new_full((missing,), size)]).view(-1, group))
    index = torch.cat(rows)
    flat = index.flatten()
    place = torch.empty(size, dtype=torch.int64)
    real = (flat < size).nonzero().flatten()
    place[flat[real]] = real
    return index, place


def take_groups(z: Tensor, index: Tensor) -> Tensor:
    """(N, P) -> (N, T, group), zeros where padded."""
    padded = torch.cat([z, z.new_zeros(len(z), 1)], dim=1)
    return padded[:, index]


def vectors(z: Tensor, index: Tensor, most: int, seed: int) -> Tensor:
    """At most `most` groups (n, group) drawn from all rows by seed."""
    count = len(index)
    chosen = draw(len(z) * count, most, seed)
    padded_columns = index[chosen % count]  # (n, group)
    rows = chosen // count
    values = z[rows[:, None], padded_columns.clamp(max=z.shape[1] - 1)]
    return values.masked_fill(padded_columns == z.shape[1], 0.0)


def fit_centroids(points: Tensor, k: int, seed: int) -> Tensor:
    """Centroids (k_eff, group) float32 in an order by their sum; fewer than k where there are fewer distinct points."""
    distinct = torch.unique(points, dim=0)
    if len(distinct) <= k:
        centres = distinct
    else:
        from sklearn.cluster import KMeans, MiniBatchKMeans  # slow to import

        kind = MiniBatchKMeans if len(points) > MANY and k > 64 else KMeans
        options = {"batch_size": 16_384, "max_iter": 20} if kind is MiniBatchKMeans else {"max_iter": 100}
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # clusters that coincide: they are dropped below, and the number of codes reported
            model = kind(k, n_init=1, random_state=seed, **options).fit(points.double().numpy())
        centres = torch.from_numpy(model.cluster_centers_).float()
        centres = _polish(points, centres)
    centres = torch.unique(centres, dim=0)
    return centres[centres.sum(1).argsort(stable=True)]


def _polish(points: Tensor, centres: Tensor, steps: int = 3) -> Tensor:
    """A few full steps of Lloyd; centres that win no point are dropped."""
    for _ in range(steps):
        ids = nearest_centre(points, centres)
        n = torch.bincount(ids, minlength=len(centres))
        total = torch.zeros(len(centres), points.shape[1], dtype=torch.float64).index_add_(0, ids, points.double())
        centres = (total[n > 0] / n[n > 0, None]).float()
    return centres


@one_thread()
def nearest_centre(points: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest centre, the first among equals.

    In float64 and in blocks of one shape, whatever the number of points: a product's rounding may depend on its shape,
    and a row's ids must not depend on its neighbours.

    Args:
        points: (n, group).
        centres: (k, group).
    Returns:
        (n,) int64.
    """
    size = max(16, BLOCK // len(centres))
    centres = centres.double()
    half = centres.square().sum(1).div(2)
    out = torch.empty(len(points), dtype=torch.int64, device=points.device)
    for at in range(0, len(points), size):
        block = points[at : at + size].double()
        n = len(block)
        if n < size:
            block = torch.cat([block, block.new_zeros(size - n, block.shape[1])])
        scores = torch.addmm(half, block, centres.T, alpha=-1.0)  # |x - c|^2 / 2 less |x|^2 / 2
        out[at : at + n] = _argmin(scores)[:n]
    return out


def _argmin(scores: Tensor) -> Tensor:
    """First smallest of each row; NumPy's is several times faster on CPUs."""
    return scores.argmin(1) if scores.is_cuda else torch.from_numpy(scores.numpy().argmin(1))


def encode_groups(z: Tensor, index: Tensor, constant: Tensor, centres: Tensor, counts: Tensor, book: Tensor) -> Tensor:
    """Nearest centroid of each group; padding and constant positions do not count.

    Args:
        z: (N, P) standardised.
        index: (T, group), P = padding.
        constant: (P,) bool.
        centres: (C, V, group).
        counts: (C,).
        book: (P,) codebook of each position.
    Returns:
        (N, T) int64.
    """
    counted = torch.cat([~constant, constant.new_zeros(1)])[index]  # (T, group) bool
    bits = (counted.long() * 2 ** torch.arange(index.shape[1], device=index.device)).sum(1)  # GPUs multiply no integers
    classes = torch.stack([book[index[:, 0]], bits], 1)
    x = take_groups(z, index)  # (N, T, group)
    out = torch.empty(x.shape[:2], dtype=torch.int64, device=z.device)
    for kind in torch.unique(classes, dim=0):  # tokens of one codebook and one mask
        tokens = (classes == kind).all(1).nonzero().flatten()
        mask = counted[tokens[0]].to(z.dtype)
        known = centres[kind[0], : int(counts[kind[0]])] * mask
        out[:, tokens] = nearest_centre((x[:, tokens] * mask).flatten(0, 1), known).view(len(z), -1)
    return out


def decode_groups(ids: Tensor, index: Tensor, place: Tensor, centres: Tensor, counts: Tensor, book: Tensor) -> Tensor:
    """(N, T) -> standardised (N, P). Ids past a codebook's own count mean its last code."""
    books = book[index[:, 0]]  # (T,)
    chosen = torch.minimum(ids, counts[books] - 1)
    return centres[books, chosen].flatten(1)[:, place]
