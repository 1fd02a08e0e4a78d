"""A field evaluated and drawn in numpy alone: the text that cards show, made for one architecture."""

import inspect

import numpy as np

from fields.activations import ACTIVATIONS, OUTPUTS
from fields.model import FieldConfig


def numpy_source(config: FieldConfig, *, picture: bool = True) -> str:
    """`values_at`, for pictures `render` too, and the field's activation and output, as lines of Python that need numpy alone.

    Args:
        picture: with `render`, for fields of two coordinates.
    """
    activation, output = ACTIVATIONS[config.activation], OUTPUTS[config.output]
    w0 = f", w0={config.w0!r}" if activation.uses_w0 else ""
    placed = f", scale={config.output_scale!r}, shift={config.output_shift!r}" if output.usual else ""
    functions: list = [values_at, render] if picture else [values_at]
    parts = [
        "import numpy as np",
        f"def activate(z{w0}):\n    return {activation.numpy}",
        f"def to_values(y{placed}):\n    return {output.numpy}",
        *map(inspect.getsource, functions),
    ]
    return "\n\n\n".join(part.rstrip().replace(", activate, to_values)", ")") for part in parts)  # they stand above


def values_at(row, about, points, activate, to_values):
    """Values (M, channels) of a row of weights at points (M, d); `about` is what field.json holds."""
    field, row, points, at = about["field"], np.asarray(row, np.float32), np.asarray(points), 0
    parts = [points] if field["raw_input"] else []
    for k in range(field["octaves"]):
        angle = points * 2.0**k * (np.pi if field["use_pi"] else 1)
        parts += [np.sin(angle), np.cos(angle)]
    h, widths = np.concatenate(parts, 1), about["widths"]
    for i, (fan_in, fan_out) in enumerate(zip(widths, widths[1:], strict=False)):
        weight, at = row[at : at + fan_in * fan_out].reshape(fan_out, fan_in), at + fan_in * fan_out
        h, at = h @ weight.T + row[at : at + fan_out], at + fan_out
        h = activate(h) if i < len(widths) - 2 else h
    return to_values(h)


def render(row, about, height, width, activate, to_values):
    """A row of weights as a picture (height, width, channels) in [0, 1]; `about` is what field.json holds."""
    field = about["field"]

    def axis(n):  # where the n pixels of a side lie
        i = np.arange(n)
        if field["coords"] == "linspace":
            return 2 * i / (n - 1) - 1 if n > 1 else np.zeros(1)
        return (2 * i + 1) / n - 1 if field["coords"] == "centres" else i / n

    y, x = np.meshgrid(axis(height), axis(width), indexing="ij")
    coords = np.stack((x, y) if field["axes"] == "xy" else (y, x), -1).reshape(-1, 2)
    values = values_at(row, about, coords, activate, to_values)
    return np.clip(values, 0, 1).reshape(height, width, -1)
