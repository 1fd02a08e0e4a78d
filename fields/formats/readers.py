"""Foreign weight files as tensors, read without running anything that a file could carry.

Pickles only by PyTorch's `weights_only`, arrays without object types, HDF5 without links to other files. Each reader
returns tensors by name and what the file says about its network; it knows nothing of fields.
"""

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.formats.stored import INTEGERS, dequantised, unpacked, without_norm
from fields.runtime.files import FETCH, is_pointer
from fields.runtime.records import parse_json, read_json

LARGEST = 8 << 30  # bytes that a file may say it holds: a cut or hostile header can claim anything
NETWORK = ("nef.json", "cfg.json")  # what fit-a-nef writes beside its fields
PACKED = 1100
"""Bytes that one byte of a compressed file can become: no more with deflate."""
SMALL = 64 << 20
"""Bytes that a file may become whatever its size."""
STATES = ("state_dict", "params", "model_state_dict", "model")


@dataclass
class Raw:
    """A file's content."""

    tensors: dict[str, Tensor]
    """By key; with a leading axis of fields where the format stacks them."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What the file, or one beside it, says about the network."""
    labels: list[int] | None = None
    """One per field, where the file has them."""


@dataclass
class Network:
    """`nef.json` of fit-a-nef, as far as it is read."""

    name: str | None = None
    params: dict = field(default_factory=dict)


@dataclass
class NefConfig:
    """`cfg.json` of fit-a-nef, as far as it is read."""

    dataset: dict = field(default_factory=dict)


def read(path: Path) -> Raw:
    """A weight file by its ending.

    Raises:
        ValueError: saying what is wrong with the file.
        Exception: of whatever type the format's library chooses for a broken file.
    """
    if path.stat().st_size == 0:
        raise ValueError("empty file (0 bytes)")
    if is_pointer(path):
        raise ValueError(FETCH)
    try:
        return READERS[path.suffix.lower()](path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, KeyError, TypeError, struct.error):
        raise ValueError("truncated or corrupt") from None


def read_torch(path: Path) -> Raw:
    """A state dict saved by PyTorch, alone or under one of the usual keys."""
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused or not
            content = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(torch_reason(error)) from None
    if not isinstance(content, dict):
        raise ValueError(f"expected a state dict, got a {type(content).__name__}")
    meta = {k: v for k, v in content.items() if not isinstance(v, (dict, Tensor))}
    for name in STATES:
        if isinstance(content.get(name), dict) and any(isinstance(v, Tensor) for v in content[name].values()):
            for other in content.values():
                if other is not content[name] and isinstance(other, dict):
                    meta |= {k: v for k, v in other.items() if not isinstance(v, (dict, Tensor))}
            content = content[name]
            break
    else:
        content = _inner(content)
    tensors = {str(k): v for k, v in unpacked(content).items() if isinstance(v, Tensor)}
    check_views(tensors)
    return Raw(_all_floats(tensors), meta)


def _inner(content: dict, depth: int = 4) -> dict:
    """The one dict of tensors in a dict of dicts, under whatever key it lies."""
    if not depth or any(isinstance(v, Tensor) for v in content.values()):
        return content
    inner = {k: _inner(v, depth - 1) for k, v in content.items() if isinstance(v, dict)}
    inner = {k: v for k, v in inner.items() if any(isinstance(t, Tensor) for t in v.values())}
    if len(inner) > 1:
        raise ValueError(
            f"holds tensors under several keys ({', '.join(map(str, inner))}); save the field's own state_dict alone"
        )
    return next(iter(inner.values()), content)


def read_npz(path: Path) -> Raw:
    """Arrays of an .npz; object arrays (pickles) are refused by numpy."""
    _check_archive(path, PACKED)
    with np.load(path, allow_pickle=False) as archive:
        return Raw(_all_floats({name: torch.from_numpy(archive[name]) for name in archive.files}))


def read_safetensors(path: Path) -> Raw:
    """All tensors of a .safetensors file, and its metadata."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        meta = dict(file.metadata() or {})
        return Raw(_all_floats({name: file.get_tensor(name) for name in file.keys()}), meta)  # noqa: SIM118


def read_keras(path: Path) -> Raw:
    """All arrays of a Keras weight file, by their path in it."""
    import h5py

    with h5py.File(path, "r") as file:
        arrays = {k: v for k, v in _arrays(file).items() if not k.startswith("optimizer_weights/")}
    return Raw({name: floats(name, torch.from_numpy(array)) for name, array in arrays.items()})


def read_arena(path: Path) -> Raw:
    """`params` (N, P) cut into the arrays that `param_config` names; nef.json and cfg.json beside it are read too."""
    import h5py

    with h5py.File(path, "r") as file:
        arrays = _arrays(file)
        missing = [name for name in ("params", "param_config") if name not in arrays]
        if missing:
            raise ValueError(f"no {missing[0]} in it; it holds {', '.join(sorted(arrays)[:5]) or 'nothing'}")
        text = np.asarray(arrays["param_config"]).reshape(-1)[0]
        parts = parse_json("its param_config", text, "", list[tuple[str, list[int]]])
    rows, at, tensors = floats("params", torch.from_numpy(arrays["params"])), 0, {}
    for name, shape in parts:
        size = int(np.prod(shape))
        tensors[str(name)] = rows[:, at : at + size].reshape(len(rows), *shape)
        at += size
    if rows.ndim != 2 or at != rows.shape[1]:
        raise ValueError(f"params must have shape (N, {at}) by its param_config, got {tuple(rows.shape)}")
    labels = None if "labels" not in arrays else [int(v) for v in np.asarray(arrays["labels"]).reshape(-1)]
    return Raw(tensors, _arena_meta(path.parent), labels)


def _arena_meta(folder: Path) -> dict[str, Any]:
    """The network's name and parameters and the data set, from the files that fit-a-nef writes beside its fields."""
    meta = {}
    network, task = (folder / name for name in NETWORK)
    if network.is_file():
        values = read_json(network, "", Network)
        meta = {"name": values["name"], **values["params"]}
    if task.is_file():
        meta["dataset"] = read_json(task, "", NefConfig)["dataset"].get("name")
    return {k: v for k, v in meta.items() if v is not None}


def _arrays(file: Any) -> dict[str, np.ndarray]:
    """Every array inside an open HDF5 file; one that lies in another file is refused."""
    import h5py

    found, total = [], 0

    def visit(name: str, item: Any) -> None:  # called for hard links only: links to other files are never followed
        nonlocal total
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise ValueError(f"its array {name} is stored in another file, which was not followed")
            total += item.nbytes
            _check_size(item.nbytes, item.id.get_storage_size())
            found.append((name, item))

    file.visititems(visit)
    _check_size(total)
    return {name: item[()] for name, item in found}


def _check_size(size: int, stored: int | None = None) -> None:
    """Refuse what says it holds more than can be read, or more than its stored bytes can become."""
    most = LARGEST if stored is None else min(LARGEST, max(SMALL, PACKED * stored))
    if size > most:
        raise ValueError(f"it claims to hold {size / 2**30:.2g} GiB, so it was not read")


def _check_archive(path: Path, packed: int = 1) -> None:
    """Refuse an archive whose entries are many times larger than itself."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_size(sum(entry.file_size for entry in archive.infolist()))
            if sum(entry.file_size for entry in archive.infolist()) > max(SMALL, packed * path.stat().st_size):
                raise ValueError("its entries are far larger than the file, so it was not read")


def check_views(tensors: dict[str, Tensor]) -> None:
    """Refuse tensors that show one stored number many times: written out they take more memory than they were stored in.

    Raises:
        ValueError: naming the first.
    """
    for name, tensor in tensors.items():
        if (
            tensor.layout == torch.strided
            and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
        ):
            raise ValueError(
                f"{name} has {tensor.numel():,} numbers, of which fewer are stored: save a contiguous copy of it"
            )


def torch_reason(error: Exception) -> str:
    """What is wrong with a file of PyTorch, in words: its own advise to load it with the safeguard off."""
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"(?i:unsupported (?:global|class)(?:: global)?) ([\w.]*\w)", str(error))
        if found is None:
            return "truncated or corrupt, or a file of something else than tensors"
        return (
            f"holds Python objects ({found[1]}), not only tensors: loading them would run code from the file, so it was "
            "not loaded; save its plain state_dict and give that"
        )
    text = " ".join(str(error).split())
    if "TorchScript" in text:
        return "holds a TorchScript program, which was not loaded; save its plain state_dict and give that"
    if "weights_only" in text or "PytorchStreamReader" in text:  # advice of PyTorch, not what is wrong
        return "truncated or corrupt, or a file of something else than tensors"
    return text[:200] or type(error).__name__


def _all_floats(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor as dense float32, whichever way it is stored; numbers of steps are left out."""
    found = {
        name: tensor for name, tensor in dequantised(tensors).items() if tensor.ndim or tensor.dtype not in INTEGERS
    }
    return without_norm({name: floats(name, tensor) for name, tensor in found.items()})


def floats(name: str, tensor: Tensor) -> Tensor:
    """A floating-point tensor as dense float32.

    Raises:
        ValueError: for integers and other types, which are no weights.
    """
    if tensor.layout != torch.strided:
        raise ValueError(f"{name} is stored sparsely ({tensor.layout}): save it as a dense tensor")
    if not tensor.is_floating_point():
        what = str(tensor.dtype).removeprefix("torch.")
        scaled = "" if tensor.is_complex() or tensor.dtype == torch.bool else f" without their scale ({name}_scale)"
        raise ValueError(
            f"{name} must hold floating-point numbers, got {what}{scaled}; save it as float32, scale and zero point applied"
        )
    return tensor.detach().to(torch.float32)


READERS = {
    ".pth": read_torch,
    ".pt": read_torch,
    ".ckpt": read_torch,
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    ".h5": read_keras,
    ".hdf5": read_arena,
}
