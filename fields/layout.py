"""The one place that knows the order of a row.

A row is, layer by layer, the weight matrix (out, in) row by row, then the bias (out), as in a PyTorch state dict.
Functions take the `widths` (E, hidden ..., out) of a field or its config.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fields.model import FieldConfig


def shapes(widths: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a row's parts, in order: layers.0.weight (out, in), layers.0.bias (out,), ..."""
    parts = []
    for i, (fan_in, fan_out) in enumerate(zip(widths, widths[1:], strict=False)):
        parts += [(f"layers.{i}.weight", (fan_out, fan_in)), (f"layers.{i}.bias", (fan_out,))]
    return parts


def size(widths: tuple[int, ...]) -> int:
    """Weights of one field, P."""
    return sum(o * (i + 1) for i, o in zip(widths, widths[1:], strict=False))


def check_weights(config: "FieldConfig", weights: Tensor) -> None:
    """Refuse rows that are not of this layout.

    Raises:
        ValueError: naming the shape expected and the shape seen.
    """
    if not isinstance(weights, Tensor):
        raise ValueError(
            f"weights must be a tensor of shape (N, {config.size}), got {type(weights).__name__}. Of Rows give their "
            "`weights`, of a NumPy array torch.from_numpy(array)."
        )
    if weights.ndim != 2 or weights.shape[1] != config.size:
        raise ValueError(
            f"weights must have shape (N, {config.size}), got {tuple(weights.shape)}. The field is {config}."
        )


def split(config: "FieldConfig", weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Views of a batch of rows as matrices: (N, P) -> [(weight (N, out, in), bias (N, out)), ...]."""
    check_weights(config, weights)
    layers, at = [], 0
    for fan_in, fan_out in zip(config.widths, config.widths[1:], strict=False):
        matrix = weights[:, at : at + fan_out * fan_in].unflatten(1, (fan_out, fan_in))
        at += fan_out * fan_in
        layers.append((matrix, weights[:, at : at + fan_out]))
        at += fan_out
    return layers


def join(layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The inverse of `split`: [(weight (N, out, in), bias (N, out)), ...] -> (N, P)."""
    return torch.cat([part.flatten(1) for layer in layers for part in layer], dim=1)


def slots(config: "FieldConfig") -> Tensor:
    """Each weight's place: (P, 3) int64 of layer, neuron (of the layer's output), input.

    A bias has the input `bias_slot(config)`, one number for all layers, past every real input.
    """
    rows = []
    for layer, (fan_in, fan_out) in enumerate(zip(config.widths, config.widths[1:], strict=False)):
        rows += [(layer, o, i) for o in range(fan_out) for i in range(fan_in)]
        rows += [(layer, o, bias_slot(config)) for o in range(fan_out)]
    return torch.tensor(rows, dtype=torch.int64)


def bias_slot(config: "FieldConfig") -> int:
    """The `input` that marks a bias in `slots`."""
    return max(config.widths[:-1])


def permute(config: "FieldConfig", weights: Tensor, orders: list[Tensor]) -> Tensor:
    """Reorder the hidden neurons; the function stays the same.

    Args:
        weights: (N, P).
        orders: one index tensor per hidden layer, (width,) or (N, width): new neuron j is old neuron order[j].
    Returns:
        (N, P).
    """
    layers = split(config, weights)
    if len(orders) != len(config.hidden):
        raise ValueError(f"expected one order per hidden layer ({len(config.hidden)}), got {len(orders)}.")
    for i, order in enumerate(orders):
        order = order.expand(len(weights), -1)
        width = config.hidden[i]
        if order.shape[1] != width or not torch.equal(order.sort(1).values, torch.arange(width).expand_as(order)):
            raise ValueError(f"order {i} is not a permutation of 0 .. {width - 1}.")
        (weight, bias), (after, after_bias) = layers[i], layers[i + 1]
        layers[i] = (weight.gather(1, order[..., None].expand_as(weight)), bias.gather(1, order))
        layers[i + 1] = (after.gather(2, order[:, None].expand_as(after)), after_bias)
    return join(layers)


def to_state_dict(config: "FieldConfig", row: Tensor) -> dict[str, Tensor]:
    """A row (P,) as a state dict of layers.{i}.weight (out, in) and layers.{i}.bias (out,)."""
    matrices = [part[0].clone() for layer in split(config, row[None]) for part in layer]
    return {name: matrix for (name, _), matrix in zip(shapes(config.widths), matrices, strict=True)}


def from_state_dict(config: "FieldConfig", state: dict[str, Tensor]) -> Tensor:
    """The row (P,) of a state dict.

    Raises:
        ValueError: naming the first key that is missing, left over or of another shape.
    """
    parts = []
    expected = shapes(config.widths)
    extra = sorted(set(state) - {name for name, _ in expected})
    if extra:
        raise ValueError(f"unexpected keys {extra[:5]} in a state dict of the field {config}.")
    for name, shape in expected:
        if name not in state:
            raise ValueError(f"key {name} is missing from the state dict; the field is {config}.")
        if tuple(state[name].shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(state[name].shape)}; the field is {config}.")
        parts.append(state[name].detach().to(torch.float32).flatten())
    return torch.cat(parts)
