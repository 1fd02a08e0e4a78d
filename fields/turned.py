"""Fields seen in a mirror or turned by right angles: an exact change of their first layer.

A coordinate that changes sign, or two that change places, change the numbers that enter the first layer by a permutation
with signs, because the encoding treats every coordinate alike. So the new field has the old one's values to the last bits,
and the rest of its row.
"""

from collections.abc import Sequence
from itertools import permutations, product

import torch
from torch import Tensor

from fields import layout
from fields.model import FieldConfig


def turns(config: FieldConfig, axes: Sequence[int]) -> Tensor:
    """All changes of sign and of places among some coordinates; the first changes nothing.

    Args:
        config: of a field of d coordinates.
        axes: which of them take part, such as (0, 1) for x and y.
    Returns:
        (G, d, d) float32 matrices, G = 2^n n! for n axes.
    Raises:
        ValueError: for an axis that is not there, or is named twice.
    """
    axes, dimensions = list(axes), config.in_dim
    if len(set(axes)) < len(axes) or any(not 0 <= a < dimensions for a in axes):
        raise ValueError(f"different coordinates between 0 and {dimensions - 1} are needed, got {axes}.")
    found = []
    for order in permutations(axes):
        for signs in product((1.0, -1.0), repeat=len(axes)):
            matrix = torch.eye(dimensions)
            for at, (source, sign) in zip(axes, zip(order, signs, strict=True), strict=True):
                matrix[at] = sign * torch.eye(dimensions)[source]
            found.append(matrix)
    return torch.stack(found)


def turned(config: FieldConfig, weights: Tensor, turn: Tensor) -> Tensor:
    """Rows whose field at p has the value of the given one at `turn` p.

    Args:
        weights: (N, P).
        turn: (d, d), one of `turns`.
    Returns:
        (N, P).
    """
    turn = turn.to(weights)
    blocks = ([turn] if config.raw_input else []) + [turn, turn.abs()] * config.octaves  # sin is odd, cos is even
    first, *rest = layout.split(config, weights)
    return layout.join([(first[0] @ torch.block_diag(*blocks), first[1]), *rest])
