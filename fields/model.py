"""What a field is, and the forward pass of many fields at once.

A field is a small MLP from coordinates to values. Its weights are one row of a (N, P) matrix; `fields.layout` alone
knows the order inside a row. Nothing here fits, stores or draws.
"""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import torch
from torch import Tensor

from fields import layout
from fields.activations import ACTIVATIONS, OUTPUTS

if TYPE_CHECKING:  # a checker cannot know what stands in the registries
    ActivationName = str
    OutputName = str
else:
    ActivationName = Literal[tuple(ACTIVATIONS)]
    OutputName = Literal[tuple(OUTPUTS)]


@dataclass(frozen=True)
class FieldConfig:
    """A coordinate MLP with an optional Fourier encoding (NeRF, arXiv:2003.08934; SIREN, arXiv:2006.09661)."""

    hidden: tuple[int, ...] = (16, 16)
    """Widths of the hidden layers."""
    octaves: int = 4
    """Octaves of the encoding: sin and cos of 2^k (pi) x for k = 0 .. octaves - 1; 0 = none."""
    in_dim: int = 2
    """Coordinates of a point: 2 for pictures, 3 for shapes."""
    out_dim: int = 1
    """Channels: 1 for gray, signed distance or occupancy, 3 for RGB."""
    raw_input: bool = True
    """Put the raw coordinate before the encoding."""
    use_pi: bool = True
    """Frequencies are 2^k pi (True) or 2^k (False)."""
    activation: ActivationName = "relu"
    """After every hidden layer; sine is sin(w0 (Wx + b))."""
    w0: float = 30.0
    """Frequency of the sine activation; unused by the others."""
    output: OutputName = "logit"
    """From the last layer's y to the value: sigmoid(y), y, tanh(y), or output_scale * y + output_shift."""
    output_scale: float | tuple[float, ...] = 1.0
    """Scale of `offset` (the standard deviation, where targets were standardised); one number, or one per channel."""
    output_shift: float | tuple[float, ...] = 0.5
    """Shift of `offset` (DWSNets adds 0.5); one number, or one per channel."""
    coords: Literal["centres", "linspace", "corner"] = "centres"
    """Pixel i of W lies at (2i+1)/W - 1 (centres), at -1 + 2i/(W-1) (linspace), or at i/W in [0, 1) (corner)."""
    axes: Literal["xy", "yx"] = "xy"
    """Which coordinate stands first: the column's (xy) or the row's (yx)."""

    def __post_init__(self):
        for name, value in asdict(self).items():  # JSON brings anything
            if not _fits(value, self.__annotations__[name]):
                raise ValueError(f"--field.{name.replace('_', '-')} cannot be {value!r}.")
        object.__setattr__(self, "hidden", tuple(self.hidden))  # JSON brings lists
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"--field.hidden needs at least one width, each at least 1, got {self.hidden}.")
        if self.octaves < 0:
            raise ValueError(f"--field.octaves must be 0 or more, got {self.octaves}.")
        if self.octaves == 0 and not self.raw_input:
            raise ValueError("a field without raw input needs --field.octaves of at least 1: it would have no input.")
        if self.in_dim < 1 or self.out_dim < 1:
            raise ValueError(
                f"--field.in-dim and --field.out-dim must be at least 1, got {self.in_dim}, {self.out_dim}."
            )
        for name in ("output_scale", "output_shift"):
            object.__setattr__(self, name, self._channels(name))

    def _channels(self, name: str) -> float | tuple[float, ...]:
        """A number, or a tuple with one per channel (JSON brings lists)."""
        value = getattr(self, name)
        if not isinstance(value, (list, tuple)):
            return value
        if len(value) != self.out_dim:
            flag = f"--field.{name.replace('_', '-')}"
            raise ValueError(f"{flag} needs one number, or one for each of {self.out_dim} channels, got {len(value)}.")
        return float(value[0]) if self.out_dim == 1 else tuple(float(v) for v in value)

    @property
    def encoded_dim(self) -> int:
        """Inputs of the first layer, E: the encoding of a point."""
        return self.in_dim * (int(self.raw_input) + 2 * self.octaves)

    @property
    def widths(self) -> tuple[int, ...]:
        """(E, hidden ..., out_dim)."""
        return (self.encoded_dim, *self.hidden, self.out_dim)

    @property
    def size(self) -> int:
        """Weights of one field, P."""
        return layout.size(self.widths)

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def expect(self, what: str, coordinates: int, channels: int | None = None) -> None:
        """Refuse to be used for what needs fields of other coordinates or channels.

        Args:
            what: what needs them, such as `a picture`.
            coordinates: of a point.
            channels: values at a point; None = any number.
        """
        if self.in_dim != coordinates or channels not in (None, self.out_dim):
            to = "" if channels is None else f" to {channels} value{'s' * (channels > 1)}"
            raise ValueError(f"{what} needs a field from {coordinates} coordinates{to}, but this one is {self}.")

    def one_each(self, numbers: tuple[int, ...], flag: str) -> tuple[int, ...]:
        """These numbers, if there is one per coordinate; `flag` is where they come from."""
        if len(numbers) != self.in_dim:
            raise ValueError(
                f"{flag} needs {self.in_dim} numbers, one per coordinate of the field, got {' '.join(map(str, numbers))}."
            )
        return numbers

    def against(self, other: "FieldConfig") -> str:
        """The keys in which another config differs, with both values; the short description does not show conventions."""
        ours, theirs = self.to_dict(), other.to_dict()
        return ", ".join(f"{k}: {ours[k]} against {theirs[k]}" for k in ours if ours[k] != theirs[k])

    @classmethod
    def from_dict(cls, values: dict) -> "FieldConfig":
        """The config `to_dict` wrote; unknown keys are refused by name."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown keys in a field's config: {unknown}. Was it written by a newer version?")
        return cls(**values)

    def __str__(self) -> str:
        return f"{self.in_dim} -> {' -> '.join(map(str, self.widths))}, {self.activation}, {self.size} weights"


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; lists pass as tuples, whole numbers as float, and floats are finite."""
    if isinstance(value, (list, tuple)):
        inner = next((get_args(k)[0] for k in (kind, *get_args(kind)) if get_origin(k) is tuple), None)
        return inner is not None and all(_fits(v, inner) for v in value)
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in (int, bool):
        return type(value) is kind
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return number and float in (kind, *get_args(kind))


FIELDS: dict[str, FieldConfig] = {
    "digits": FieldConfig(hidden=(8, 8), octaves=2),
    "default": FieldConfig(),
    "shape-small": FieldConfig(hidden=(32, 32, 32, 32), octaves=2, in_dim=3),
    "shape-medium": FieldConfig(hidden=(64, 64, 64), octaves=4, in_dim=3, use_pi=False),
    "shape-large": FieldConfig(hidden=(128, 128, 128), octaves=4, in_dim=3),
}
"""Named architectures. `digits` is the default for 8 x 8 pictures, `default` for all others; `shape-small` (3,713 weights)
is the default for solids, `shape-medium` (10,177, with low frequencies: higher ones leave pieces in empty space) for meshes,
`shape-large` (36,737) has the size of HyperDiffusion's (arXiv:2303.17015)."""


def fourier_encoding(config: FieldConfig, coords: Tensor) -> Tensor:
    """Fourier encoding of coordinates.

    Args:
        coords: (..., M, in_dim).
    Returns:
        (..., M, E): the raw coordinate if asked for, then per octave sin of every coordinate, cos of every coordinate.
    """
    if coords.shape[-1] != config.in_dim:
        raise ValueError(f"coords must have {config.in_dim} columns, got shape {tuple(coords.shape)}.")
    parts = [coords] if config.raw_input else []
    for k in range(config.octaves):
        angle = coords * (2.0**k * (math.pi if config.use_pi else 1.0))
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=-1)


def input_names(config: FieldConfig) -> dict[str, list[str]]:
    """What `fourier_encoding` returns, in words and in its order: `raw` and the frequency of each octave -> its inputs."""
    axes = [f"x{i + 1}" for i in range(config.in_dim)] if config.in_dim > 3 else list("xyz"[: config.in_dim])
    axes = axes[::-1] if config.axes == "yx" else axes
    names = {"raw": axes} if config.raw_input else {}
    for k in range(config.octaves):
        factor = ("" if k == 0 and config.use_pi else str(2**k)) + "π" * config.use_pi
        names[factor] = [f"{wave} {factor}{axis}" for wave in ("sin", "cos") for axis in axes]
    return names


def random_points(
    config: FieldConfig,
    count: int | tuple[int, ...],
    seed: int | torch.Generator | None = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Points spread evenly over [-1, 1]^d, (count, d).

    Args:
        count: how many; several numbers give more axes.
        seed: a number, a generator, or None for PyTorch's own of the device.
        device: where they are drawn.
    """
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    shape = (count,) if isinstance(count, int) else count
    return torch.rand(*shape, config.in_dim, generator=generator, device=device) * 2 - 1


def spaced_points(config: FieldConfig, count: int) -> Tensor:
    """About `count` points at equal distances in [-1, 1]^d, (M, d)."""
    side = max(1, round(count ** (1 / config.in_dim)))
    axis = (2 * torch.arange(side) + 1) / side - 1
    return torch.cartesian_prod(*[axis] * config.in_dim).view(-1, config.in_dim)


def activate(config: FieldConfig, h: Tensor) -> Tensor:
    """The hidden activation."""
    return ACTIVATIONS[config.activation].function(h, config.w0)


def to_values(config: FieldConfig, y: Tensor) -> Tensor:
    """Values from the last layer's outputs, (..., C)."""
    scale, shift = per_channel(config.output_scale, y), per_channel(config.output_shift, y)
    return OUTPUTS[config.output].function(y, scale, shift)


def per_channel(value: float | tuple[float, ...], like: Tensor) -> float | Tensor:
    """A number as it is, one per channel as a tensor (C,) that multiplies (..., C)."""
    return like.new_tensor(value) if isinstance(value, tuple) else value


def forward(config: FieldConfig, weights: Tensor, coords: Tensor) -> Tensor:
    """Outputs of the last layer (logits for `output="logit"`), differentiable in weights and coords.

    Args:
        weights: (N, P).
        coords: (M, in_dim), shared by all fields; or (N, M, in_dim), separate for each field.
    Returns:
        (N, M, out_dim).
    """
    layers = layout.split(config, weights)
    h = fourier_encoding(config, coords).mT.expand(
        len(weights), -1, -1
    )  # (N, E, M): points last, so that products run along them
    for i, (weight, bias) in enumerate(layers):
        h = torch.baddbmm(bias[..., None], weight, h)  # (N, out, M)
        if i < len(layers) - 1:
            h = activate(config, h)
    return h.transpose(1, 2)


CACHE, MEMORY = 4 << 20, 128 << 20
"""Bytes of hidden activations computed at once, on a CPU and elsewhere. In a CPU's cache four times as many points a second."""


def values(config: FieldConfig, weights: Tensor, coords: Tensor, *, memory: int | None = None) -> Tensor:
    """Values of the fields at the coordinates, in chunks of fields and points.

    Args:
        weights: (N, P).
        coords: (M, in_dim), shared by all fields; or (N, M, in_dim), separate for each field.
        memory: bytes that the hidden activations may take, None = CACHE or MEMORY; ignored if gradients are needed, because
            autograd keeps them.
    Returns:
        (N, M, out_dim): in [0, 1] for `logit`.
    """
    if torch.is_grad_enabled() and (weights.requires_grad or coords.requires_grad):
        return to_values(config, forward(config, weights, coords))
    memory = memory or (CACHE if weights.device.type == "cpu" else MEMORY)
    budget = max(1, memory // (4 * 3 * max(config.widths)))  # points x fields at once: input, product, activation
    total = coords.shape[-2]
    points = min(total, budget)
    rows = max(1, budget // max(points, 1))
    out = weights.new_empty(len(weights), total, config.out_dim)
    for n in range(0, len(weights), rows):
        own = coords if coords.ndim == 2 else coords[n : n + rows]
        for m in range(0, total, max(points, 1)):
            block = forward(config, weights[n : n + rows], own[..., m : m + points, :])
            out[n : n + rows, m : m + points] = to_values(config, block)
    return out
