import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import config, make_corpus

from fields.runtime.processes import REPEAT, SIGNALS, Interrupt, Stopped, on_all, on_main
from fields.storage.dataset import WeightDataset
from gpt.train_gpt import train

ROOT = Path(__file__).resolve().parents[3]
TWO = [
    "--multi_gpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
]


class Alone:
    num_processes, is_main_process = 1, True


class Other:
    num_processes, is_main_process = 2, False


def test_alone_the_main_process_does_it():
    assert on_main(Alone, max, 3, 4) == 4
    with pytest.raises(ZeroDivisionError):
        on_main(Alone, lambda: 1 / 0)


def test_a_common_mistake_is_told_once():
    with pytest.raises(ValueError):
        on_all(Alone, int, "x")
    with pytest.raises(SystemExit):
        on_all(Other, int, "x")


@pytest.mark.parametrize("number", SIGNALS)
def test_first_signal_asks_and_the_next_within_a_moment_is_the_same_one(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught, Interrupt() as interrupt:
        assert not interrupt.requested
        for one in (number, signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), one)
        assert interrupt.requested and interrupt.number == number
    assert caught.value.number == number  # nobody looked: the end of the block tells
    assert signal.getsignal(number) is before


BEGUN = """
import sys, time
sys.path.insert(0, {root!r})
from fields.runtime.processes import begin
begin()
if {early}:
    print("ready", flush=True)
    time.sleep(20)
from fields.runtime.launch import run_cli
def work():
    print("ready", flush=True)
    time.sleep(20)
run_cli(work)
"""


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_is_one_sentence_from_the_first_second_on(number, early):
    words = [sys.executable, "-c", BEGUN.format(root=str(ROOT), early=early)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.send_signal(number)
        assert process.communicate(timeout=20)[1] == f"stopped by {number.name}; nothing was written.\n"
        assert process.returncode == 128 + number


def test_an_ignored_hang_up_stays_ignored():
    words = ["nohup", sys.executable, "-c", BEGUN.format(root=str(ROOT), early=False)]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, **streams) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


def test_a_child_ends_with_its_launcher_however_that_dies(tmp_path):
    child = BEGUN.format(root=str(ROOT), early=True)
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    environment = {**os.environ, "LOCAL_RANK": "0"}
    words = [sys.executable, "-c", parent]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        process.stdout.readline()
        process.kill()
        assert (
            process.stderr.read() == "stopped by SIGTERM; nothing was written.\n"
        )  # the child's pipe closes: it is gone


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["accelerate.commands.launch", "torch.distributed.run"])
def test_under_a_launcher_our_sentence_is_the_last(tmp_path, launcher):
    call = "def wrong():\n    raise ValueError('expected a, got b.')\nrun_cli(wrong)"
    text = BEGUN.format(root=str(ROOT), early=False).replace("run_cli(work)", call)
    (tmp_path / "script.py").write_text(text)
    words = [sys.executable, "-m", launcher, str(tmp_path / "script.py")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1] == "error: expected a, got b."


@pytest.mark.slow
def test_second_interrupt_ends_at_once():
    script = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from fields.runtime.processes import Interrupt
with Interrupt():
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        time.sleep(REPEAT + 0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130


# -- two real processes ------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from fields.runtime.launch import run_cli
from gpt.sampling.sample import sample
from gpt.sampling.options import SampleConfig
from gpt.train_gpt import train
from toy import config
{call}
"""


def launch(folder: Path, call: str) -> subprocess.Popen:
    """The call in two processes of accelerate's launcher."""
    script = folder / "script.py"
    script.write_text(SCRIPT.format(root=str(ROOT), tests=str(ROOT / "tests" / "support"), call=call))
    command = [sys.executable, "-m", "accelerate.commands.launch", *TWO, str(script)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def finish(process: subprocess.Popen, seconds: float = 120) -> str:
    try:
        return process.communicate(timeout=seconds)[0]
    finally:
        process.kill()


def rows(folder: Path, key: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if key in line]


@pytest.mark.slow
def test_two_processes_train_as_one_and_each_resumes_the_other(tmp_path, on_cpu):
    make_corpus(tmp_path)
    # 5 rows in passes of 2: the last pass of the second process has none; pictures and validation at every step
    values = {"steps": 7, "batch": 5, "micro_batch": 2, "eval_every": 1, "sample_every": 1, "samples": 2}
    train(config(tmp_path, "one", **values))
    call = f"run_cli(train, config(Path({str(tmp_path)!r}), 'two', **{values!r}))"
    output = finish(launch(tmp_path, call))
    assert "world size 2" in output and "(2 processes, 2 per forward pass)" in output
    one, two = rows(tmp_path / "one", "loss"), rows(tmp_path / "two", "loss")
    assert len(one) == len(two) == 7
    for a, b in zip(one, two, strict=True):
        assert (a["lr"], a["batch"]) == (b["lr"], b["batch"]) and a["loss"] == pytest.approx(b["loss"], abs=1e-6)
    x, y = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(x[k], y[k], atol=1e-5) for k in x)
    bits = [rows(tmp_path / name, "bits_per_field")[-1]["bits_per_field"] for name in ("one", "two")]
    assert bits[0] == pytest.approx(bits[1], rel=1e-5)

    train(config(tmp_path, "two", **{**values, "steps": 9}))  # one process goes on where two stopped
    output = finish(launch(tmp_path, call.replace("'two'", "'one'").replace("'steps': 7", "'steps': 9")))
    assert "resumed at step 7" in output
    one, two = rows(tmp_path / "one", "loss"), rows(tmp_path / "two", "loss")
    assert one[-1]["step"] == two[-1]["step"] == 9 and one[-1]["loss"] == pytest.approx(two[-1]["loss"], abs=1e-5)


@pytest.mark.slow
def test_two_processes_draw_the_same_fields_as_one(tmp_path, on_cpu):
    from gpt.sampling.options import SampleConfig
    from gpt.sampling.sample import sample

    make_corpus(tmp_path)
    train(config(tmp_path, steps=2, warmup=0))
    sample(SampleConfig(str(tmp_path / "gpt"), tmp_path / "one", n=20, block=8))
    words = f"{str(tmp_path / 'gpt')!r}, Path({str(tmp_path / 'two')!r}), n=20, block=8"
    output = finish(launch(tmp_path, f"run_cli(sample, SampleConfig({words}))"))
    assert "world size 2" in output and output.count("20 fields in") == 1
    a, b = (WeightDataset.load(tmp_path / name).weights("samples") for name in ("one", "two"))
    assert torch.equal(a, b)


@pytest.mark.slow
def test_a_mistake_ends_both_processes_with_one_sentence(tmp_path):
    make_corpus(tmp_path)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    process = launch(tmp_path, f"run_cli(train, config(Path({str(tmp_path)!r}), 'used'))")
    output = finish(process, 60)
    # once when it happens, once more below what the launcher prints about it
    assert output.count("error: --out") == 2 and output.strip().splitlines()[-1].startswith("error: --out")
    assert process.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_one_process_ends_the_other(tmp_path, rank):
    make_corpus(tmp_path)
    pids = "import os; Path({folder!r}, 'pid' + os.environ['RANK']).write_text(str(os.getpid()))"
    call = f"{pids.format(folder=str(tmp_path))}\nrun_cli(train, config(Path({str(tmp_path)!r}), steps=100_000))"
    process = launch(tmp_path, call)
    for line in process.stdout:
        if "bits/field" in line:
            break
    both = [int((tmp_path / f"pid{r}").read_text()) for r in range(2)]
    os.kill(both[rank], signal.SIGKILL)
    began = time.monotonic()
    finish(process, 60)
    assert time.monotonic() - began < 40 and process.returncode != 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in both)
