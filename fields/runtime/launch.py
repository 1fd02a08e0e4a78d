"""Starting a command: threads, precision, processes, and what a user sees when something is wrong."""

import contextlib
import dataclasses
import errno
import io
import os
import re
import select
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from inspect import getdoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from safetensors import SafetensorError

from fields.runtime import locks
from fields.runtime.contents import find
from fields.runtime.flags import Device, Precision, check_words, checked
from fields.runtime.processes import AGAIN, DONE, UNTOUCHED, Stop, Stopped, begin, end, last_words, say_last, tell
from fields.runtime.text import one_line, scrub

if TYPE_CHECKING:
    import torch

ERRORS = (ValueError, FileNotFoundError, RuntimeError, OSError, MemoryError, SafetensorError, EOFError)
"""What is told in a sentence. Anything else is a fault of the program: its trace is shown, and a sentence below it."""
SMALLER = ("micro_batch", "batch", "block", "resolution", "threads")
"""Flags that lower the need of memory."""
COMPILERS = ("g++", "clang++", "c++", "cl")
"""Names of C++ compilers, any of which will do."""
SPINS = "3000"
"""How often a waiting thread looks for work before it sleeps, for GNU OpenMP, whose own default is 300,000. With two threads
and another process on one of the two cores, 400 steps of the digits' vocabulary took 27 to more than 41 s with the default and
12 with this; on idle cores 11.0 and 11.7. Results are the same."""
REMEDIES = {
    errno.ENOTDIR: "A part of this path is a file: choose another folder.",
    errno.EEXIST: "Choose another folder.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "Its links lead in a circle: choose another folder.",
    errno.EROFS: "Its disk can only be read: choose another folder.",
    errno.EFBIG: "The system bounds the size of a file (see `ulimit -f`): raise the bound and run the same command again.",
    errno.EDQUOT: "The quota of this disk is used up: free some space and run the same command again.",
    errno.EMFILE: "Too many files are open (see `ulimit -n`): raise the bound and run the same command again.",
    errno.EIO: "The disk reports a fault: copy what is there to another one.",
}
"""What to do about errors of the system."""
SHARDED = ("DEEPSPEED", "FSDP", "MEGATRON_LM")
"""What `accelerate config` offers to spread a model over processes."""
YES = ("1", "true", "yes")
ROOM = 1 << 20
"""A disk with fewer free bytes is full."""


def run_cli(function: Callable | str, *args: Any, alone: str | None = None) -> None:
    """Call a command's function; whatever goes wrong ends in one sentence, the last thing on the screen.

    Args:
        function: the command; as "module:function" it is imported once its flags are read, so that --help need not wait
            for PyTorch.
        args: what it takes: configs, classes of them, or functions without arguments that parse them. The command line is
            read here, so that a mistake in a flag is told like any other.
        alone: how the command is started, if it is the work of one process: under several it is then refused.
    Raises:
        SystemExit: 1 after a mistake, 130, 143 or 129 after SIGINT, SIGTERM or SIGHUP, 141 where nobody reads on.
    """
    if isinstance(function, str):
        begin()
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read by PyTorch's threads when it is imported
    tell(lambda: UNTOUCHED)
    configs: list[Any] = []
    code, stop = 0, Stop()
    with contextlib.ExitStack() as stack:
        try:
            if alone is not None:
                refuse_several(alone)
            check_words()
            configs = [checked(_parsed(arg) if callable(arg) else arg) for arg in args]
            work = find(function) if isinstance(function, str) else function
            stack.enter_context(stop)  # not before the imports, some of which break when an exception hits them
            stack.enter_context(locks.scope())
            tell(_written)
            try:
                work(*configs)
                tell(lambda: DONE)
            finally:
                stop.over()
        except KeyboardInterrupt as stopped:
            stop.over()
            signalled = stopped if isinstance(stopped, Stopped) else Stopped()
            code = 128 + signalled.number
            end(code, last_words(signalled.number, signalled.said))
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _unread():
                sys.exit(128 + 13)  # as SIGPIPE ends others
            known = isinstance(error, (*ERRORS, *_arrow_errors()))
            if os.environ.get("FIELDS_TRACEBACK"):
                raise
            if not known:
                traceback.print_exc()
            code = 1
            end(code, f"error: {sentence(error, configs, known)}")
    if not code and stop.late is not None:
        code = 128 + stop.late
        end(code, last_words(stop.late))
    if code:
        sys.exit(code)


def _written() -> str:
    """What is said when a signal stops the work: a folder that was begun is gone on with."""
    return AGAIN if any((folder / "run.json").is_file() for folder in locks.held()) else UNTOUCHED


def _unread() -> bool:
    """Whether nobody reads what is printed any more, as after `| head`; what is left to print then goes nowhere."""
    if not hasattr(select, "poll"):
        return False
    try:
        number = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    poll = select.poll()
    poll.register(number, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return True


def _parsed(parse: Callable) -> Any:
    """What a parser of the command line gives. A mistake it explains in a frame ends in one sentence below it."""
    framed = io.StringIO()
    try:
        with contextlib.redirect_stderr(framed), _whole_paragraphs():
            return tyro.cli(parse, description=getdoc(parse)) if dataclasses.is_dataclass(parse) else parse()
    except SystemExit as end:
        if end.code in (None, 0):
            raise
        print(framed.getvalue(), end="", file=sys.stderr)
        say_last(f"error: {usage_sentence(framed.getvalue())}")
        raise
    finally:
        if sys.exc_info()[0] is not SystemExit:
            print(framed.getvalue(), end="", file=sys.stderr)


@contextlib.contextmanager
def _whole_paragraphs() -> Iterator[None]:
    """The help of an option as one paragraph: read from the source, its lines are indented, and tyro breaks before those."""
    from docstring_parser.attrdoc import AttributeDocstrings

    read = AttributeDocstrings.get_attr_docs

    def joined(self: AttributeDocstrings, of: Any) -> dict:
        return {name: (" ".join(text.split()), *rest) for name, (text, *rest) in read(self, of).items()}

    AttributeDocstrings.get_attr_docs = joined  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        AttributeDocstrings.get_attr_docs = read  # type: ignore[method-assign]


def usage_sentence(framed: str) -> str:
    """A parser's explanation in one sentence.

    Args:
        framed: what tyro printed: paragraphs between rules, in a frame.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", framed).replace("─", "-").replace("│", "|")
    lines = [line for line in plain.splitlines() if line.strip()]
    lines = lines[1:-1] if plain.startswith(("╭", "+")) else lines[2:]  # the title, in a frame or over a rule
    lines = [re.sub(r"^\|", " ", line).rstrip(" |") for line in lines]
    first: dict[str, list[str]] = {"": []}  # the paragraphs by their first words
    for line in lines:
        if re.fullmatch(r" *-{5,}", line):
            first[""] = []
            continue
        key = next(
            (k for k in ("Missing from", "Unrecognized options", "Perhaps you meant") if line.strip().startswith(k)), ""
        )
        if key:
            first[key] = first[""] = []
        first[""].append(line)
        first.setdefault("said", first[""])
    flag = re.compile(r"^ {5,7}(--[\w.-]+|[A-Z][A-Z0-9_-]*|\{[^}]*\})(?= |$)")
    if "Unrecognized options" in first:
        words = (
            " ".join(line.strip() for line in first["Unrecognized options"]).split(":", 1)[1].replace(",", " ").split()
        )
        close = [m[1] for line in first.get("Perhaps you meant", ()) if (m := flag.match(line))]
        meant = f"; did you mean {close[0]}?" if close else "."
        return f"unknown: {one_line(' '.join(words), 200)}{meant} All flags: --help."
    if "Missing from" in first:
        flags = [m[1] for line in first["Missing from"] if (m := flag.match(line))]
        return f"missing: {', '.join(flags) or 'an argument'}. All flags: --help."
    alone = re.search(r"Missing value for argument '(\w+)'", plain)
    if alone and f"--{alone[1]}" in sys.argv:
        return f"{alone[1]} stands alone here: leave --{alone[1]} out and keep its value. All flags: --help."
    missing = re.search(r"Missing value for argument '(--[\w.-]+)'", plain)
    if missing and (value := next((b for a, b in zip(sys.argv, sys.argv[1:], strict=False) if a == missing[1]), "")):
        return f"{missing[1]} got {one_line(value, 60)}, which looks like a flag; write {missing[1]}={one_line(value, 60)} if it is a value. All flags: --help."
    said: list[str] = []
    for line in first.get("said", ()):
        if said and not line.strip():
            break
        said.append(line.strip())
    said = [re.sub(r"^Error parsing [A-Z]\w*: ", "", line) for line in said]  # the name of a class
    return f"{one_line(' '.join(said) or 'the command line was not understood.', 300)} All flags: --help."


def sentence(error: BaseException, configs: Any = (), known: bool = True) -> str:
    """What is said of an error: one line, printable, without secrets.

    Args:
        error: it.
        configs: of the command, whose flags are named where memory ran out.
        known: False for what only a fault of the program can raise.
    """
    text = one_line(scrub(str(error)))
    if not known:
        return f"{type(error).__name__}: {text or 'no message'}. This is a fault of the program; the lines above say where."
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        flags = [f"--{name.replace('_', '-')}" for name in SMALLER if any(hasattr(c, name) for c in configs)]
        lower = f"Lower {' or '.join(flags)}" if flags else "Give it fewer or smaller fields"
        return f"out of memory ({text[:160] or 'the system has no more'}). {lower}, or use a machine with more."
    full = "No space left" in text or "os error 28" in text
    if full or (not isinstance(error, (ValueError, FileNotFoundError)) and any(_full(f) for f in locks.held())):
        return f"no space left on the disk ({text[:160]}). Free some space and run the same command again."
    if isinstance(error, PermissionError):
        return f"{error.filename or text}: permission denied. Change its mode or owner, or choose another folder."
    if isinstance(error, OSError) and error.strerror:
        file = f"{one_line(str(error.filename), 300)}: " if error.filename else ""
        return f"{file}{error.strerror}.{' ' * (error.errno in REMEDIES)}{REMEDIES.get(error.errno or 0, '')}"
    return text or f"{type(error).__name__} without a message"


def _full(folder: Path) -> bool:
    """Whether the disk of a folder is full; torch, PNG and safetensors hide that behind messages of their own."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free < ROOM
    except OSError:
        return False


def _arrow_errors() -> tuple[type, ...]:
    """Those of pyarrow that are neither ValueError nor OSError, if it was used at all."""
    arrow = sys.modules.get("pyarrow")
    return (arrow.ArrowException,) if arrow is not None else ()


def start(*, threads: int | None = None, precision: Precision = "auto", quiet: bool = False, **kwargs: Any):
    """An `Accelerator` with the threads and the precision of this machine.

    `accelerate launch` without flags exports OMP_NUM_THREADS=1 and mixed_precision=no, which cannot be told from a
    choice; so both are decided here.

    Args:
        threads: CPU threads of each process; None = cores / processes on this machine.
        precision: auto = bf16 on a GPU, or on a CPU with AMX, else onednn on an AMD CPU with AVX-512, else fp32; onednn = fp32
            with the products of `fields.runtime.products`; launcher = what accelerate says.
        quiet: print nothing.
        kwargs: for `accelerate.Accelerator`.
    Raises:
        ValueError: for impossible threads.
        RuntimeError: if more processes were asked for than really work together.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    from fields.runtime.products import onednn_fits, use_onednn

    if threads is not None and threads < 1:
        raise ValueError(f"--threads must be at least 1, got {threads}.")
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        environment_number(name, 1)
        if os.environ.get(name) == "":
            del os.environ[name]  # accelerate would read it as a number
    if precision == "auto":
        precision = "bf16" if has_bf16() else "onednn" if onednn_fits() else "fp32"
    use_onednn(precision == "onednn")
    if precision != "launcher":
        kwargs["mixed_precision"] = "bf16" if precision == "bf16" else "no"
    if cpu_asked():
        kwargs.setdefault("cpu", True)  # without it two processes may both believe that they are alone
    for name in SHARDED:
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in YES:
            raise ValueError(
                f"the launcher asks for {name}, but every process here holds the whole model. Start it without, as with: "
                "accelerate launch --multi_gpu SCRIPT"
            )
    # the launcher's number would divide every loss once more, and with it the gradients that are clipped
    kwargs.setdefault("gradient_accumulation_plugin", GradientAccumulationPlugin(num_steps=1))
    if AcceleratorState._shared_state:  # stages of one command differ in precision; the process group stays
        AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(**kwargs)
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError(
            "the launcher asks for fp16, but a CPU would compute in float32. Use --precision fp32 or bf16."
        )
    check_world(accelerator.num_processes)
    local = environment_number("LOCAL_WORLD_SIZE", accelerator.num_processes)
    torch.set_num_threads(threads or max(1, cores() // local))
    if not quiet:
        accelerator.print(
            f"device {accelerator.device}, world size {accelerator.num_processes}, "
            f"threads {torch.get_num_threads()} each, precision {precision_of(accelerator)}"
        )
    return accelerator


def precision_of(accelerator: Any) -> str:
    """The precision that an accelerator computes in, as --precision names it."""
    from fields.runtime.products import onednn_used

    mixed = accelerator.mixed_precision
    return mixed if mixed != "no" else "onednn" if onednn_used() and accelerator.device.type == "cpu" else "fp32"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def cpu_asked() -> bool:
    """Whether GPUs are to be left alone (`accelerate launch --cpu`, or ACCELERATE_USE_CPU=true)."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in YES


def environment_number(name: str, default: int) -> int:
    """A whole number that a launcher sets in the environment; the default where it is not set, or empty.

    Raises:
        ValueError: for anything else.
    """
    text = os.environ.get(name, "").strip()
    if text and not text.isdigit():
        raise ValueError(
            f"the environment variable {name} must be a whole number, got {one_line(text, 60)!r}. Unset it."
        )
    return int(text) if text else default


def choose_device(asked: Device, long: bool = True) -> "torch.device":
    """Where one process of a command without launcher computes.

    Args:
        asked: auto = a GPU where there is one and the work takes `long`, else the CPU.
        long: whether the work is worth a GPU.
    Raises:
        ValueError: if a GPU was asked for and there is none.
    """
    import torch

    found = torch.cuda.is_available()
    if asked == "cuda" and not found:
        raise ValueError("--device cuda: PyTorch sees no GPU here. Leave the flag out, or use --device cpu.")
    auto = asked == "auto" and long and found and not cpu_asked()
    return torch.device("cuda" if asked == "cuda" or auto else "cpu")


def widest(device: "torch.device") -> "torch.dtype":
    """The widest floating-point numbers that a device knows: float64, on Apple's MPS float32."""
    import torch

    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def check_compiler() -> None:
    """Refuse `torch.compile` where it could not compile, before any work.

    Raises:
        ValueError: if there is no C++ compiler.
    """
    names = [os.environ.get("CXX"), os.environ.get("CC"), *COMPILERS]
    if not any(name and shutil.which(name) for name in names):
        raise ValueError(
            "--compile needs a C++ compiler (g++ or clang++), and none is on PATH. Install one, or leave the flag out."
        )


def has_bf16() -> bool:
    """Whether bfloat16 is faster here: on GPUs that know it, and on CPUs with AMX. With AVX512-BF16 alone training a GPT was slower
    than in float32 (13,300 against 21,000 tokens/s at 192 tokens)."""
    import torch

    if torch.cuda.is_available() and not cpu_asked():
        return torch.cuda.is_bf16_supported()
    info = Path("/proc/cpuinfo")
    flags = info.read_text(errors="replace") if info.is_file() else ""
    return "amx_bf16" in flags


def check_world(processes: int) -> None:
    """Refuse to work alone where several processes were asked for: each would believe it is the only writer."""
    asked = max(environment_number("WORLD_SIZE", 1), _launcher_asked())
    if asked > processes:
        raise RuntimeError(
            f"{asked} processes were asked for but this one works alone (world size {processes}). On CPUs start them "
            "with: ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N --num_machines 1 "
            "--mixed_precision no --dynamo_backend no SCRIPT"
        )


def refuse_several(command: str) -> None:
    """Refuse several processes, for a command that is the work of one: each would write the same folder.

    Args:
        command: how it is started, for the message.
    Raises:
        RuntimeError: if a launcher started several, told by the first of them.
    """
    asked = max(environment_number("WORLD_SIZE", 1), _launcher_asked())
    if asked < 2:
        return
    if environment_number("RANK", 0):
        raise SystemExit(1)
    raise RuntimeError(f"{asked} processes were started, but this command runs in one process. Use: {command}")


def _launcher_asked() -> int:
    """The number of processes that the `accelerate launch` above us was asked for, by flag or config file; else 1."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return 1
    if not any(Path(word).name.startswith("accelerate") for word in words[:3]):  # also python -m accelerate.commands...
        return 1
    return asked_of(words)


def asked_of(words: list[str]) -> int:
    """The number of processes that a launcher's command line asks for, by flag, config file or accelerate's default file."""
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    following = dict(zip(words, words[1:], strict=False))
    for flag in ("--num_processes", "--num-processes"):
        if following.get(flag, "").isdigit():
            return int(following[flag])
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    path = following.get("--config_file") or following.get("--config-file")
    if path is None and (not Path(default_config_file).is_file() or "--cpu" in words):
        return 1
    try:
        return int(getattr(load_config_from_file(path), "num_processes", 1) or 1)
    except Exception:  # the launcher has read it before us: what it accepts and we do not is no reason to stop
        return 1
