"""What a machine has to give: memory, room on the disk, threads. Large jobs say what they need before they begin, and are
refused where it is not there."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

LARGE = 1 << 30
"""Bytes of a job from which on it is said what it needs."""


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """A fixed number of threads: the order of float sums may depend on it, and with it the last bits of results."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run short operations on one thread: waking the others takes longer, on a busy machine many times longer."""
    with fixed_threads(1):
        yield


def share(work: Callable[[int], None], jobs: Sequence[int], threads: int) -> None:
    """Call `work` for each job, on several threads where there is enough to do; each computes on one thread alone."""
    if threads < 2 or len(jobs) < 2 * threads:
        for job in jobs:
            work(job)
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(work, jobs))


def free_memory() -> int:
    """Bytes that this process may still take: the least of what the system, a container and `ulimit -v` allow."""
    bounds = [psutil.virtual_memory().available, _container_memory("memory.max", "memory.current", "memory.stat")]
    bounds += [_container_memory(*(f"memory/memory.{n}" for n in ("limit_in_bytes", "usage_in_bytes", "stat")))]
    if hasattr(psutil, "RLIMIT_AS"):  # Linux
        process = psutil.Process()
        soft = process.rlimit(psutil.RLIMIT_AS)[0]
        if soft != psutil.RLIM_INFINITY:
            bounds.append(soft - process.memory_info().vms)
    return max(0, min(bounds))


def _container_memory(limit: str, used: str, stat: str) -> int:
    """Bytes left in a control group, of version 2 or 1; file pages count as free, for the kernel gives them back."""
    numbers = [line for name in (limit, used) for line in _lines(f"/sys/fs/cgroup/{name}")[:1]]
    if len(numbers) < 2 or not all(n.isdigit() for n in numbers):
        return 1 << 62  # no group, or "max"
    pages = [line.split() for line in _lines(f"/sys/fs/cgroup/{stat}")]
    cached = sum(int(p[1]) for p in pages if p[0] in ("inactive_file", "active_file"))
    return int(numbers[0]) - int(numbers[1]) + cached


def _lines(path: str) -> list[str]:
    """A small system file's lines; none if it is not there."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def memory(device: "torch.device | str") -> int:
    """Bytes of memory that a device has."""
    cuda = torch.device(device).type == "cuda"
    return torch.cuda.mem_get_info(device)[1] if cuda else psutil.virtual_memory().total


def check_memory(size: int, what: str, device: "torch.device | str", lower: str = "smaller --model sizes") -> None:
    """Say what a large job will hold in memory, and refuse it before any work where a device cannot hold it.

    Args:
        size: bytes, about.
        what: of what the bytes are, in the plural.
        device: where they would lie.
        lower: what to choose instead, for the message.
    Raises:
        ValueError: if the device has fewer in all, or this process may not take as many.
    """
    device = torch.device(device)
    most = memory(device)
    if size > most:
        raise ValueError(
            f"{what} need about {gibibytes(size)}, and {device} has {gibibytes(most)} of memory. Choose {lower}."
        )
    if size < LARGE:
        return
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    if size > free:
        raise ValueError(
            f"{what} need about {gibibytes(size)} of memory, and {gibibytes(free)} of it are free on {device}. Choose {lower}, or "
            "stop other programs that need memory."
        )
    print(f"{what}: about {gibibytes(size)} of memory, {gibibytes(free)} are free", flush=True)


def check_room(folder: Path, size: int, what: str) -> None:
    """Say what a large job will write, and refuse it before any work where the disk has no room for it.

    Args:
        folder: where it is written; what an interrupted job left there counts as written.
        size: bytes, about.
        what: of what the bytes are, in the plural.
    Raises:
        RuntimeError: if fewer are free.
    """
    folder, here = Path(folder), Path(folder)
    while not here.exists() and here != here.parent:
        here = here.parent
    disk = shutil.disk_usage(here)
    if not disk.total or (
        size < LARGE and size <= disk.free
    ):  # a disk of no size is the system's, and refuses by itself
        return
    there = sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else 0
    free = disk.free
    if size - there > free:
        raise RuntimeError(
            f"{what} need about {gibibytes(size)} in {folder}, and {gibibytes(free)} are free there. Free some space, or choose "
            "another --out."
        )
    print(f"{what}: about {gibibytes(size)} in {folder}", flush=True)


def gibibytes(size: int) -> str:
    """Bytes in GiB, or MiB where it is less."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
