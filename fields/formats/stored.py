"""Weights as layers use them, from other ways of storing them: integers with a scale, PyTorch's packed layers, weight norm."""

from typing import Any

import torch
from torch import Tensor

PACKED = "_packed_params"
"""Where PyTorch's quantised layers keep weight and bias."""
NAMES = ("_scale", ".scale", "_scales", ".scales")
"""What follows a tensor's name in the name of its scale."""
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64)
NORMED = {
    ("weight_g", "weight_v"): "weight",
    ("parametrizations.weight.original0", "parametrizations.weight.original1"): "weight",
}
"""Names of length and direction -> that of the weight."""
ZEROS = {"scale": "zero_point", "scales": "zero_points"}


def unpacked(content: dict[Any, Any]) -> dict[Any, Any]:
    """A state dict with the weight and bias of quantised layers under the names that plain layers have."""
    found = dict(content)
    for key, value in content.items():
        layer, _, rest = str(key).partition(f".{PACKED}.")
        if (
            rest != PACKED
            or not isinstance(value, tuple)
            or not all(isinstance(v, (Tensor, type(None))) for v in value)
        ):
            continue
        for name in (key, f"{layer}.{PACKED}.dtype", f"{layer}.scale", f"{layer}.zero_point"):
            found.pop(name, None)  # scale and zero of the layer's output
        parts = zip(("weight", "bias"), value, strict=False)
        found |= {f"{layer}.{name}": part for name, part in parts if part is not None}
    return found


def dequantised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """All tensors, those of integers multiplied by the scale that stands beside them; scales and zero points are left out.

    A scale of `layers.0.weight` is called `layers.0.weight_scale`, `layers.0.weight.scale` or `layers.0.scale`, and holds one
    number, or one for each row. Its zero point, if it has one, is called `zero_point` in its place.
    Raises:
        ValueError: for integers without a scale, or with one that does not fit; the tensor is named, and what to do.
    """
    made, used = {}, set()
    for name, tensor in tensors.items():
        if tensor.layout == torch.strided and tensor.is_quantized:
            made[name] = tensor.dequantize()
        elif tensor.dtype in INTEGERS or (tensor.is_floating_point() and tensor.element_size() == 1):
            if (scale := _scale_of(name, tensors)) is None:
                continue  # a zero point, or integers, which are refused as weights
            end = next(end for end in NAMES if scale.endswith(end))
            zero = scale.removesuffix(end[1:]) + ZEROS[end[1:]]
            made[name] = _floats(name, tensor, tensors[scale], tensors.get(zero))
            used |= {scale, zero}
    return {name: made.get(name, tensor) for name, tensor in tensors.items() if name not in used}


def _scale_of(name: str, tensors: dict[str, Tensor]) -> str | None:
    """The name of a tensor's scale, where there is one."""
    layer = name.rpartition(".")[0]
    names = [name + end for end in NAMES] + [
        f"{layer}{end}" for end in NAMES if end[0] == "." and name.endswith(".weight")
    ]
    return next((n for n in names if n in tensors and n != name and tensors[n].is_floating_point()), None)


def _floats(name: str, tensor: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """(tensor - zero) * scale, by rows where there is a scale for each."""
    rows = tensor.shape[0] if tensor.ndim else 1
    for part in (scale, zero):
        if part is not None and part.numel() not in (1, rows):
            raise ValueError(
                f"the scale of {name} must hold 1 number or one for each of its {rows} rows, got shape {tuple(part.shape)}"
            )
    factor, shift = (
        torch.as_tensor(part).double().reshape(-1, *[1] * max(tensor.ndim - 1, 0))
        for part in (scale, 0 if zero is None else zero)
    )
    return ((tensor.double() - shift) * factor).float().reshape(tensor.shape)


def without_norm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """All tensors, the two parts of a weight normalised by rows (arXiv:1602.07868) multiplied: length times direction.

    They are called `layers.0.weight_g` and `layers.0.weight_v`, or `layers.0.parametrizations.weight.original0` and `original1`.
    Parts that do not fit each other are left as they are, and refused as unknown keys.
    """
    found = dict(tensors)
    for name, length in tensors.items():
        for ends, whole in NORMED.items():
            base, other = name.removesuffix(ends[0]), tensors.get(name.removesuffix(ends[0]) + ends[1])
            if not name.endswith(ends[0]) or other is None or length.numel() != len(other):
                continue
            del found[name], found[base + ends[1]]
            v = other.double()
            norms = v.flatten(1).norm(dim=1).reshape(-1, *[1] * (v.ndim - 1))
            found[base + whole] = (length.double().reshape(norms.shape) * v / norms).float()
    return found
