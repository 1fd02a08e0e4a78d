"""What a field is fitted to: pictures with ids, splits and labels, and the coordinates of their pixels.

Sources: scikit-learn's digits (embedded), MNIST and Fashion-MNIST (`fields.signals.mnist`), folders of pictures
(`fields.signals.folder`). Nothing here fits or draws.
"""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fields.model import FieldConfig

SPLITS = ("train", "validation", "test")
DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
DIGITS_HELD_OUT = 180  # of 1,797, for validation and again for test
MNIST_VALIDATION = 5_000  # of the 60,000 training pictures
FULL_SCALE = {"uint8": 255, "uint16": 65535, "float32": 1}


@dataclass(frozen=True)
class SignalsConfig:
    """Which pictures, and how they are split."""

    signals: str = "digits"
    """digits, mnist, fashion-mnist, or a folder of pictures."""
    data_root: Path | None = None
    """Folder with the four idx files of mnist or fashion-mnist laid by hand (.gz or raw); no network is used then."""
    split_seed: int = 0
    """Seed of the split into train, validation and test."""
    strict: bool = False
    """Refuse a folder with unreadable pictures, instead of leaving them out."""

    def __post_init__(self):
        if self.split_seed < 0:
            raise ValueError(f"--split-seed must be 0 or more, got {self.split_seed}.")
        if self.data_root is not None and self.signals not in ("mnist", "fashion-mnist"):
            raise ValueError(
                f"--data-root is for mnist and fashion-mnist, got it with --signals {self.signals}. "
                "For a folder of pictures give the folder itself: --signals FOLDER."
            )


class Signals:
    """N pictures in memory, kept in the integers of their files; `images` turns them into floats.

    Attributes:
        name: of the whole set: digits, mnist, or a folder's name.
        ids: N names such as mnist/train/58828 or photos/cats/a.png.
        split: N of train, validation, test.
        labels: (N,) int64, or None.
        label_names: class names, or None.
        sizes: (N, 2) int64 of height, width.
        channels: 1 or 3.
        skipped: (file, reason) of what could not be read.
    """

    def __init__(
        self,
        name: str,
        ids: list[str],
        split: list[str],
        pictures: Tensor | Sequence[np.ndarray],
        *,
        labels: Tensor | None = None,
        label_names: Sequence[str] | None = None,
        full_scale: int = 255,
        channels: int = 1,
        skipped: Sequence[tuple[str, str]] = (),
        split_seed: int = 0,
    ):
        """Args:
        pictures: (N, H, W, C) uint8, white being `full_scale`; or N arrays (H, W, 1 or 3) of uint8, uint16 (white is
            the type's largest value) or float32 in [0, 1].
        """
        if not len(ids) == len(split) == len(pictures) or (labels is not None and len(labels) != len(ids)):
            raise ValueError(f"ids ({len(ids)}), split ({len(split)}), pictures ({len(pictures)}) and labels differ.")
        self.name, self.ids, self.split = name, list(ids), list(split)
        self.labels, self.label_names = labels, None if label_names is None else list(label_names)
        self.channels, self.skipped, self.split_seed = channels, list(skipped), split_seed
        self._pictures, self._full_scale = pictures, full_scale
        if isinstance(pictures, Tensor):
            self.sizes = torch.tensor(pictures.shape[1:3]).expand(len(ids), 2).clone()
        else:
            self.sizes = torch.tensor([p.shape[:2] for p in pictures], dtype=torch.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.ids)

    def images(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Pictures of one size.

        Args:
            indices: n positions.
        Returns:
            (n, H, W, C) float32 in [0, 1]; gray pictures of a coloured set have three equal channels.
        Raises:
            ValueError: if the pictures differ in size.
        """
        chosen = _positions(indices, len(self))
        if isinstance(self._pictures, Tensor):
            return self._pictures[chosen].to(torch.float32) / self._full_scale
        if not len(chosen):
            return torch.empty(0, *(self._one_size(self.sizes) or (0, 0)), self.channels)
        if self._one_size(self.sizes[chosen]) is None:
            seen = [f"{h} x {w}" for h, w in self.sizes[chosen].unique(dim=0)[:5].tolist()]
            raise ValueError(
                f"images needs pictures of one size (height x width), got {', '.join(seen)}. Ask per size; see `sizes`."
            )
        return torch.stack([self._picture(i) for i in chosen.tolist()])

    def _picture(self, index: int) -> Tensor:
        """(H, W, channels) float32."""
        raw = self._pictures[index]
        picture = torch.from_numpy(raw.astype(np.float32)) / FULL_SCALE[raw.dtype.name]
        return picture.expand(-1, -1, self.channels)

    @staticmethod
    def _one_size(sizes: Tensor) -> tuple[int, int] | None:
        """(height, width), or None when they differ."""
        return tuple(sizes[0].tolist()) if len(sizes) and bool((sizes == sizes[0]).all()) else None

    def indices(self, split: str) -> Tensor:
        """Positions of a split's signals: (n,) int64, possibly none."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}.")
        return torch.tensor([i for i, s in enumerate(self.split) if s == split], dtype=torch.int64)

    def subset(self, indices: Tensor | Sequence[int]) -> "Signals":
        """The signals at n positions, in that order."""
        chosen = _positions(indices, len(self))
        at = chosen.tolist()
        whole = isinstance(self._pictures, Tensor)
        return Signals(
            self.name,
            [self.ids[i] for i in at],
            [self.split[i] for i in at],
            self._pictures[chosen] if whole else [self._pictures[i] for i in at],
            labels=None if self.labels is None else self.labels[chosen],
            label_names=self.label_names,
            full_scale=self._full_scale,
            channels=self.channels,
            skipped=self.skipped,
            split_seed=self.split_seed,
        )

    def find(self, ids: Sequence[str]) -> Tensor:
        """Positions of these ids: (n,) int64.

        Raises:
            ValueError: naming the first id that is not among the signals.
        """
        place = {name: i for i, name in enumerate(self.ids)}
        missing = next((name for name in ids if name not in place), None)
        if missing is not None:
            raise ValueError(
                f"signal {missing!r} is not among the {len(self):,} signals of {self.name}. "
                "Load the signals that the fields were fitted to."
            )
        return torch.tensor([place[name] for name in ids], dtype=torch.int64)

    def describe(self) -> dict:
        """Plain values for JSON, without any local path."""
        size = self._one_size(self.sizes)
        counts = Counter(self.split)
        return {
            "name": self.name,
            "label_names": self.label_names,
            "split_seed": self.split_seed,
            "channels": self.channels,
            "shape": None if size is None else list(size),
            "counts": {split: counts[split] for split in SPLITS},
            "skipped": len(self.skipped),
        }


def load_signals(config: SignalsConfig) -> Signals:
    """The signals that the config names, read into memory.

    Raises:
        FileNotFoundError: if a folder or file is not there.
        ValueError: if files are unreadable.
        RuntimeError: if a download fails.
    """
    if config.signals == "digits":
        return _digits(config)
    if config.signals in ("mnist", "fashion-mnist"):
        return _mnist(config)
    from fields.signals.folder import load_folder

    path = Path(config.signals).expanduser()
    if not path.is_dir():
        close = difflib.get_close_matches(config.signals, ["digits", "mnist", "fashion-mnist"], 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        what = "a file, not a folder" if path.exists() else "not found"
        raise FileNotFoundError(
            f"--signals {config.signals}: {what}. Give digits, mnist, fashion-mnist or a folder of pictures.{hint}"
        )
    return load_folder(path, split_seed=config.split_seed, strict=config.strict)


def _digits(config: SignalsConfig) -> Signals:
    """1,797 pictures of 8 x 8 with values 0 .. 16, from inside scikit-learn."""
    from sklearn.datasets import load_digits

    data = load_digits()
    split = held_out(len(data.images), config.split_seed, DIGITS_HELD_OUT, DIGITS_HELD_OUT)
    return Signals(
        "digits",
        [f"digits/{i}" for i in range(len(split))],
        split,
        torch.from_numpy(data.images.astype(np.uint8))[..., None],
        labels=torch.from_numpy(data.target.astype(np.int64)),
        label_names=DIGITS,
        full_scale=16,
        split_seed=config.split_seed,
    )


def _mnist(config: SignalsConfig) -> Signals:
    """MNIST or Fashion-MNIST: the official test set, and a validation set drawn from the training pictures."""
    from fields.signals.mnist import LABEL_NAMES, read_mnist

    name = config.signals
    (train, train_labels), (test, test_labels) = read_mnist(name, config.data_root)
    split = held_out(len(train), config.split_seed, min(MNIST_VALIDATION, len(train) // 10), 0)
    return Signals(
        name,
        [f"{name}/train/{i}" for i in range(len(train))] + [f"{name}/test/{i}" for i in range(len(test))],
        split + ["test"] * len(test),
        torch.cat([train, test])[..., None],
        labels=torch.cat([train_labels, test_labels]).to(torch.int64),
        label_names=LABEL_NAMES[name],
        split_seed=config.split_seed,
    )


def held_out(n: int, seed: int, validation: int, test: int) -> list[str]:
    """A seeded split of n signals with so many held out; the same on every machine."""
    split = ["train"] * n
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    for rank, i in enumerate(order[: validation + test]):
        split[i] = "validation" if rank < validation else "test"
    return split


def _positions(indices: Tensor | Sequence[int], n: int) -> Tensor:
    """Indices, or a mask, as (n,) int64 that lie inside."""
    chosen = torch.as_tensor(indices)
    chosen = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen.to("cpu", torch.int64).flatten()
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < n:
        raise ValueError(f"indices must lie in 0 .. {n - 1}, got {int(chosen.min())} .. {int(chosen.max())}.")
    return chosen


def grid(config: FieldConfig, height: int, width: int, *, rows: tuple[int, int] | None = None) -> Tensor:
    """Coordinates of a picture's pixels by the field's own convention (`coords`, `axes`).

    Args:
        rows: only the pixel rows from the first number up to the second; None = all.
    Returns:
        (H * W, 2) float32, row-major: y is the outer index, x the inner one.
    """
    if config.in_dim != 2:
        raise ValueError(f"a picture needs a field of 2 coordinates, this one has {config.in_dim}: {config}.")
    if height < 1 or width < 1:
        raise ValueError(f"a picture needs at least 1 x 1 pixels, got {height} x {width} (height x width).")
    y = _axis(config.coords, height)[slice(*rows) if rows else slice(None)]
    y, x = torch.meshgrid(y, _axis(config.coords, width), indexing="ij")
    pair = (x, y) if config.axes == "xy" else (y, x)
    return torch.stack(pair, dim=-1).flatten(0, 1)


def _axis(coords: str, n: int) -> Tensor:
    """Coordinates of n pixels along one axis."""
    i = torch.arange(n, dtype=torch.float64)  # in double, so that pixel 8191 of 8192 is as exact as the first
    if coords == "centres":
        at = (2 * i + 1) / n - 1
    elif coords == "corner":
        at = i / n
    else:
        at = 2 * i / (n - 1) - 1 if n > 1 else torch.zeros(1, dtype=torch.float64)  # one pixel lies in the middle
    return at.to(torch.float32)
