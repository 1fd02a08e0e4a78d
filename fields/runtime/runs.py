"""Output folders: atomic files, `run.json`, fingerprints. Every folder says what made it; none is half-written."""

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

PACKAGES = ("torch", "accelerate", "datasets", "scikit-learn", "numpy")


@contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and is removed when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")  # suffix last: writers look at it
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `path`, dropping an older one's files, when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (path.with_name(f".{path.name}-{tag}-{uuid.uuid4().hex[:8]}") for tag in ("new", "old"))
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)  # the second rename failed: put the good one back
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, values: Any) -> None:
    """Write JSON atomically."""
    with write_atomic(path) as temporary:
        temporary.write_text(json.dumps(plain(values), indent=1) + "\n")


def read_json(path: Path, hint: str = "") -> Any:
    """Read JSON.

    Raises:
        FileNotFoundError: with the hint, when the file is not there.
        ValueError: when it is not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. {hint}".rstrip())
    try:
        return json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}). {hint}".rstrip()) from None


def plain(value: Any) -> Any:
    """Dataclasses, paths, tensors and tuples as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def digest(*parts: Any) -> str:
    """16 hexadecimal digits (SHA-256) of strings, bytes, arrays and JSON values."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            part = part.detach().cpu().contiguous().numpy()
        if isinstance(part, np.ndarray):
            state.update(f"{part.dtype}{part.shape}".encode())
            state.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, bytes):
            state.update(part)
        else:
            state.update(json.dumps(plain(part), sort_keys=True).encode())
        state.update(b"\0")
    return state.hexdigest()[:16]


def claim(
    out: Path,
    config: Any,
    *,
    parents: dict[str, str] | None = None,
    seed: int | None = None,
    free: tuple[str, ...] = (),
    upgrade: Callable[[dict], dict] | None = None,
) -> bool:
    """Make an output folder and write its `run.json`.

    Args:
        out: the folder.
        config: what its content depends on.
        parents: fingerprints of what it is made from.
        free: keys of the config that may differ from the folder's (threads, say).
        upgrade: turns a config saved under old names into today's.
    Returns:
        True if the folder was claimed before with the same config and parents: the work there can go on.
    Raises:
        ValueError: if it belongs to another config, or holds files of something else; the differing keys are named.
    """
    out, config = Path(out), plain(config)
    path = out / "run.json"
    if path.is_file():
        before = read_json(path)
        if upgrade is not None:
            before = {**before, "config": upgrade(before.get("config", {}))}
        _check_same(out, before, config, parents or {}, free)
        return True
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"--out {out} holds files but no run.json, so it was not made here. Choose another folder.")
    out.mkdir(parents=True, exist_ok=True)
    values = {"config": config, "parents": parents or {}, "seed": seed, "command": sys.argv, **environment()}
    write_json(path, values)
    return False


def _check_same(out: Path, before: dict, config: dict, parents: dict[str, str], free: tuple[str, ...]) -> None:
    """Refuse a folder made otherwise."""
    old = {**before.get("config", {}), **{f"parent {k}": v for k, v in before.get("parents", {}).items()}}
    new = {**config, **{f"parent {k}": v for k, v in parents.items()}}
    differing = sorted(k for k in set(old) | set(new) if k not in free and old.get(k) != new.get(k))
    if differing:
        shown = "; ".join(f"{k}: {old.get(k)!r} there, {new.get(k)!r} now" for k in differing[:4])
        raise ValueError(
            f"--out {out} was made with another configuration ({shown}). Choose another folder or delete it."
        )


def environment() -> dict:
    """Commit and versions, for `run.json`."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    root = Path(__file__).resolve().parents[2]
    try:
        call = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        commit = subprocess.run(call, capture_output=True, text=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        commit = None
    return {"commit": commit, "versions": versions}
