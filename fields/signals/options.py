"""Which points of a shape a field is fitted to."""

from dataclasses import dataclass
from typing import Literal

Target = Literal["occupancy", "distance"]


@dataclass(frozen=True)
class ShapeOptions:
    """Which points of a shape a field is fitted to."""

    target: Target = "occupancy"
    """occupancy: 1 inside, 0 outside; distance: signed, negative inside, clamped and scaled to [-1, 1]."""
    near: int = 4096
    """Points near the surface."""
    uniform: int = 4096
    """Points anywhere in the cube."""
    spread: float = 0.05
    """Standard deviation of the near points' distance from the surface; half the cube's edge is 1."""
    clamp: float = 0.1
    """Distances beyond this are cut, and this one is 1."""

    def __post_init__(self):
        for name in ("near", "uniform"):
            if getattr(self, name) < 0:
                raise ValueError(f"--shape.{name} must be 0 or more, got {getattr(self, name)}.")
        if self.near + self.uniform < 1:
            raise ValueError("a shape needs at least 1 point: --shape.near and --shape.uniform are both 0.")
        for name in ("spread", "clamp"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--shape.{name} must be above 0, got {getattr(self, name)}.")
