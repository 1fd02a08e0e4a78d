"""What the codes of a vocabulary of regions stand for, as pictures."""

import torch
from torch import Tensor

from fields.kinds.images import ImageKind
from fields.model import values
from tokenizers.learned.regions import RegionsTokenizer, windows

CHUNK = 512
"""Fields evaluated at once."""


def mean_patches(tokenizer: RegionsTokenizer, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of what decoded fields say in the regions of each code.

    Args:
        tokenizer: of pictures.
        ids: (N, T) tokens of fields.
    Returns:
        (V, side, side, C) mean values, 0 for codes that do not occur; (V,) int64 how often each occurs.
    Raises:
        ValueError: for fields that are no pictures.
    """
    field, side, codes = tokenizer.field, tokenizer.config.side, tokenizer.codes
    if not ImageKind.suits(field):
        raise ValueError(f"codes of fields {field} cannot be drawn: they are no pictures.")
    inner = windows(tokenizer.grid, side, 0)  # (T, side * side)
    total = torch.zeros(codes, side * side, field.out_dim)
    for part in ids.split(CHUNK):
        said = values(field, tokenizer.decode(part), tokenizer.lattice)[:, inner]  # (n, T, side * side, C)
        total.index_add_(0, part.flatten(), said.flatten(0, 1).float())
    counts = torch.bincount(ids.flatten(), minlength=codes)
    return (total / counts.clamp(min=1)[:, None, None]).view(codes, side, side, -1), counts
