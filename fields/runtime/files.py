"""Files and folders that are whole or not there: temporaries that take their place when complete, and what removes leftovers.

What is written lies under a hidden name first, `.NAME-new-HOST-PID-MARK`, is flushed to the disk, and is then renamed.
A process that dies leaves such names behind; `sweep` removes them.
"""

import ctypes
import filecmp
import glob
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

LEFT = re.compile(
    r"\.(?P<name>.+)-(?P<tag>new|old)-(?P<host>[0-9a-f]{6})-(?P<pid>\d+)-(?P<mark>[0-9a-f]{3})[0-9a-f]{5}(?:\.\w+)?"
    r"|\.(?P<older>.+)-(?P<was>old)-[0-9a-f]{8}|\..+-(?:new|(?:new-)?[0-9a-f]{8})(?:\.\w+)?"
)
"""Temporary names: of this version, and (without a process id) of versions before."""
POINTER = b"version https://git-lfs"
FETCH = "is a pointer of Git LFS, not the file itself; fetch it with: git lfs pull"
DEEP = 3
"""Levels of an output folder that are searched for leftovers."""
OLD = 24 * 3600
"""Seconds after which a leftover of another machine is nobody's."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2

_begun: set[Path] = set()


def host() -> str:
    """Six hexadecimal digits of this machine's name: process ids mean nothing on another one."""
    return sha256(socket.gethostname().encode()).hexdigest()[:6]


def temporary_name(path: Path, tag: str = "new", folder: bool = False) -> Path:
    """A hidden name beside `path`; a file's suffix comes last, as writers look at it."""
    suffix = "" if folder else path.suffix
    stem = path.name[: len(path.name) - len(suffix)]
    stem = stem if tag == "old" else stem[:150]
    return path.with_name(
        f".{stem}-{tag}-{host()}-{os.getpid()}-{process_mark(os.getpid())}{uuid.uuid4().hex[:5]}{suffix}"
    )


def process_mark(pid: int) -> str:
    """Three hexadecimal digits of when a process began: ids are used again, in containers by the next start."""
    return sha256(str(began(pid)).encode()).hexdigest()[:3]


@contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and is removed when it does not."""
    path = Path(path)
    check_file(path)
    make_folder(path.parent)
    temporary = temporary_name(path)
    try:
        yield temporary
        settle(temporary)
        os.replace(temporary, path)
        flush_folder(path.parent)
    finally:
        remove(temporary)


def check_file(path: Path, flag: str = "") -> None:
    """Refuse to write a file where a folder is, or below a file.

    Args:
        path: the file.
        flag: the flag it came from, for the message.
    Raises:
        ValueError: saying which it is.
    """
    said, above = f"{flag} {path}".strip(), next((p for p in path.parents if p.exists()), None)
    if path.is_dir():
        raise ValueError(f"{said} is a folder; expected a file to write. Choose another name.")
    if above is not None and not above.is_dir():
        raise ValueError(f"{said}: {above} is a file, not a folder. Choose another name.")


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `path`, dropping an older one's files, when the block ends well.

    Where the system can exchange two names in one step (Linux), there is no moment without a folder; elsewhere `sweep` puts
    the older one back after a crash in between.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary, old = (temporary_name(path, tag, folder=True) for tag in ("new", "old"))
    temporary.mkdir()
    try:
        yield temporary
        settle(temporary)
        _check_begun(path)
        if not path.exists():
            os.replace(temporary, path)
        elif not exchange(temporary, path):
            os.replace(path, old)
            os.replace(temporary, path)
        flush_folder(path.parent)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)  # the second rename failed: put the good one back
        remove(temporary)
        remove(old)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if they are missing; their names are on the disk before anything lies in them.

    Raises:
        RuntimeError: in an output folder that was begun and is gone: what would be made there now is not all of it.
    """
    _check_begun(folder)
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        flush_folder(made.parent)


def _check_begun(path: Path) -> None:
    """Refuse to write what belongs to an output folder that is gone."""
    here = Path(os.path.abspath(path))
    for begun in _begun:
        if here.is_relative_to(begun) and not (begun / "run.json").is_file():
            raise RuntimeError(
                f"{begun} was removed, or its disk was taken away, while this command wrote there. Run the same command again."
            )


def must_stay(out: Path) -> None:
    """From now on, until `may_go`, an output folder is not made anew if somebody removes it."""
    _begun.add(Path(os.path.abspath(out)))


def may_go(out: Path) -> None:
    """Its writer has ended."""
    _begun.discard(Path(os.path.abspath(out)))


def exchange(a: Path, b: Path) -> bool:
    """Swap two names in one step; False where the system cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return call(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0


def settle(path: Path) -> None:
    """Give a file, or all in a folder, the modes of the umask, and wait until it is on the disk."""
    files = [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()] if path.is_dir() else [path]
    mask = os.umask(0)
    os.umask(mask)
    for file in files:
        os.chmod(file, 0o666 & ~mask)  # some writers make files that only their owner may read
        with file.open("r+b") as handle:  # a flush needs a handle that may write
            os.fsync(handle.fileno())
    if path.is_dir():
        for folder in [path, *(p for p in path.rglob("*") if p.is_dir())]:
            flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system lets us (not on Windows)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def keep_times(new: Path, old: Path) -> None:
    """Give a file, or the files of a folder, the times of those that they take the place of, where these are equal."""
    for file in [p for p in new.rglob("*") if p.is_file()] if new.is_dir() else [new]:
        before = old / file.relative_to(new) if new.is_dir() else old
        if before.is_file() and filecmp.cmp(file, before, shallow=False):
            shutil.copystat(before, file)


def drop(folder: Path) -> None:
    """Remove a folder that may be there: out of the way in one step, so that a crash leaves none of half its files."""
    if folder.is_dir():
        old = temporary_name(folder, folder=True)
        os.replace(folder, old)
        remove(old)


def is_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves in place of one that was not fetched."""
    with suppress(OSError), Path(path).open("rb") as file:
        return file.read(len(POINTER)) == POINTER
    return False


def sweep(out: Path) -> None:
    """Remove what dead processes left in and beside an output folder (or beside a file); one caught between its two
    renames is put back.

    To be called by the one process that may write there (see `fields.runtime.locks`): names of live processes of this
    machine are left alone all the same.
    """
    out = Path(out)
    for name in {out.name, out.stem}:  # a temporary file has its suffix last
        for left in out.parent.glob(f".{glob.escape(name)}-*"):
            _clear(left, name)
        for left in out.parent.glob(f"..{glob.escape(name)}-new-*"):  # hidden twice: a writer's own temporary file
            _clear(left)
    if not out.is_dir():
        return
    for folder, folders, names in os.walk(out):
        here = Path(folder)
        if len(here.relative_to(out).parts) >= DEEP:
            folders.clear()
        for name in [*folders, *names]:
            if name.startswith("."):
                _clear(here / name)
        folders[:] = [name for name in folders if not name.startswith(".")]


def _clear(left: Path, only: str | None = None) -> None:
    """Remove, or put back, one name if it is a leftover (of `only`, if given)."""
    found = LEFT.fullmatch(left.name)
    if not found:
        return
    name = found["name"] or found["older"]
    if only is not None and name not in (None, only):
        return
    if found["pid"] and not _dead(left, found["host"], int(found["pid"]), found["mark"]):
        return
    if (found["tag"] or found["was"]) == "old" and name and not (left.parent / name).exists():
        os.replace(left, left.parent / name)
    else:
        remove(left)


def _dead(left: Path, where: str, pid: int, its: str) -> bool:
    """Whether nobody writes there any more; of another machine only age can be told."""
    if where == host():
        return not alive(pid) or its != process_mark(pid)
    with suppress(OSError):
        return time.time() - left.lstat().st_mtime > OLD
    return False


def alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    import psutil

    return psutil.pid_exists(pid)


def began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
