"""Starting a command: threads, precision, processes, and what a user sees when something is wrong."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

Precision = Literal["auto", "launcher", "fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
ERRORS = (ValueError, FileNotFoundError, RuntimeError, OSError, MemoryError)


def run_cli(function: Callable, *args: Any) -> None:
    """Call a command's function; a mistake of the caller becomes one sentence and exit code 1, Ctrl-C becomes 130."""
    try:
        function(*args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except ERRORS as error:
        if os.environ.get("FIELDS_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def start(*, threads: int | None = None, precision: Precision = "auto", quiet: bool = False, **kwargs: Any):
    """An `Accelerator` with the threads and the precision of this machine.

    `accelerate launch` without flags exports OMP_NUM_THREADS=1 and mixed_precision=no, which cannot be told from a
    choice; so both are decided here.

    Args:
        threads: CPU threads of each process; None = cores / processes on this machine.
        precision: auto = bf16 on a GPU, or on a CPU with AMX, else fp32; launcher = what accelerate says.
        quiet: print nothing.
        kwargs: for `accelerate.Accelerator`.
    Raises:
        ValueError: for impossible threads.
        RuntimeError: if more processes were asked for than really work together.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if threads is not None and threads < 1:
        raise ValueError(f"--threads must be at least 1, got {threads}.")
    if precision != "launcher":
        kwargs["mixed_precision"] = {"fp32": "no", "bf16": "bf16", "auto": "bf16" if has_bf16() else "no"}[precision]
    if cpu_asked():
        kwargs.setdefault("cpu", True)  # without it two processes may both believe that they are alone
    if AcceleratorState._shared_state:  # stages of one command differ in precision; the process group stays
        AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(**kwargs)
    check_world(accelerator.num_processes)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
    torch.set_num_threads(threads or max(1, cores() // local))
    if not quiet:
        accelerator.print(
            f"device {accelerator.device}, world size {accelerator.num_processes}, "
            f"threads {torch.get_num_threads()} each, precision {accelerator.mixed_precision}"
        )
    return accelerator


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def cpu_asked() -> bool:
    """Whether GPUs are to be left alone (`accelerate launch --cpu`, or ACCELERATE_USE_CPU=true)."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}


def choose_device(asked: Device, long: bool = True) -> torch.device:
    """Where one process of a command without launcher computes.

    Args:
        asked: auto = a GPU where there is one and the work takes `long`, else the CPU.
        long: whether the work is worth a GPU.
    Raises:
        ValueError: if a GPU was asked for and there is none.
    """
    found = torch.cuda.is_available()
    if asked == "cuda" and not found:
        raise ValueError("--device cuda: PyTorch sees no GPU here. Leave the flag out, or use --device cpu.")
    auto = asked == "auto" and long and found and not cpu_asked()
    return torch.device("cuda" if asked == "cuda" or auto else "cpu")


def has_bf16() -> bool:
    """Whether bfloat16 is faster here: on GPUs that know it, and on CPUs with AMX. With AVX512-BF16 alone training a GPT was slower
    than in float32 (13,300 against 21,000 tokens/s at 192 tokens)."""
    if torch.cuda.is_available() and not cpu_asked():
        return torch.cuda.is_bf16_supported()
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.is_file() else ""
    return "amx_bf16" in flags


def check_world(processes: int) -> None:
    """Refuse to work alone where several processes were asked for: each would believe it is the only writer."""
    asked = max(int(os.environ.get("WORLD_SIZE", 1)), _launcher_asked())
    if asked > processes:
        raise RuntimeError(
            f"{asked} processes were asked for but this one works alone (world size {processes}). On CPUs start them "
            "with: ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N --num_machines 1 "
            "--mixed_precision no --dynamo_backend no SCRIPT"
        )


def _launcher_asked() -> int:
    """The number of processes that the `accelerate launch` above us was asked for, by flag or config file; else 1."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0")
    except OSError:
        return 1
    if not any(Path(word).name.startswith("accelerate") for word in words[:3]):  # also python -m accelerate.commands...
        return 1
    words = [part for word in words for part in word.split("=", 1)]
    for flag in ("--num_processes", "--num-processes"):
        if flag in words[:-1] and words[words.index(flag) + 1].isdigit():
            return int(words[words.index(flag) + 1])
    if "--config_file" in words[:-1]:
        lines = Path(words[words.index("--config_file") + 1]).read_text().splitlines()
        counts = [line.split(":")[1].strip() for line in lines if line.startswith("num_processes:")]
        return int(counts[0]) if counts and counts[0].isdigit() else 1
    return 1
