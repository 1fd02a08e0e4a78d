"""Model folders (for use) and checkpoints (for going on), each complete or not there at all.

A checkpoint is accelerate's `save_state`, so that DDP and a scaler are its business, and a `trainer.json` of ours with
the counters and each file's size and CRC-32. accelerate reads it with `torch.load(weights_only=True)`: nothing in it is
executed. Two things of accelerate's are not used: its pickled RNG states (every draw of ours is keyed by seed and step,
so there is no state), and `register_for_checkpointing` (which reloads with weights_only=False).
"""

import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from safetensors.torch import load_model as load_weights
from torch import Tensor

from fields.runtime.processes import on_main
from fields.runtime.runs import digest, read_json, replace_folder, write_json
from fields.storage.fetch import fetch
from gpt.model import GPT, GPTConfig
from tokenizers.base import WeightTokenizer
from tokenizers.registry import load_tokenizer

PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")
FILES = ["config.json", "model.json", "model.safetensors", "tokenizer/*"]
HINT = "A model is made with: accelerate launch scripts/train_gpt.py --fields DIR --tokenizer DIR --out DIR"
AGAIN = "Free some space and run the same command again."
DAMAGE = (OSError, ValueError, RuntimeError, KeyError, SafetensorError, EOFError)


# -- model folders -----------------------------------------------------------------------------------------------------


def model_fingerprint(model: GPT) -> str:
    """16 hexadecimal digits of config and weights."""
    state = model.state_dict()
    return digest(model.config, *(part for name in sorted(state) for part in (name, state[name].float())))


def save_model(path: Path, model: GPT, tokenizer: WeightTokenizer, info: dict) -> None:
    """Write or replace a model folder: config.json, model.safetensors, model.json, tokenizer/."""
    try:
        with replace_folder(path) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary / "tokenizer")
            write_json(temporary / "model.json", {**info, "fingerprint": model_fingerprint(model)})
    except DAMAGE as error:
        raise RuntimeError(f"model {path} could not be written ({_reason(error, path.parent)}). {AGAIN}") from None


def load_model(
    path: Path | str, tokenizer: Path | str | None = None, *, revision: str | None = None
) -> tuple[GPT, WeightTokenizer, dict]:
    """A model, its tokenizer and what model.json says.

    Args:
        path: a model folder, the folder of a training run (its best/ is taken), or `user/name[@revision]` on the Hub.
        tokenizer: a tokenizer (folder or Hub name) to use instead of the copy; it must be the one of the training.
        revision: for a Hub name without one.
    Raises:
        FileNotFoundError: if there is no model, with the command that makes one.
        ValueError: if files are damaged, or model and tokenizer do not belong together; both are named.
    """
    path = fetch(path, "model", revision=revision, patterns=FILES, flag="--model")
    if not (path / "model.json").is_file():
        path = next((path / n for n in ("best", "last") if (path / n / "model.json").is_file()), path)
    info = read_json(path / "model.json", HINT)
    config = GPTConfig(
        **{k: v for k, v in read_json(path / "config.json", HINT).items() if k in GPTConfig.__dataclass_fields__}
    )
    model, file = GPT(config), path / "model.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"{file} not found. {HINT}")
    try:
        load_weights(model, file)
    except (SafetensorError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} is damaged or of another config ({said}). Train or fetch the model anew.") from None
    words = load_tokenizer(tokenizer or path / "tokenizer", flag="--tokenizer" if tokenizer else "")
    if words.fingerprint != info["tokenizer"]:
        raise ValueError(
            f"the model in {path} was trained on tokens of tokenizer {info['tokenizer']} ({info.get('kind')}), "
            f"but {tokenizer or path / 'tokenizer'} is {words.fingerprint} ({words.config.kind}). "
            "Give the tokenizer it was trained with."
        )
    if (words.codes, words.tokens_per_field) != (config.codes, config.tokens_per_field):
        raise ValueError(
            f"the model reads {config.tokens_per_field} tokens of {config.codes} codes, its tokenizer makes "
            f"{words.tokens_per_field} of {words.codes}. Train or fetch the model anew."
        )
    return model.eval(), words, {**info, "path": str(path)}


# -- checkpoints -------------------------------------------------------------------------------------------------------


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

    def save(self, step: int, state: dict, ema: dict[str, Tensor] | None = None) -> None:
        """Write a checkpoint; to be called by all processes.

        Raises:
            RuntimeError: if it could not be written; older ones stay.
        """
        target = self.folder / f"step-{step:07d}"
        temporary = self.folder / f".{target.name}-new"
        on_main(self.accelerator, _empty, temporary)
        try:
            self.accelerator.save_state(str(temporary))
            self.accelerator.wait_for_everyone()
            on_main(self.accelerator, self._finish, temporary, target, state | {"step": step}, ema)
        except DAMAGE as error:
            said = _reason(error, self.folder)  # while the disk is still full
            shutil.rmtree(temporary, ignore_errors=True)
            older = self.all()
            stays = f"{older[-1]} is intact" if older else "there is no older one"
            raise RuntimeError(f"checkpoint {target} could not be written ({said}); {stays}. {AGAIN}") from None

    def _finish(self, temporary: Path, target: Path, state: dict, ema: dict[str, Tensor] | None) -> None:
        for file in temporary.glob("random_states_*.pkl"):
            file.unlink()
        if ema is not None:
            save_file({k: v.detach().cpu().contiguous() for k, v in ema.items()}, temporary / "ema.safetensors")
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())  # complete on disk before the rename makes it visible
        write_json(temporary / "trainer.json", {**state, "files": _manifest(temporary)})
        if target.exists():  # a damaged one that was skipped: this one takes its place
            shutil.rmtree(target)
        os.replace(temporary, target)
        for old in self.all()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self) -> tuple[dict, dict[str, Tensor] | None] | None:
        """Restore the newest complete checkpoint; those skipped are named. To be called by all processes.

        Returns:
            trainer.json and the EMA's weights, or None if there is no checkpoint.
        Raises:
            RuntimeError: if there are checkpoints, but none that can be read: starting anew is the user's decision.
        """
        found = self.all()
        for path in reversed(found):
            problem = check(path)
            if problem is None:
                try:
                    self.accelerator.load_state(str(path))
                    ema = path / "ema.safetensors"
                    return read_json(path / "trainer.json"), load_file(ema) if ema.is_file() else None
                except Exception as error:  # unpickling, zip, header, key and shape errors: one kind of bad file
                    problem = " ".join(str(error).split())[:200] or type(error).__name__
            self.accelerator.print(f"skipped {path}: {problem}")
        if found:
            raise RuntimeError(
                f"no checkpoint in {self.folder} can be read. Restore one, or delete them to start anew."
            )
        return None


def check(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        files = read_json(path / "trainer.json")["files"]
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


def _reason(error: Exception, folder: Path) -> str:
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
