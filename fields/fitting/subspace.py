"""A start with directions: a row, and a few directions of weight space in which all fits move.

Rows, directions and each training signal's place among them are learnt together, as an auto-decoder is (DeepSDF,
arXiv:1901.05103), by the gradients of `fields.fitting.engine`. Fields fitted so lie in an affine subspace: a few numbers say
all of a field, signals that were not learnt from included, and a vocabulary has that much less to learn.
"""

import math

import torch
from torch import Tensor

from fields.fitting.engine import Points, gradients
from fields.model import FieldConfig
from fields.runtime.console import bar
from fields.signals.base import Signals

BATCH, SEEN = 64, 256
"""Signals of a step, and points of each."""
RATES = {"row": 4e-3, "basis": 2e-3, "places": 3e-2}
"""Highest learning rates; they fall as a cosine."""
WARM = 100
"""Steps of warm-up."""
SIZE = 0.05
"""Standard deviation of training fields along each direction, in its own units: a twentieth suits fits at --lr 1e-2."""


class Adam:
    """Adam (arXiv:1412.6980) for rows of a tensor of which a step moves some."""

    def __init__(self, moved: Tensor, betas: tuple[float, float]):
        self.moved, self.betas = moved, betas
        self.mean, self.square = torch.zeros_like(moved), torch.zeros_like(moved)
        self.steps = torch.zeros(len(moved), 1, device=moved.device)

    def step(self, grad: Tensor, rate: float, at: Tensor | slice = slice(None)) -> None:
        """Move the rows `at` against their gradient."""
        b1, b2 = self.betas
        self.steps[at] += 1
        steps, mean = self.steps[at], self.mean[at].lerp(grad, 1 - b1)
        square = self.square[at] * b2 + (1 - b2) * grad.square()
        self.mean[at], self.square[at] = mean, square
        self.moved[at] -= rate * (mean / (1 - b1**steps)) / ((square / (1 - b2**steps)).sqrt() + 1e-8)


def learn_subspace(
    config: FieldConfig,
    signals: Signals,
    train: Tensor,
    row: Tensor,
    *,
    dimensions: int = 128,
    steps: int = 4000,
    seed: int = 0,
    quiet: bool = False,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Learn a row and directions over training signals.

    Args:
        config: the architecture.
        signals: of which only `train` are used.
        train: positions of training signals of one size.
        row: (P,) to begin from.
        dimensions: directions at most, K; there are fewer than training signals.
        steps, seed: of the training.
        quiet: no progress bar.
        device: where it computes; on a CPU one thread, so that no result depends on their number.
    Returns:
        (P,) the mean training field, and (K, P) directions in which training fields spread by `SIZE`, widest first.
    Raises:
        ValueError: for fewer than 2 training signals.
    """
    n, count = len(train), signals.count(tuple(signals.extent[train[0]].tolist()) if len(train) else ())
    if n < 2:
        raise ValueError(f"--start subspace needs at least 2 training signals of one size, got {n}. Use --start meta.")
    k, generator = min(dimensions, n - 1, config.size), torch.Generator().manual_seed(seed % 2**63)
    row = row.to(device)[None].clone()
    basis = (0.02 * torch.randn(k, config.size, generator=generator)).to(device)
    places = (0.1 * torch.randn(n, k, generator=generator)).to(device)
    movers = Adam(row, (0.9, 0.99)), Adam(basis, (0.9, 0.99)), Adam(places, (0.9, 0.9))
    share, shared, order = min(1.0, SEEN / count), None, torch.empty(0, dtype=torch.int64)
    if signals.shared:
        shared = Points(config, signals.points(config, train[:1]).to(device), share, seed)
    for step in bar(range(steps), desc="subspace", unit="step", quiet=quiet, leave=False):
        if len(order) < min(BATCH, n):
            order = torch.randperm(n, generator=generator)
        chosen, order = order[:BATCH], order[BATCH:]
        points = shared or Points(config, signals.points(config, train[chosen]).to(device), share, seed)
        part = int(torch.randint(len(points.parts), (), generator=generator))
        values = signals.values(train[chosen]).to(device)
        values = values if points.parts[part] is None else values[:, points.parts[part]]
        at = chosen.to(device)
        rows = row + places[at] @ basis
        grad = gradients(config, rows, *points.part(part), values.transpose(1, 2).contiguous())
        rate = min(1.0, (step + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * step / steps))
        along = grad @ basis.T, places[at].T @ grad / len(chosen)
        movers[0].step(grad.mean(0, keepdim=True), RATES["row"] * rate)
        movers[1].step(along[1], RATES["basis"] * rate)
        movers[2].step(along[0], RATES["places"] * rate, at)
    middle = places.mean(0)
    _, spread, turn = torch.linalg.svd((places - middle).double(), full_matrices=False)
    basis = (spread / n**0.5 / SIZE)[:, None] * (turn @ basis.double())
    return (row[0] + middle @ (movers[1].moved)).cpu(), basis.float().cpu()
