"""Several processes and their signals: work done by one of them, and stopping in good order."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

REPEAT = 1.0
"""Seconds in which a second Ctrl-C counts as the first: launchers pass on what the terminal has already sent."""


def on_main(accelerator: Any, function: Callable, *args: Any) -> Any:
    """Call `function` on the main process only and give its result to all.

    A failure there ends every process: the main one raises it, the others leave silently with exit code 1. Without this
    they would wait for ever in the next collective.
    """
    if accelerator.num_processes == 1:
        return function(*args)
    from accelerate.utils import broadcast_object_list

    box, error = [None, False], None
    if accelerator.is_main_process:
        try:
            box[0] = function(*args)
        except Exception as caught:  # whatever it is, it is raised again below, once the others know
            box[1], error = True, caught
    broadcast_object_list(box, from_process=0)
    if error is not None:
        raise error
    if box[1]:
        raise SystemExit(1)
    return box[0]


def alike(accelerator: Any, function: Callable, *args: Any) -> Any:
    """Call `function` on every process, where it does the same and fails alike: its mistake is told once."""
    try:
        return function(*args)
    except (ValueError, OSError, RuntimeError):
        if accelerator.is_main_process:
            raise
        raise SystemExit(1) from None


class Interrupt:
    """While active, SIGINT and SIGTERM only set `requested`; a second SIGINT ends the process at once with 130."""

    def __init__(self):
        self.requested = False
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: Any) -> None:
        if self.requested and number == signal.SIGINT and time.monotonic() - self._since > REPEAT:
            os._exit(130)
        if not self.requested:
            self._since = time.monotonic()
        self.requested = True
