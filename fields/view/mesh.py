"""Surfaces of 3-D fields: marching cubes on a grid that is fine only near the surface, written as GLB, PLY, OBJ, STL or OFF.

The surface is closed where the shape leaves the cube [-1, 1]^3. A field without a surface has an outcome with a name, no
exception and no file.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fields.metrics.clouds import is_closed, signed_volume
from fields.model import FieldConfig, forward
from fields.runtime.runs import write_atomic

Outcome = Literal["surface", "empty", "full", "not finite"]
"""`empty`: outside everywhere; `full`: inside everywhere."""
SUFFIXES = (".glb", ".ply", ".obj", ".stl", ".off")
COARSE = 64
"""Cells along an edge at which the surface is looked for first."""
CHUNK = 1 << 16
"""Points at once."""
DIGITS = 1e-5
"""Largest error of written coordinates, in half-widths of the shape."""
LARGEST = 768
"""Cells along an edge: 2 GB of values and as much again for marching cubes."""


@dataclass(frozen=True)
class Mesh:
    """A surface, or why there is none.

    Attributes:
        outcome: `surface`, or what the field is instead.
        vertices: (V, 3) float64.
        faces: (F, 3) int64, counter-clockwise from outside.
        low, high: smallest and largest value of the field on the grid, inside negative.
    """

    outcome: Outcome
    vertices: np.ndarray
    faces: np.ndarray
    low: float
    high: float

    @property
    def closed(self) -> bool:
        """Whether every edge has two faces that run along it in opposite directions."""
        return self.outcome == "surface" and is_closed(self.faces)

    def volume(self) -> float:
        """Volume inside; 0 without a surface."""
        return signed_volume(self.vertices, self.faces) if len(self.faces) else 0.0


def field_volume(
    config: FieldConfig, row: Tensor, size: int = 128, *, below: bool, level: float = 0.0, coarse: int = COARSE
) -> Tensor:
    """A field's last layer on the corners of `size`^3 cells, turned so that the inside is negative.

    Args:
        row: (P,).
        size: cells along an edge.
        below: the inside of the field is below the level already.
        level: value of the last layer at the surface: 0 for distances and for logits of one half.
        coarse: see `sample_volume`.
    Returns:
        (size + 1,) * 3 float32, indexed x, y, z.
    """
    config.expect("a surface", 3, 1)

    def values(points: Tensor) -> Tensor:
        with torch.no_grad():
            found = forward(config, row[None], points)[0, :, 0] - level
        return found if below else -found

    return sample_volume(values, size, coarse=coarse)


def sample_volume(values: Callable[[Tensor], Tensor], size: int, *, coarse: int = COARSE) -> Tensor:
    """Values on a grid over [-1, 1]^3, exact near the surface and interpolated elsewhere.

    A grid of at least `coarse` cells is evaluated whole; cells of it whose neighbourhood changes sign are evaluated at
    full resolution. Where the coarse grid has no sign change all points are evaluated.

    Args:
        values: (M, 3) -> (M,).
        size: cells along an edge.
        coarse: fewest cells along an edge of the first grid.
    Returns:
        (size + 1,) * 3 float32.
    Raises:
        ValueError: for a size out of range.
    """
    if not 2 <= size <= LARGEST:
        raise ValueError(f"--size must lie in 2 .. {LARGEST} cells along an edge, got {size}.")
    factor = max((k for k in (8, 4, 2) if size % k == 0 and size // k >= coarse), default=1)
    whole = size // factor
    first = _evaluate(values, _line(whole), torch.arange((whole + 1) ** 3))
    first = first.reshape(whole + 1, whole + 1, whole + 1)
    inside = first < 0
    if factor == 1:
        return first
    if bool(inside.all()) or not bool(inside.any()):  # a sheet thinner than the coarse cells: look everywhere
        return _evaluate(values, _line(size), torch.arange((size + 1) ** 3)).reshape((size + 1,) * 3)
    up = F.interpolate(first[None, None], size=(size + 1,) * 3, mode="trilinear", align_corners=True)[0, 0]
    near = _near_surface(inside, factor, size)
    chosen = near.flatten().nonzero().flatten()
    up.view(-1)[chosen] = _evaluate(values, _line(size), chosen)
    return up


def _near_surface(inside: Tensor, factor: int, size: int) -> Tensor:
    """(size + 1,)^3 bool: points of coarse cells that change sign, and of their neighbours."""
    x = inside.float()[None, None]
    mixed = (F.max_pool3d(x, 2, 1) != -F.max_pool3d(-x, 2, 1)).float()  # cells
    mixed = F.max_pool3d(mixed, 3, 1, 1)  # and their neighbours
    cells = mixed[0, 0] > 0
    for axis in range(3):
        cells = cells.repeat_interleave(factor, axis)
    near = torch.zeros((size + 1,) * 3, dtype=torch.bool)
    for x0, y0, z0 in np.ndindex(2, 2, 2):  # the corners of every fine cell
        near[x0 : size + x0, y0 : size + y0, z0 : size + z0] |= cells
    return near


def _line(size: int) -> Tensor:
    return torch.linspace(-1, 1, size + 1)


def _evaluate(values: Callable[[Tensor], Tensor], line: Tensor, chosen: Tensor) -> Tensor:
    """(M,) values at grid points by their flat positions, chunk by chunk."""
    n = len(line)
    out = torch.empty(len(chosen))
    for i in range(0, len(chosen), CHUNK):
        at = chosen[i : i + CHUNK]
        points = torch.stack([line[at // (n * n)], line[at // n % n], line[at % n]], 1)
        out[i : i + CHUNK] = values(points)
    return out


def mesh_volume(volume: Tensor) -> Mesh:
    """Marching cubes (Lewiner 2003, by scikit-image) at level 0, closed at the border.

    Args:
        volume: (S, S, S) on the corners of a grid over [-1, 1]^3, indexed x, y, z, inside negative.
    """
    values = volume.detach().cpu().numpy()
    none = (np.empty((0, 3)), np.empty((0, 3), np.int64))
    if not np.isfinite(values).all():
        return Mesh("not finite", *none, float("nan"), float("nan"))
    low, high = float(values.min()), float(values.max())
    if not low < 0:
        return Mesh("empty", *none, low, high)
    if not high >= 0:
        return Mesh("full", *none, low, high)
    from skimage.measure import marching_cubes

    outside = 1e3 * max(abs(low), abs(high))  # far outside, so that border faces lie on the cube's faces
    # exact zeros would give triangles without area, which a merge of vertices would tear open
    tiny = max(abs(low), abs(high)) * 1e-6
    values = np.where(np.abs(values) < tiny, tiny, values)
    padded = np.pad(values, 1, constant_values=outside).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(padded, 0.0, gradient_direction="ascent", allow_degenerate=True)
    vertices = (vertices.astype(np.float64) - 1) * (2 / (len(values) - 1)) - 1
    faces = faces.astype(np.int64)
    if signed_volume(vertices, faces) < 0:
        faces = faces[:, ::-1]
    return Mesh("surface", vertices.clip(-1, 1), np.ascontiguousarray(faces), low, high)


def mesh_field(config: FieldConfig, row: Tensor, size: int = 128, *, below: bool) -> Mesh:
    """The surface of one field; see `field_volume` and `mesh_volume`."""
    if not bool(row.isfinite().all()):
        return Mesh("not finite", np.empty((0, 3)), np.empty((0, 3), np.int64), float("nan"), float("nan"))
    return mesh_volume(field_volume(config, row, size, below=below))


def single_precision(scale: float, offset: Sequence[float]) -> bool:
    """Whether coordinates of seven digits hold a shape there: scale * [-1, 1]^3 + offset."""
    far = max(scale + abs(x) for x in offset)
    return far * 2.0**-23 <= DIGITS * scale and scale > 1e-30 and far < 1e30


def save_mesh(path: Path, mesh: Mesh, *, scale: float = 1.0, offset: Sequence[float] = (0.0, 0.0, 0.0)) -> None:
    """Write a surface, atomically.

    Files hold as many digits as the shape needs where it stands: GLB coordinates are single precision, so the vertices are
    those in the cube, and the node moves them; the others are written with more digits where seven do not do.

    Args:
        path: ending in .glb, .ply, .obj, .stl or .off.
        scale, offset: from the cube back to where the signal stood: scale * vertex + offset.
    Raises:
        ValueError: for another ending, a field without a surface, or STL, which has seven digits, where they do not do.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path.name}: a mesh is written as {', '.join(SUFFIXES)}.")
    if mesh.outcome != "surface":
        raise ValueError(
            f"{path.name}: the field is {mesh.outcome} (values {mesh.low:.3g} .. {mesh.high:.3g}, inside below 0), it has "
            "no surface to write."
        )
    short = single_precision(scale, offset)
    if suffix == ".stl" and not short:
        raise ValueError(
            f"{path.name}: STL stores 7 digits, too few for a shape of half-width {scale:.3g} at {tuple(offset)}. Write "
            "GLB, PLY, OBJ or OFF."
        )
    import trimesh

    turned = (scale, *offset) != (1.0, 0.0, 0.0, 0.0)
    vertices = mesh.vertices if suffix == ".glb" else scale * mesh.vertices + np.asarray(offset)
    # normals go with it, so that viewers shade smoothly; process=False keeps every vertex where it is
    solid = trimesh.Trimesh(vertices, mesh.faces, process=False)
    _ = solid.vertex_normals
    decimals = min(8 + max(0, -math.floor(math.log10(scale))), 300)  # 8 of the shape itself
    with write_atomic(path) as temporary:
        if suffix == ".glb" and turned:
            matrix = np.diag([scale, scale, scale, 1.0])
            matrix[:3, 3] = offset
            scene = trimesh.Scene()
            scene.add_geometry(solid, transform=matrix)
            scene.export(temporary)
        elif suffix == ".ply" and not short:
            temporary.write_bytes(_long_ply(vertices, mesh.faces))
        elif suffix in (".obj", ".off"):
            solid.export(temporary, digits=decimals)
        else:
            solid.export(temporary)


def _long_ply(vertices: np.ndarray, faces: np.ndarray) -> bytes:
    """A PLY file whose coordinates are double precision, which trimesh writes as single."""
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    head += [f"property double {axis}" for axis in "xyz"]
    head += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header\n"]
    triangles = np.empty(len(faces), [("n", "u1"), ("at", "<i4", 3)])
    triangles["n"], triangles["at"] = 3, faces
    return "\n".join(head).encode() + vertices.astype("<f8").tobytes() + triangles.tobytes()
