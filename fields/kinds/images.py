"""Pictures: PSNR of values in [0, 1]; a thumbnail is the field rendered at its picture's size."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fields.kinds.base import Kind, Measure
from fields.metrics.pairs import psnr
from fields.model import FieldConfig
from fields.signals.images import grid
from fields.view.render import render


@dataclass(frozen=True)
class ImageKind(Kind):
    """Fields from the coordinates of a pixel to gray or RGB."""

    name = "images"
    measure = Measure("PSNR", "dB", poor=20.0)
    noun = "picture"
    axes = ("height", "width")

    @staticmethod
    def suits(config: FieldConfig) -> bool:
        """Two coordinates."""
        return config.in_dim == 2

    def quality(self, config: FieldConfig, values: Tensor, targets: Tensor) -> Tensor:
        """(N,) dB, values clamped to [0, 1]."""
        return psnr(values.clamp(0, 1), targets)

    def points(self, config: FieldConfig, extent: Sequence[int]) -> Tensor:
        """(H * W, 2) coordinates of all pixels."""
        return grid(config, *extent)

    def regions(self, config: FieldConfig) -> tuple[int, ...]:
        """7 rows and columns."""
        return (7, 7)

    def compared(self, config: FieldConfig, weights: Tensor, extent: Sequence[int]) -> Tensor:
        """(N, H, W, C): the fields rendered."""
        return render(config, weights, *extent)

    def extent_of(self, compared: Tensor) -> tuple[int, ...]:
        """Height and width."""
        return tuple(compared.shape[1:3])

    def drawable(self, config: FieldConfig, extent: Sequence[int]) -> bool:
        """Gray or RGB, of a known size."""
        return config.out_dim in (1, 3) and self.known(extent)

    def thumbnail(
        self, config: FieldConfig, weights: Tensor, extent: Sequence[int], *, most: int | None = None
    ) -> Tensor:
        """(N, H, W, C) at the picture's own size, or smaller with the same shape."""
        height, width = extent
        scale = 1.0 if most is None else min(1.0, most / max(height, width))
        return render(config, weights, max(1, round(height * scale)), max(1, round(width * scale)))
