"""From what a foreign file holds to rows: the one engine behind all descriptions of `fields.formats.weight_formats`."""

import re
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fields import layout
from fields.formats.readers import Raw
from fields.formats.weight_formats import WeightFormat
from fields.model import FieldConfig
from fields.runtime.text import unique
from fields.storage.columns import PLAUSIBLE


@dataclass
class Translated:
    """Fields of one file, one architecture."""

    config: FieldConfig
    weights: Tensor
    """(N, P)."""
    columns: dict[str, list]
    """N entries for each key of `fields.formats.sidecars.COLUMNS`."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(row, reason) of fields that are not finite or not plausible."""


def translate(source: WeightFormat, raw: Raw, given: dict[str, Any]) -> tuple[FieldConfig, Tensor]:
    """Architecture and rows of a file.

    Args:
        given: `FieldConfig` values that stand above the source's own.
    Returns:
        The architecture, and rows (N, P).
    Raises:
        ValueError: naming the key or the shape that does not fit.
    """
    layers = matrices(source, raw.tensors)
    config = architecture(source, raw, layers, given)
    return config, layout.join(layers)


def matrices(source: WeightFormat, tensors: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Layers in order as (weight (N, out, in), bias (N, out))."""
    found: dict[str, dict[tuple[float, ...], tuple[str, Tensor]]] = {"weight": {}, "bias": {}}
    for key, tensor in tensors.items():
        for pattern, reason in source.refused:
            if re.match(pattern, key):
                raise ValueError(f"key {key} belongs to {reason}")
        if re.fullmatch(source.ignored, key):
            continue
        kind, layer = _layer(source, key)
        if layer in found[kind]:
            raise ValueError(f"keys {found[kind][layer][0]} and {key} are both the {kind} of one layer")
        found[kind][layer] = (key, tensor)
    if not found["weight"]:
        raise ValueError(f"no key like {source.example} in it; it holds {', '.join(list(tensors)[:4]) or 'no tensors'}")
    if not found["bias"]:  # a network without any computes what one with zeros does
        side = -1 if source.kernel == "in, out" else -2
        zeros = {
            k: (f"the bias of {name}", w.new_zeros(*w.shape[:-2], w.shape[side]))
            for k, (name, w) in found["weight"].items()
            if w.ndim > 1
        }
        found["bias"] = zeros
    layers = []
    for layer in sorted(found["weight"] | found["bias"]):
        for kind, other in (("weight", "bias"), ("bias", "weight")):
            if layer not in found[kind]:
                raise ValueError(f"{found[other][layer][0]} has no matching {kind}")
        layers.append(_pair(source, *found["weight"][layer], *found["bias"][layer]))
    for before, after in zip(layers, layers[1:], strict=False):
        if before[0].shape[1] != after[0].shape[2] or len(before[0]) != len(after[0]):
            shapes = [tuple(w.shape[1:]) for w, _ in layers]
            raise ValueError(f"layers do not fit together: weights (out, in) are {shapes}")
    return layers


def _layer(source: WeightFormat, key: str) -> tuple[str, tuple[float, ...]]:
    """weight or bias, and the layer's place: its number, or all numbers of a key of lists inside lists, in their order."""
    for kind, called in zip(("weight", "bias"), source.names, strict=True):
        match = re.fullmatch(source.key.replace("{}", called), key)
        if match:
            numbers = re.findall(r"\d+", key) if source.nested else [g for g in match.groups() if g is not None]
            return kind, tuple(map(int, numbers)) or (source.unnumbered,)
    raise ValueError(f"unexpected key {key}; weights are called like {source.example}")


def _pair(source: WeightFormat, name: str, weight: Tensor, bias_name: str, bias: Tensor) -> tuple[Tensor, Tensor]:
    if weight.ndim == 2 and bias.ndim == 1:
        weight, bias = weight[None], bias[None]
    if weight.ndim != 3 or bias.ndim != 2:
        raise ValueError(f"{name} must have 2 axes and {bias_name} 1 (or one more for stacked fields), got shapes "
                         f"{tuple(weight.shape)} and {tuple(bias.shape)}")  # fmt: skip
    if source.kernel == "in, out":
        weight = weight.transpose(1, 2)
    if weight.shape[:2] != bias.shape:
        turned = weight.shape[2] == bias.shape[1] and len(weight) == len(bias)
        raise ValueError(
            f"{bias_name} must have shape {tuple(weight.shape[1:2])} to fit {name}, got {tuple(bias.shape[1:])}"
            f"{f': the matrices look transposed; save them as ({source.kernel})' if turned else ''}"
        )
    return weight, bias


def architecture(source: WeightFormat, raw: Raw, layers: list, given: dict[str, Any]) -> FieldConfig:
    """What the source states, the file says and the user gives, with the widths of the tensors."""
    widths = [layers[0][0].shape[2], *(w.shape[1] for w, _ in layers)]
    if len(widths) < 3:
        raise ValueError("it has only one layer; a field needs a hidden layer")
    if not given:
        for key, allowed in source.accepted.items():
            if key in raw.meta and raw.meta[key] not in allowed:
                raise ValueError(f"its {key} is {raw.meta[key]!r}, expected {' or '.join(map(repr, allowed))}")
    values = dict(source.states)
    for pattern, stated in source.by_key:
        if any(re.match(pattern, key) for key in raw.tensors):
            values |= stated
    values |= source.by_channels.get(widths[-1], {})
    values |= {ours: raw.meta[theirs] for ours, theirs in source.by_meta.items() if theirs in raw.meta}
    values |= {"hidden": tuple(widths[1:-1]), "out_dim": widths[-1], **given}
    config = FieldConfig.from_dict(values)
    if config.widths != tuple(widths):
        raise ValueError(
            f"expected widths {config.widths} ({config.in_dim} coordinates, {config.octaves} octaves, "
            f"{'with' if config.raw_input else 'no'} raw input), got {tuple(widths)}{_fitting(widths[0], config)}"
        )
    return config


def _fitting(numbers: int, config: FieldConfig) -> str:
    """Encodings that give so many numbers, as flags."""
    if config.encoded_dim == numbers:
        return ""
    found = [
        f"--field.in-dim {d} --field.octaves {k} --field.raw-input {raw}"
        for d in (2, 3)
        for k in range(17)
        for raw in (True, False)
        if d * (raw + 2 * k) == numbers
    ]
    return f"; it would fit {' or '.join(found[:3])}" if found else ""


def finite(config: FieldConfig, weights: Tensor, made: dict[str, list], relative: str) -> Translated:
    """Rows without those that are not finite or beyond what weights can be, which are named."""
    good = (weights.abs() <= PLAUSIBLE).all(1)  # False for what is not a number
    names = [relative if len(weights) == 1 else f"{relative} row {i}" for i in range(len(weights))]
    skipped = [
        (names[i], f"has weights that are not finite, or above {PLAUSIBLE:.0g}")
        for i in (~good).nonzero().flatten().tolist()
    ]
    kept = good.nonzero().flatten().tolist()
    return Translated(config, weights[good], {k: [v[i] for i in kept] for k, v in made.items()}, skipped)


def name_of(config: FieldConfig, suffix: str, taken: set[str]) -> str:
    """A folder's name for an architecture, made of letters, digits and dashes only."""
    hidden, runs = list(config.hidden), []
    while hidden:
        same = next((i for i, w in enumerate(hidden) if w != hidden[0]), len(hidden))
        runs.append(f"{hidden[0]}x{same}" if same > 1 else f"{hidden[0]}")
        hidden = hidden[same:]
    name = f"{config.in_dim}-{'-'.join(runs)}-{config.out_dim}-{config.activation}-{config.output}{suffix}"
    return unique(name, taken)


def differing(a: FieldConfig, b: FieldConfig) -> str:
    """What b has otherwise than a, as flags."""
    before, changed = a.to_dict(), []
    for key, value in b.to_dict().items():
        if value != before[key]:
            parts = [
                f"{v:g}" if isinstance(v, float) else str(v) for v in (value if isinstance(value, list) else [value])
            ]
            changed.append(f"--field.{key.replace('_', '-')} {' '.join(parts)}")
    return " ".join(changed)
