"""Rows of weights from batches: how a fit reads training fields once, with bounded memory."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from tokenizers.standardizer import Moments


def gather(batches: Iterable[Tensor], width: int, limit: int, seed: int) -> tuple[Tensor, Moments]:
    """One pass over the batches: the moments of all rows, and the rows themselves or a uniform draw of them.

    Every row gets a random key, and those of the smallest keys stay, in their order. So the draw depends on the seed
    and on the rows' order, not on how they are cut into batches.

    Args:
        batches: (n, P) each.
        width: P.
        limit: most values (rows x P) to keep; at least one row is kept.
        seed: of the draw.
    Returns:
        (n, P) float32, and the moments.
    Raises:
        ValueError: if there are no rows.
    """
    most = max(1, limit // width)
    keys, rng = np.empty(0), np.random.default_rng(seed)
    kept: list[Tensor] = []
    held, moments = 0, Moments(width)
    for batch in batches:
        batch = batch.cpu()
        moments.add(batch)
        kept.append(batch)
        keys = np.concatenate([keys, rng.random(len(batch))])
        held += len(batch)
        if held > 2 * most:  # prune now and then, not at each batch
            kept, keys = _prune(kept, keys, most)
            held = len(keys)
    if moments.n == 0:
        raise ValueError("there are no training fields to fit a tokenizer on.")
    if held > most:
        kept, keys = _prune(kept, keys, most)
    return (kept[0] if len(kept) == 1 else torch.cat(kept)), moments


def _prune(kept: list[Tensor], keys: np.ndarray, most: int) -> tuple[list[Tensor], np.ndarray]:
    """The rows of the `most` smallest keys, in order."""
    chosen = np.sort(np.argpartition(keys, most - 1)[:most])
    return [torch.cat(kept)[torch.from_numpy(chosen)]], keys[chosen]


def draw(n: int, most: int, seed: int) -> Tensor:
    """At most `most` of n indices, in order, by seed."""
    if n <= most:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most].sort().values
