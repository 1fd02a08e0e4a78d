"""Surfaces of shapes beside those of their fields and of what vocabularies make of them: numbers, and one sheet.

Distances are in units of half the cube's edge, neither cloud is moved. Points of the shape against other points of itself
say what the number of points lets them reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fields.fitting.engine import quality
from fields.kinds.shapes import ShapeKind
from fields.metrics.clouds import chamfer, f_score, on_surface
from fields.runtime.console import bar
from fields.signals.meshes import parts_of
from fields.signals.shapes import Shapes
from fields.storage.dataset import WeightDataset
from fields.view.mesh import field_volume, mesh_volume
from fields.view.shading import view

SIZE = 96
"""Cells along an edge of the grids that are meshed."""
FINE = 128
"""The same where a shape is known by its distances, for the points that the others are compared with."""
POINTS = 20_000
"""Points of a cloud."""
RADIUS = 0.02
"""Of the F-score: one hundredth of the cube's edge."""
SIDE = 144
"""Pixels along an edge of a view."""


@dataclass
class Side:
    """What is gathered of one column of the sheet: shapes, fields, or a vocabulary's round trip."""

    name: str
    iou: list[float]
    chamfer: list[float]
    f_score: list[float]
    closed: list[bool]
    parts: list[int]

    def row(self) -> dict:
        """Means over the shapes; Chamfer distance and F-score over those that have a surface."""
        return {
            "name": self.name,
            "iou": _mean(self.iou),
            "chamfer": _mean(self.chamfer),
            "f_score": _mean(self.f_score),
            "closed": _mean(self.closed),
            "without_surface": 1 - len(self.chamfer) / max(len(self.parts), 1),
            "parts": _mean(self.parts),
        }


def _meshed(volume: Tensor) -> tuple[np.ndarray, np.ndarray]:
    found = mesh_volume(volume)
    return found.vertices, found.faces


def _mean(numbers: Sequence[float]) -> float | None:
    return float(np.mean(numbers)) if numbers else None


def compare_surfaces(
    data: WeightDataset, signals: Shapes, places: Tensor, columns: dict[str, Tensor], *, seed: int = 0
) -> tuple[list[dict], Tensor]:
    """Shapes, and the surfaces of several fields of each.

    Args:
        data: whose fields these are.
        signals: the shapes.
        places: (n,) their positions.
        columns: by name (n, P) rows: the fields, and their round trips.
        seed: of the points.
    Returns:
        One row of means for the shapes and one for each column; and (n (1 + columns), H, W, 3) views, row by row.
    """
    if not isinstance(data.kind, ShapeKind):
        raise ValueError(f"surfaces are of fields from 3 coordinates to 1 value, got {data.config}.")
    below = data.kind.below(data.config)
    sides = [Side(name, [], [], [], [], []) for name in ("shapes", *columns)]
    views = []
    for i, place in enumerate(bar(places.tolist(), desc="surfaces", unit="shape", leave=False)):
        own = signals.surface(place) or _meshed(signals.volume(place, FINE))
        clouds = [on_surface(*own, POINTS, seed=seed + 2 * i + k) for k in (0, 1)]
        coords, wanted = signals.measured(data.config, [place])
        for side, rows in zip(sides, (None, *columns.values()), strict=True):
            if rows is None:
                volume, cloud = signals.volume(place, SIZE), clouds[1]
                made = mesh_volume(volume)
                side.iou.append(1.0)
            else:
                volume, cloud = field_volume(data.config, rows[i], SIZE, below=below, coarse=SIZE), None
                made = mesh_volume(volume)
                side.iou.append(float(quality(data.config, rows[i : i + 1], wanted, coords, data.kind)))
                if made.outcome == "surface":
                    cloud = on_surface(made.vertices, made.faces, POINTS, seed=seed + 2 * i + 1)
            views.append(view(volume, SIDE))
            side.closed.append(made.closed)
            side.parts.append(int(parts_of(made.faces).max()) + 1 if len(made.faces) else 0)
            if cloud is not None:
                side.chamfer.append(chamfer(cloud, clouds[0]))
                side.f_score.append(f_score(cloud, clouds[0], RADIUS))
    return [side.row() for side in sides], torch.stack(views)
