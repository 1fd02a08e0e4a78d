"""Procedural solids: shapes of seven families from a seed, with signed distances in closed form and no data.

A solid is a list of primitives that are joined or cut away, turned about the vertical z axis and scaled so that it lies in
[-0.9, 0.9]^3. The sign is exact. The distance is exact for boxes, cylinders and tori, first order for superquadrics, and a
lower bound near the edges where primitives meet, as constructive solid geometry by min and max is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

VERSION = 1
"""Of the recipe: a solid is a function of (VERSION, seed, number) alone."""
FAMILIES = ("superquadric", "box", "cylinder", "torus", "union", "cut", "frame")
"""Class labels. `frame` has thin parts and holes."""
REACH = 0.9
"""Half the edge of the cube that a solid fills at most, and a mesh just."""
FINE = 5
"""Fine points lie nearer the surface by this factor."""
Shape = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Primitive:
    """One convex or ring-shaped part.

    Attributes:
        shape: (M, 3) points -> (M,) signed distances, negative inside, about the origin.
        half: half edges of the box around it.
        centre: where it stands.
        cut: taken away from what stands before it, instead of joined.
    """

    shape: Shape
    half: tuple[float, float, float]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cut: bool = False


class Solid:
    """Primitives joined and cut in order, then turned, scaled and moved."""

    def __init__(self, family: str, parts: list[Primitive], turn: float):
        """Args:
        family: one of `FAMILIES`.
        turn: angle about z in radians.
        """
        self.family, self.parts = family, parts
        self._turn = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        signs = np.stack(np.meshgrid(*[[-1, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
        joined = [p for p in parts if not p.cut]
        corners = np.concatenate([np.array(p.centre) + signs * np.array(p.half) for p in joined]) @ self._turn.T
        self._middle = (corners.min(0) + corners.max(0)) / 2
        self._scale = min(1.0, REACH / np.abs(corners - self._middle).max())

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance, negative inside.

        Args:
            points: (M, 3).
        Returns:
            (M,) float64, in units of half the cube's edge.
        """
        local = (np.asarray(points, np.float64) / self._scale + self._middle) @ self._turn  # the inverse of a rotation
        found = np.full(len(local), np.inf)
        for part in self.parts:
            d = part.shape(local - np.array(part.centre))
            found = np.maximum(found, -d) if part.cut else np.minimum(found, d)
        return self._scale * found

    def surface(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """Points on the surface: random points that walk down the distance; denser where more of space is near.

        Returns:
            (n, 3) float64 with a distance below 1e-3.
        """
        found: list[np.ndarray] = []
        while sum(len(part) for part in found) < n:
            points = generator.uniform(-1, 1, (2 * n, 3))
            far = np.abs(self.distance(points))
            points = points[np.argsort(far, kind="stable")[:n]]  # the nearer half: fewer steps, fewer that lose the way
            for _ in range(4):
                points = points - self._step(points)
            found.append(points[np.abs(self.distance(points)) < 1e-3])
        return np.concatenate(found)[:n]

    def _step(self, points: np.ndarray) -> np.ndarray:
        """(M, 3) from each point to the surface as its tangent plane says, by differences of the distance."""
        d, h = self.distance(points), 1e-4
        slopes = np.stack([(self.distance(points + h * axis) - d) / h for axis in np.eye(3)], 1)
        return d[:, None] * slopes / np.maximum((slopes**2).sum(1, keepdims=True), 0.05)


def solid(seed: int, number: int) -> Solid:
    """The solid of a seed and a number; families take turns by chance."""
    g = np.random.default_rng([VERSION, seed, number])
    family = FAMILIES[g.integers(len(FAMILIES))]
    return Solid(family, MAKERS[family](g), g.uniform(0, 2 * np.pi))


def sample_points(
    item: Solid, generator: np.random.Generator, *, near: int, uniform: int, spread: float, fine: int = 0
) -> np.ndarray:
    """Points around a solid with their distances.

    Args:
        near: points at a normal distance of standard deviation `spread` from the surface.
        uniform: points anywhere in the cube.
        fine: further points, at a fifth of that distance.
    Returns:
        (near + fine + uniform, 4) float32 of x, y, z, signed distance.
    """
    close, count = np.empty((0, 3)), near + fine
    if count:
        scale = np.repeat([spread, spread / FINE], [near, fine])[:, None]
        close = item.surface(count, generator) + scale * generator.normal(size=(count, 3))
    points = np.concatenate([close.clip(-1, 1), generator.uniform(-1, 1, (uniform, 3))]).astype(np.float32)
    return np.concatenate([points, item.distance(points)[:, None].astype(np.float32)], 1)


# -- primitives, after https://iquilezles.org/articles/distfunctions ----------------------------------------------------


def box(half: tuple[float, float, float], radius: float = 0.0, **where) -> Primitive:
    """A box with edges rounded by `radius`."""
    inner = np.array(half) - radius

    def shape(p: np.ndarray) -> np.ndarray:
        q = np.abs(p) - inner
        return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0) - radius

    return Primitive(shape, half, **where)


def cylinder(radius: float, half: float, **where) -> Primitive:
    """A cylinder along z."""

    def shape(p: np.ndarray) -> np.ndarray:
        q = np.stack([np.hypot(p[:, 0], p[:, 1]) - radius, np.abs(p[:, 2]) - half], 1)
        return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)

    return Primitive(shape, (radius, radius, half), **where)


def torus(large: float, small: float, **where) -> Primitive:
    """A ring about z: a circle of radius `small` that goes round at `large`."""

    def shape(p: np.ndarray) -> np.ndarray:
        return np.hypot(np.hypot(p[:, 0], p[:, 1]) - large, p[:, 2]) - small

    return Primitive(shape, (large + small, large + small, small), **where)


def superquadric(half: tuple[float, float, float], pole: float, belt: float, **where) -> Primitive:
    """|x|^(2/belt) + |y|^(2/belt), to the power belt/pole, + |z|^(2/pole) = 1 (Barr 1981); the distance is radial.

    The exponents are 1 for an ellipsoid, near 0 for a box or cylinder, 2 for an octahedron.
    """
    scale = np.array(half)

    def shape(p: np.ndarray) -> np.ndarray:
        q = np.maximum(np.abs(p) / scale, 1e-9)
        round_ = (q[:, 0] ** (2 / belt) + q[:, 1] ** (2 / belt)) ** (belt / pole) + q[:, 2] ** (2 / pole)
        length = np.linalg.norm(p, axis=1)
        # the surface lies at p * round_^(-pole / 2) on the ray through p; near the middle the ray's way is too long
        return np.maximum(length * (1 - round_ ** (-pole / 2)), -scale.min())

    return Primitive(shape, half, **where)


# -- families ---------------------------------------------------------------------------------------------------------


def _three(g: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    x, y, z = g.uniform(low, high, 3).tolist()
    return x, y, z


def _a_superquadric(g: np.random.Generator) -> list[Primitive]:
    return [superquadric(_three(g, 0.35, 0.85), g.uniform(0.35, 1.8), g.uniform(0.35, 1.8))]


def _a_box(g: np.random.Generator) -> list[Primitive]:
    return [box(_three(g, 0.22, 0.75), g.uniform(0, 0.15))]


def _a_cylinder(g: np.random.Generator) -> list[Primitive]:
    return [cylinder(g.uniform(0.22, 0.7), g.uniform(0.2, 0.85))]


def _a_torus(g: np.random.Generator) -> list[Primitive]:
    return [torus(g.uniform(0.42, 0.62), g.uniform(0.13, 0.25))]


def _a_union(g: np.random.Generator) -> list[Primitive]:
    """A foot with something standing on it."""
    foot, rise = g.uniform(0.5, 0.8, 2), g.uniform(0.12, 0.25)
    wide, tall = g.uniform(0.2, 0.42), g.uniform(0.35, 0.6)
    where = {"centre": (g.uniform(-0.2, 0.2), g.uniform(-0.2, 0.2), rise + tall * 0.9)}
    top = [
        lambda: box((wide, g.uniform(0.2, 0.42), tall), 0.04, **where),
        lambda: cylinder(wide, tall, **where),
        lambda: superquadric((wide, wide, tall), 1.0, 1.0, **where),
    ][g.integers(3)]()
    ground = cylinder(foot[0], rise) if g.random() < 0.5 else box((foot[0], foot[1], rise), 0.04)
    return [ground, top]


def _a_cut(g: np.random.Generator) -> list[Primitive]:
    """A box with a bite, a cup, or a tube."""
    which = g.integers(3)
    if which == 0:
        edges = _three(g, 0.45, 0.75)
        corner = tuple((np.array(edges) * g.uniform(0.6, 1.0, 3)).tolist())
        return [box(edges, 0.03), superquadric(_three(g, 0.4, 0.7), 1.0, 1.0, centre=corner, cut=True)]
    radius, half, wall = g.uniform(0.45, 0.75), g.uniform(0.35, 0.8), g.uniform(0.14, 0.22)
    lift = wall if which == 1 else 0.0
    inner = cylinder(radius - wall, half + (0.0 if which == 1 else 0.1), centre=(0, 0, 2 * lift), cut=True)
    return [cylinder(radius, half), inner]


def _a_frame(g: np.random.Generator) -> list[Primitive]:
    """A table: a thin plate with one or two holes, on four thin legs."""
    x, y, z = g.uniform(0.5, 0.8), g.uniform(0.4, 0.75), g.uniform(0.35, 0.7)
    plate, leg = g.uniform(0.06, 0.1), g.uniform(0.07, 0.11)
    parts = [box((x, y, plate), 0.02, centre=(0, 0, z))]
    count = int(g.integers(1, 3))
    for k in range(count):
        at = 0.0 if count == 1 else (k - 0.5) * x
        hole = g.uniform(0.14, 0.22)
        parts.append(cylinder(hole, 2 * plate, centre=(at, 0.0, z), cut=True))
    legs = [(sx * (x - leg), sy * (y - leg)) for sx in (-1, 1) for sy in (-1, 1)]
    return parts + [box((leg, leg, z), 0.02, centre=(a, b, 0.0)) for a, b in legs]


MAKERS: dict[str, Callable[[np.random.Generator], list[Primitive]]] = {
    "superquadric": _a_superquadric,
    "box": _a_box,
    "cylinder": _a_cylinder,
    "torus": _a_torus,
    "union": _a_union,
    "cut": _a_cut,
    "frame": _a_frame,
}
"""Family -> its parts from random numbers."""
