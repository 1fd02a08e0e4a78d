"""Whether foreign fields are read rightly: rendered against their signals, by the stated conventions and by others."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.activations import ACTIVATIONS, OUTPUTS
from fields.kinds.preview import spread
from fields.kinds.registry import KINDS, kind_of
from fields.model import FieldConfig, values
from fields.runtime.console import bar
from fields.signals.base import Signals
from fields.view.render import render, save_png, sheet

TRIED = 32
"""Fields that other conventions are tried on."""
FREQUENCIES = (1.0, 8.0, 9.0, 10.0, 20.0, 30.0)


def decibels(config: FieldConfig, weights: Tensor, signals: Signals, at: Tensor, *, quiet: bool = True) -> Tensor:
    """PSNR of each field against its signal.

    Args:
        weights: (N, P).
        at: (N,) positions of the signals; -1 where there is none.
    Returns:
        (N,) dB, NaN without a signal.
    """
    out = torch.full((len(weights),), math.nan)
    known = (at >= 0).nonzero().flatten()
    kind = kind_of(config, {"kind": signals.kind}) if KINDS[signals.kind].suits(config) else None
    if kind is None or config.out_dim != signals.channels:
        return out
    sizes = signals.extent[at[known]]
    with bar(total=len(known), desc="rendering", unit="field", quiet=quiet) as shown:
        for size in sizes.unique(dim=0):
            rows = known[(sizes == size).all(1)]
            for part in rows.split(1_000):
                points, wanted = signals.measured(config, at[part])
                out[part] = kind.quality(config, values(config, weights[part], points), wanted)
                shown.update(len(part))
    return out


def alternatives(config: FieldConfig) -> list[FieldConfig]:
    """The conventions that people mix up, in all combinations; the given one is among them."""
    found = [config]
    outputs = [
        {"output": name, **dict(zip(("output_scale", "output_shift"), placed, strict=False))}
        for name, output in OUTPUTS.items()
        for placed in output.usual or ((),)
    ]
    choices: list[list[dict[str, Any]]] = [
        [{"coords": c} for c in ("centres", "linspace", "corner")],
        [{"axes": a} for a in ("xy", "yx")],
        [{"use_pi": p} for p in (True, False)] if config.octaves else [{}],
        [{"w0": w} for w in dict.fromkeys((config.w0, *FREQUENCIES))]
        if ACTIVATIONS[config.activation].uses_w0
        else [{}],
        [{}, *outputs],
    ]
    for options in choices:
        found = [replace(c, **changed) for c in found for changed in options]
    return list(dict.fromkeys(found))


def best_convention(config: FieldConfig, weights: Tensor, signals: Signals, at: Tensor) -> tuple[FieldConfig, float]:
    """The convention under which the fields are nearest to their signals, and its mean PSNR in dB."""
    known = (at >= 0).nonzero().flatten()
    chosen = known[spread(len(known), TRIED)]
    scores = [
        float(decibels(other, weights[chosen], signals, at[chosen]).mean())
        for other in bar(alternatives(config), desc="other conventions", unit="way", leave=False)
    ]
    best = max(range(len(scores)), key=lambda i: (scores[i], -i))
    return alternatives(config)[best], scores[best]


def preview_pictures(
    path: Path, config: FieldConfig, weights: Tensor, size: tuple[int, int], captions: list[str], signals: Tensor | None
) -> None:
    """A sheet of fields of pictures; each beside its signal in an orange frame, where there is one.

    Args:
        weights: (N, P), few enough for a sheet.
        signals: (N, H, W, C).
    """
    scale = max(1, 224 // max(size)) if len(weights) <= 4 else None
    page = sheet(render(config, weights, *size), 8, scale=scale, neighbours=signals, captions=captions)
    save_png(path, page)
