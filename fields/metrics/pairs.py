"""How close fields are to their signals, pair by pair."""

import torch
from torch import Tensor

PSNR_CAP = 100.0
"""dB given to a perfect match, whose PSNR has no finite value."""


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per item, for values in [0, 1].

    Args:
        a: (N, ...).
        b: (N, ...), the same shape.
    Returns:
        (N,) dB, at most `PSNR_CAP`.
    """
    if a.shape != b.shape:
        raise ValueError(f"psnr compares equal shapes, got {tuple(a.shape)} and {tuple(b.shape)}.")
    mse = (a - b).flatten(1).square().mean(1)
    return (-10 * torch.log10(mse.clamp_min(10 ** (-PSNR_CAP / 10)))).clamp_max(PSNR_CAP)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of the True entries, per item.

    Args:
        a: (N, ...) bool.
        b: (N, ...) bool, the same shape.
    Returns:
        (N,) in [0, 1]; 1 if both are empty.
    """
    if a.shape != b.shape:
        raise ValueError(f"iou compares equal shapes, got {tuple(a.shape)} and {tuple(b.shape)}.")
    both, either = (a & b).flatten(1).sum(1), (a | b).flatten(1).sum(1)
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)
