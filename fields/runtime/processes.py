"""Several processes and their signals: work done by one of them, and stopping in good order.

Nothing here imports more than the standard library at first: `begin` is what a command calls before its long imports.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

REPEAT = 1.0
"""Seconds in which a second Ctrl-C counts as the first: launchers pass on what the terminal has already sent."""
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Those that ask a command to stop; Windows knows no SIGHUP."""
WATCH = 2.0
"""Seconds between two looks at the parent, where the system does not tell of its death."""
PARENT_DEATH = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""
UNTOUCHED, DONE = "nothing was written", "its work was done and is saved"
AGAIN = "run the same command again to continue"
_ended: int | None = None


def _state() -> str:
    """What `tell` was told."""
    return UNTOUCHED


class Stopped(KeyboardInterrupt):
    """A signal asked the command to stop.

    Attributes:
        number: of the signal.
        said: what is there, or what to do; whoever catches it on its way may know better than `last_words`.
    """

    def __init__(self, number: int = signal.SIGINT):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number, self.said = number, ""


def begin() -> None:
    """The first thing a command does, before imports that take seconds: signals answered, drawing without a window, any text
    printable, and an end with the launcher."""
    os.environ["MPLBACKEND"] = "Agg"  # nothing else is used; a notebook's own would be refused on import
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name in another alphabet is no reason to stop
    answer(_leave)
    if under_launcher():
        end_with_parent()


def tell(state: Callable[[], str]) -> None:
    """What is said from now on behind "stopped by SIGINT": what is there, or what to do.

    Args:
        state: gives it, when it is asked for.
    """
    global _state, _ended
    _state, _ended = state, None


def end(code: int, text: str) -> None:
    """Say the last sentence: further signals add nothing to it, and the exit code stays."""
    global _ended
    _ended = code
    say_last(text) if first_of_all() else print(text, file=sys.stderr, flush=True)


def last_words(number: int, said: str = "") -> str:
    """The one sentence after a signal.

    Args:
        number: of the signal.
        said: what is there, or what to do; default: what `tell` was told.
    """
    said = (said or _state()) if first_of_all() else f"process {os.environ['RANK']}"
    return f"stopped by {signal.Signals(number).name}; {said}."


def answer(handler: Callable[[int, Any], None]) -> None:
    """Give the stopping signals to a handler; those that were to be ignored (nohup) still are."""
    if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, handler)


def restore(before: dict[int, Any]) -> None:
    """Put handlers back; those not set by Python stay."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def _leave(number: int, _: Any) -> None:
    """Before there is anything to save, after all is saved, and where nobody wants to wait: one sentence, and gone."""
    if _ended is not None:
        os._exit(_ended)
    with suppress(OSError):
        os.write(2, f"{last_words(number)}\n".encode())
    os._exit(128 + number)


class Stop:
    """While a command runs, the first signal raises `Stopped` where the program stands; one more after a moment ends it at once.

    Attributes:
        late: the signal that came when the work was over, and raised nothing.
    """

    def __init__(self):
        self.late: int | None = None
        self._since: float | None = None
        self._over = False

    def over(self) -> None:
        """From now on nothing is raised: the work has ended, well or not, and what is left to do is done."""
        self._over = True

    def __enter__(self) -> "Stop":
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        answer(self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        restore(self._before)

    def _handle(self, number: int, _: Any) -> None:
        if self._since is None:
            self._since = time.monotonic()
            if self._over:
                self.late = number
                return
            raise Stopped(number)
        if time.monotonic() - self._since > REPEAT:
            _leave(number, None)


class Interrupt:
    """While active, a stopping signal only sets `requested`; a second one after a moment ends the process at once.

    Whoever looks at `requested` and has saved raises `Stopped(interrupt.number)`. If nobody looked, the end of the block
    does: a signal is never lost.
    """

    def __init__(self):
        self.requested = False
        self.number = signal.SIGINT
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        answer(self._handle)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        restore(self._before)
        if self.requested and kind is None:
            raise Stopped(self.number)

    def _handle(self, number: int, _: Any) -> None:
        if self.requested and time.monotonic() - self._since > REPEAT:
            _leave(number, None)
        if not self.requested:
            self._since, self.number = time.monotonic(), number
        self.requested = True


# -- launchers ---------------------------------------------------------------------------------------------------------


def under_launcher() -> bool:
    """Whether `accelerate launch` or torchrun started this process."""
    return any(name in os.environ for name in ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID", "LOCAL_RANK"))


def first_of_all() -> bool:
    """Whether this is the only process of a command, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def end_with_parent() -> None:
    """Have this process asked to stop (SIGTERM) when its launcher dies, however that dies."""
    parent = os.getppid()
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            if ctypes.CDLL(None, use_errno=True).prctl(PARENT_DEATH, signal.SIGTERM) == 0:
                if os.getppid() != parent:  # it died in between
                    os.kill(os.getpid(), signal.SIGTERM)
                return
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH)
    os.kill(os.getpid(), signal.SIGTERM)


def say_last(text: str) -> None:
    """Print a sentence so that it stands below what a launcher prints about our exit code.

    `accelerate launch` and torchrun answer an exit code other than 0 with a traceback of their own, and no setting of ours
    reaches them. A process that outlives them by a moment repeats the sentence.
    """
    print(text, file=sys.stderr, flush=True)
    if not under_launcher() or os.name == "nt":
        return
    import subprocess

    words = [sys.executable, "-S", "-E", "-c", _REPEAT, str(os.getppid()), text]
    with suppress(OSError):
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)


_REPEAT = """
import os, sys, time
launcher, end = int(sys.argv[1]), time.monotonic() + 60
while time.monotonic() < end:
    try:
        os.kill(launcher, 0)
    except OSError:
        break
    time.sleep(0.02)
    stat = "/proc/%d/stat" % launcher
    if os.path.exists(stat) and open(stat).read().rpartition(")")[2].split()[0] == "Z":
        break
os.write(2, sys.argv[2].encode(errors="backslashreplace") + b"\\n")
"""


# -- work done by one --------------------------------------------------------------------------------------------------


def on_main(accelerator: Any, function: Callable, *args: Any, **options: Any) -> Any:
    """Call `function` on the main process only and give its result to all.

    A failure there ends every process: the main one raises it, the others leave silently with exit code 1. Without this
    they would wait for ever in the next collective.
    """
    if accelerator.num_processes == 1:
        return function(*args, **options)
    from accelerate.utils import broadcast_object_list

    box, error = [None, False], None
    if accelerator.is_main_process:
        try:
            box[0] = function(*args, **options)
        except Exception as caught:  # whatever it is, it is raised again below, once the others know
            box[1], error = True, caught
    broadcast_object_list(box, from_process=0)
    if error is not None:
        raise error
    if box[1]:
        raise SystemExit(1)
    return box[0]


def on_all(accelerator: Any, function: Callable, *args: Any) -> Any:
    """Call `function` on every process, where it does the same and fails alike: its mistake is told once."""
    try:
        return function(*args)
    except (ValueError, OSError, RuntimeError):
        if accelerator.is_main_process:
            raise
        raise SystemExit(1) from None
