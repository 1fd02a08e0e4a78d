"""An amortised start: an encoder that predicts a field's row from its signal, so that a few steps finish the fit.

The encoder is a multilayer perceptron over the signal's values on a small grid; it is learnt on training signals by the
loss of the fields that it predicts, whose gradient is that of `fields.fitting.engine`. Everything that is needed to apply it
is tensors: its layers, the grid and the normalisation of its input.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fields.fitting.engine import Points, gradients
from fields.model import FieldConfig
from fields.runtime.console import bar
from fields.runtime.resources import one_thread
from fields.signals.base import Signals

WIDTH = 512
"""Units of each of the two hidden layers."""
INPUT = 1024
"""Most points of the encoder's input; larger signals are averaged down to so many."""
SCALE = 0.1
"""Of the last layer: rows move little from the base row."""
BATCH = 64
"""Signals a training step sees."""
RATE = 1e-3
"""Its largest learning rate."""


class Encoder(nn.Module):
    """From a signal's values to a row: base + SCALE * MLP.

    Args:
        grid: the input's size, such as height and width.
        channels: values of a point.
        row: (P,) the base row that training begins from.
        width: units of the hidden layers.
    """

    grid: Tensor
    moments: Tensor

    def __init__(self, grid: Sequence[int], channels: int, row: Tensor, width: int = WIDTH):
        super().__init__()
        self.register_buffer("grid", torch.tensor(list(grid), dtype=torch.int64))
        self.register_buffer("moments", torch.tensor([0.0, 1.0]))  # mean and standard deviation of the input
        self.row = nn.Parameter(row.clone())
        sizes = (math.prod(grid) * channels, width, width, len(row))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.numbers = sizes[0]
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)  # the first prediction is the base row

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Encoder":
        """The encoder with these tensors.

        Raises:
            ValueError: if they are not an encoder's.
        """
        try:
            grid, row, first = tensors["grid"].tolist(), tensors["row"], tensors["layers.0.weight"]
            made = cls(grid, first.shape[1] // math.prod(grid), row, len(first))
            made.load_state_dict(dict(tensors))
        except (KeyError, RuntimeError, IndexError, ZeroDivisionError, TypeError) as error:
            raise ValueError(f"the encoder's tensors do not fit together: {str(error).splitlines()[0]}.") from None
        return made.eval().requires_grad_(False)

    def check(self, config: FieldConfig, signals: Signals) -> "Encoder":
        """This encoder, if it predicts such fields from such signals.

        Raises:
            ValueError: saying what differs.
        """
        check_shared(signals)
        seen = (len(self.grid), self.numbers // math.prod(self.grid.tolist()), len(self.row))
        wanted = (signals.extent.shape[1], signals.channels, config.size)
        if seen != wanted:
            raise ValueError(
                f"the encoder of the start has (dimensions of the grid, channels, weights of a field) = {seen}, the signals "
                f"and fields have {wanted}. Learn a new one with --start amortised, without --reference."
            )
        return self

    def inputs(self, values: Tensor, extent: Sequence[int]) -> Tensor:
        """(N, M, C) values as (N, numbers) of the encoder's grid, by averages over areas where sizes differ."""
        size = self.grid.tolist()
        if list(extent) != size:
            spread = values.transpose(1, 2).unflatten(2, tuple(extent))  # (N, C, ...)
            pools: dict[int, Callable[..., Tensor]]
            pools = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
            values = pools[len(size)](spread, size).flatten(2).transpose(1, 2)
        return (values.flatten(1) - self.moments[0]) / self.moments[1]

    def forward(self, values: Tensor, extent: Sequence[int]) -> Tensor:
        """(N, P) rows of signals with (N, M, C) values on a grid of size `extent`."""
        h = self.inputs(values, extent)
        for layer in self.layers[:-1]:
            h = F.gelu(layer(h))
        return self.row + SCALE * self.layers[-1](h)


def input_grid(extent: Sequence[int]) -> list[int]:
    """The grid an encoder sees of signals of this size: theirs, or one of nearly the same shape with at most INPUT points."""
    sides = list(extent)
    while math.prod(sides) > INPUT:
        wide = sum(side > 1 for side in sides)  # sides of one point cannot give way
        shrink = (INPUT / math.prod(sides)) ** (1 / wide)
        sides = [max(1, math.floor(side * shrink + 1e-9)) for side in sides]
    return sides


def learn_encoder(
    config: FieldConfig,
    signals: Signals,
    train: Tensor,
    row: Tensor,
    *,
    share: float,
    steps: int = 3000,
    seed: int = 0,
    quiet: bool = False,
    device: torch.device | str = "cpu",
) -> Encoder:
    """Learn to predict rows: AdamW with a cosine on the loss of the predicted fields.

    Args:
        config: the architecture.
        signals: of which only `train` are used.
        train: positions of training signals of one size.
        row: (P,) the base row to begin from, best a meta-learnt one.
        share: of the points that a step sees.
        steps, seed: of the training.
        quiet: no progress bar.
        device: where it computes; on a CPU one thread, so that no result depends on their number.
    Raises:
        ValueError: for signals whose points differ.
    """
    check_shared(signals)
    extent = tuple(signals.extent[train[0]].tolist())
    with one_thread():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            encoder = Encoder(input_grid(extent), signals.channels, row.cpu()).to(device)
        some = encoder.inputs(signals.values(train[:: max(1, len(train) // 4096)]).to(device), extent)
        encoder.moments.copy_(torch.stack([some.mean(), some.std().clamp_min(1e-3)]))
        points = Points(config, signals.points(config, train[:1]).to(device), share, seed)
        adam = torch.optim.AdamW(encoder.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        generator, warm = torch.Generator().manual_seed(seed % 2**63), max(1, min(100, steps // 10))
        for step in bar(range(steps), desc="encoder", unit="step", quiet=bool(quiet), leave=False):
            values = signals.values(train[torch.randint(len(train), (BATCH,), generator=generator)]).to(device)
            rows, at = encoder(values, extent), step % len(points.parts)
            turned = values.transpose(1, 2)  # (B, C, M)
            turned = turned if points.parts[at] is None else turned[..., points.parts[at]]
            adam.zero_grad()
            rows.backward(gradients(config, rows.detach(), *points.part(at), turned.contiguous()) / BATCH)
            nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
            adam.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / warm) * cosine
            adam.step()
    if not all(p.isfinite().all() for p in encoder.parameters()):
        raise RuntimeError("the encoder of --start amortised diverged. Choose another --seed or --start meta.")
    return encoder.cpu().eval().requires_grad_(False)


def check_shared(signals: Signals) -> None:
    """Refuse signals that have no common points.

    Raises:
        ValueError: saying what to use instead.
    """
    if not signals.shared:
        raise ValueError(
            f"--start amortised needs signals whose values lie on one grid, such as pictures; each of {signals.name} has "
            "points of its own. Use --start meta."
        )
