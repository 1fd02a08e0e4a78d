"""What a command shows while it works: progress with a terminal and without, tables that fit a screen, counts in words."""

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

from tqdm import tqdm

from fields.runtime.text import one_line

EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""
PART = 0.1
"""Share of the work after which a line is due earlier than that, if a second has passed."""
EARLY, LONG = 2.0, 30.0
"""Seconds after which a job that will take longer than LONG says how long, from what was done until then."""
DELAY = 0.5
"""Seconds before a bar appears: short work has none."""
SIBILANTS = ("s", "x", "ch", "sh")
WIDTH = 100
"""Columns of a table on the screen."""


def bar(
    over: Iterable | None = None,
    *,
    desc: str,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    quiet: bool = False,
    leave: bool = True,
) -> Any:
    """Progress of a loop: tqdm's bar on a terminal, elsewhere a line every ten seconds or tenth, with the time left.

    Args:
        over: what is gone through, or None to call `update`.
        desc: what is done.
        unit: of what, in the singular; byte = counted in the unit that fits.
        total: how many; None = the length of `over`, if it has one.
        initial: how many were done before.
        quiet: show nothing.
        leave: whether the finished bar stays on a terminal.
    Returns:
        Iterable and context manager, with `update(n)`, `set_postfix_str`, `write`, `close`, `n` and `total`.
    """
    if total is None and isinstance(over, Sized):
        total = len(over)
    if quiet or sys.stderr.isatty():
        count: dict[str, Any] = (
            {"unit": "B", "unit_scale": True} if unit == "byte" else {"unit": plural(2, unit).removeprefix("2")}
        )
        return tqdm(
            over,
            total=total,
            initial=initial,
            desc=desc,
            disable=quiet,
            leave=leave,
            smoothing=0.05,
            delay=DELAY,
            **count,
        )
    return Lines(over, desc, unit, total, initial)


class Lines:
    """Progress as plain lines on stderr, for files and pipes."""

    def __init__(self, over: Iterable | None, desc: str, unit: str, total: int | None, initial: int):
        self.over, self.desc, self.unit, self.total, self.n = over, desc, unit, total, initial
        self._initial, self._began = initial, time.monotonic()
        self._told, self._at, self._note, self._open = self._began, initial, "", True
        self._early, self._lock = True, threading.Lock()

    def __iter__(self) -> Iterator:
        with self:
            for one in () if self.over is None else self.over:  # a tensor has no truth value
                yield one
                self.update()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """So many more are done."""
        with self._lock:
            self._update(n)

    def _update(self, n: int) -> None:
        self.n += n
        passed = time.monotonic() - self._told
        if self._early and time.monotonic() - self._began >= EARLY and self.total and self.n > self._initial:
            self._early = False
            if EARLY * (self.total - self._initial) > LONG * (self.n - self._initial):  # it will take longer than LONG
                self._tell()
                return
        part = self.total is not None and self.n - self._at >= PART * self.total
        if passed >= EVERY or (part and passed >= 1):
            self._tell()

    def set_postfix_str(self, text: str = "", refresh: bool = True) -> None:
        """A number to be shown with the next line."""
        self._note = text

    def write(self, text: str) -> None:
        """A line of its own."""
        say(text)

    def close(self) -> None:
        """The last line, for work of some seconds."""
        if self._open and time.monotonic() - self._began >= 1 and self.n > self._at:
            self._tell()
        self._open = False

    def _tell(self) -> None:
        now = time.monotonic()
        self._told, self._at = now, self.n
        seconds = now - self._began
        speed = (self.n - self._initial) / max(seconds, 1e-9)
        if self.total is None:
            said = f"{_count(self.n, self.unit)}, {duration(seconds)}"
        elif self.n >= self.total:
            said = f"{_count(self.n, self.unit)} in {duration(seconds)}"
        else:
            left = duration((self.total - self.n) / speed) if speed else "unknown time"
            done = f"{self.n / 2**20:,.1f}" if self.unit == "byte" else f"{self.n:,}"
            said = f"{done} of {_count(self.total, self.unit)}, {left} left"
        print(f"{self.desc}: {said}{', ' + self._note if self._note else ''}", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """A line of its own, above the bar if there is one."""
    tqdm.write(text)
    sys.stdout.flush()


def _count(n: int, unit: str) -> str:
    """So many, with the unit."""
    return f"{n / 2**20:,.1f} MiB" if unit == "byte" else plural(n, unit)


def plural(n: int, unit: str) -> str:
    """1 field, 2,000 fields."""
    several = f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}{'es' * unit.endswith(SIBILANTS) or 's'}"
    return f"{n:,} {unit if n == 1 else several}"


def duration(seconds: float) -> str:
    """Seconds in the unit that fits: 4 s, 3.5 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def text_table(header: Sequence[str], rows: Iterable[Sequence[Any]], width: int = WIDTH) -> str:
    """Rows in columns, numbers to the right, at most `width` characters wide: long texts of the widest column are cut.

    Args:
        header: names of the columns.
        rows: of as many cells.
        width: of the screen.
    """
    cells = [[one_line(str(cell)) for cell in row] for row in [header, *rows]]
    right = [all(_number(row[i]) for row in cells[1:]) and len(cells) > 1 for i in range(len(header))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > 4:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in cells:
        shown = [c if len(c) <= w else c[: w - 3] + "..." for c, w in zip(row, widths, strict=True)]
        lines.append("  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(shown, widths, right, strict=True)))
    return "\n".join(line.rstrip() for line in lines)


def _number(text: str) -> bool:
    """Whether a cell belongs to the right: a number with or without a unit's sign, or nothing."""
    try:
        float(text.replace(",", "").rstrip("%") or 0)
    except ValueError:
        return text in ("-", "n/a")
    return True
