"""Pictures of samples, each beside the training field that looks most like it."""

from pathlib import Path

import torch
from torch import Tensor

from fields.kinds.registry import kind_of
from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from fields.view.render import render, save_png, sheet

CHUNK = 2048
"""Training fields rendered at a time."""


def nearest_training(images: Tensor, data: WeightDataset, split: str = "train") -> tuple[Tensor, Tensor]:
    """The training field nearest to each picture in pixels, searched chunk by chunk.

    Args:
        images: (N, H, W, C).
        data: with rows of the same field.
        split: where to look.
    Returns:
        (N, H, W, C) its rendering, (N,) int64 its row.
    """
    n, height, width, _ = images.shape
    flat = images.nan_to_num().flatten(1)
    best, rows, pictures = torch.full((n,), torch.inf), torch.full((n,), -1), torch.zeros_like(images)
    at = 0
    for weights in data.batches(split, CHUNK):
        rendered = render(data.config, weights, height, width)
        distance, near = torch.cdist(flat, rendered.flatten(1)).min(1)
        better = distance < best
        best[better], rows[better], pictures[better] = distance[better], near[better] + at, rendered[near[better]]
        at += len(weights)
    return pictures, rows


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
    neighbours = None if data is None else nearest_training(images, data)[0]
    save_png(path, sheet(images, max(1, round(len(images) ** 0.5)), neighbours=neighbours))
    return True
