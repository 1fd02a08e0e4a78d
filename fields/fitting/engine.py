"""The inner loop of fitting: many fields of one architecture, one optimiser, gradients written out by hand.

Autograd keeps graphs and temporaries that small fields pay for dearly. Here a block of fields passes forward and backward
in a few batched products over memory that stays in the cache; the first layer, whose input all fields share, is a single
product. The test suite holds the gradients against autograd.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fields import layout
from fields.metrics.pairs import psnr
from fields.model import FieldConfig, activate, encode, per_channel, to_values, values


@dataclass(frozen=True)
class Schedule:
    """Adam (arXiv:1412.6980) with a cosine from `lr` to zero."""

    steps: int
    lr: float
    betas: tuple[float, float] = (0.5, 0.9)
    pixels: float = 1.0
    """Share of the points a step sees; the shares of consecutive steps are disjoint and cover all points."""
    target: float | None = None
    """PSNR in dB at which a field stops."""
    constant: bool = False
    """Keep `lr`, as the inner loop of Reptile does."""


class Points:
    """Coordinates encoded once for all fields, whole and in disjoint subsets."""

    def __init__(self, config: FieldConfig, coords: Tensor, share: float, seed: int):
        count = max(1, min(len(coords), round(1 / share)))
        order = torch.randperm(len(coords), generator=torch.Generator().manual_seed(seed % 2**63)).to(coords.device)
        ones = torch.ones(len(coords), 1, device=coords.device)
        encoded = torch.cat([encode(config, coords), ones], 1)  # (M, E + 1): the bias is one more input
        self.coords = coords
        self.parts = [None] if count == 1 else [part.sort().values for part in order.chunk(count)]
        self.inputs = [encoded if part is None else encoded[part] for part in self.parts]  # (m, E + 1)
        self.turned = [part.T.contiguous() for part in self.inputs]  # (E + 1, m)


def gradients(config: FieldConfig, weights: Tensor, inputs: Tensor, turned: Tensor, targets: Tensor) -> Tensor:
    """Gradient of each field's own loss: mean BCE on the logit for `logit`, else mean squared error of the value.

    Args:
        weights: (N, P).
        inputs: (M, E + 1) encoded points with a column of ones.
        turned: (E + 1, M), the same transposed.
        targets: (N, C, M).
    Returns:
        (N, P).
    """
    n, points = len(weights), targets.shape[2]
    layers = layout.split(config, weights)
    first = torch.cat([layers[0][0], layers[0][1][..., None]], 2)  # (N, out, E + 1)
    h = (first.flatten(0, 1) @ turned).unflatten(0, (n, -1))  # (N, out, M)
    kept = []  # per hidden layer: activation, and what its derivative needs
    for weight, bias in layers[1:]:
        kept.append(_activate(config, h))
        h = torch.baddbmm(bias[..., None], weight, kept[-1][0])  # (N, out, M)
    d = _output_gradient(config, h, targets) / (points * targets.shape[1])  # (N, C, M)
    grads = []
    for (weight, _), (a, slope) in zip(reversed(layers[1:]), reversed(kept), strict=True):
        grads.append((torch.bmm(d, a.transpose(1, 2)), d.sum(2)))
        below = weight.transpose(1, 2) * d if weight.shape[1] == 1 else torch.bmm(weight.transpose(1, 2), d)
        d = below.mul_(slope)  # (N, in, M)
    last = (d.flatten(0, 1) @ inputs).unflatten(0, (n, -1))  # (N, out, E + 1)
    grads.append((last[..., :-1], last[..., -1]))
    return layout.join(grads[::-1])


def _activate(config: FieldConfig, z: Tensor) -> tuple[Tensor, Tensor]:
    """The activation and its derivative at z."""
    if config.activation == "relu":
        a = z.relu_()
        return a, a > 0
    if config.activation == "sine":
        return activate(config, z), torch.cos(config.w0 * z).mul_(config.w0)
    a = activate(config, z)  # elu: e^z = a + 1 below zero
    return a, torch.where(z > 0, torch.ones_like(a), a + 1)


def _output_gradient(config: FieldConfig, y: Tensor, targets: Tensor) -> Tensor:
    """d loss / d y, (N, C, M), before the mean over points."""
    if config.output == "logit":
        return y.sigmoid_().sub_(targets)  # of BCE with logits
    v = to_values(config, y.transpose(1, 2))  # (N, M, C): channels last
    d = 2 * (v - targets.transpose(1, 2))
    if config.output == "tanh":
        d = d * (1 - v.square())
    elif config.output == "offset":
        d = d * per_channel(config.output_scale, d)
    return d.transpose(1, 2)


def fit_block(
    config: FieldConfig,
    start: Tensor,
    targets: Tensor,
    points: Points,
    schedule: Schedule,
    watch: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Fit one block of fields.

    Args:
        start: (N, P).
        targets: (N, M, C) values at the points.
        points: the M points.
        schedule: how long and how fast.
        watch: called with the rows still being fitted, before the first step and after each; it must copy what it keeps.
    Returns:
        (N, P) fitted rows; a field that diverged is not finite, the caller decides.
    """
    weights, turned = start.clone(), targets.transpose(1, 2).contiguous()  # (N, C, M)
    shares = [turned if part is None else turned[..., part].contiguous() for part in points.parts]
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    done, alive = weights.clone(), torch.arange(len(weights), device=weights.device)
    b1, b2 = schedule.betas
    if watch is not None:
        watch(weights)
    for step in range(schedule.steps):
        i = step % len(shares)
        grad = gradients(config, weights, points.inputs[i], points.turned[i], shares[i])
        mean.lerp_(grad, 1 - b1)
        square.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        rate = schedule.lr * (1.0 if schedule.constant else 0.5 * (1 + math.cos(math.pi * step / schedule.steps)))
        root = (square / (1 - b2 ** (step + 1))).sqrt_().add_(1e-8)
        weights.addcdiv_(mean, root, value=-rate / (1 - b1 ** (step + 1)))
        if watch is not None:
            watch(weights)
        if schedule.target is not None and (step + 1) % 10 == 0:
            going = quality(config, weights, targets[alive], points.coords) < schedule.target
            done[alive] = weights
            if not going.any():
                return done
            alive, weights, mean, square = alive[going], weights[going], mean[going], square[going]
            shares = [share[going] for share in shares]
    done[alive] = weights
    return done


def quality(config: FieldConfig, weights: Tensor, targets: Tensor, coords: Tensor) -> Tensor:
    """PSNR of each field over all points, (N,) dB; NaN for a field that is not finite."""
    return psnr(values(config, weights, coords).clamp(0, 1), targets)
