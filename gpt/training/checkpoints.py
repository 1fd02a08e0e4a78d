"""Checkpoints of a training run, for going on; each complete or not there at all.

A checkpoint is accelerate's `save_state`, so that DDP and a scaler are its business, and a `trainer.json` of ours with
the counters and each file's size and CRC-32. accelerate reads it with `torch.load(weights_only=True)`: nothing in it is
executed. Two things of accelerate's are not used: its pickled RNG states (every draw of ours is keyed by seed and step,
so there is no state), and `register_for_checkpointing` (which reloads with weights_only=False).
"""

import os
import re
import shutil
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fields.formats.readers import torch_reason
from fields.runtime.files import drop, flush_folder, settle
from fields.runtime.processes import on_main
from fields.runtime.runs import read_json, write_json

PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")
AGAIN = "Free some space and run the same command again."
DAMAGE = (OSError, ValueError, RuntimeError, KeyError, SafetensorError, EOFError)


@dataclass
class Saved:
    """`trainer.json`: counters of the run, and bytes and CRC-32 of every file beside it."""

    step: int
    files: dict[str, tuple[int, int]]
    best: dict | None = None
    last: dict | None = None
    stale: int = 0
    stopped: bool = False


class Checkpoints:
    """checkpoints/step-0000100 and so on, named by the global step; the newest `keep` stay.

    Args:
        folder: of all checkpoints.
        accelerator: with model and optimiser prepared.
        keep: how many to keep.
    """

    def __init__(self, folder: Path, accelerator: Any, keep: int):
        self.folder, self.accelerator, self.keep = Path(folder), accelerator, keep
        accelerator.register_save_state_pre_hook(_plain_names)
        accelerator.register_load_state_pre_hook(_unwrapped)

    def all(self) -> list[Path]:
        """Oldest first."""
        found = [p for p in self.folder.glob("step-*") if p.name[5:].isdigit()]
        return sorted(found, key=lambda p: int(p.name[5:]))

    def path(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.folder / f"step-{step:07d}"

    def save(self, step: int, state: dict, ema: dict[str, Tensor] | None = None, best: Path | None = None) -> None:
        """Write a checkpoint; to be called by all processes.

        Args:
            step: of the run.
            state: counters of the run.
            ema: the moving average of the weights.
            best: folder of the best model so far, which belongs to the counters: a copy becomes part of the checkpoint.
        Raises:
            RuntimeError: if it could not be written; older ones stay.
        """
        target = self.path(step)
        temporary = self.folder / f".{target.name}-new"
        on_main(self.accelerator, _empty, temporary)
        try:
            self.accelerator.save_state(str(temporary))
            self.accelerator.wait_for_everyone()
            on_main(self.accelerator, self._finish, temporary, target, state | {"step": step}, ema, best)
        except DAMAGE as error:
            said = reason(error, self.folder)  # while the disk is still full
            shutil.rmtree(temporary, ignore_errors=True)
            older = self.all()
            stays = f"{older[-1]} is intact" if older else "there is no older one"
            raise RuntimeError(f"checkpoint {target} could not be written ({said}); {stays}. {AGAIN}") from None

    def _finish(
        self, temporary: Path, target: Path, state: dict, ema: dict[str, Tensor] | None, best: Path | None
    ) -> None:
        for file in temporary.glob("random_states_*.pkl"):
            file.unlink()
        if ema is not None:
            save_file({k: v.detach().cpu().contiguous() for k, v in ema.items()}, temporary / "ema.safetensors")
        if best is not None and best.is_dir():
            shutil.copytree(best, temporary / "best")  # no link: an edit of the one must not damage the other
        write_json(temporary / "trainer.json", {**state, "files": _manifest(temporary)})
        settle(temporary)  # complete on disk before the rename makes it visible
        drop(target)  # a damaged one that was skipped: this one takes its place
        os.replace(temporary, target)
        flush_folder(self.folder)  # before older ones go
        for old in [path for path in self.all() if whole(path)][: -self.keep]:  # what is damaged or foreign stays
            with suppress(OSError):
                drop(old)

    def load(self) -> tuple[dict, dict[str, Tensor] | None] | None:
        """Restore the newest complete checkpoint; those skipped are named. To be called by all processes.

        Returns:
            trainer.json and the EMA's weights, or None if there is no checkpoint.
        Raises:
            RuntimeError: if there are checkpoints, but none that can be read: starting anew is the user's decision.
        """
        found = self.all()
        for path in reversed(found):
            problem = fault_of(path)
            if problem is None:
                try:
                    self.accelerator.load_state(str(path))
                    ema = path / "ema.safetensors"
                    return read_json(path / "trainer.json", schema=Saved), load_file(ema) if ema.is_file() else None
                except Exception as error:  # unpickling, zip, header, key and shape errors: one kind of bad file
                    problem = torch_reason(error)
            self.accelerator.print(f"skipped {path}: {problem}")
        if found:
            raise RuntimeError(
                f"no checkpoint in {self.folder} can be read. Restore one, or delete them to start over."
            )
        return None


def whole(path: Path) -> bool:
    """Whether a folder is a checkpoint of its step with all of its files, by their sizes."""
    try:
        said = read_json(path / "trainer.json", schema=Saved)
        sizes = all((path / name).stat().st_size == size for name, (size, _) in said["files"].items())
    except (OSError, ValueError):
        return False
    return bool(said["files"]) and sizes and said["step"] == int(path.name[5:])


def fault_of(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files = read_json(path / "trainer.json", schema=Saved)["files"]
        found = _manifest(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it is incomplete ({error})"
    for name, mark in files.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != mark:
            return f"{name} has {found[name][0]} bytes with CRC {found[name][1]}, expected {mark[0]} with {mark[1]}"
    return None


def _manifest(folder: Path) -> dict[str, list[int]]:
    """Relative name -> [bytes, CRC-32] of every file but trainer.json."""
    marks = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "trainer.json"):
        crc, size = 0, 0
        with file.open("rb") as handle:
            while piece := handle.read(1 << 22):
                crc, size = zlib.crc32(piece, crc), size + len(piece)
        marks[str(file.relative_to(folder))] = [size, crc]
    return marks


def reason(error: Exception, folder: Path) -> str:
    """Why writing failed; torch and safetensors hide a full disk behind messages of their own."""
    if shutil.disk_usage(folder).free < 1 << 20:
        return "No space left on device"
    return " ".join(str(error).split())[:200]


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _plain_names(models: list, weights: list[dict], folder: str) -> None:
    """Saved keys carry no prefix of a wrapper (DDP, compile), so that any number of processes can load them."""
    for state in weights:
        for name in list(state):
            state[PREFIX.sub("", name)] = state.pop(name)


def _unwrapped(models: list, folder: str) -> None:
    """Load into the bare models, which is where the plain names fit."""
    for i, model in enumerate(models):
        while hasattr(model, "module") or hasattr(model, "_orig_mod"):
            model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
        models[i] = model
