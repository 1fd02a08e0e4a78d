"""The inner loop of fitting: many fields of one architecture, one optimiser, gradients written out by hand.

Autograd keeps graphs and temporaries that small fields pay for dearly. Here a block of fields passes forward and backward
in a few batched products over memory that stays in the cache; the first layer, whose input all fields share (pixels of
pictures of one size), is a single product. Where each field has points of its own (samples around a shape), it is batched
like the others. The test suite holds the gradients against autograd.
"""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from fields import layout
from fields.activations import ACTIVATIONS, OUTPUTS
from fields.kinds.base import Kind
from fields.kinds.registry import kind_of
from fields.model import FieldConfig, fourier_encoding, per_channel, to_values, values


@dataclass(frozen=True)
class Schedule:
    """Adam (arXiv:1412.6980) with a cosine from `lr` to zero."""

    steps: int
    lr: float
    betas: tuple[float, float] = (0.5, 0.9)
    pixels: float = 1.0
    """Share of the points a step sees; the shares of consecutive steps are disjoint and cover all points."""
    target: float | None = None
    """Quality at which a field stops, by the measure of its kind: dB for pictures."""
    constant: bool = False
    """Keep `lr`, as the inner loop of Reptile does."""


HELD = 1 << 25
"""Numbers of encoded points that are kept where every field has its own; more are encoded anew at each step."""


class Points:
    """Coordinates encoded once, whole and in disjoint subsets, and the kind of the signals that have values there.

    Attributes:
        coords: (M, d), shared by all fields, or (N, M, d).
        parts: index tensors of the subsets; [None] = all at once.
    """

    def __init__(self, config: FieldConfig, coords: Tensor, share: float, seed: int, kind: Kind | None = None):
        total = coords.shape[-2]
        count = max(1, min(total, round(1 / share)))
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed % 2**63)).to(coords.device)
        self.config, self.coords, self.kind = config, coords, kind or kind_of(config)
        self.parts = [None] if count == 1 else [part.sort().values for part in order.chunk(count)]
        self._kept: list[tuple[Tensor, Tensor] | None] = [None] * len(self.parts)
        self._keep = coords.ndim == 2 or coords.numel() // coords.shape[-1] * (config.encoded_dim + 1) <= HELD
        if coords.ndim == 2:
            ones = torch.ones(total, 1, device=coords.device)
            encoded = torch.cat([fourier_encoding(config, coords), ones], 1)  # (M, E + 1): the bias is one more input
            inputs = [encoded if part is None else encoded[part] for part in self.parts]  # (m, E + 1)
            self._kept = [(part, part.T.contiguous()) for part in inputs]

    def part(self, i: int) -> tuple[Tensor, Tensor]:
        """Encoded points of a subset with a column of ones: ([N,] m, E + 1), and the same transposed."""
        kept, part = self._kept[i], self.parts[i]
        if kept is not None:
            return kept
        chosen = self.coords if part is None else self.coords[:, part]
        inputs = torch.cat([fourier_encoding(self.config, chosen), torch.ones_like(chosen[..., :1])], -1)
        both = (inputs, inputs.mT.contiguous())
        if self._keep:
            self._kept[i] = both
        return both

    def pick(self, rows: Tensor) -> "Points":
        """The points of some of the fields: these very ones where all share them."""
        if self.coords.ndim == 2:
            return self
        other = copy(self)
        other.coords = self.coords[rows]
        other._kept = [None if both is None else (both[0][rows], both[1][rows]) for both in self._kept]
        return other


def gradients(config: FieldConfig, weights: Tensor, inputs: Tensor, turned: Tensor, targets: Tensor) -> Tensor:
    """Gradient of each field's own loss: mean BCE on the logit for `logit`, else mean squared error of the value.

    Args:
        weights: (N, P).
        inputs: (M, E + 1) encoded points with a column of ones, shared by all fields; or (N, M, E + 1).
        turned: ([N,] E + 1, M), the same transposed.
        targets: (N, C, M).
    Returns:
        (N, P).
    """
    n, points = len(weights), targets.shape[2]
    layers = layout.split(config, weights)
    first = torch.cat([layers[0][0], layers[0][1][..., None]], 2)  # (N, out, E + 1)
    shared = inputs.ndim == 2
    h = (first.flatten(0, 1) @ turned).unflatten(0, (n, -1)) if shared else torch.bmm(first, turned)  # (N, out, M)
    activation = ACTIVATIONS[config.activation]
    kept = []  # per hidden layer: activation, and what its derivative needs
    for weight, bias in layers[1:]:
        kept.append(activation.with_slope(h, config.w0))
        h = torch.baddbmm(bias[..., None], weight, kept[-1][0])  # (N, out, M)
    d = _output_gradient(config, h, targets) / (points * targets.shape[1])  # (N, C, M)
    grads = []
    for (weight, _), (a, slope) in zip(reversed(layers[1:]), reversed(kept), strict=True):
        grads.append((torch.bmm(d, a.transpose(1, 2)), d.sum(2)))
        below = weight.transpose(1, 2) * d if weight.shape[1] == 1 else torch.bmm(weight.transpose(1, 2), d)
        d = activation.back(below, slope)  # (N, in, M)
    last = (d.flatten(0, 1) @ inputs).unflatten(0, (n, -1)) if shared else torch.bmm(d, inputs)  # (N, out, E + 1)
    grads.append((last[..., :-1], last[..., -1]))
    return layout.join(grads[::-1])


def _output_gradient(config: FieldConfig, y: Tensor, targets: Tensor) -> Tensor:
    """d loss / d y, (N, C, M), before the mean over points."""
    slope = OUTPUTS[config.output].slope
    if slope is None:
        return y.sigmoid_().sub_(targets)  # of BCE with logits
    v = to_values(config, y.transpose(1, 2))  # (N, M, C): channels last
    d = 2 * (v - targets.transpose(1, 2)) * slope(v, per_channel(config.output_scale, v))
    return d.transpose(1, 2)


def fit_block(
    config: FieldConfig,
    start: Tensor,
    targets: Tensor,
    points: Points,
    schedule: Schedule,
    watch: Callable[[Tensor], None] | None = None,
    basis: Tensor | None = None,
) -> Tensor:
    """Fit one block of fields.

    Args:
        start: (N, P).
        targets: (N, M, C) values at the points.
        points: the M points.
        schedule: how long and how fast.
        watch: called with the rows still being fitted, before the first step and after each; it must copy what it keeps.
        basis: (K, P) directions in which fields may move; None = all.
    Returns:
        (N, P) fitted rows; a field that diverged is not finite, the caller decides.
    """
    weights, turned = start.clone(), targets.transpose(1, 2).contiguous()  # (N, C, M)
    shares = [turned if part is None else turned[..., part].contiguous() for part in points.parts]
    moved = weights if basis is None else weights.new_zeros(len(weights), len(basis))  # what Adam moves
    mean, square = torch.zeros_like(moved), torch.zeros_like(moved)
    done, alive = weights.clone(), torch.arange(len(weights), device=weights.device)
    b1, b2 = schedule.betas
    if watch is not None:
        watch(weights)
    for step in range(schedule.steps):
        i = step % len(shares)
        grad = gradients(config, weights, *points.part(i), shares[i])
        grad = grad if basis is None else grad @ basis.T
        mean.lerp_(grad, 1 - b1)
        square.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        rate = schedule.lr * (1.0 if schedule.constant else 0.5 * (1 + math.cos(math.pi * step / schedule.steps)))
        root = (square / (1 - b2 ** (step + 1))).sqrt_().add_(1e-8)
        moved.addcdiv_(mean, root, value=-rate / (1 - b1 ** (step + 1)))
        if basis is not None:
            weights = torch.addmm(start[alive], moved, basis)
        if watch is not None:
            watch(weights)
        if schedule.target is not None and (step + 1) % 10 == 0:
            reached = quality(config, weights, targets[alive], points.coords, points.kind)
            going = reached.isfinite() & ~points.kind.measure.reached(
                reached, schedule.target
            )  # diverged ones end here
            done[alive] = weights
            if not going.any():
                return done
            moved = weights[going] if basis is None else moved[going]
            weights = moved if basis is None else weights[going]
            alive, mean, square = alive[going], mean[going], square[going]
            shares, points = [share[going] for share in shares], points.pick(going)
    done[alive] = weights
    return done


def quality(config: FieldConfig, weights: Tensor, targets: Tensor, coords: Tensor, kind: Kind | None = None) -> Tensor:
    """How close each field is to its signal over all points, (N,) by the measure of its kind; NaN where it is not finite."""
    return (kind or kind_of(config)).quality(config, values(config, weights, coords), targets)
