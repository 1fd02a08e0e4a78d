"""MNIST and Fashion-MNIST: reading idx files, finding them in a given folder, downloading them from torchvision's mirrors.

An idx file is two zero bytes, the type (8 = unsigned byte), the number of axes, each axis's length as a big-endian
32-bit integer, then the values (http://yann.lecun.com/exdb/mnist/). It may be gzipped, and a big one may lie in parts
`NAME.part0ofK[.gz]`, each a complete idx file.

torchvision gives the mirrors and checksums. Its reader and its download were tried (0.29.1) and left: the first takes raw
files only, and says `AssertionError` of a .gz file and `shape is invalid` of a cut one; the second has no timeout, so that a
silent mirror stops it for good. Its import alone took as long as torch's, a file here 0.1 s.
"""

import gzip
import hashlib
import http.client
import re
import sys
import time
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fields.runtime.files import write_atomic
from fields.signals.base import held_out
from fields.signals.images import Images
from fields.signals.options import SignalsConfig

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
NAMES = tuple(name for pair in FILES.values() for name in pair)
COUNTS = {"train": 60_000, "test": 10_000}
VALIDATION = 5_000  # of the 60,000 training pictures
TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
LABEL_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
}  # fmt: skip
FIRST_LABELS = {"mnist": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4], "fashion-mnist": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]}
MORE_MIRRORS = {  # after torchvision's own; the same files, the same checksums
    "mnist": ["https://storage.googleapis.com/cvdf-datasets/mnist/"],
    "fashion-mnist": ["https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"],
}
DOWNLOADS = Path("runs") / "downloads"
TIMEOUT = 20.0  # seconds without a byte
DEADLINE = 600.0  # seconds for one file, and for waiting until another process has fetched all
LARGEST = 64 << 20  # bytes of one file: a mirror that sends more sends something else


def load_mnist(config: SignalsConfig) -> Images:
    """MNIST or Fashion-MNIST: the official test set, and a validation set drawn from the training pictures."""
    name = config.signals
    (train, train_labels), (test, test_labels) = read_mnist(name, config.data_root)
    split = held_out(len(train), config.split_seed, min(VALIDATION, len(train) // 10), 0)
    return Images(
        name,
        [f"{name}/train/{i}" for i in range(len(train))] + [f"{name}/test/{i}" for i in range(len(test))],
        split + ["test"] * len(test),
        torch.cat([train, test])[..., None],
        labels=torch.cat([train_labels, test_labels]).to(torch.int64),
        label_names=LABEL_NAMES[name],
        split_seed=config.split_seed,
    )


def read_mnist(name: str, data_root: Path | None = None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both parts of the dataset.

    Args:
        name: mnist or fashion-mnist.
        data_root: folder of the files; None = `runs/downloads/NAME`, to which they are downloaded if necessary.
    Returns:
        (images (60000, 28, 28) uint8, labels (60000,) uint8), and the same of the 10,000 test pictures.
    Raises:
        FileNotFoundError: naming the files expected and the folders looked in.
        ValueError: naming the file that is not what its name says.
        RuntimeError: if no mirror gave a file.
    """
    if data_root is None:
        root = DOWNLOADS / name
        _fetch_missing(name, root)
    else:
        root = Path(data_root).expanduser()
    folders = _folders(name, root)
    found = {file: _find(folders, file) for file in NAMES}
    missing = [file for file in NAMES if not found[file]]
    if missing:
        raise FileNotFoundError(_by_hand(name, root, missing))
    return _part(name, "train", found), _part(name, "test", found)


def _folders(name: str, root: Path) -> list[Path]:
    """Where files may lie: the folder itself, torchvision's subfolders, and that of our downloads."""
    return [root, root / "raw", root / TORCHVISION[name] / "raw", root / name]


def _by_hand(name: str, root: Path, missing: list[str]) -> str:
    """What is missing, where it was looked for, how to get it."""
    mirrors, _ = _sources(name)
    looked = ", ".join(str(folder) for folder in _folders(name, root))
    return (
        f"{name}: {', '.join(missing)} not found (looked in {looked}). Expected are {', '.join(NAMES)}, each raw or "
        f"as .gz; download them from {mirrors[0]}, put them into one of these folders and name it with --data-root."
    )


def _find(folders: list[Path], file: str) -> list[Path]:
    """The paths of one file: raw, else .gz, else all its parts in order; empty if it is nowhere."""
    for folder in folders:
        for path in (folder / file, folder / f"{file}.gz"):
            if path.is_file():
                return [path]
        parts = _parts(folder, file)
        if parts:
            return parts
    return []


def _parts(folder: Path, file: str) -> list[Path]:
    """`file.part0of3.gz`, ... in order, counted from 0 or from 1."""
    pattern = re.compile(re.escape(file) + r"\.part(\d+)of(\d+)(\.gz)?")
    hits = {}
    for path in sorted(folder.glob(f"{file}.part*")):
        match = pattern.fullmatch(path.name)
        if match:
            hits[int(match[1])] = (path, int(match[2]))
    if not hits:
        return []
    total, first = next(iter(hits.values()))[1], min(min(hits), 1)
    if sorted(hits) != list(range(first, first + total)) or any(of != total for _, of in hits.values()):
        raise ValueError(
            f"{folder}: expected {total} parts of {file}, got {', '.join(p.name for p, _ in hits.values())}. "
            "Put all parts of one split file there."
        )
    return [hits[i][0] for i in sorted(hits)]


def _part(name: str, part: str, found: dict[str, list[Path]]) -> tuple[Tensor, Tensor]:
    """Images and labels of train or test, checked against each other and against what is published."""
    images_file, labels_file = FILES[part]
    images, labels = _joined(found[images_file], 3), _joined(found[labels_file], 1)
    for paths, array, shape in (
        (found[images_file], images, (COUNTS[part], 28, 28)),
        (found[labels_file], labels, (COUNTS[part],)),
    ):
        if array.shape != shape:
            raise ValueError(f"{paths[0]}: expected values of shape {shape}, got {array.shape}. {REPLACE}")
    if labels.max() > 9:
        raise ValueError(f"{found[labels_file][0]}: labels must be 0 .. 9, got {labels.max()}. {REPLACE}")
    other = "fashion-mnist" if name == "mnist" else "mnist"
    if part == "train" and labels[:10].tolist() == FIRST_LABELS[other]:
        raise ValueError(f"{found[labels_file][0]} belongs to {other}, not to {name}. Give {name}'s own files.")
    return torch.from_numpy(images), torch.from_numpy(labels)


def _joined(paths: list[Path], axes: int) -> np.ndarray:
    """The parts of one file, one after the other."""
    arrays = [read_idx(path, axes) for path in paths]
    for path, array in zip(paths, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(f"{path}: expected pictures of {arrays[0].shape[1:]}, got {array.shape[1:]}. {REPLACE}")
    return np.concatenate(arrays)


REPLACE = "Remove this file or put a good copy in its place."


def read_idx(path: Path, axes: int) -> np.ndarray:
    """One idx file of unsigned bytes, raw or gzipped (seen from its bytes, not from its name).

    Args:
        axes: 3 for images, 1 for labels.
    Returns:
        uint8 of the shape that the file states.
    Raises:
        ValueError: naming the file, what is wrong with it and what to do.
    """
    data = _plain_bytes(path)
    if len(data) < 4 * (axes + 1) or data[:4] != bytes([0, 0, 8, axes]):
        raise ValueError(
            f"{path} is not an idx file of unsigned bytes with {axes} axes: expected to begin with "
            f"{bytes([0, 0, 8, axes]).hex()}, got {data[:4].hex() or 'nothing'}. {REPLACE}"
        )
    shape = tuple(np.frombuffer(data, ">u4", count=axes, offset=4).tolist())
    values = np.frombuffer(data, np.uint8, offset=4 * (axes + 1))
    if len(values) != int(np.prod(shape, dtype=object)):
        raise ValueError(
            f"{path} states the shape {shape} but holds {len(values):,} values: it is truncated. {REPLACE}"
        )
    return values.reshape(shape).copy()  # a buffer is read-only, torch wants to write


def _plain_bytes(path: Path) -> bytes:
    """A file's content, unzipped if it is zipped."""
    data = path.read_bytes()
    if not data:
        raise ValueError(f"{path} is empty (0 bytes). {REPLACE}")
    if data.lstrip()[:1] == b"<":
        raise ValueError(f"{path} is an HTML page, not an idx file: a failed download. {REPLACE}")
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is a truncated or corrupt gzip file ({error}). {REPLACE}") from None


def _sources(name: str) -> tuple[list[str], dict[str, str]]:
    """Mirrors, and the MD5 of each .gz file, from torchvision's tables."""
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION[name])
    return [*kind.mirrors, *MORE_MIRRORS[name]], dict(kind.resources)


def _fetch_missing(name: str, root: Path) -> None:
    """Fill a download folder. One process works, the others wait and then find everything there."""
    if all(_good(_folders(name, root), file) for file in NAMES):
        return
    from filelock import FileLock, Timeout

    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".lock", timeout=DEADLINE):
            _fetch(name, root)
    except Timeout:
        raise RuntimeError(
            f"another process has been downloading {name} to {root} for more than {DEADLINE:.0f} s. Stop it, or put "
            "the files into a folder yourself and name it with --data-root."
        ) from None


def _good(folders: list[Path], file: str) -> bool:
    """Whether a file is there and readable."""
    try:
        paths = _find(folders, file)
        for path in paths:
            read_idx(path, 3 if "idx3" in file else 1)
    except (ValueError, OSError):
        return False
    return bool(paths)


def _fetch(name: str, root: Path) -> None:
    """Download what is missing or unreadable; a bad file goes when its good copy has come."""
    mirrors, checksums = _sources(name)
    folders = _folders(name, root)
    for file in NAMES:
        if _good(folders, file):
            continue
        print(f"downloading {file}.gz of {name} to {root}", file=sys.stderr)
        bad = [path for folder in folders for path in folder.glob(f"{file}*") if path.is_file()]  # in whatever state
        reasons = []
        for mirror in list(mirrors):
            try:
                _download(f"{mirror}{file}.gz", root / f"{file}.gz", checksums[f"{file}.gz"])
            except (OSError, ValueError, http.client.HTTPException) as error:
                reasons.append(f"{mirror}: {_why(error)}")
                mirrors.append(mirrors.pop(mirrors.index(mirror)))  # the next file begins with a mirror that works
                continue
            break
        else:
            raise RuntimeError(
                f"{name} could not be downloaded ({'; '.join(reasons)}). "
                f"Put {', '.join(NAMES)} (unpacked or .gz) into {root}, or into a folder named with --data-root."
            )
        for path in bad:
            if path != root / f"{file}.gz":
                print(f"removing {path}: unreadable, replaced by {file}.gz", file=sys.stderr)
                path.unlink(missing_ok=True)


def _why(error: Exception) -> str:
    """A failure in a few words; urllib wraps what the system says."""
    inner = getattr(error, "reason", None)
    return getattr(inner, "strerror", None) or str(error) or type(error).__name__


def _download(url: str, path: Path, md5: str) -> None:
    """One file from one address, checked before it takes its name.

    Raises:
        OSError: if the network or the server fails.
        ValueError: if something else came than the file.
    """
    end = time.monotonic() + DEADLINE
    request = urllib.request.Request(url, headers={"User-Agent": "neural-fields-as-data"})
    data = bytearray()
    with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
        while block := reply.read1(1 << 16):
            data += block
            if time.monotonic() > end:
                raise TimeoutError(f"not done after {DEADLINE:.0f} s")
            if len(data) > LARGEST:
                raise ValueError(f"more than {LARGEST >> 20} MiB came")
    seen = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if seen != md5:
        what = (
            "an HTML page came" if data.lstrip()[:1] == b"<" else f"{len(data):,} bytes with another MD5 ({seen}) came"
        )
        raise ValueError(f"{what} instead of the file")
    with write_atomic(path) as temporary:
        temporary.write_bytes(data)
