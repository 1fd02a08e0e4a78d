"""Which signals a user asks for, and which points of a shape. Nothing here imports PyTorch."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from fields.runtime.flags import check_numbers

HUB_OPTIONS = ("image_column", "label_column", "split", "rows", "stream")
"""Settings of image datasets of the Hub alone."""

Target = Literal["occupancy", "distance"]
COLLECTIONS = ("abo", "thingi10k", "shapenet")
"""Meshes that users lay in a folder in a collection's own layout (`fields.signals.shapes`)."""
KNOWN = ("digits", "mnist", "fashion-mnist", "solids", *COLLECTIONS)
"""Signals that have a size of their own."""
LARGEST = 1 << 14
"""Pixels along a side of what pictures are resized to."""
DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


@dataclass(frozen=True)
class ShapeOptions:
    """The points of a shape to which a field is fitted."""

    target: Target = "occupancy"
    """What a field's value means. occupancy: 1 inside, 0 outside. distance: signed distance to the surface, negative
    inside, clamped (see --shape.clamp) and scaled to [-1, 1]."""
    near: int | None = None
    """Points per shape that are drawn near the surface; None = 4,096 for solids, 32,768 for meshes."""
    fine: int | None = None
    """Further points per shape, drawn five times nearer to the surface (thin parts need them); None = 0 for solids, 32,768
    for meshes unless --shape.near is given."""
    uniform: int | None = None
    """Points per shape that are drawn uniformly in the cube; None = 4,096 for solids, 65,536 for meshes."""
    spread: float = 0.05
    """Standard deviation of the distance between the surface and the points near it, in units of half the cube's
    edge."""
    clamp: float = 0.1
    """For --shape.target distance: the largest distance, in units of half the cube's edge; greater ones are clamped to
    it, and it becomes 1."""

    def __post_init__(self):
        check_numbers(self, "shape.", least={"near": 0, "fine": 0, "uniform": 0}, above=("spread", "clamp"))
        if self.near == 0 and self.uniform == 0 and not self.fine:
            raise ValueError("a shape needs at least 1 point: --shape.near and --shape.uniform are both 0.")

    def counted(self, meshes: bool) -> "ShapeOptions":
        """The same with numbers of points for what was not given, for meshes or for solids."""
        near, fine, uniform = (32768, 32768, 65536) if meshes else (4096, 0, 4096)
        fine = 0 if self.near is not None else fine
        asked = zip((self.near, self.fine, self.uniform), (near, fine, uniform), strict=True)
        near, fine, uniform = (own if given is None else given for given, own in asked)
        return replace(self, near=near, fine=fine, uniform=uniform)

    @property
    def total(self) -> int:
        """Points of a shape, once they are `counted`."""
        return (self.near or 0) + (self.fine or 0) + (self.uniform or 0)

    def to_dict(self) -> dict:
        """Plain values for JSON; without `fine` where it is 0, as before there was such a choice."""
        return {k: v for k, v in asdict(self).items() if k != "fine" or v}

    @classmethod
    def of(cls, described: dict) -> "ShapeOptions":
        """The options that a dataset was fitted with, from what it says of its signals; the usual ones where it says nothing."""
        points = {k: v for k, v in (described.get("points") or {}).items() if k in cls.__dataclass_fields__}
        return cls(**({"fine": 0} | points)) if points else cls()


@dataclass(frozen=True)
class SignalsConfig:
    """The signals, and how they are split."""

    signals: str = "digits"
    """What to fit: digits, mnist, fashion-mnist, solids, abo, thingi10k, shapenet, a folder of pictures or meshes, or
    an image dataset on the Hub (user/name)."""
    data_root: Path | None = None
    """Folder with the four idx files of mnist or fashion-mnist (.gz or unpacked), or with the files of abo, thingi10k
    or shapenet; nothing is downloaded then. None = mnist and fashion-mnist are downloaded."""
    split_seed: int = 0
    """Random seed of the split into training, validation and test signals."""
    strict: bool = False
    """Stop if a file in the folder cannot be read, instead of leaving it out."""
    resize: int | None = None
    """For pictures from a folder or the Hub: resize each so that its shorter side has this many pixels; None = keep its
    size."""
    crop: bool = False
    """For pictures from a folder or the Hub: keep only the square in the middle of each. With --resize N, every picture
    becomes N x N."""
    image_column: str | None = None
    """For a dataset on the Hub: the column that holds the pictures; default: the only such column, or `image`."""
    label_column: str | None = None
    """For a dataset on the Hub: the column that holds the classes; default: the only such column, or `label` if there
    is one."""
    split: str | None = None
    """For a dataset on the Hub: use only this split and divide it at random; default: the dataset's own training,
    validation and test splits."""
    rows: int | None = None
    """For a dataset on the Hub: use only the first ROWS rows of each split; None = all."""
    stream: bool = False
    """For a dataset on the Hub: read it row by row without storing its files on disk; the pictures are held in memory,
    resized if --resize is given."""
    count: int | None = None
    """For --signals solids: number of solids to generate; None = 2,500."""
    shape: ShapeOptions = field(default_factory=ShapeOptions)
    """How points are drawn from solids and meshes."""

    def __post_init__(self):
        if self.count is not None and (self.count < 1 or self.signals != "solids"):
            raise ValueError(
                f"--count is the number of solids to generate, at least 1; got {self.count} with --signals {self.signals}. "
                "To use fewer signals of another kind, give --limit."
            )
        if self.resize is not None and not 1 <= self.resize <= LARGEST:
            raise ValueError(f"--resize is a number of pixels from 1 to {LARGEST:,}, got {self.resize}.")
        if (self.resize is not None or self.crop) and self.signals in KNOWN:
            raise ValueError(f"--resize and --crop are for folders of pictures, got --signals {self.signals}.")
        check_numbers(self, least={"rows": 1, "split_seed": 0})
        for name in HUB_OPTIONS:
            if getattr(self, name) and self.signals in KNOWN:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} is for image datasets of the Hub, got --signals {self.signals}.")
        if self.data_root is not None and self.signals not in ("mnist", "fashion-mnist", *COLLECTIONS):
            raise ValueError(
                f"--data-root is for mnist, fashion-mnist, {', '.join(COLLECTIONS)}, got it with --signals {self.signals}. "
                "For a folder of pictures give the folder itself: --signals FOLDER."
            )
