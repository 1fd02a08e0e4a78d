"""What holds for every flag of every command: numbers are numbers, paths know the home folder, nothing is empty by accident."""

import dataclasses
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import tyro

Precision = Literal["auto", "launcher", "fp32", "onednn", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
Threads = Annotated[int | None, tyro.conf.arg(help="CPU threads; default: all cores.")]
Revision = Annotated[
    str | None,
    tyro.conf.arg(help="Branch, tag or commit of all Hub names given; for one of them alone write user/name@v1."),
]
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
"""What --tracker takes -> the package that it needs."""
LARGEST = 2**63
"""Integers are below it: seeds, sizes and counts become 64-bit numbers, in arrays and in Parquet files."""
MOST_THREADS = 1024
PAGE = re.compile(
    r"https?://(?:huggingface\.co|hf\.co)/(?:datasets/)?(?P<repo>[\w.-]+/[\w.-]+?)(?:/(?:tree|blob|resolve)/(?P<revision>[\w.-]+)(?:/.*)?)?/?"
)
"""The address of a repository's page, or of a file in it, for which its name is meant."""
LEAST = {
    **dict.fromkeys(("seed", "split_seed", "octaves", "dropout", "jitter"), 0),
    **dict.fromkeys(("threads", "n_layer", "n_head", "n_embd", "hidden", "in_dim", "out_dim", "count", "resize"), 1),
}
"""What some numbers are at least, wherever they occur."""
MOST = {"integration": 10_000, "pairs": 100_000, "steps": 10**9, "meta_steps": 10**9, "refit_steps": 10**6}
"""What some numbers are at most, wherever they occur: with more of them a command takes years."""
SIGNED = {"target_psnr", "min_psnr", "level", "w0", "output_scale", "output_shift"}
"""The numbers that may be negative."""
NOT_ZERO = {"w0", "output_scale"}
"""Factors, with which all fields would be the same if they were 0."""


def checked(config: Any) -> Any:
    """A config with `~` in its paths replaced by the home folder, and pasted addresses of the Hub by names.

    Raises:
        ValueError: for numbers that are not finite, do not fit 64 bits, or lie below what they can be, and absurd thread
            counts, or are larger than anybody waits for; the flag is named.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        for f in dataclasses.fields(config):
            before = getattr(config, f.name)
            for one in before if isinstance(before, tuple) else (before,):
                least = LEAST.get(f.name, one if f.name in SIGNED else 0)
                if isinstance(one, (int, float)) and one < least:
                    raise ValueError(f"--{f.name.replace('_', '-')} must be at least {least}, got {one}.")
                if isinstance(one, (int, float)) and one > MOST.get(f.name, one):
                    raise ValueError(f"--{f.name.replace('_', '-')} must be at most {MOST[f.name]:,}, got {one:,}.")
                if f.name in NOT_ZERO and one == 0:
                    raise ValueError(f"--{f.name.replace('_', '-')} must not be 0.")
            after = _value(f"--{f.name.replace('_', '-')}", before)
            if after is not before:
                object.__setattr__(config, f.name, after)  # the configs are frozen
        if getattr(config, "overwrite", False):
            _check_apart(config)
        threads = getattr(config, "threads", None)
        if isinstance(threads, int) and threads > MOST_THREADS:
            raise ValueError(f"--threads must be at most {MOST_THREADS}, got {threads}.")
    return config


def _check_apart(config: Any) -> None:
    """Refuse to overwrite a folder that holds what the command reads."""
    out = getattr(config, "folder", None) or getattr(config, "out", None)
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        for one in value if isinstance(value, tuple) else (value,):
            if f.name == "out" or out is None or not isinstance(one, (str, Path)) or not Path(one).exists():
                continue
            if Path(one).resolve().is_relative_to(Path(out).resolve()):
                flag = f.name.replace("_", "-")
                raise ValueError(f"--overwrite would delete {one}, which --{flag} names. Choose another --out.")


def check_words(words: list[str] | None = None) -> None:
    """Refuse a flag without its value: `--out ""` and `--out=` would mean the current folder.

    Raises:
        ValueError: naming the flag.
    """
    words = sys.argv[1:] if words is None else words
    for i, word in enumerate(words):
        flag = word[:-1] if word.startswith("--") and word.endswith("=") else None
        if word == "":
            flag = words[i - 1] if i and words[i - 1].startswith("--") else "a flag"
        if flag:
            raise ValueError(f"{flag} is empty. Give it a value, or leave it out.")


def _value(flag: str, value: Any) -> Any:
    """One value, checked and expanded; the same object where nothing changes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return checked(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int) and not -LARGEST <= value < LARGEST:
        raise ValueError(f"{flag} must be below 2^63, got {str(value)[:40]}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{flag} must be a finite number, got {value}.")
    if isinstance(value, (tuple, list)):
        found = [_value(flag, one) for one in value]
        return value if all(a is b for a, b in zip(found, value, strict=True)) else type(value)(found)
    if isinstance(value, str) and (page := PAGE.fullmatch(value)):
        return page["repo"] + (f"@{page['revision']}" if page["revision"] else "")
    if isinstance(value, (str, Path)) and (str(value) == "~" or str(value).startswith(("~/", "~\\"))):
        return type(value)(os.path.expanduser(value))
    return value


@dataclasses.dataclass(frozen=True)
class Overwrites:
    """The flag of every command that makes a folder; its config is a subclass."""

    overwrite: bool = dataclasses.field(default=False, kw_only=True)
    """Delete, without asking, what this command wrote to the output folder before, and start over. A folder written by
    another command is refused."""


def check_numbers(
    config: Any,
    prefix: str = "",
    *,
    least: Mapping[str, float] = MappingProxyType({}),
    above: Sequence[str] = (),
    shares: Sequence[str] = (),
) -> None:
    """Refuse numbers of a config that mean nothing; None passes, and of a tuple each number is looked at.

    Args:
        config: whose attributes are meant.
        prefix: of the flags, such as `shape.`.
        least: name -> what it is at least.
        above: names of numbers above 0.
        shares: names of numbers from 0 to 1.
    Raises:
        ValueError: naming the flag.
    """
    for name in (*least, *above, *shares):
        value, flag = getattr(config, name), f"--{prefix}{name.replace('_', '-')}"
        for one in value if isinstance(value, tuple) else () if value is None else (value,):
            if name in least and not one >= least[name]:
                raise ValueError(f"{flag} must be at least {least[name]}, got {value}.")
            if name in above and not one > 0:
                raise ValueError(f"{flag} must be above 0, got {value}.")
            if name in shares and not 0 <= one <= 1:
                raise ValueError(f"{flag} must lie between 0 and 1, got {value}.")


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that is not known or not installed.

    Raises:
        ValueError: saying how to get it.
    """
    from importlib.util import find_spec

    if name is not None and name not in TRACKERS:
        raise ValueError(f"--tracker takes {', '.join(TRACKERS)}, got {name!r}.")
    if name is not None and find_spec(TRACKERS[name]) is None:
        raise ValueError(
            f"--tracker {name} is not installed here. Get it with: .venv/bin/python -m pip install {TRACKERS[name]}"
        )
