"""Small parts of a push: what is there already, what travels together, and the library's errors and progress bars."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

GROUP = (16, 256 << 20)
"""Files and bytes sent between two looks at the progress bar."""


def bare(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call; what the library wraps as "Error while uploading" is raised as what it was."""
    try:
        return function(*args, **kwargs)
    except RuntimeError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None


def same(file: Path, known: str | None) -> bool:
    """Whether a file is what the repository holds under its name: by SHA-256 (LFS) or git's blob id."""
    if known is None:
        return False
    state = hashlib.sha256() if len(known) == 64 else hashlib.sha1(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as handle:
        while piece := handle.read(1 << 22):
            state.update(piece)
    return state.hexdigest() == known


def groups(adds: list[Any]) -> list[list[Any]]:
    """Neighbours that travel together."""
    out: list[list[Any]] = []
    files = size = 0
    for add in adds:
        if not out or files == GROUP[0] or size + add.upload_info.size > GROUP[1]:
            out.append([])
            files = size = 0
        out[-1].append(add)
        files, size = files + 1, size + add.upload_info.size
    return out


class quiet:
    """The library's own progress bars are off inside: ours counts the whole push."""

    def __enter__(self) -> None:
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars

        self.before = are_progress_bars_disabled()
        if not self.before:
            disable_progress_bars()

    def __exit__(self, *_: Any) -> None:
        from huggingface_hub.utils import enable_progress_bars

        if not self.before:
            enable_progress_bars()
