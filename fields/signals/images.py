"""Pictures as signals, and the coordinates of their pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.model import FIELDS, FieldConfig
from fields.signals.base import Signals, positions

FULL_SCALE = {"uint8": 255, "uint16": 65535, "float32": 1}


BEYOND = 1.0
"""Networks without a bounded output leave [0, 1] by less than this, values of 0 .. 255 by more."""


def as_pictures(given: Any, *, rendered: bool = False) -> Tensor:
    """Pictures in memory, checked: (N, H, W, C), uint8 or float32 in [0, 1]; without channels they get one.

    Args:
        given: an array or tensor (N, H, W), (N, H, W, 1) or (N, H, W, 3) of uint8, or of floats in [0, 1].
        rendered: what a network computed: NaN may stand in it, and values outside [0, 1] by less than `BEYOND`.
    Raises:
        ValueError: for another shape or other values.
    """
    try:
        pictures = torch.as_tensor(np.ascontiguousarray(given) if isinstance(given, np.ndarray) else given)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"pictures must be one array or tensor of numbers, got {type(given).__name__}.") from None
    pictures = pictures[..., None] if pictures.ndim == 3 else pictures
    if pictures.ndim != 4 or pictures.shape[3] not in (1, 3):
        raise ValueError(
            f"pictures must have shape (N, H, W), (N, H, W, 1) or (N, H, W, 3), got {tuple(pictures.shape)}."
        )
    if pictures.dtype == torch.uint8:
        return pictures
    pictures = pictures.to(torch.float32)
    seen, beyond = (pictures[~pictures.isnan()], BEYOND) if rendered else (pictures, 0)
    if not bool(((seen >= -beyond) & (seen <= 1 + beyond)).all()):  # also refuses NaN
        low, high = float(seen.min()), float(seen.max())
        raise ValueError(f"pictures must be uint8, or floats in [0, 1]; got values {low:g} .. {high:g}.")
    return pictures


class Images(Signals):
    """N pictures in memory, stored as the integers of their files; `images` converts them to floats.

    Attributes:
        extent: (N, 2) int64 of height, width.
        channels: 1 or 3.
    """

    kind = "images"
    comparable = True

    def __init__(
        self,
        name: str,
        ids: Sequence[str],
        split: Sequence[str],
        pictures: Tensor | Sequence[np.ndarray],
        *,
        full_scale: float = 255,
        **about: Any,
    ):
        """Args:
        pictures: (N, H, W, C) uint8 or float32, white being `full_scale`; or N arrays (H, W, 1 or 3) of uint8, uint16
            (white is the type's largest value) or float32 in [0, 1].
        about: labels, label_names, channels, skipped, split_seed of `Signals`.
        """
        if isinstance(pictures, Tensor):
            extent = torch.tensor(pictures.shape[1:3]).expand(len(pictures), 2).clone()
        else:
            extent = torch.tensor([p.shape[:2] for p in pictures], dtype=torch.int64).reshape(-1, 2)
        super().__init__(name, ids, split, extent, **about)
        self._pictures, self._full_scale = pictures, full_scale

    def images(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Pictures of one size.

        Args:
            indices: n positions.
        Returns:
            (n, H, W, C) float32 in [0, 1]; gray pictures of a coloured set have three equal channels.
        Raises:
            ValueError: if the pictures differ in size.
        """
        chosen = positions(indices, len(self))
        if isinstance(self._pictures, Tensor):
            return self._pictures[chosen].to(torch.float32) / self._full_scale
        if not len(chosen):
            return torch.empty(0, *(self._one_extent(self.extent) or (0, 0)), self.channels)
        if self._one_extent(self.extent[chosen]) is None:
            seen = [f"{h} x {w}" for h, w in self.extent[chosen].unique(dim=0)[:5].tolist()]
            raise ValueError(
                f"images needs pictures of one size (height x width), got {', '.join(seen)}. Ask per size; see `extent`."
            )
        return torch.stack([self._picture(i) for i in chosen.tolist()])

    def _picture(self, index: int) -> Tensor:
        """(H, W, channels) float32."""
        raw = np.asarray(self._pictures[index])
        picture = torch.from_numpy(raw.astype(np.float32)) / FULL_SCALE[raw.dtype.name]
        return picture.expand(-1, -1, self.channels)

    def values(self, indices: Tensor | Sequence[int]) -> Tensor:
        """(n, H * W, C) float32 in [0, 1]."""
        return self.images(indices).flatten(1, 2)

    def contents(self, indices: Sequence[int]) -> Iterator[Any]:
        """Pictures as stored in their files."""
        return (self._pictures[i] for i in indices)

    def points(self, config: FieldConfig, indices: Tensor | Sequence[int]) -> Tensor:
        """(H * W, 2), shared by pictures of one size."""
        return grid(config, *self.extent[positions(indices, len(self))[0]].tolist())

    def count(self, extent: Sequence[int]) -> int:
        """Pixels of a picture of this height and width."""
        return extent[0] * extent[1]

    def architecture(self) -> FieldConfig:
        """`digits` for pictures of at most 8 x 8, else `default`."""
        name = "digits" if int(self.extent.max()) <= 8 else "default"
        return replace(FIELDS[name], out_dim=self.channels)

    def _chosen(self, chosen: Tensor) -> dict[str, Any]:
        held = self._pictures
        pictures = held[chosen] if isinstance(held, Tensor) else [held[i] for i in chosen.tolist()]
        return {"pictures": pictures, "full_scale": self._full_scale}


def grid(config: FieldConfig, height: int, width: int, *, rows: tuple[int, int] | None = None) -> Tensor:
    """Coordinates of a picture's pixels by the field's own convention (`coords`, `axes`).

    Args:
        rows: only the pixel rows from the first number up to the second; None = all.
    Returns:
        (H * W, 2) float32, row-major: y is the outer index, x the inner one.
    """
    config.expect("a picture", 2)
    if height < 1 or width < 1:
        raise ValueError(f"a picture needs at least 1 x 1 pixels, got {height} x {width} (height x width).")
    y = axis(config.coords, height)[slice(*rows) if rows else slice(None)]
    y, x = torch.meshgrid(y, axis(config.coords, width), indexing="ij")
    pair = (x, y) if config.axes == "xy" else (y, x)
    return torch.stack(pair, dim=-1).flatten(0, 1)


def axis(coords: str, n: int) -> Tensor:
    """Coordinates of n pixels along one axis."""
    i = torch.arange(n, dtype=torch.float64)  # in double, so that pixel 8191 of 8192 is as exact as the first
    if coords == "centres":
        at = (2 * i + 1) / n - 1
    elif coords == "corner":
        at = i / n
    else:
        at = 2 * i / (n - 1) - 1 if n > 1 else torch.zeros(1, dtype=torch.float64)  # one pixel lies in the middle
    return at.to(torch.float32)
