"""Fields without a common start fitted again from one: what they compute is alike where their weights are not."""

import torch
from torch import Tensor

from fields.fitting.memory import fit
from fields.model import FieldConfig, random_points, values
from tokenizers.selection import draw

POINTS = 1024
"""Random coordinates at which a representative is fitted to its field."""
COMPARED, ALIKE = 256, 0.3
"""Rows compared in pairs, and the mean cosine below which fields have no common start: about 0 for random starts, .65 and
more for one."""


def scattered(rows: Tensor, seed: int) -> bool:
    """Whether fields lack a common start: whether rows (N, P) point in different directions."""
    if len(rows) < 2:
        return False
    some = torch.nn.functional.normalize(rows[draw(len(rows), COMPARED, seed).to(rows.device)].double(), dim=1)
    n = len(some)
    return float(((some @ some.T).sum() - n) / (n * (n - 1))) < ALIKE


def representatives(field: FieldConfig, rows: Tensor, seed: int, device: torch.device, meta_steps: int = 300) -> Tensor:
    """Each field fitted again, from one start, to its own values at random points.

    Args:
        rows: (n, P), on the CPU.
        seed: of the start and of the points.
        device: where the fits are computed.
        meta_steps: outer steps of Reptile.
    Returns:
        (n, P), on the CPU; a fit that diverged is not finite.
    """
    points = random_points(field, POINTS, seed)
    with torch.no_grad():
        targets = values(field, rows.to(device), points.to(device)).cpu()
    names = list(map(str, range(len(rows))))
    found = fit(points, targets, ids=names, field=field, seed=seed, meta_steps=meta_steps, device=device)
    out = torch.full_like(rows, torch.nan)
    out[[int(name) for name in found.ids("train")]] = found.weights("train")
    return out
