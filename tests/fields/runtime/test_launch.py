"""What a user sees when something is wrong, and what holds for every flag."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from fields.runtime import launch
from fields.runtime.flags import check_words, checked


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class Config:
    out: Path = Path("a")
    fields: str = "b"
    steps: int = 1
    threads: int | None = None
    betas: tuple[float, float] = (0.1, 0.2)
    batch: int = 3
    inner: Inner = Inner()


def told(capsys, function, *args) -> tuple[int, list[str]]:
    """Exit code and lines on the screen."""
    with pytest.raises(SystemExit) as caught:
        launch.run_cli(function, *args)
    return caught.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("expected a, got b."), "error: expected a, got b."),
        (ValueError("two\nlines \x1b[31mred"), "error: two lines \\x1b[31mred"),
        (RuntimeError("401 for hf_abcdefghijkl"), "error: 401 for hf_***"),
        (PermissionError(13, "Permission denied", "/a/b"), "error: /a/b: permission denied."),
        (OSError(28, "No space left on device", "/a/b"), "error: no space left on the disk"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "error: no space left on the disk"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to"), "error: out of memory (CUDA out of memory."),
        (MemoryError(), "error: out of memory (the system has no more). Lower --batch or --threads"),
        (ZeroDivisionError("division by zero"), "error: ZeroDivisionError: division by zero. This is a fault"),
    ],
)
def test_an_error_is_one_sentence_and_the_last_line(capsys, error, said):
    def wrong(_):
        raise error

    code, lines = told(capsys, wrong, Config())
    assert code == 1 and lines[-1].startswith(said)
    assert len(lines) == 1 or isinstance(error, ZeroDivisionError)


@pytest.mark.parametrize(
    ("fails", "code", "said"), [(False, 143, "stopped by SIGTERM; its work"), (True, 1, "error: no.")]
)
def test_a_signal_when_the_work_is_over_breaks_nothing(capsys, monkeypatch, fails, code, said):
    """It comes while locks are given back, or an error is told."""
    monkeypatch.setattr(launch.locks, "release", lambda: os.kill(os.getpid(), signal.SIGTERM))

    def work():
        if fails:
            raise ValueError("no.")

    found, lines = told(capsys, work)
    assert found == code and lines[-1].startswith(said) and len(lines) == 1


def test_interrupted_in_one_sentence(capsys):
    def stopped():
        raise KeyboardInterrupt

    assert told(capsys, stopped) == (130, ["stopped by SIGINT; nothing was written."])


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"steps": 2**63}, "--steps"),
        ({"steps": -(2**70)}, "--steps"),
        ({"betas": (0.1, float("nan"))}, "--betas"),
        ({"inner": Inner(float("inf"))}, "--rate"),
        ({"threads": 100_000}, "--threads"),
    ],
)
def test_numbers_are_numbers(capsys, values, flag):
    code, lines = told(capsys, print, lambda: Config(**values))
    assert code == 1 and lines[-1].startswith(f"error: {flag} must ")


def test_paths_know_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    config = checked(Config(Path("~/x"), "~/f"))
    assert (config.out, config.fields) == (Path("/home/me/x"), "/home/me/f")
    assert checked(Config(Path("a~"), "user/name")) == Config(Path("a~"), "user/name")


@pytest.mark.parametrize("words", [["--out", ""], ["--out="], ["x", "--out="]])
def test_empty_values_are_refused(words):
    with pytest.raises(ValueError, match="--out is empty"):
        check_words(words)
    check_words(["--out", "a", "b"])


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["accelerate", "launch", "--num_processes", "3", "x.py"], 3),
        (["accelerate", "launch", "--num-processes=3", "x.py"], 3),
        (["accelerate", "launch", "--config-file", "{json}", "x.py"], 2),
        (["accelerate", "launch", "--config_file={yaml}", "x.py"], 2),
        (["accelerate", "launch", "--config_file", "{gone}", "x.py"], 1),
        (["accelerate", "launch", "x.py"], 2),
        (["accelerate", "launch", "--cpu", "x.py"], 1),
    ],
)
def test_what_a_launcher_was_asked_for(tmp_path, monkeypatch, words, count):
    from accelerate.commands.config import config_args

    values = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_CPU", "num_processes": 2}
    values |= {"mixed_precision": "no", "use_cpu": True, "debug": False}
    (tmp_path / "c.json").write_text(json.dumps(values))
    lines = [f"{k}: {json.dumps(v)}" + "  # said" * (k == "num_processes") for k, v in values.items()]
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    monkeypatch.setattr(config_args, "default_config_file", str(tmp_path / "c.yaml"))
    paths = {"json": tmp_path / "c.json", "yaml": tmp_path / "c.yaml", "gone": tmp_path / "gone"}
    assert launch.asked_of([word.format(**paths) for word in words]) == count


def test_the_work_of_one_is_refused_to_several(monkeypatch):
    launch.refuse_several("python x.py")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were started, .* Use: python x.py"):
        launch.refuse_several("python x.py")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        launch.refuse_several("python x.py")


def test_every_file_follows_the_umask(tmp_path):
    from fields.runtime.files import replace_folder

    before = os.umask(0o027)
    try:
        with replace_folder(tmp_path / "d") as new:
            os.close(os.open(new / "secret", os.O_CREAT | os.O_WRONLY, 0o600))
        assert (tmp_path / "d" / "secret").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--fields", "f", "--out", "o", "--fieldz", "x"], "unknown: --fieldz x; did you mean --fields?"),
        (["--fields", "f", "--out", "o", "--referenc", "x"], "did you mean --reference?"),
        ([], "missing: --fields."),
        (["f"], "missing: --format, --out."),
        (["--fields", "f", "--out", "o", "--threads", "many"], "Error parsing --threads"),
        (["--fields", "f", "--out", "o", "--threads", "0"], "--threads must be at least 1, got 0."),
        (["--fields", "f", "--out", "o", "--how", "guess"], "--how"),
    ],
)
def test_a_mistake_on_the_command_line_ends_in_a_sentence(words, expected, capsys):
    """Below the frame that explains it."""
    import tyro

    from fields.fitting.options import AlignConfig
    from fields.formats.options import ExportConfig

    command = ExportConfig if words == ["f"] else AlignConfig
    with pytest.raises(SystemExit) as end:
        launch.run_cli(lambda config: None, lambda: tyro.cli(command, args=words))
    shown = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and len(shown) > 2
    assert shown[-1].startswith("error: ") and expected in shown[-1] and shown[-1].endswith("All flags: --help.")


def test_a_value_that_looks_like_a_flag_is_told_how_to_write(capsys, monkeypatch):
    import tyro

    from fields.fitting.options import AlignConfig

    monkeypatch.setattr(sys, "argv", ["align", "--fields", "-runs"])
    with pytest.raises(SystemExit):
        launch.run_cli(lambda config: None, lambda: tyro.cli(AlignConfig, args=sys.argv[1:]))
    assert "write --fields=-runs if it is a value" in capsys.readouterr().err.splitlines()[-1]
    assert tyro.cli(AlignConfig, args=["--fields=-runs"]).fields == "-runs"


def test_help_is_help(capsys):
    import tyro

    from fields.fitting.options import AlignConfig

    with pytest.raises(SystemExit) as end:
        launch.run_cli(lambda config: None, lambda: tyro.cli(AlignConfig, args=["--help"]))
    shown = capsys.readouterr()
    assert end.value.code == 0 and "usage" in shown.out and "error" not in shown.err


def test_a_flag_where_a_word_stands_alone():
    call = [sys.executable, "scripts/export_fields.py", "--fields", "runs/f", "--format", "arena", "--out", "runs/x"]
    done = subprocess.run(call, cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: fields stands alone here: leave --fields out")


@pytest.mark.parametrize(
    ("given", "spins"), [({}, launch.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "")]
)
def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(given, spins):
    code = "import os; from fields.runtime.launch import run_cli; run_cli('os:getpid'); print(os.environ.get('GOMP_SPINCOUNT', ''))"
    plain = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    call = [sys.executable, "-c", code]
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(call, cwd=root, env=plain | given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip() == spins
