"""--help of every command is there at once: it waits for no library that takes seconds to import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLOW = (
    "torch",
    "torchvision",
    "sklearn",
    "scipy",
    "transformers",
    "accelerate",
    "datasets",
    "pyarrow",
    "matplotlib",
    "PIL",
)
COMMANDS = [
    *sorted(f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")),
    *(f"tokenizers/{name}.py" for name in ("build", "encode", "decode", "compare")),
]
RUN = """
import atexit, runpy, sys
atexit.register(lambda: print("imported:", *sorted({slow!r} & sys.modules.keys())))
sys.path.insert(0, {root!r})
sys.argv = [{command!r}, "--help"]
runpy.{run}
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_slow(command):
    name = command.removesuffix(".py").replace("/", ".")
    run = f"run_path({command!r}, run_name='__main__')"
    if command.startswith("tokenizers"):
        run = f"run_module({name!r}, run_name='__main__', alter_sys=True)"
    text = RUN.format(slow=set(SLOW), root=str(ROOT), command=command, run=run)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert "usage:" in done.stdout.lower()
    assert done.stdout.splitlines()[-1].strip() == "imported:", done.stdout.splitlines()[-1]


def test_nobody_reads_on():
    """As `| head` does: no word of it, and the exit code of SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    call = [sys.executable, "scripts/train_gpt.py", "--help"]
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(call, cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (141, "")
