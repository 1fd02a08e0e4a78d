"""Pictures and files of single fields: at any size, tokens on a board, walks from one field to another, downloads."""

import colorsys
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from torch import Tensor

from fields import layout
from fields.kinds.base import Kind
from fields.kinds.shapes import ShapeKind
from fields.model import FieldConfig
from fields.view.mesh import mesh_field, save_mesh
from fields.view.render import render, save_gif, to_uint8

SIZES = (16, 1024)
"""Pixels of a picture's longer side that can be asked for."""
CELLS = (16, 192)
"""Cells along an edge of the grid of a mesh."""
BOARD = 448
"""Pixels of the longer side of a board of tokens, about."""
TINY = 16
"""Longer side of signals, in pixels, up to which a gallery shows the pixels themselves."""
GAP = 1
"""Free columns between the slices of a board with three coordinates."""
ERASED = (150, 150, 150)


def picture(kind: Kind, field: FieldConfig, row: Tensor, extent: list[int], longest: int) -> np.ndarray:
    """A field as a picture of any size, in the proportions of its signals; a shape as a shaded view.

    Args:
        row: (P,).
        extent: of the model's signals.
        longest: pixels of the longer side.
    Returns:
        (H, W, 3) uint8.
    """
    if kind.name == "images":
        height, width = extent if kind.known(extent) else (1, 1)
        scale = longest / max(height, width)
        shown = render(field, row[None], max(1, round(height * scale)), max(1, round(width * scale)))[0]
    else:
        shown = kind.thumbnail(field, row[None], extent, most=longest)[0]
    return to_uint8(shown).expand(-1, -1, 3).numpy()


def grid_picture(kind: Kind, field: FieldConfig, row: Tensor, extent: list[int]) -> np.ndarray:
    """A field for a gallery, 96 pixels or about; of tiny signals the pixels that the field was fitted to, enlarged.

    Between such pixels nothing was asked of the field, and what it says there hides the signal.
    """
    if kind.name != "images" or not 0 < max(extent) <= TINY:
        return picture(kind, field, row, extent, 96)
    times = 96 // max(extent)
    return picture(kind, field, row, extent, max(extent)).repeat(times, 0).repeat(times, 1)


# -- tokens on a board -------------------------------------------------------------------------------------------------


def places(tokens: int, grid: tuple[int, ...] | None) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Row and column of each token on a board, and its rows and columns.

    Regions of a picture lie as the picture does; those of a volume as slices side by side; other tokens in the order of
    the sequence, line by line.
    """
    if grid is not None and len(grid) == 2 and math.prod(grid) == tokens:
        return [divmod(t, grid[1]) for t in range(tokens)], (grid[0], grid[1])
    if grid is not None and len(grid) == 3 and math.prod(grid) == tokens:
        a, b, c = grid
        cells = [(t // c % b, t // (b * c) * (c + GAP) + t % c) for t in range(tokens)]
        return cells, (b, a * (c + GAP) - GAP)
    columns = max(1, math.ceil(tokens**0.5))
    return [divmod(t, columns) for t in range(tokens)], (math.ceil(tokens / columns), columns)


def board(
    codes: Tensor, grid: tuple[int, ...] | None, kept: Tensor | None = None, under: np.ndarray | None = None
) -> np.ndarray:
    """Tokens as a picture: each cell with its code, over the field's picture where regions are the picture's.

    Args:
        codes: (T,).
        grid: of regions, or None.
        kept: (T,) bool; the others are gray.
        under: (H, W, 3) uint8 picture of the field.
    Returns:
        (H', W', 3) uint8.
    """
    cells, (rows, columns) = places(len(codes), grid)
    edge = max(18, BOARD // max(rows, columns))
    flat = grid is not None and len(grid) == 2 and under is not None
    page = Image.new("RGB", (columns * edge + 1, rows * edge + 1), "white")
    if flat and under is not None:
        page.paste(Image.fromarray(under).resize((columns * edge, rows * edge), Image.Resampling.BICUBIC))
    pen, font = ImageDraw.Draw(page, "RGBA"), ImageFont.load_default(size=max(9, edge // (4 if flat else 3)))
    for t, (row, column) in enumerate(cells):
        box = (column * edge, row * edge, (column + 1) * edge, (row + 1) * edge)
        stays = kept is None or bool(kept[t])
        fill = None if flat and stays else (*(colour(int(codes[t])) if stays else ERASED), 255)
        pen.rectangle(box, fill=fill, outline=(120, 120, 120, 255))
        if stays:
            text, middle = str(int(codes[t])), (box[0] + edge / 2, box[1] + edge / 2)
            outlined = {"fill": "white", "stroke_width": 2, "stroke_fill": "black"} if flat else {"fill": "black"}
            pen.text(middle, text, font=font, anchor="mm", **outlined)
    return np.asarray(page)


def cell_at(x: float, y: float, shape: tuple[int, ...], tokens: int, grid: tuple[int, ...] | None) -> int | None:
    """The token at a pixel of a board of this shape, None beside the cells."""
    cells, (rows, columns) = places(tokens, grid)
    at = (int(y * rows // shape[0]), int(x * columns // shape[1]))
    return cells.index(at) if at in cells else None


def named(text: str, tokens: int, grid: tuple[int, ...] | None) -> list[int]:
    """The tokens that a text names, such as `2:3` or `1-4:2-6, 8:1`: rows and columns of the board, from 1.

    Raises:
        ValueError: for another text, or cells beside the board.
    """
    cells, (rows, columns) = places(tokens, grid)
    found: list[int] = []
    for word in text.replace(",", " ").split():
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?:(\d{1,4})(?:-(\d{1,4}))?", word)
        if match is None:
            raise ValueError(f"tokens are named by row:column from 1, such as 2:3 or 1-4:2-6; got {word[:40]!r}.")
        top, left = int(match[1]), int(match[3])
        bottom, right = int(match[2] or top), int(match[4] or left)
        inside = [t for t, (r, c) in enumerate(cells) if top <= r + 1 <= bottom and left <= c + 1 <= right]
        if not inside:
            raise ValueError(f"{word} names no token: the board has {rows} rows and {columns} columns.")
        found += inside
    return sorted(set(found))


def colour(code: int) -> tuple[int, int, int]:
    """A colour of a code, the same everywhere, neighbours far apart."""
    r, g, b = colorsys.hsv_to_rgb(code * 0.618034 % 1, 0.45, 0.85)
    return round(255 * r), round(255 * g), round(255 * b)


def part(name: str, tokens: int, grid: tuple[int, ...] | None) -> Tensor:
    """(T,) bool: the tokens of a part: `upper half` or `left half` of the board, `first half`, `all` or `none`."""
    cells, (rows, columns) = places(tokens, grid)
    inside = {
        "upper half": lambda row, column: row < rows / 2,
        "left half": lambda row, column: column < columns / 2,
        "all": lambda row, column: True,
        "none": lambda row, column: False,
    }
    if name not in (*inside, "first half"):
        raise ValueError(f"a part must be one of {', '.join(inside)}, first half, got {name!r}.")
    if name == "first half":
        return torch.arange(tokens) < tokens / 2
    return torch.tensor([inside[name](*cell) for cell in cells])


# -- walks and files ---------------------------------------------------------------------------------------------------


def walk(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """(steps, P) weights on the straight line from one field to another, both ends included."""
    t = torch.linspace(0, 1, steps)[:, None]
    return (1 - t) * a + t * b


def save_picture(path: Path, shown: np.ndarray) -> Path:
    """A picture (H, W, 3) uint8 as a PNG."""
    Image.fromarray(shown).save(path)
    return path


def write_glb(path: Path, kind: Kind, field: FieldConfig, row: Tensor, cells: int) -> Path | None:
    """A shape's surface as a GLB, None where it has none."""
    if not isinstance(kind, ShapeKind):
        return None
    mesh = mesh_field(field, row, cells, below=kind.below(field))
    if mesh.outcome != "surface":
        return None
    save_mesh(path, mesh)
    return path


def write_weights(path: Path, field: FieldConfig, row: Tensor) -> Path:
    """The field's matrices as safetensors, its architecture in the file's metadata."""
    layers = layout.split(field, row[None])
    names = [name for name, _ in layout.shapes(field.widths)]
    parts = [part[0].contiguous() for layer in layers for part in layer]
    save_file(dict(zip(names, parts, strict=True)), path, {"field": json.dumps(field.to_dict())})
    return path


def write_walk(
    path: Path, kind: Kind, field: FieldConfig, rows: Tensor, extent: list[int], longest: int,
    progress: Callable[[int, int], Any] | None = None,
) -> Path:  # fmt: skip
    """A walk there and back as a GIF; `progress` is told how many of the frames are drawn."""
    frames = []
    for i, row in enumerate(rows):
        frames.append(torch.from_numpy(picture(kind, field, row, extent, longest).copy()))
        if progress is not None:
            progress(i + 1, len(rows))
    save_gif(path, frames + frames[-2:0:-1], fps=12, scale=1)
    return path
