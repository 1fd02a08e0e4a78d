"""Folders of pictures, of any size and kind, as signals.

How a file becomes a picture in [0, 1]:
- 8 bits are divided by 255, 16-bit gray by 65535 (integers of 32 bits too, if they lie in 0 .. 65535); floats are taken
  as they are and must lie in [0, 1]. Pillow reads colour of 16 bits as 8.
- Palettes become the colours they stand for, CMYK and YCbCr become RGB, 1 bit becomes black and white.
- Transparent pixels are laid over black: value = colour x alpha.
- A picture is turned as its EXIF orientation says. Of an animation, or of several pages, the first is read.
- A picture whose three channels are equal everywhere counts as gray. The set has 3 channels if ANY picture is coloured.

Which files: those with a picture's extension, in all subfolders; hidden files and folders, and other extensions, are
passed over. What cannot be read, and what a link brings in from outside the folder, is named in `Signals.skipped`.

Labels: if ALL pictures lie in subfolders, the first subfolder is the class (torchvision's ImageFolder); else none.
Split: folders named train or training, val, valid or validation, test or testing at the top are the splits, and classes lie
below them. Otherwise 80 % train, 10 % validation, 10 % test, by a seeded order of the sorted paths; with fewer than 10 pictures all
are train.
"""

import os
import re
import sys
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from fields.runtime.console import bar, plural
from fields.signals.base import SMALLEST_SPLIT, held_out, tenths
from fields.signals.images import Images

EXTENSIONS = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif"),
}
# Named, because Pillow would otherwise try all it knows on a file: EPS starts Ghostscript.
FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000", "AVIF")
NAMED = 20  # bad files named in an error


def load_folder(
    root: Path, *, split_seed: int = 0, strict: bool = False, resize: int | None = None, crop: bool = False
) -> Images:
    """All pictures of a folder.

    Args:
        resize: pixels of the shorter side of each, None = as they are.
        crop: only the square in the middle of each.
        strict: refuse the folder if any picture is unreadable.
    Raises:
        ValueError: if there is no readable picture; with `strict`, naming every bad file.
    """
    root = Path(root)
    files, skipped = find_files(root)
    names, pictures = [], []
    quiet = os.environ.get("RANK", "0") != "0"  # progress on the first process
    for relative in bar(files, desc="reading pictures", unit="file", quiet=quiet, leave=False):
        try:
            pictures.append(fitted(read_picture(root / relative), resize, crop))
            names.append(relative)
        except Exception as error:  # Pillow raises nearly any type on a broken file; one file must not end the reading
            skipped.append((relative, reason(error)))
    skipped.sort()
    _refuse(root, len(names), skipped, strict)
    split, inner = divided(names, split_seed)
    labels, label_names = _labels(inner)
    if inner is not names:
        note(f"splits are the folders {', '.join(sorted({n.split('/')[0] for n in names}))} of {root}")
    elif odd := unused_splits(names):
        note(
            f"{odd}; the split is drawn at random. Splits are folders train, validation and test at the top", "warning"
        )
    about = {"labels": labels, "label_names": label_names, "skipped": skipped, "split_seed": split_seed}
    return as_signals(root.resolve().name or "root", names, pictures, split, inner, **about)


def as_signals(
    name: str, names: list[str], pictures: list[np.ndarray], split: list[str], inner: list[str], **about: Any
) -> Images:
    """Pictures that were read one by one.

    Args:
        name: of the set.
        names: of the pictures in it.
        pictures: (H, W, 1 or 3) each.
        split: of each.
        inner: `names`, or the paths below the folders that give the splits; see `keep_together`.
        about: labels, label_names, skipped, split_seed of `Signals`.
    """
    keep_together(names, inner, split, pictures)
    channels = max(p.shape[2] for p in pictures)
    return Images(name, [f"{name}/{one}" for one in names], split, pictures, channels=channels, **about)


def find_files(root: Path, extensions: Collection[str] = EXTENSIONS) -> tuple[list[str], list[tuple[str, str]]]:
    """Relative paths (with /) of a folder's files of a kind, sorted, and what is left out with its reason."""
    skipped: list[tuple[str, str]] = []
    files, top = [], root.resolve()
    for folder, subfolders, names in os.walk(root, onerror=_unreadable(root, skipped)):
        here = Path(folder)
        for name in [n for n in subfolders if not n.startswith(".") and (here / n).is_symlink()]:
            skipped.append((_relative(here / name, root), "a link to a folder: not followed"))
        subfolders[:] = [n for n in subfolders if not n.startswith(".")]
        for name in names:
            if name.startswith(".") or Path(name).suffix.lower() not in extensions:
                continue
            path, relative = here / name, _relative(here / name, root)
            why = _left_out(path, top)
            if why:
                skipped.append((relative, why))
            else:
                files.append(relative)
    return sorted(files), skipped


def _unreadable(root: Path, skipped: list[tuple[str, str]]):
    """What `os.walk` calls for a folder that it may not read."""
    return lambda error: skipped.append((_relative(Path(error.filename), root), error.strerror or "unreadable"))


def _relative(path: Path, root: Path) -> str:
    """A printable path below the root."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def _left_out(path: Path, top: Path) -> str | None:
    """Why a file is not read at all, or None."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if path.is_symlink() and not path.exists():
        return "a broken link"
    if not path.resolve().is_relative_to(top):
        return "a link that leads outside the folder (copy the file to its place)"
    if not path.is_file():
        return "not a file"
    return "empty file (0 bytes)" if path.stat().st_size == 0 else None


def read_picture(path: Path | BinaryIO) -> np.ndarray:
    """One picture by the rules above, from a file by its path or opened.

    Returns:
        (H, W, 1 or 3) uint8, uint16 (white is 65535) or float32 in [0, 1].
    Raises:
        Exception: of whatever type Pillow chooses; `load_folder` turns it into a short reason.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata is no reason to leave a picture out
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # An open file, not a path: Pillow maps plain TIFFs given by path into memory and then turns them wrongly.
        with path.open("rb") if isinstance(path, Path) else path as file, Image.open(file, formats=_formats()) as image:
            image.load()
            return _collapsed(_array(_upright(image)))


def fitted(values: np.ndarray, resize: int | None, crop: bool) -> np.ndarray:
    """A picture (H, W, C) of another size, its aspect kept; first cut to the square in its middle, if asked for.

    Args:
        values: uint8, uint16, or float32 in [0, 1].
        resize: pixels of the shorter side.
        crop: whether to cut.
    """
    height, width = values.shape[:2]
    if crop and height != width:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        values = values[top : top + side, left : left + side]
        height = width = side
    if resize is None or resize == min(height, width):
        return np.ascontiguousarray(values)
    shape = [max(1, round(resize * n / min(height, width))) for n in (width, height)]
    planes = [Image.fromarray(values[..., c].astype(np.float32)) for c in range(values.shape[2])]
    made = np.stack([np.asarray(plane.resize(shape, Image.Resampling.BICUBIC)) for plane in planes], -1)
    if values.dtype == np.float32:
        return made.clip(0, 1)
    return made.round().clip(0, np.iinfo(values.dtype).max).astype(values.dtype)


def _formats() -> list[str]:
    """Those of FORMATS that this Pillow can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says; as it lies in the file where the EXIF is broken."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block raises many types; the pixels are good
        return image


def _array(image: Image.Image) -> np.ndarray:
    """Values of an opened picture, (H, W) or (H, W, 3)."""
    if image.mode.startswith("I;16"):
        return _without_key(np.asarray(image).astype(np.uint16), image)
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"32-bit integers {values.min()} .. {values.max()}; expected 0 .. 65535")
        return _without_key(values.astype(np.uint16), image)
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):  # also refuses NaN
            raise ValueError(f"floats {values.min():.4g} .. {values.max():.4g}; expected 0 .. 1")
        return values.astype(np.float32)
    if image.has_transparency_data or image.mode in ("La", "RGBa"):
        pixels = np.asarray(image.convert("RGBA")).astype(np.uint16)
        return ((pixels[..., :3] * pixels[..., 3:] + 127) // 255).astype(np.uint8)  # rounded; 255 * 255 fits 16 bits
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _without_key(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """16-bit gray with the one transparent value that a PNG may name laid over black."""
    key = image.info.get("transparency")
    return np.where(values == key, np.uint16(0), values) if isinstance(key, int) else values


def _collapsed(values: np.ndarray) -> np.ndarray:
    """(H, W, 1) for what is gray, else (H, W, 3)."""
    if values.ndim == 2:
        return values[..., None].copy()
    gray = (values == values[..., :1]).all()
    return np.ascontiguousarray(values[..., :1] if gray else values)


def reason(error: Exception) -> str:
    """Why a file could not be read, in a few words without its path."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format known here"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    text = " ".join((str(error) or type(error).__name__).split())
    if isinstance(error, ValueError) and "expected" in text:
        return text
    return f"truncated or corrupt ({text[:100]})"


def _refuse(root: Path, good: int, skipped: list[tuple[str, str]], strict: bool) -> None:
    """Refuse an empty folder, and a bad file where that was asked for."""
    listed = "; ".join(f"{name}: {why}" for name, why in (skipped if strict else skipped[:NAMED]))
    if strict and skipped:
        raise ValueError(
            f"{root}: {len(skipped)} of {good + len(skipped)} pictures are unreadable ({listed}). "
            "Repair or remove them, or leave out --strict."
        )
    if not good:
        bad = f"; {len(skipped)} unreadable: {listed}" if skipped else ""
        raise ValueError(
            f"{root} holds no readable picture ({', '.join(sorted(EXTENSIONS))}){bad}. Give a folder of pictures."
        )


SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders, in any case, that say to which split their pictures belong."""
ALIKE = {"dev": "validation", "eval": "validation", "holdout": "test", "trains": "train", "tests": "test"}
"""Words that look as if they said so."""


def divided(names: list[str], seed: int) -> tuple[list[str], list[str]]:
    """The split of each picture, and the paths below the splits' folders (`names` itself, where there are none).

    Folders count as splits if every picture lies in one of such a name, and there is one for training. Where they hold out
    nothing for validation, a tenth of the training pictures is drawn for it.
    """
    first = [name.split("/")[0].lower() if "/" in name else "" for name in names]
    given = [SPLIT_NAMES.get(folder, "") for folder in first]
    if "" in given or "train" not in given or len(set(given)) < 2:
        return tenths(len(names), seed), names
    if "validation" not in given:
        train = [i for i, split in enumerate(given) if split == "train"]
        drawn = held_out(len(train), seed, len(train) // 10 if len(train) >= SMALLEST_SPLIT else 0, 0)
        for i, split in zip(train, drawn, strict=True):
            given[i] = split
    return given, [name.split("/", 1)[1] for name in names]


def join_twins(split: list[str], pictures: list[np.ndarray]) -> int:
    """Put pictures of equal content into the split of the first of them, in place; how many equal an earlier one."""
    seen: dict[tuple, int] = {}
    twins = 0
    for i, picture in enumerate(pictures):
        first = seen.setdefault((picture.shape, picture.dtype.str, picture.tobytes()), i)
        if first != i:
            split[i], twins = split[first], twins + 1
    return twins


def keep_together(names: list[str], inner: list[str], split: list[str], pictures: list[np.ndarray]) -> None:
    """Put equal pictures into one split where splits are drawn, in place; where folders give them, say that they share some.

    Args:
        names: paths of the pictures.
        inner: what `divided` gives: `names` itself where no folder gives a split.
        split: of each picture.
        pictures: their values.
    """
    given = {SPLIT_NAMES[name.split("/")[0].lower()] for name in names} if inner is not names else set()
    drawn = [i for i, where in enumerate(split) if not given or (where != "test" and "validation" not in given)]
    part = [split[i] for i in drawn]
    if twins := join_twins(part, [pictures[i] for i in drawn]):
        note(f"{twins} of {len(drawn):,} pictures equal an earlier one and share its split")
    for i, where in zip(drawn, part, strict=True):
        split[i] = where
    keys = [(picture.shape, picture.dtype.str, picture.tobytes()) for picture in pictures] if given else []
    known = {key for key, where in zip(keys, split, strict=False) if where == "train"}
    if shared := sum(key in known for key, where in zip(keys, split, strict=False) if where != "train"):
        note(
            f"{plural(shared, 'held-out picture')} of the folders equal one for training; they stay where they are",
            "warning",
        )


def unused_splits(names: list[str]) -> str:
    """Which folders look like splits, such as train2017 and val2017, or train and test inside classes, and count as classes.

    Args:
        names: paths of pictures whose splits no folder gives.
    Returns:
        A sentence's beginning; empty where no folder has two that look like different splits.
    """
    inside: dict[str, dict[str, str]] = {}
    for parts in {tuple(name.split("/")[:-1]) for name in names}:
        for i, part in enumerate(parts):
            words = [SPLIT_NAMES.get(w) or ALIKE.get(w) for w in re.findall("[a-z]+", part.lower())]
            if found := next((w for w in words if w), None):
                inside.setdefault("/".join(parts[:i]), {})[part] = found
    for where, parted in sorted(inside.items()):
        if "train" in parted.values() and len(set(parted.values())) > 1:
            return f"the folders {', '.join(sorted(parted)[:4])}{f' in {where}' if where else ''} look like splits, but are not taken as such"
    return ""


def note(text: str, kind: str = "note") -> None:
    """A line about how a folder was read, from the first process."""
    if os.environ.get("RANK", "0") == "0":
        print(f"{kind}: {text}", file=sys.stderr)


def _labels(names: list[str]) -> tuple[torch.Tensor | None, list[str] | None]:
    """(N,) int64 and class names from the first subfolders, or None if a picture lies at the top."""
    first = [Path(name).parts[0] for name in names if "/" in name]
    if len(first) < len(names):
        return None, None
    classes = sorted(set(first))
    place = {c: i for i, c in enumerate(classes)}
    return torch.tensor([place[c] for c in first], dtype=torch.int64), classes
