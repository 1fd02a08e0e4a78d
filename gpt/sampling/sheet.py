"""Pictures of samples, each beside the training field that looks most like it."""

from pathlib import Path

import torch
from torch import Tensor

from fields.kinds.registry import kind_of
from fields.metrics.distances import nearest
from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from fields.view.render import caption, render, save_png, sheet

CHUNK = 2048
"""Training fields rendered at a time."""
LEGEND = "New fields, each with its nearest training field in a frame"
WIDE = 360
"""Pixels across from which on a sheet has room for the legend."""


def save_samples_sheet(
    path: Path, config: FieldConfig, weights: Tensor, size: tuple[int, int], data: WeightDataset | None, most: int = 100
) -> bool:
    """A sheet of fields, each beside its nearest training field if `data` is given.

    Args:
        path: of the PNG.
        config: the fields' architecture.
        weights: (N, P); the first `most` are drawn.
        size: height and width in pixels.
        data: where to look for neighbours.
    Returns:
        Whether there was something to draw: fields of two coordinates, at least one, with a known size.
    """
    if kind_of(config).name != "images" or not len(weights) or min(size) < 1:
        return False
    images = render(config, weights[:most], *size)
    neighbours = None
    if data is not None and len(data.splits.get("train", ())):
        rendered = (render(config, part, *size) for part in data.batches("train", CHUNK))
        where = nearest(images.nan_to_num(), rendered).where
        neighbours = render(config, data.weights("train", where), *size)
    page = sheet(images, max(1, round(len(images) ** 0.5)), neighbours=neighbours)
    if neighbours is not None and page.shape[1] >= WIDE:
        page = torch.cat([page, caption(LEGEND, page.shape[1])])
    save_png(path, page)
    return True
