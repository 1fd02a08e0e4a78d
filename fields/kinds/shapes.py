"""Shapes: IoU of inside and outside; a thumbnail is a shaded view of the surface."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fields.activations import OUTPUTS
from fields.kinds.base import Kind, Measure
from fields.metrics.pairs import iou
from fields.model import FieldConfig, random_points
from fields.view.mesh import field_volume
from fields.view.shading import view

POINTS = 4096
"""Points at which fields are compared with one another."""
GRID = 48
"""Cells along an edge of the volume that a thumbnail shows."""


@dataclass(frozen=True)
class ShapeKind(Kind):
    """Fields from a point in space to signed distance (inside below 0) or to the logit of being inside."""

    name = "shapes"
    measure = Measure("IoU", digits=3, poor=0.8)
    noun = "shape"
    axes = ("points",)
    failure = "ended without any inside of its shape"

    def __post_init__(self) -> None:
        where = self.signals.get("measured")
        if isinstance(where, str):  # otherwise at the points that the fits have seen, as before there were others
            object.__setattr__(self, "measure", replace(self.measure, name=f"{self.measure.name} ({where[:40]})"))

    @staticmethod
    def suits(config: FieldConfig) -> bool:
        """Three coordinates."""
        return config.in_dim == 3

    def inside(self, config: FieldConfig) -> str:
        """Which side of the surface is the object, by the last layer's output: `below 0` or `above 0`."""
        return self.signals.get("inside") or ("above 0" if OUTPUTS[config.output].is_logit else "below 0")

    def below(self, config: FieldConfig) -> bool:
        """Whether the inside of the shape is where the last layer is below 0."""
        return self.inside(config) == "below 0"

    def quality(self, config: FieldConfig, values: Tensor, targets: Tensor) -> Tensor:
        """(N,) intersection over union of the insides, in [0, 1]; NaN for a field that is not finite."""
        surface = 0.5 if OUTPUTS[config.output].is_logit else 0.0
        found = [v < surface if self.below(config) else v > surface for v in (values, targets)]
        finite = values.flatten(1).isfinite().all(1)
        return torch.where(finite, iou(*found), torch.nan)

    def failed(self, quality: Tensor) -> Tensor:
        """(N,) bool: IoU 0. The field is empty, or its inside lies nowhere in that of its shape.

        Where the start is far from the shape and its tanh or sigmoid is saturated, gradients vanish and fits end so.
        """
        return quality == 0

    def points(self, config: FieldConfig, extent: Sequence[int]) -> Tensor:
        """(4096, 3) random points of the cube."""
        return random_points(config, POINTS)

    def regions(self, config: FieldConfig) -> tuple[int, ...]:
        """4 parts along each edge of the cube."""
        return (4, 4, 4)

    def compared(self, config: FieldConfig, weights: Tensor, extent: Sequence[int]) -> Tensor:
        """Points on surfaces take minutes, and are a command of their own."""
        raise ValueError(
            "shapes are compared by points on their surfaces: python scripts/evaluate.py --samples DIR --fields DIR "
            "--out DIR."
        )

    def known(self, extent: Sequence[int]) -> bool:
        """A shape is drawn and compared whatever was sampled of it."""
        return True

    def drawable(self, config: FieldConfig, extent: Sequence[int]) -> bool:
        """Fields of one value."""
        return config.out_dim == 1

    def thumbnail(
        self, config: FieldConfig, weights: Tensor, extent: Sequence[int], *, most: int | None = None
    ) -> Tensor:
        """(N, S, S, 3) shaded views from a corner, S = 96 or `most`; empty fields are white."""
        side = 96 if most is None else min(96, most)
        pictures = torch.empty(len(weights), side, side, 3)
        for i, row in enumerate(weights):
            if bool(row.isfinite().all()):
                pictures[i] = view(field_volume(config, row, GRID, below=self.below(config)), side, smooth=1)
            else:
                pictures[i] = torch.nan
        return pictures
