"""Shaded perspective views of a volume, without a display: rays through the grid, smooth normals, soft occlusion.

A volume is (S, S, S) numbers on the corners of a grid over [-1, 1]^3, indexed x, y, z, negative inside. z is up.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

CLAY = (0.62, 0.75, 0.97)
"""Colour of a surface."""
KEY, FILL = (-0.35, 0.45, 0.82), (0.85, -0.1, 0.25)
"""Directions to the lights: x right, y towards the viewer, z up, turning with the camera."""
DISTANCE = 4.2
"""From the camera to the middle of the cube."""
SIGHT = 0.345
"""Tangent of half the angle of view."""
ELEVATION = math.radians(24)
AZIMUTH = math.radians(-58)
STEPS = 200
"""Most steps along a ray; each is as long as the empty space around it."""


def view(
    volume: Tensor,
    size: int = 128,
    *,
    azimuth: float = AZIMUTH,
    elevation: float = ELEVATION,
    colour: tuple[float, float, float] = CLAY,
    smooth: int = 2,
    ground: bool = True,
) -> Tensor:
    """One picture of the inside's surface.

    Args:
        volume: (S, S, S), negative inside; what is not finite counts as outside.
        size: pixels along an edge.
        azimuth, elevation: of the camera in radians, about z and above the ground.
        colour: of the surface.
        smooth: rays per pixel along each axis.
        ground: draw the soft shadow on the floor under the shape.
    Returns:
        (size, size, 3) float32 in [0, 1] on white.
    """
    side = size * smooth
    scene = _Scene(volume)
    if scene.empty:
        return torch.ones(size, size, 3)
    eye, rays, frame = _camera(side, azimuth, elevation)
    picture = torch.ones(side * side, 3)
    if ground:
        picture = _floor(scene, eye, rays, frame)
    for chunk in torch.arange(side * side).split(1 << 15):
        hit, points = _march(scene, eye, rays[chunk])
        if bool(hit.any()):
            picture[chunk[hit]] = _shade(scene, points[hit], rays[chunk[hit]], frame, colour)
    picture = picture.reshape(side, side, 3).clamp(0, 1)
    return F.avg_pool2d(picture.permute(2, 0, 1)[None], smooth)[0].permute(1, 2, 0)


def turntable(volume: Tensor, size: int = 192, frames: int = 36, **options) -> Iterator[Tensor]:
    """Views all around a shape, one after the other: pictures of `view`."""
    for i in range(frames):
        yield view(volume, size, azimuth=AZIMUTH + 2 * math.pi * i / frames, **options)


class _Scene:
    """A volume ready to be looked up: values, and how full the surroundings are at two scales."""

    def __init__(self, volume: Tensor):
        n = len(volume)
        values = torch.where(volume.isfinite(), volume, 1.0).float()
        values = F.pad(values, (1,) * 6, value=1.0)  # shapes that leave the cube are closed there
        self.reach = 1 + 2 / (n - 1)
        bound = values.abs().flatten()[:: max(1, values.numel() // 100_000)].quantile(0.2).clamp_min(1e-6)
        self.values = (values / bound).clamp(-3, 3).tanh()  # steep far away is flat here: normals come from near
        inside = (values < 0).float()
        self.empty = not bool((inside > 0).any())
        self.full = [self._blur(inside, radius) for radius in (0.08, 0.2)]
        low = (inside.amax((0, 1)) > 0).nonzero()
        self.floor = float(-self.reach + 2 * self.reach * (int(low[0]) if len(low) else 0) / (n + 1))
        self.cell = 2 / (n - 1)
        # how far one can walk from a grid point without meeting the inside: to the nearest inside one, less a diagonal
        from scipy.ndimage import distance_transform_edt  # takes half a second to import

        self.free = torch.from_numpy(distance_transform_edt((values >= 0).numpy()).astype("float32"))
        self.free = (self.free - 2.5) * self.cell

    def _blur(self, inside: Tensor, radius: float) -> Tensor:
        width = max(1, round(radius * len(inside) / 2))
        x = inside[None, None]
        for axis in range(3):  # one axis after the other: a box is a product
            size = [2 * width + 1 if a == axis else 1 for a in range(3)]
            for _ in range(2):
                x = F.avg_pool3d(x, size, 1, [n // 2 for n in size])
        return x[0, 0]

    def at(self, grid: Tensor, points: Tensor, outside: float) -> Tensor:
        """(M,) interpolated values of a grid at (M, 3) points; `outside` beyond it."""
        where = points.flip(-1)[None, None, None] / self.reach  # grid_sample's order: last axis first
        found = F.grid_sample(grid[None, None], where, align_corners=True, padding_mode="border")[0, 0, 0, 0]
        return torch.where((points.abs() <= self.reach).all(-1), found, outside)


def _camera(side: int, azimuth: float, elevation: float) -> tuple[Tensor, Tensor, Tensor]:
    """The eye (3,), a unit ray per pixel (side^2, 3), and the rows right, towards the viewer, up (3, 3)."""
    out = torch.tensor(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    right = torch.tensor([-math.sin(azimuth), math.cos(azimuth), 0.0])
    up = torch.linalg.cross(out, right)
    line = ((torch.arange(side) + 0.5) / side * 2 - 1) * SIGHT
    down, across = torch.meshgrid(-line, line, indexing="ij")
    rays = -out + across.reshape(-1, 1) * right + down.reshape(-1, 1) * up
    return DISTANCE * out, F.normalize(rays, dim=1), torch.stack([right, out, up])


def _march(scene: _Scene, eye: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays first enter the shape: whether they do, (M,), and where, (M, 3)."""
    slopes = torch.where(rays.abs() < 1e-6, 1e-6, rays)
    ends = torch.stack([(-scene.reach - eye) / slopes, (scene.reach - eye) / slopes])  # (2, M, 3): slabs of the cube
    near, far = ends.amin(0).amax(1).clamp_min(0), ends.amax(0).amin(1)
    hit, best = torch.zeros(len(rays), dtype=torch.bool), torch.zeros(len(rays))
    alive = (far > near).nonzero().flatten()
    t, before, last = near.clone(), torch.ones(len(rays)), torch.zeros(len(rays))
    for _ in range(STEPS):
        if not len(alive):
            break
        points = eye + t[alive, None] * rays[alive]
        now = scene.at(scene.values, points, 1.0)
        inside = now < 0
        done = alive[inside]
        part = before[done] / (before[done] - now[inside]).clamp_min(1e-9)
        best[done] = t[done] - (1 - part) * last[done]
        hit[done] = True
        step = scene.at(scene.free, points, scene.cell).clamp_min(0.5 * scene.cell)
        before[alive], last[alive], t[alive] = now, step, t[alive] + step
        alive = alive[~inside & (t[alive] < far[alive])]
    return hit, eye + best[:, None] * rays


def _normals(scene: _Scene, points: Tensor) -> Tensor:
    """(M, 3) unit normals by differences over one cell and a half."""
    h = 1.5 * scene.cell
    sides = [
        scene.at(scene.values, points + h * axis, 1.0) - scene.at(scene.values, points - h * axis, 1.0)
        for axis in torch.eye(3)
    ]
    return F.normalize(torch.stack(sides, 1), dim=1)


def _shade(scene: _Scene, points: Tensor, rays: Tensor, frame: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """(M, 3) colours: a key light with soft occlusion, a fill light, the sky, and a little gloss."""
    normal = _normals(scene, points)
    key, fill = (F.normalize(torch.tensor(light), dim=0) @ frame for light in (KEY, FILL))
    open_ = torch.ones(len(points))
    for grid, reach, strength in zip(scene.full, (0.07, 0.22), (0.9, 1.0), strict=True):
        open_ = open_ * (1 - strength * scene.at(grid, points + reach * normal, 0.0)).clamp(0.25, 1)
    lit = _light_reaches(scene, points + 2.5 * scene.cell * normal, key)
    diffuse = (normal @ key).clamp_min(0) * lit
    sky = 0.5 + 0.5 * normal[:, 2]
    half = F.normalize(key - rays, dim=1)
    gloss = (normal * half).sum(1).clamp_min(0) ** 40 * lit
    rim = (1 + (normal * rays).sum(1)).clamp(0, 1) ** 3
    light = open_ * (0.34 + 0.24 * sky + 0.14 * (normal @ fill).clamp_min(0)) + 0.66 * diffuse * (0.4 + 0.6 * open_)
    base = torch.tensor(colour)
    return light[:, None] * base + (0.16 * gloss + 0.10 * rim * open_)[:, None]


def _light_reaches(scene: _Scene, points: Tensor, towards: Tensor) -> Tensor:
    """(M,) share of a soft light that no part of the shape keeps away."""
    blocked = torch.zeros(len(points))
    for i in range(1, 13):
        blocked = torch.maximum(blocked, scene.at(scene.full[0], points + 0.09 * i * towards, 0.0))
    return (1 - 1.5 * blocked).clamp(0, 1)


def _floor(scene: _Scene, eye: Tensor, rays: Tensor, frame: Tensor) -> Tensor:
    """(M, 3) white with the shape's soft shadow on the plane that it stands on."""
    along = (scene.floor - eye[2]) / torch.where(rays[:, 2] > -1e-3, -1e-3, rays[:, 2])
    points = eye + along[:, None] * rays
    sees = (rays[:, 2] < -1e-3) & (points[:, :2].norm(dim=1) < 2.2)
    shadow = torch.zeros(len(rays))
    where = points[sees]
    near = torch.zeros(len(where))
    for i in range(1, 9):  # straight up: contact and occlusion of the sky
        near = near + scene.at(scene.full[1], where + torch.tensor([0.0, 0.0, 0.07 * i]), 0.0) * (1 - i / 10) / 4
    key = F.normalize(torch.tensor(KEY), dim=0) @ frame
    cast = 1 - _light_reaches(scene, where + torch.tensor([0.0, 0.0, 0.02]), key)
    shadow[sees] = (0.38 * near.clamp(0, 1) + 0.26 * cast).clamp(0, 0.6)
    tint = torch.tensor((0.95, 0.92, 0.85))
    return 1 - shadow[:, None] * tint
