"""Which signals a user asks for, and which points of a shape. Nothing here imports PyTorch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fields.runtime.flags import check_numbers

HUB_OPTIONS = ("image_column", "label_column", "split", "rows", "stream")
"""Settings of image datasets of the Hub alone."""

Target = Literal["occupancy", "distance"]
COLLECTIONS = ("abo", "thingi10k", "shapenet")
"""Meshes that users lay in a folder in a collection's own layout (`fields.signals.shapes`)."""
NAMED = ("digits", "mnist", "fashion-mnist", "solids", *COLLECTIONS)
"""Signals that have a size of their own."""
LARGEST = 1 << 14
"""Pixels along a side of what pictures are resized to."""
DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


@dataclass(frozen=True)
class ShapeOptions:
    """Which points of a shape a field is fitted to."""

    target: Target = "occupancy"
    """occupancy: 1 inside, 0 outside; distance: signed, negative inside, clamped and scaled to [-1, 1]."""
    near: int = 4096
    """Points near the surface."""
    uniform: int = 4096
    """Points anywhere in the cube."""
    spread: float = 0.05
    """Standard deviation of the near points' distance from the surface; half the cube's edge is 1."""
    clamp: float = 0.1
    """Distances beyond this are cut, and this one is 1."""

    def __post_init__(self):
        check_numbers(self, "shape.", least={"near": 0, "uniform": 0}, above=("spread", "clamp"))
        if self.near + self.uniform < 1:
            raise ValueError("a shape needs at least 1 point: --shape.near and --shape.uniform are both 0.")


@dataclass(frozen=True)
class SignalsConfig:
    """Which signals, and how they are split."""

    signals: str = "digits"
    """digits, mnist, fashion-mnist, solids, abo, thingi10k, shapenet, a folder of pictures or meshes, or an image dataset of
    the Hub, user/name."""
    data_root: Path | None = None
    """Folder with the four idx files of mnist or fashion-mnist laid by hand (.gz or raw), no network is used then; or of
    abo, thingi10k or shapenet."""
    split_seed: int = 0
    """Seed of the split into train, validation and test."""
    strict: bool = False
    """Refuse a folder with unreadable files, instead of leaving them out."""
    resize: int | None = None
    """For pictures of a folder or the Hub: pixels of the shorter side of each, once it is resized; None = as they are."""
    crop: bool = False
    """For pictures of a folder or the Hub: only the square in the middle of each. With --resize N all are N x N."""
    image_column: str | None = None
    """For a dataset of the Hub: its column of pictures; default: the only one, or `image`."""
    label_column: str | None = None
    """For a dataset of the Hub: its column of classes; default: the only one, or `label` if there is one."""
    split: str | None = None
    """For a dataset of the Hub: only this split, divided at random; default: its own training, validation and test splits."""
    rows: int | None = None
    """For a dataset of the Hub: only the first so many rows of each split; None = all."""
    stream: bool = False
    """For a dataset of the Hub: read it row by row, and keep no file of it on disk; the pictures, once resized, lie in memory."""
    count: int | None = None
    """Solids that are made; None = 2,500."""
    shape: ShapeOptions = field(default_factory=ShapeOptions)
    """Points of solids and meshes."""

    def __post_init__(self):
        if self.count is not None and (self.count < 1 or self.signals != "solids"):
            raise ValueError(
                f"--count is how many solids are made, at least 1; got {self.count} with --signals {self.signals}. "
                "To use fewer signals of another kind give --limit."
            )
        if self.resize is not None and not 1 <= self.resize <= LARGEST:
            raise ValueError(f"--resize is a number of pixels from 1 to {LARGEST:,}, got {self.resize}.")
        if (self.resize is not None or self.crop) and self.signals in NAMED:
            raise ValueError(f"--resize and --crop are for folders of pictures, got --signals {self.signals}.")
        check_numbers(self, least={"rows": 1, "split_seed": 0})
        for name in HUB_OPTIONS:
            if getattr(self, name) and self.signals in NAMED:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} is for image datasets of the Hub, got --signals {self.signals}.")
        if self.data_root is not None and self.signals not in ("mnist", "fashion-mnist", *COLLECTIONS):
            raise ValueError(
                f"--data-root is for mnist, fashion-mnist, {', '.join(COLLECTIONS)}, got it with --signals {self.signals}. "
                "For a folder of pictures give the folder itself: --signals FOLDER."
            )
