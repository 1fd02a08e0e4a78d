"""Output folders and their `run.json`: every folder says what made it, has one writer, and is never half-written."""

import dataclasses
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fields.runtime import locks
from fields.runtime.files import DEEP, drop, keep_times, must_stay, remove, replace_folder, sweep, write_atomic
from fields.runtime.records import check_values, read_json, sealed
from fields.runtime.text import file_name

__all__ = [
    "claim", "digest", "environment", "finish", "is_finished", "only_file", "plain", "read_json", "remove", "replace_folder", "vacant",
    "write_atomic", "write_json",
]  # fmt: skip

NAME = 80
"""Longest name that is made of what differs; beyond it a digest stands."""
PACKAGES = ("torch", "accelerate", "datasets", "scikit-learn", "numpy")


def write_json(path: Path, values: Any, *, seal: bool = True) -> None:
    """Write JSON atomically.

    Args:
        path: the file.
        values: dataclasses, paths, arrays and what JSON knows.
        seal: give an object a checksum, which `read_json` compares; not in files whose format others define.
    """
    values = plain(values)
    with write_atomic(path) as temporary:
        text = json.dumps(sealed(values) if seal else values, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Dataclasses, paths, tensors and tuples as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return list(value) if set(map(type, value)) <= {str} else [plain(v) for v in value]
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
            state.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
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
    kind: str | None = None,
    parts: bool = False,
    used: dict[str, Any] | None = None,
) -> bool:
    """Become the writer of an output folder, clear what dead processes left there, and write its `run.json`.

    Inputs and settings are checked before this is called: a folder is only taken for work that can be done.

    Args:
        out: the folder.
        config: what its content depends on; and `overwrite` (see `Overwrites`), which is not recorded: remove what lies there, if
            it is of the same kind, and begin anew.
        parents: fingerprints of what it is made from.
        free: keys of the config that may differ from the folder's (threads, say).
        upgrade: turns a config saved under old names into today's.
        kind: what makes it, as `run.json` records it; only a folder of the same kind is overwritten.
        used: what a setting that may be `auto` came to on this machine: that must be the same, not the setting.
        parts: whether the command makes folders inside this one that have a `run.json` of their own.
    Returns:
        True if the folder was claimed before with the same config and parents: the work there can go on.
    Raises:
        ValueError: if it belongs to another config, or holds files of something else; the differing keys are named.
        RuntimeError: if another process writes there.
    """
    out, config = Path(out), plain(config)
    if out.is_symlink() and not out.exists():
        raise ValueError(
            f"--out {out} is a link to {os.readlink(out)}, which does not exist. Create that folder, or choose another one."
        )
    if not out.resolve().name:
        raise ValueError(f"--out {out} is the root of the disk. Name a folder in it.")
    if (above := next((p for p in out.parents if p.exists()), None)) is not None and not above.is_dir():
        raise ValueError(f"--out {out}: {above} is a file, not a folder. Choose another folder.")
    overwrite = bool(config.pop("overwrite", False))
    locks.take(out)
    locks.clear(out, DEEP)
    sweep(out)
    path = out / "run.json"
    if path.is_file():
        before = _before(path, upgrade)
        if not overwrite:
            if kind is not None and before.get("kind") not in (None, kind):
                raise ValueError(
                    f"--out {out} was made by {before['kind']}, not by this command. Choose another folder."
                )
            known = {key: value for key, value in before["used"].items() if key in (used or {})}
            _check_same(out, before, config, parents or {}, (*free, *known))
            for key, value in known.items():
                if used and used[key] != value:
                    raise ValueError(
                        f"--out {out} was made with {key} {value}, here it would be {used[key]}. Go on with --{key} {value}, "
                        "or start over with --overwrite."
                    )
            _keep(out)
            return True
        _check_kind(out, before, config, kind)
        _drop(out, parts)
    elif out.is_file() or any(not p.is_dir() for p in out.rglob("*")):
        raise ValueError(
            f"--out {out} holds files but no run.json, so no command of this project made it. Choose another folder."
        )
    values = {"config": config, "parents": parents or {}, "seed": seed, "command": sys.argv, **environment()}
    if kind is not None:
        values["kind"] = kind
    if used is not None:
        values["used"] = used
    if out.is_dir():
        write_json(path, values)
    else:
        with replace_folder(out) as temporary:  # the folder and what it says of itself appear together
            write_json(temporary / "run.json", values)
    _keep(out)
    return False


def _keep(out: Path) -> None:
    """Have a folder that is ours stay: see `must_stay`."""
    if Path(os.path.abspath(out)) in locks.held():
        must_stay(out)


def finish(out: Path, names: Iterable[str] | None = None, of: Any = None) -> None:
    """Note in a folder's `run.json`, as the last thing a command does there, that its work is done.

    Args:
        out: the folder, claimed.
        names: the files that were made, relative to it; default: all that lie at its top.
        of: what `is_finished` will be told.
    """
    if names is None:
        names = sorted(
            p.name for p in out.iterdir() if p.is_file() and not p.name.startswith(".") and p != out / "run.json"
        )
    run = read_json(out / "run.json", schema=dict)
    sizes = {name: (out / name).stat().st_size for name in names}
    write_json(out / "run.json", {**run, "finished": {"files": sizes, "of": digest(of)}})


def is_finished(out: Path, of: Any = None) -> bool:
    """Whether the work in a folder was done, its files are there, and what they were made of is the same.

    Where they are not, the folder counts as unfinished from now on: they are about to be made again.

    Args:
        out: the folder, claimed.
        of: what the files depend on besides the configuration and the parents that `claim` compares.
    """
    run = read_json(out / "run.json", schema=dict)
    noted = run.pop("finished", None)
    if noted is None:
        return False
    done = check_values(out / "run.json", noted, Finished)
    here = {name: (out / name).stat().st_size for name in done["files"] if (out / name).is_file()}
    if done["of"] == digest(of) and here == done["files"]:
        print(f"{out} is complete. To make it again: --overwrite")
        return True
    write_json(out / "run.json", run)
    return False


@dataclasses.dataclass
class Finished:
    """What `finish` notes: sizes of files, and a digest of what they were made of."""

    files: dict[str, int]
    of: str


@contextmanager
def only_file(path: Path) -> Iterator[Path]:
    """`write_atomic` for a command whose whole output is one file: it has one writer, and what dead ones left is removed.

    Raises:
        RuntimeError: if another process writes it.
    """
    path = Path(path)
    with locks.scope():
        locks.take(path)
        sweep(path)
        with write_atomic(path) as temporary:
            yield temporary
            keep_times(temporary, path)  # nothing new is no change


@dataclasses.dataclass
class Run:
    """`run.json`, as far as it is read again."""

    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    parents: dict[str, str] = dataclasses.field(default_factory=dict)
    kind: str | None = None
    used: dict[str, Any] = dataclasses.field(default_factory=dict)


def _before(path: Path, upgrade: Callable[[dict], dict] | None) -> dict[str, Any]:
    """What a folder's `run.json` says, its config under today's names."""
    found = read_json(path, "Delete the folder, or choose another.", Run)
    return found if upgrade is None else {**found, "config": upgrade(found["config"])}


def _check_kind(out: Path, before: dict, config: dict, kind: str | None) -> None:
    """Refuse to overwrite what another command made; without a recorded kind, its settings tell."""
    made, old = before.get("kind"), before["config"]
    if made is not None and kind is not None:
        other = made != kind
    else:
        other = 2 * len(set(old) & set(config)) < len(set(old) | set(config)) or old.get("kind") != config.get("kind")
    if other:
        what = f"by {made}" if made else f"with {', '.join(sorted(old)[:4]) or 'other settings'}"
        raise ValueError(f"--overwrite: {out} was made {what}, not by this command. Choose another folder.")


def _drop(out: Path, parts: bool) -> None:
    """Take a folder away in one step, then remove it; not with something in it that another command made or is making."""
    inside = next((path.parent for path in sorted(out.rglob("run.json")) if path.parent != out), None)
    if inside is not None and not parts:
        raise ValueError(f"--overwrite: {inside} was made by another command. Move it, or choose another folder.")
    for lock in sorted(out.rglob(".*.lock")):
        locks.take(lock.with_name(lock.name[1 : -len(".lock")]))
    drop(out)


def vacant(
    out: Path,
    config: Any,
    *,
    parents: dict[str, str] | None = None,
    free: tuple[str, ...] = (),
    upgrade: Callable[[dict], dict] | None = None,
    kind: str | None = None,
) -> Path:
    """What a default output folder comes to: itself, or where it was made otherwise one beside it, named for what differs.

    The same command finds the same folder again. A folder that the user named is not passed through this, but refused.

    Args:
        out: the default.
        config, parents, free, upgrade, kind: as `claim` will be told.
    """
    out, config, parents = Path(out), plain(config), parents or {}
    path = out / "run.json"
    if config.pop("overwrite", False) or not path.is_file():
        return out
    before = _before(path, upgrade)
    if kind is not None and before.get("kind") not in (None, kind):
        return out  # `claim` refuses it
    differing = _differing(before, config, parents, free)
    if not differing:
        return out
    parts = [part for key, old, new in differing for part in _parts(key, old, new, config, parents, before["config"])]
    name = "-".join(dict.fromkeys([out.name, *parts]))
    if len(name) > NAME:
        name = f"{out.name}-{digest([[key, new] for key, _, new in differing])[:8]}"
    chosen = out.with_name(file_name(name))
    print(
        f"{out} was made with other settings ({_shown(differing)}), so this goes to {chosen}; --out names another folder, "
        "--overwrite replaces the first."
    )
    return chosen


def _parts(key: str, old: Any, new: Any, config: dict, parents: dict[str, str], before: dict) -> list[str]:
    """A setting as parts of a folder's name: seed-5, labels, no-labels, hidden-8x8; of what it is made from the folder's name."""
    if key.startswith("parent "):
        name = key.removeprefix("parent ")
        place, former = (Path(str(c.get(name) or "")).name for c in (config, before))
        if place not in ("", former, name):
            return [place]
        if new is None:
            return [f"no-{name.split()[-1]}"]
        name = name.split()[-1]  # of several of a kind
        return [] if name == "tokens" and config.get("tokenizer") else [f"{name}-{str(new)[:6]}"]
    if key in parents and old is not None and new is not None:
        return []  # a path, told by what lies there
    if isinstance(old, dict) and isinstance(new, dict):
        inner = _differing({"config": old, "parents": {}}, new, {}, ())
        return [part for one in inner for part in _parts(*one, {}, {}, {})]
    flag = key.replace("_", "-")
    if isinstance(new, bool) or new is None:
        return [flag if new else f"no-{flag}"]
    if isinstance(new, list) and not any(isinstance(v, (list, dict)) for v in new):
        return [f"{flag}-{'x'.join(map(str, new))}"]
    text = f"{new:g}" if isinstance(new, float) else digest(new)[:6] if isinstance(new, (list, dict)) else str(new)
    found = re.search(r"[0-9a-f]{16}$", text)  # of contents
    return [f"{flag}-{found[0][:6] if found else Path(text).name or text}"]


def _differing(
    before: dict, config: dict, parents: dict[str, str], free: tuple[str, ...]
) -> list[tuple[str, Any, Any]]:
    """The settings and parents that differ from a folder's: key, value there, value now; in the order of their names."""
    old = {**before["config"], **{f"parent {k}": v for k, v in before["parents"].items()}}
    new = {**config, **{f"parent {k}": v for k, v in parents.items()}}
    told = {key.removeprefix("parent ") for key in set(old) & set(new) if key.startswith("parent ")}
    free = (*free, "out", *told)  # where a folder and what it is made from lie; what lies there is compared
    keys = sorted(k for k in set(old) | set(new) if k not in free and old.get(k) != new.get(k))
    return [(key, old.get(key), new.get(key)) for key in keys]


def _shown(differing: list[tuple[str, Any, Any]]) -> str:
    """The first settings that differ, those inside of others one by one."""
    flat = []
    for key, old, new in differing:
        if isinstance(old, dict) and isinstance(new, dict):
            flat += [(f"{key}.{k}", *pair) for k, *pair in _differing({"config": old, "parents": {}}, new, {}, ())]
        else:
            flat.append((key, old, new))
    return "; ".join(f"{key}: {old!r} there, {new!r} now" for key, old, new in flat[:4])


def _check_same(out: Path, before: dict, config: dict, parents: dict[str, str], free: tuple[str, ...]) -> None:
    """Refuse a folder made otherwise."""
    differing = _differing(before, config, parents, free)
    if differing:
        raise ValueError(
            f"--out {out} was made with another configuration ({_shown(differing)}). Choose another folder, or begin "
            "over with --overwrite."
        )


def environment() -> dict:
    """Commit and versions, for `run.json`."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
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
