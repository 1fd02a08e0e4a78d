"""Rows that differ although the function is the same, and how to bring them together.

Hidden neurons may change places, a ReLU neuron may pass a factor on to the next layer, a sine neuron its sign. Fields
fitted from random weights therefore lie far apart in weight space even where they compute the same; matching their
neurons to those of one reference row (Git Re-Basin, arXiv:2209.04836, section 3.2) removes what it can. Without a
reference neurons can be sorted, by what a row itself says.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fields import layout
from fields.activations import ACTIVATIONS
from fields.model import FieldConfig, random_points, values
from fields.runtime.console import bar

TOLERANCE = 1e-5
"""Largest change of a value that float32 may make; more means that the function was changed."""
SWEEPS = 100
BATCH = 4096
"""Fields changed at once."""


def rescale(config: FieldConfig, weights: Tensor, factors: list[Tensor]) -> Tensor:
    """Multiply what enters each hidden neuron and divide what leaves it; the function stays the same.

    Args:
        weights: (N, P).
        factors: one per hidden layer, (width,) or (N, width): above 0 for relu, +1 or -1 for sine.
    Returns:
        (N, P).
    Raises:
        ValueError: for factors that would change the function.
    """
    layers = layout.split(config, weights)
    if len(factors) != len(config.hidden):
        raise ValueError(f"expected factors for {len(config.hidden)} hidden layers, got {len(factors)}.")
    for i, factor in enumerate(factors):
        factor = factor.expand(len(weights), config.hidden[i])
        group = ACTIVATIONS[config.activation].symmetry
        allowed, known = {
            "scale": (factor > 0, "above 0"), "sign": (factor.abs() == 1, "+1 or -1"), "none": (factor == 1, "1"),
        }[group]  # fmt: skip
        if not bool(allowed.all()):
            raise ValueError(
                f"factors of {config.activation} neurons must be {known}; those of layer {i} would change the function."
            )
        (weight, bias), (after, after_bias) = layers[i], layers[i + 1]
        layers[i] = (weight * factor[..., None], bias * factor)
        layers[i + 1] = (after / factor[:, None], after_bias)
    return layout.join(layers)


def shift(config: FieldConfig, weights: Tensor, by: Tensor) -> Tensor:
    """Rows of the functions x -> f(x + by): what the fields say moves by -by. Exact, for any activation.

    sin and cos of a sum are sums of products, so that a shift turns each pair of the encoding's weights by an angle, and adds the
    raw coordinate's part to the bias.

    Args:
        weights: (N, P).
        by: (N, in_dim) or (in_dim,), in coordinates.
    Returns:
        (N, P).
    """
    d, layers = config.in_dim, layout.split(config, weights)
    weight, bias = layers[0]  # (N, H, E), (N, H)
    by = by.to(weights).expand(len(weights), d)
    parts, at = [], 0
    if config.raw_input:
        raw, at = weight[..., :d], d
        parts, bias = [raw], bias + torch.einsum("nhd,nd->nh", raw, by)
    for k in range(config.octaves):
        angle = by[:, None] * (2.0**k * (math.pi if config.use_pi else 1.0))  # (N, 1, in_dim)
        sine, cosine = weight[..., at : at + d], weight[..., at + d : at + 2 * d]
        parts += [sine * angle.cos() - cosine * angle.sin(), sine * angle.sin() + cosine * angle.cos()]
        at += 2 * d
    return layout.join([(torch.cat(parts, -1), bias), *layers[1:]])


def balance(config: FieldConfig, weights: Tensor) -> Tensor:
    """The row of least norm among all that differ by scales: each ReLU neuron's weights in and out are equally long.

    Other activations have no scales, and their rows come back as they are. A neuron without weights on one side is left
    alone.

    Args:
        weights: (N, P).
    """
    if ACTIVATIONS[config.activation].symmetry != "scale":
        return weights.clone()
    rows = weights
    for _ in range(SWEEPS):
        largest = 0.0
        for i in range(len(config.hidden)):
            layers = layout.split(config, rows)
            before = torch.cat([layers[i][0], layers[i][1][..., None]], 2).norm(dim=2)  # (N, width)
            after = layers[i + 1][0].norm(dim=1)
            factor = torch.where((before > 0) & (after > 0), (after / before).sqrt(), 1.0)
            factors = [factor if k == i else torch.ones(width) for k, width in enumerate(config.hidden)]
            rows = rescale(config, rows, factors)
            largest = max(largest, float((factor - 1).abs().max()) if len(factor) else 0.0)
        if largest < 1e-4:
            break
    return rows


def match(config: FieldConfig, weights: Tensor, reference: Tensor) -> Tensor:
    """Reorder each field's hidden neurons (and flip sine's signs) to lie close to a reference row.

    Layer by layer the best assignment given the other layers, until nothing changes: from the row as it is, and from the
    neurons matched by their inputs alone, first layer first; the closer end is taken. So no row moves away from the
    reference in L2, and a scrambled copy of the reference is found exactly.

    Args:
        weights: (N, P).
        reference: (P,).
    Returns:
        (N, P).
    """
    layout.check_weights(config, reference[None])
    goal = layout.split(config, reference[None])
    by_input = weights
    for i in range(len(config.hidden)):
        by_input = _match_layer(config, by_input, goal, i, outputs=False)[0]
    ends = [_settle(config, start, goal) for start in (weights, by_input)]
    distances = [(end - reference).norm(dim=1) for end in ends]
    return torch.where((distances[1] < distances[0])[:, None], ends[1], ends[0])


def _settle(config: FieldConfig, weights: Tensor, goal: list) -> Tensor:
    """Sweep over the layers until no neuron moves."""
    rows, moving = weights.clone(), torch.arange(len(weights))
    for _ in range(SWEEPS):
        changed = torch.zeros(len(moving), dtype=torch.bool)
        for i in range(len(config.hidden)):
            new, moved = _match_layer(config, rows[moving], goal, i)
            rows[moving] = new
            changed |= moved
        moving = moving[changed]
        if not len(moving):
            break
    return rows


def _match_layer(
    config: FieldConfig, rows: Tensor, goal: list, i: int, *, outputs: bool = True
) -> tuple[Tensor, Tensor]:
    """Rows (n, P) with hidden layer i assigned anew, and which of them changed; `outputs`: by what leaves it, too."""
    from scipy.optimize import linear_sum_assignment  # takes a while to import

    layers = layout.split(config, rows)
    (weight, bias), after = layers[i], layers[i + 1][0]
    (goal_weight, goal_bias), goal_after = goal[i], goal[i + 1][0]
    gain = weight @ goal_weight.mT + bias[..., None] * goal_bias[:, None]  # (n, old, new)
    if outputs:
        gain = gain + after.mT @ goal_after
    score = gain.abs() if ACTIVATIONS[config.activation].symmetry == "sign" else gain
    orders = torch.empty(len(rows), gain.shape[1], dtype=torch.int64)
    for k, table in enumerate(score.double().mT.numpy()):
        orders[k] = torch.from_numpy(linear_sum_assignment(table, maximize=True)[1])
    moved = (orders != torch.arange(gain.shape[1])).any(1)
    new = layout.permute(config, rows, [orders if k == i else torch.arange(w) for k, w in enumerate(config.hidden)])
    if ACTIVATIONS[config.activation].symmetry == "sign":
        signs = torch.where(gain.gather(1, orders[:, None])[:, 0] < 0, -1.0, 1.0)  # (n, new)
        moved |= (signs < 0).any(1)
        new = rescale(config, new, [signs if k == i else torch.ones(w) for k, w in enumerate(config.hidden)])
    return new, moved


def sort_neurons(config: FieldConfig, weights: Tensor) -> Tensor:
    """Hidden neurons in an order that each row decides alone: the same row for every order they came in, bit for bit.

    Each layer ascends by its neurons' weights on the output along all paths: what leaves the last hidden layer, summed over
    the outputs; for an earlier one that, times the matrices in between. Equal ones (dead neurons have 0) ascend by what
    leaves them, by their bias, and by what enters them; those that agree in all of it keep their order. Of a sine neuron's
    two signs the one with a positive bias is taken first (without a bias: with a positive sum of what enters, or leaves).

    Scales count: sort after `balance`. And a bare sort is not continuous: a little noise can swap two neurons whose keys are
    near, and the row jumps although the function hardly moves.

    Args:
        weights: (N, P).
    Returns:
        (N, P).
    """
    rows = _positive(config, weights) if ACTIVATIONS[config.activation].symmetry == "sign" else weights.clone()
    paths = layout.split(config, rows)[-1][0].double()  # (N, out, width), summed over `out` one by one below
    share = torch.ones(len(rows), config.out_dim, dtype=torch.float64)
    for i in reversed(range(len(config.hidden))):
        key = torch.zeros(len(rows), config.hidden[i], dtype=torch.float64)
        for k in range(share.shape[1]):  # term by term: the sum of a neuron must not depend on its place
            key = key + share[:, k, None] * paths[:, k]
        order = _ascending(config, rows, key, i)
        rows = layout.permute(config, rows, [order if k == i else torch.arange(w) for k, w in enumerate(config.hidden)])
        share, paths = key.gather(1, order), layout.split(config, rows)[i][0].double()
    return rows


def _positive(config: FieldConfig, weights: Tensor) -> Tensor:
    """Rows of sine fields with no bias of a hidden neuron below 0."""
    rows, layers = weights, range(len(config.hidden))
    for i in (*layers, *reversed(layers)):  # forth, by what enters; and back, for those that hear nothing
        parts = layout.split(config, rows)
        (weight, bias), after = parts[i], parts[i + 1][0]
        enters, leaves = _any_order(weight), _any_order(after.mT)
        said = torch.where(bias != 0, bias.double(), torch.where(enters != 0, enters, leaves))
        signs = torch.where(said < 0, -1.0, 1.0)
        rows = rescale(config, rows, [signs if k == i else torch.ones(w) for k, w in enumerate(config.hidden)])
    return rows


def _any_order(numbers: Tensor) -> Tensor:
    """Sums over the last dimension, float64, that do not depend on the order of the numbers."""
    return numbers.double().sort(-1).values.cumsum(-1)[..., -1]


def _ascending(config: FieldConfig, rows: Tensor, key: Tensor, i: int) -> Tensor:
    """Order of hidden layer i's neurons, (N, width), by ascending keys (N, width); equal ones by `_ties`."""
    order = key.argsort(dim=1, stable=True)
    ranked = key.gather(1, order)
    tied = (ranked[:, 1:] == ranked[:, :-1]).any(1).nonzero().flatten()
    if len(tied):
        columns = torch.cat([key[tied, :, None], _ties(config, rows[tied], i)], 2).permute(2, 0, 1).numpy()
        order[tied] = torch.from_numpy(np.lexsort(columns[::-1], axis=1))  # lexsort's last column counts first
    return order


def _ties(config: FieldConfig, rows: Tensor, i: int) -> Tensor:
    """(n, width, K) what tells neurons of hidden layer i apart, when the layers after it are sorted and those before not."""
    layers = layout.split(config, rows)
    (weight, bias), after = layers[i], layers[i + 1][0]
    return torch.cat([after.mT, bias[..., None], weight if i == 0 else weight.sort(2).values], 2).double()


def canonical(config: FieldConfig, weights: Tensor, *, quiet: bool = True) -> Tensor:
    """Fields balanced and sorted (`sort_neurons`); the function of each is checked to be unchanged.

    They are also sorted before balancing, so that the rounding of `balance` does not depend on their original order.

    Args:
        weights: (N, P).
        quiet: no progress bar.
    Raises:
        RuntimeError: as `align`.
    """

    def change(rows: Tensor) -> Tensor:
        return sort_neurons(config, balance(config, sort_neurons(config, rows)))

    return _checked(config, weights, change, "sort", quiet)


def align(config: FieldConfig, weights: Tensor, reference: Tensor, *, quiet: bool = True) -> Tensor:
    """Fields balanced and matched to a reference row; the function of each is checked to be unchanged.

    Args:
        weights: (N, P).
        reference: (P,); it is balanced as well, so give `balance(config, reference[None])[0]` the same treatment where
            both are compared.
        quiet: no progress bar.
    Raises:
        RuntimeError: naming the first field whose values changed by more than float32's rounding.
    """
    reference = balance(config, reference[None])[0]
    return _checked(config, weights, lambda rows: match(config, balance(config, rows), reference), "align", quiet)


def _checked(
    config: FieldConfig, weights: Tensor, change: Callable[[Tensor], Tensor], name: str, quiet: bool
) -> Tensor:
    """Rows changed batch by batch, refused where values move."""
    parts = []
    for at in bar(range(0, len(weights), BATCH), desc=name, unit="batch", quiet=quiet, leave=False):
        rows = weights[at : at + BATCH]
        parts.append(change(rows))
        moved = deviation(config, rows, parts[-1])
        if len(moved) and not float(moved.max()) <= TOLERANCE:
            worst = int(moved.argmax())
            raise RuntimeError(
                f"field {at + worst} computes different values after alignment (a value moved by {float(moved[worst]):.1e}, "
                f"at most {TOLERANCE:g} is rounding). Leave it out."
            )
    return torch.cat(parts) if parts else weights.clone()


def deviation(config: FieldConfig, a: Tensor, b: Tensor) -> Tensor:
    """Largest difference of the values of two batches of fields at 256 random points in [-1, 1]^d, (N,)."""
    coords = random_points(config, 256)
    return (values(config, a, coords) - values(config, b, coords)).abs().flatten(1).amax(1)
