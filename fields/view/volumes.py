"""Pictures of 3-D fields without a mesher: shaded views of the inside of a volume, and a slice through it.

The volume is the cube [-1, 1]^3. Blue is inside, orange outside, black the surface.
"""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fields.model import FieldConfig
from fields.model import values as evaluate
from fields.view.mesh import field_volume
from fields.view.render import save_png, sheet

SIDE, FINE = 64, 96
"""Cells along an edge of the volume, where many fields are drawn or at most FEW; even, so that 0 is among their corners."""
FEW = 8
REACH = 0.005
"""Share of the cube's faces that an object may touch: some are scaled until they just do."""
BLUE, ORANGE = (0.13, 0.35, 0.65), (0.88, 0.50, 0.08)
VIEWS = ("from +x: y right, z up", "from -y: x right, z up", "from +z: x right, y up")
LIGHT = (0.35, 0.45, 0.82)  # right, up, towards the viewer


def facts(values: Tensor) -> dict:
    """What a volume shows: share inside, bounds and radius of the inside, whether it touches the cube, range.

    Returns:
        `bounds` is None if nothing is inside.
    """
    side = len(values)
    inside = (values < 0).nonzero()
    at = 2 * inside / (side - 1) - 1
    found: dict[str, Any] = {
        "inside": len(inside) / values.numel(),
        "low": float(values.min()),
        "high": float(values.max()),
    }
    found["bounds"] = None if not len(at) else [at.amin(0).tolist(), at.amax(0).tolist()]
    found["radius"] = float(at.norm(dim=1).max()) if len(at) else 0.0
    faces = torch.stack([values.select(axis, end) for axis in range(3) for end in (0, -1)])
    found["touches"] = float((faces < 0).float().mean()) > REACH
    return found


def is_distance(config: FieldConfig, weights: Tensor) -> bool:
    """Whether values at the cube's corners and middle could be distances: no larger than its diagonal.

    Args:
        weights: (N, P).
    """
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3)
    return bool((evaluate(config, weights, corners).abs() <= 2 * 3**0.5).all())


def panels(values: Tensor) -> Tensor:
    """Three shaded views and the largest central slice side by side: (S, 4 S + 6, 3)."""
    views = [_view(v) for v in (values.flip(0), values.permute(1, 0, 2), values.permute(2, 0, 1).flip(0))]
    gap = torch.ones(len(values), 2, 3)
    parts = [views[0], gap, views[1], gap, views[2], gap, _slice(values)[0]]
    return torch.cat(parts, 1)


def _view(values: Tensor) -> Tensor:
    """(S, S, 3): a volume (depth away from the viewer, right, up) as a shaded surface; white where nothing is."""
    inside = values < 0
    hit, depth = inside.any(0), inside.to(torch.uint8).argmax(0)  # the first inside voxel
    padded = values.clamp(-4 / len(values), 4 / len(values))  # far values would blur the normals
    slopes = torch.stack(torch.gradient(padded), 0)  # (3, S, S, S): away, right, up
    normal = slopes.gather(1, depth[None, None].expand(3, 1, -1, -1))[:, 0]
    normal = normal / normal.norm(dim=0).clamp_min(1e-9)
    light = LIGHT[0] * normal[1] + LIGHT[1] * normal[2] - LIGHT[2] * normal[0]
    shade = (0.25 + 0.75 * light.clamp_min(0))[..., None]
    colour = shade * torch.tensor((0.62, 0.76, 0.95))
    return torch.where(hit[..., None], colour, torch.ones(3)).permute(1, 0, 2).flip(0)  # up is the rows' way


def _slice(values: Tensor) -> tuple[Tensor, str]:
    """The coordinate plane through the inside's middle that shows most of it, (S, S, 3), and what it is called."""
    inside = (values < 0).nonzero()
    middle = inside.double().mean(0).round().long().tolist() if len(inside) else [len(values) // 2] * 3
    planes = [values.select(axis, middle[axis]) for axis in range(3)]
    axis = max(range(3), key=lambda a: int((planes[a] < 0).sum()))
    plane = planes[axis].T.flip(0)  # second axis up
    scale = max(-float(plane.min()), 1e-6)
    strength = (plane.abs() / scale).clamp(0, 1).sqrt()[..., None]
    tone = torch.where(plane[..., None] < 0, torch.tensor(BLUE), torch.tensor(ORANGE))
    picture = 1 - strength * (1 - tone)
    sign = plane < 0
    edge = torch.zeros_like(sign)
    edge[1:] |= sign[1:] ^ sign[:-1]
    edge[:, 1:] |= sign[:, 1:] ^ sign[:, :-1]
    picture[edge] = 0.0
    return picture, f"{'xyz'[axis]} = {2 * middle[axis] / (len(values) - 1) - 1:.2f}"


def preview_shapes(
    path: Path, config: FieldConfig, weights: Tensor, names: list[str], *, below: bool, tick: Callable = bool
) -> list[dict]:
    """A sheet of 3-D fields with a legend, and the facts of each.

    Args:
        weights: (N, P).
        names: N captions.
        tick: called after each field.
    """
    pictures, captions, found = [], [], []
    side = SIDE if len(weights) > FEW else FINE
    for row, name in zip(weights, names, strict=True):
        values = field_volume(config, row, side, below=below, coarse=side)
        if not bool((values < 0).any()):  # a sheet thinner than the grid: look twice as closely
            finer = field_volume(config, row, 2 * side, below=below, coarse=2 * side)
            values = -F.max_pool3d(-finer[None], 3, stride=2, padding=1)[0]
        known = facts(values)
        pictures.append(panels(values))
        says = f"{name}: {known['inside']:.1%} inside, slice {_slice(values)[1]}"
        captions.append(says if known["bounds"] else f"{name}: NOTHING INSIDE")
        found.append(known)
        tick()
    few = len(pictures) <= FEW
    page = sheet(torch.stack(pictures), 1 if few else 4, scale=2 if few else 1, captions=captions, pad=6)
    legend = (
        "Each field in the cube [-1, 1]^3: " + "; ".join(VIEWS) + "; slice (its first free axis right, its second up).",
        f"Slice: blue inside (last layer {'< 0' if below else '> 0'}), orange outside, black line the surface.",
    )
    save_png(path, torch.cat([_legend(legend, page.shape[1]), page]))
    return found


def _legend(lines: tuple[str, ...], width: int) -> Tensor:
    """Lines of text above the sheet, broken to its width: (H, W, 3)."""
    font = ImageFont.load_default()
    rows = [row for line in lines for row in textwrap.wrap(line, max(8, int((width - 12) / font.getlength("n"))))]
    page = Image.new("RGB", (width, 14 * len(rows) + 8), "white")
    draw = ImageDraw.Draw(page)
    for i, text in enumerate(rows):
        draw.text((6, 6 + 14 * i), text, fill=(40, 40, 40), font=font)
    return torch.from_numpy(np.array(page)).to(torch.float32) / 255
