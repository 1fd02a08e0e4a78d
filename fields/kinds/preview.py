"""Contact sheets of fields of any kind: what `preview.png` in a folder shows, and scripts/show.py on request."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fields.kinds.base import Kind
from fields.model import FieldConfig
from fields.view.render import save_png, sheet

SHOWN = 64
"""Fields on a preview."""
DRAWN = 512
"""Fields drawn at once."""
SIDE = 84
"""Pixels of a field's place, where the signals have several sizes."""


def spread(n: int, most: int = SHOWN) -> Tensor:
    """(k,) positions spread evenly over n, k <= most."""
    return torch.linspace(0, n - 1, min(most, n)).round().long()


def save_preview(
    path: Path, kind: Kind, field: FieldConfig, weights: Tensor, extent: Tensor, neighbours: Tensor | None = None
) -> bool:
    """A contact sheet as a PNG, if the fields have a picture.

    Args:
        path: of the PNG.
        kind, field, weights, extent, neighbours: as in `contact_sheet`.
    Returns:
        Whether there was something to draw.
    """
    if not len(weights) or not all(kind.drawable(field, own) for own in extent.unique(dim=0).tolist()):
        return False
    save_png(path, contact_sheet(kind, field, weights, extent, neighbours=neighbours))
    return True


def preview_dataset(path: Path, data: Any) -> None:
    """The preview of a `WeightDataset`, if it is not there yet: its first split, spread evenly."""
    if not path.is_file():
        split = next(iter(data.splits))
        shown = spread(len(data.split(split)))
        save_preview(path, data.kind, data.config, data.weights(split, shown), data.extent(split)[shown])


def contact_sheet(
    kind: Kind,
    field: FieldConfig,
    weights: Tensor,
    extent: Tensor,
    size: tuple[int, int] | None = None,
    captions: list[str] | None = None,
    neighbours: Tensor | None = None,
) -> Tensor:
    """Thumbnails of fields on one sheet; those of several sizes each in its own proportions.

    Args:
        kind: of the signals.
        field: the architecture.
        weights: (N, P).
        extent: (N, K) of their signals.
        size: height and width in pixels instead; shapes are square.
        captions: N texts.
        neighbours: (N, P) other fields, each drawn in a frame at the right of the first.
    Returns:
        (H, W, 3) in [0, 1].
    Raises:
        ValueError: for fields that have no picture, or whose size is not known.
    """
    extent = extent if size is None or kind.name != "images" else torch.tensor([list(size)] * len(weights))
    every = []
    for rows in (weights, neighbours):
        if rows is not None:
            pictures = pictures_of(kind, field, rows, extent, None if size is None else max(size))
            if missing := [own for own, one in zip(extent.tolist(), pictures, strict=True) if one is None]:
                hint = " Say its size: --size H W." if field.in_dim == 2 and field.out_dim in (1, 3) else ""
                raise ValueError(f"fields {field} of {kind.name} have no picture of size {missing[0]}.{hint}")
            every.append([one for one in pictures if one is not None])
    scale = 1 if size is not None else None
    if len({tuple(picture.shape) for pictures in every for picture in pictures}) > 1:
        every, scale = [[letterbox(picture, SIDE) for picture in pictures] for pictures in every], 1
    columns = max(1, round(len(weights) ** 0.5) // len(every))
    first, *others = (torch.stack(pictures) for pictures in every)
    return sheet(first, columns, scale=scale, captions=captions, neighbours=others[0] if others else None)


def pictures_of(
    kind: Kind, field: FieldConfig, weights: Tensor, extent: Tensor, most: int | None = None
) -> list[Tensor | None]:
    """A picture of each field, None where its kind cannot draw it.

    Args:
        weights: (N, P).
        extent: (N, K) of their signals.
        most: longest side in pixels; None = as the kind likes.
    Returns:
        N pictures (H, W, C), of one size where extents agree.
    """
    made: list[Tensor | None] = [None] * len(weights)
    for own in extent.unique(dim=0):
        if kind.drawable(field, own.tolist()):
            for rows in (extent == own).all(1).nonzero().flatten().split(DRAWN):
                drawn = kind.thumbnail(field, weights[rows], own.tolist(), most=most)
                for i, picture in zip(rows.tolist(), drawn, strict=True):
                    made[i] = picture
    return made


def letterbox(picture: Tensor, side: int) -> Tensor:
    """(side, side, C): a picture at its own proportions in the middle of a white square."""
    height, width, channels = picture.shape
    scale = side / max(height, width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    mode = "nearest-exact" if scale >= 1 else "area"
    small = F.interpolate(picture.permute(2, 0, 1)[None], inner, mode=mode)[0].permute(1, 2, 0)
    top, left = (side - inner[0]) // 2, (side - inner[1]) // 2
    square = torch.ones(side, side, channels)
    square[top : top + inner[0], left : left + inner[1]] = small
    return square
