"""Fields without a common start fitted again from one: what they compute is alike where their weights are not."""

import torch
from torch import Tensor

from fields.fitting.engine import Points, Schedule, fit_block
from fields.fitting.starts import reptile
from fields.model import FieldConfig, random_points, values
from fields.runtime.console import bar
from fields.runtime.resources import share
from tokenizers.selection import draw

SCHEDULE = Schedule(steps=64, lr=0.01, pixels=0.5)
"""Of representatives' fits, as of fields'."""
POINTS = 1024
"""Random coordinates at which a representative is fitted to its field."""
INNER, BATCH = 20, 32
"""Inner steps and fields of Reptile, which finds their common start."""
BLOCK = {"cpu": 48, "cuda": 4096}
"""Fields fitted at once: what fits the cache."""
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
    """Each field fitted again, from one start, to its own values.

    Args:
        rows: (n, P), on the CPU.
        seed: of the start and of the points.
        device: where the fits are computed.
        meta_steps: outer steps of Reptile.
    Returns:
        (n, P), on the CPU; a fit that diverged is not finite.
    """
    points = Points(field, random_points(field, POINTS, seed).to(device), SCHEDULE.pixels, seed)

    def values_of(some: Tensor) -> Tensor:
        return values(field, some.to(device), points.coords)

    def some(g: torch.Generator) -> tuple[Tensor, Points]:
        return values_of(rows[torch.randperm(len(rows), generator=g)[:BATCH]]), points

    start = reptile(field, some, SCHEDULE, seed=seed, steps=meta_steps, inner=INNER, device=device)
    out, blocks = torch.empty_like(rows), list(torch.arange(len(rows)).split(BLOCK[device.type]))
    shown = bar(total=len(rows), desc="representatives", unit="field", leave=False)

    def work(i: int) -> None:
        block = blocks[i]
        out[block] = fit_block(field, start.expand(len(block), -1), values_of(rows[block]), points, SCHEDULE).cpu()
        shown.update(len(block))

    with torch.no_grad():
        share(work, range(len(blocks)), torch.get_num_threads() if device.type == "cpu" else 1)
    shown.close()
    return out
