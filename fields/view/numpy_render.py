"""A field as a picture, in numpy alone. Cards show these very lines; nothing in this project calls them."""

import numpy as np


def render(row, card, height, width):
    """A row of weights as a picture (height, width, channels) in [0, 1]; `card` is what field.json holds."""
    field, row, at = card["field"], np.asarray(row, np.float32), 0

    def axis(n):  # where the n pixels of a side lie
        i = np.arange(n)
        if field["coords"] == "linspace":
            return 2 * i / (n - 1) - 1 if n > 1 else np.zeros(1)
        return (2 * i + 1) / n - 1 if field["coords"] == "centres" else i / n

    y, x = np.meshgrid(axis(height), axis(width), indexing="ij")
    coords = np.stack((x, y) if field["axes"] == "xy" else (y, x), -1).reshape(-1, 2)
    parts = [coords] if field["raw_input"] else []
    for k in range(field["octaves"]):
        angle = coords * 2.0**k * (np.pi if field["use_pi"] else 1)
        parts += [np.sin(angle), np.cos(angle)]
    h, widths = np.concatenate(parts, 1), card["widths"]
    act = {"relu": lambda z: np.maximum(z, 0), "sine": lambda z: np.sin(field["w0"] * z)}
    act["elu"] = lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0)))
    for i, (fan_in, fan_out) in enumerate(zip(widths, widths[1:], strict=False)):
        weight, at = row[at : at + fan_in * fan_out].reshape(fan_out, fan_in), at + fan_in * fan_out
        h, at = h @ weight.T + row[at : at + fan_out], at + fan_out
        h = act[field["activation"]](h) if i < len(widths) - 2 else h
    out = {"logit": lambda z: 1 / (1 + np.exp(-z)), "tanh": np.tanh, "linear": lambda z: z}
    out["offset"] = lambda z: field["output_scale"] * z + field["output_shift"]
    return np.clip(out[field["output"]](h), 0, 1).reshape(height, width, -1)
