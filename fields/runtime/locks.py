"""One writer a folder: a lock beside it, `.NAME.lock`, that says who holds it and ends with its owner, also by `kill -9`.

The lock itself is the operating system's (flock, or its like on Windows), which drops it with the process, on this machine
or on another that shares the disk; the file only says whose it is. On disks without such locks the process id in the file
decides.
"""

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from fields.runtime.files import alive, began, may_go

if sys.platform != "win32":
    import fcntl

UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What a disk answers that knows no locks."""
BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)

SUFFIX = ".lock"

_held: dict[Path, int] = {}
_scopes = 0


@contextmanager
def scope() -> Iterator[None]:
    """While a command runs: what `take` takes is held until the outermost scope ends."""
    global _scopes
    _scopes += 1
    try:
        yield
    finally:
        _scopes -= 1
        if not _scopes:
            release()


def take(out: Path) -> None:
    """Become the one writer of a folder, until the scope ends; outside a scope only make sure that nobody else writes.

    Raises:
        RuntimeError: if another process holds it, saying which.
    """
    out = Path(os.path.abspath(out))
    if out in _held:
        return
    _held[out] = _open(out)
    if not _scopes:
        release(out)


def clear(out: Path, deep: int) -> None:
    """Remove the locks that dead processes left inside a folder of ours, of parts that need not be made again.

    Args:
        out: a folder that this process is the writer of.
        deep: levels that are searched.
    """
    out = Path(os.path.abspath(out))
    for folder, folders, names in os.walk(out):
        here = Path(folder)
        for name in names:
            part = here / name.removeprefix(".").removesuffix(SUFFIX)
            if part.name and name == lock_file(part).name and part not in _held:
                _forget(part)
        deeper = len(here.relative_to(out).parts) < deep
        folders[:] = [name for name in folders if deeper and not name.startswith(".")]


def _forget(part: Path) -> None:
    """Remove the lock of a part, if it is one of ours and nobody holds it."""
    with suppress(OSError, RuntimeError):
        handle, before = _locked(part)
        if not before or "pid" in _read(before):
            _held[part] = handle
            release(part)
        else:
            os.close(handle)


def held() -> list[Path]:
    """The folders this process is the writer of."""
    return list(_held)


def release(out: Path | None = None) -> None:
    """Let go of one folder, or of all."""
    for folder in [out] if out else list(_held):
        handle, path = _held.pop(folder), lock_file(folder)
        may_go(folder)
        with suppress(OSError):
            if os.name == "nt":
                os.close(handle)  # an open file cannot be removed there
            path.unlink(missing_ok=True)
        with suppress(OSError):
            os.close(handle)


def lock_file(out: Path) -> Path:
    """Where the lock of a folder lies: beside it, as the folder itself may be replaced whole."""
    return out.with_name(f".{out.name}{SUFFIX}")


def _open(out: Path) -> int:
    """The lock's file, locked, with our name in it."""
    path = lock_file(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
    except OSError as error:
        error.filename = str(out)  # a user knows the folder, not its lock
        raise
    handle, before = _locked(out)
    if (left := _read(before)) and left.get("host") != socket.gethostname():
        print(f"{out}: taking over from {_who(before)}, which no longer holds it", file=sys.stderr)
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "began": began(os.getpid())}
    mine |= {"since": datetime.now().astimezone().isoformat(timespec="seconds"), "command": sys.argv}
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, json.dumps(mine).encode())
    return handle


def _locked(out: Path) -> tuple[int, bytes]:
    """The lock's file, locked, and what its owner before us wrote there.

    Raises:
        RuntimeError: if another process holds it, saying which.
    """
    path = lock_file(out)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            before = os.pread(handle, 1 << 16, 0) if hasattr(os, "pread") else path.read_bytes()
            if not _lock(handle, before):
                raise RuntimeError(
                    f"{out} is being written by {_who(before)}. Wait for it, stop it, or choose another folder."
                )
            if _same(handle, path):
                return handle, before
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its owner removed the file in between: the lock is on a name that is gone


def _lock(handle: int, before: bytes) -> bool:
    """Whether the system gave us the lock; where it has none, whether the owner named in the file is gone."""
    try:
        if sys.platform != "win32":
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(handle, 1 << 20, os.SEEK_SET)  # a byte behind the text, which others may then read
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in BUSY:
            return False
        if error.errno not in UNKNOWN:
            raise
        owner = _read(before)
        return not owner or (owner.get("host") == socket.gethostname() and not _lives(owner))
    return True


def _same(handle: int, path: Path) -> bool:
    """Whether the open file still is the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _read(text: bytes) -> dict:
    """What a lock's file says; nothing if it was cut."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _who(text: bytes) -> str:
    """The owner in words."""
    owner = _read(text)
    command = owner.get("command")
    shown = " ".join(map(str, command))[:120] if isinstance(command, list) else "unknown command"
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')} ({shown})"


def _lives(owner: dict) -> bool:
    """Whether the process named in a lock of this machine is still that process."""
    pid = owner.get("pid")
    return isinstance(pid, int) and alive(pid) and owner.get("began") in (None, began(pid))
