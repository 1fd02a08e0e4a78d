"""What a kind of signals knows of its fields: how well they fit, how they are drawn, at which points they are compared.

A kind answers from the architecture and from what a dataset says of its signals (`Signals.describe()`), so that sheets,
cards, reports and the Hub's viewer need no signal, and ask for no number of coordinates. This file is also the kind of all
that has no other: points of any dimension with values of any range, measured and never drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fields.metrics.pairs import psnr
from fields.model import FieldConfig, random_points, values


@dataclass(frozen=True)
class Measure:
    """What `quality` is, in words."""

    name: str
    """For tables: PSNR, IoU."""
    unit: str = ""
    """Behind the number; empty for shares."""
    higher: bool = True
    """Whether more is better."""
    digits: int = 2
    """Decimals shown."""
    poor: float | None = None
    """Below this a field hardly shows its signal; None = no such bar."""

    @property
    def title(self) -> str:
        """`PSNR (dB)`, `IoU`."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def text(self, value: float, digits: int | None = None) -> str:
        """A number with its unit."""
        return f"{value:.{self.digits if digits is None else digits}f}{' ' * bool(self.unit)}{self.unit}"

    def order(self, quality: Tensor) -> Tensor:
        """(N,) numbers that are larger for better fields; unknown ones are the smallest."""
        return (quality if self.higher else -quality).nan_to_num(nan=-torch.inf)

    def worst(self, quality: Tensor) -> float:
        """The worst of (N,) known qualities."""
        return float(quality.min() if self.higher else quality.max())

    def best(self, quality: Tensor) -> int:
        """Position of the best of (N,) qualities."""
        return int(self.order(quality).argmax())

    def reached(self, quality: Tensor, target: float) -> Tensor:
        """(N,) bool; False for what is not a number."""
        return quality >= target if self.higher else quality <= target

    def to_dict(self) -> dict:
        """For field.json."""
        return {"name": self.name, "unit": self.unit, "higher_is_better": self.higher}


@dataclass(frozen=True)
class Kind:
    """Points of any dimension, and the base class of all kinds."""

    signals: dict
    """What a dataset says of its signals; may be empty."""

    name = "points"
    measure = Measure("PSNR", "dB")
    noun = "signal"
    axes: ClassVar[tuple[str, ...]] = ("points",)
    """What the numbers of an extent are called."""
    failure: ClassVar[str] = ""
    """What is said of a field that `failed` names."""

    @staticmethod
    def suits(config: FieldConfig) -> bool:
        """Whether fields of this architecture can be of this kind, for datasets that do not name one."""
        return True

    def quality(self, config: FieldConfig, values: Tensor, targets: Tensor) -> Tensor:
        """How close fields are to their signals.

        Here: PSNR whose peak is each signal's own range of values (1 for values that fill [0, 1]).

        Args:
            values: (N, M, C) of the fields.
            targets: (N, M, C) of the signals at the same points.
        Returns:
            (N,), NaN for a field that is not finite.
        """
        flat = targets.flatten(1)
        low, high = flat.amin(1)[:, None, None], flat.amax(1)[:, None, None]
        span = torch.where(high > low, high - low, torch.ones_like(high))
        return psnr((values - low) / span, (targets - low) / span)

    def failed(self, quality: Tensor) -> Tensor:
        """(N,) bool: which finite qualities say that a field shows nothing of its signal, so that it is fitted again.

        Here none: a poor field of points or of a picture still says something.
        """
        return torch.zeros_like(quality, dtype=torch.bool)

    def points(self, config: FieldConfig, extent: Sequence[int]) -> Tensor:
        """Where fields of this extent are compared with one another, (M, d); random points of [-1, 1]^d here.

        Raises:
            ValueError: where `known` says no.
        """
        return random_points(config, extent[0] if extent and extent[0] > 0 else 1024)

    def regions(self, config: FieldConfig) -> tuple[int, ...]:
        """Into how many parts each coordinate is cut by vocabularies of regions, where nobody says; () = no default."""
        return (16,) if config.in_dim == 1 else ()

    def compared(self, config: FieldConfig, weights: Tensor, extent: Sequence[int]) -> Tensor:
        """What fields of one extent are compared by, in evaluations: here their values at `points`.

        Args:
            weights: (N, P).
            extent: of their signals.
        Returns:
            (N, ...) float32; not finite where a field is not.
        """
        return values(config, weights, self.points(config, extent))

    def extent_of(self, compared: Tensor) -> tuple[int, ...]:
        """The extent that `compared` was asked for, from what it returned."""
        return tuple(compared.shape[1:2])

    def known(self, extent: Sequence[int]) -> bool:
        """Whether this is the size of a signal: 0 says that it was not recorded."""
        return len(extent) == len(self.axes) and min(extent) > 0

    def drawable(self, config: FieldConfig, extent: Sequence[int]) -> bool:
        """Whether `thumbnail` can draw fields of this architecture and extent."""
        return False

    def thumbnail(
        self, config: FieldConfig, weights: Tensor, extent: Sequence[int], *, most: int | None = None
    ) -> Tensor:
        """Pictures of fields, one size for all.

        Args:
            weights: (N, P).
            extent: of their signals.
            most: longest side in pixels; None = as the kind likes.
        Returns:
            (N, H, W, C) float32 in [0, 1], C = 1 or 3; NaN where a field's weights are not finite.
        Raises:
            ValueError: where `drawable` says no.
        """
        raise ValueError(f"fields {config} are of the kind {self.name}, which cannot be drawn.")
