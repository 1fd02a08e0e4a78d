import dataclasses
import json
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from edited import edit
from safetensors.torch import load_file
from toy import config, make_corpus

from fields.runtime.files import sweep
from gpt.train_gpt import train
from gpt.training import checkpoints
from gpt.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = make_corpus(tmp_path_factory.mktemp("resume"))
    train(config(root, "straight", ema=0.9))
    return root


def log(folder: Path) -> list[dict]:
    """What must be equal: everything but speed."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in rows]


def interrupt_at(monkeypatch, *steps: int) -> None:
    """SIGINT during these steps."""
    original = Trainer.backward

    def backward(self, rows, step):
        if step in steps:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, rows, step)

    monkeypatch.setattr(Trainer, "backward", backward)


def same(a: Path, b: Path) -> bool:
    x, y = load_file(a / "last" / "model.safetensors"), load_file(b / "last" / "model.safetensors")
    return log(a) == log(b) and x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_twice_interrupted_run_equals_the_straight_one(root, monkeypatch, capsys):
    settings, before = config(root, "twice", ema=0.9), signal.getsignal(signal.SIGINT)
    for step in (6, 7):  # both in the second epoch
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_at(patch, step)
            train(settings)
        assert (settings.out / "checkpoints" / f"step-{step:07d}").is_dir()
    train(settings)
    assert "resumed at step 7 (epoch 1.40)" in capsys.readouterr().out
    assert same(root / "straight", settings.out)
    assert signal.getsignal(signal.SIGINT) is before


def test_finished_run_says_so(root, capsys):
    before = (root / "straight" / "metrics.jsonl").stat().st_mtime_ns
    train(config(root, "straight", ema=0.9))
    assert "is finished at step 12" in capsys.readouterr().out
    assert before == (root / "straight" / "metrics.jsonl").stat().st_mtime_ns


def test_other_configurations_are_refused(root):
    with pytest.raises(ValueError, match="lr: 0.001 there, 0.002 now"):
        train(config(root, "straight", ema=0.9, lr=2e-3))
    with pytest.raises(ValueError, match="--no-resume"):
        train(config(root, "straight", ema=0.9, resume=False))
    with pytest.raises(ValueError, match="is at step 12, beyond --steps 5"):
        train(config(root, "straight", ema=0.9, steps=5))


def test_more_steps_go_on_and_names_follow_the_step(root):
    settings = config(root, "longer", save_every=4, keep=9)
    train(settings)
    train(dataclasses.replace(settings, steps=20))
    names = sorted(p.name for p in (settings.out / "checkpoints").iterdir())
    assert names == [f"step-{s:07d}" for s in (4, 8, 12, 16, 20)]
    assert [r["step"] for r in log(settings.out) if "loss" in r] == list(range(1, 21))


@pytest.mark.parametrize(
    "name, how",
    [
        ("model.safetensors", "truncated"),
        ("model.safetensors", "same size"),
        ("optimizer.bin", "missing"),
        ("trainer.json", "truncated"),
    ],
)
def test_damaged_checkpoint_is_skipped_by_name(root, capsys, name, how):
    out = root / f"damaged-{name}-{how}"
    shutil.copytree(root / "straight", out)
    file = out / "checkpoints" / "step-0000012" / name
    if how == "missing":
        file.unlink()
    else:
        content = file.read_bytes()
        file.write_bytes(content[:40] if how == "truncated" else b"\0" * len(content))
    train(config(root, out.name, ema=0.9))
    printed = capsys.readouterr().out
    assert f"skipped {file.parent}" in printed and "resumed at step 8" in printed
    assert same(root / "straight", out)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["BOMB"],))


@pytest.mark.parametrize("name", ["optimizer.bin", "random_states_0.pkl", "custom_checkpoint_0.pkl"])
def test_nothing_in_a_checkpoint_is_executed(root, tmp_path, monkeypatch, name):
    monkeypatch.setenv("BOMB", str(tmp_path / "boom"))
    out = root / f"bomb-{name}"
    shutil.copytree(root / "straight", out)
    for folder in (out / "checkpoints").iterdir():
        if name == "optimizer.bin":
            torch.save({"state": Bomb()}, folder / name)
        else:
            (folder / name).write_bytes(pickle.dumps(Bomb()))
        files = checkpoints._manifest(folder)  # one who plants a file mends the list too
        edit(folder / "trainer.json", lambda card, files=files: {**card, "files": files})
    if name == "random_states_0.pkl":  # not ours: never read
        train(config(root, out.name, ema=0.9))
    else:
        with pytest.raises(RuntimeError, match="no checkpoint in .* can be read"):
            train(config(root, out.name, ema=0.9))
    assert not (tmp_path / "boom").exists()


def test_full_disk_is_one_sentence_and_the_older_checkpoint_stays(root, monkeypatch):
    settings = config(root, "full", save_every=4)
    original = checkpoints._manifest

    def full(folder):
        if "step-0000008" in folder.name:
            raise OSError(28, "No space left on device")
        return original(folder)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_manifest", full)
        with pytest.raises(RuntimeError, match=r"No space left on device\); .*step-0000004 is intact. Free some space"):
            train(settings)
    assert [p.name for p in (settings.out / "checkpoints").iterdir()] == ["step-0000004"]
    train(settings)


def test_left_overs_of_killed_processes_go(tmp_path):
    for name in (".best-old-0123abcd", ".last-new-0123abcd", "checkpoints/.step-0000003-new", "last", ".mine-folder"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".metrics-0123abcd.jsonl").touch()
    sweep(tmp_path)
    left = sorted(p.name for p in tmp_path.rglob("*"))
    assert left == [".mine-folder", "best", "checkpoints", "last"]  # best was caught between its two renames


SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from fields.runtime.launch import run_cli
from fields.runtime.files import sweep
from gpt.train_gpt import train
from toy import config
run_cli(train, config(Path({corpus!r}), {name!r}, **{values!r}))
"""


def launch(warm, root: Path, name: str, **values) -> int:
    """Start a training whose output goes to NAME.log; its process id."""
    script = root / f"{name}.py"
    words = {
        "root": str(ROOT),
        "tests": str(ROOT / "tests" / "support"),
        "corpus": str(root),
        "name": name,
        "values": values,
    }
    script.write_text(SCRIPT.format(**words))
    return warm.begin([script], root, root / f"{name}.log")


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while text not in log.read_text():
        assert time.monotonic() < deadline, f"{text!r} was not printed"
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_runs_go_on_as_if_nothing_had_happened(root, warm):
    values = {"steps": 60, "save_every": 1, "eval_every": 20}
    train(config(root, "unkilled", **values))
    for delay in (0.0, 0.05, 0.1, 0.3):  # during a save, most likely
        pid = launch(warm, root, "killed", **values)
        wait_for(root / "killed.log", "bits/field")
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
        assert warm.end(pid) == -signal.SIGKILL
    code = warm.end(launch(warm, root, "killed", **values))
    assert code == 0 and "resumed at step" in (root / "killed.log").read_text()
    assert same(root / "unkilled", root / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_saves_and_ends_with_its_own_code(root, warm, number):
    log = root / f"signal-{int(number)}.log"
    pid = launch(warm, root, log.stem, steps=100_000)
    wait_for(log, "bits/field")
    os.kill(pid, number)
    code, output = warm.end(pid, timeout=60), log.read_text()
    assert code == 128 + number and "interrupted after step" in output and "Traceback" not in output
    assert len(list((root / f"signal-{int(number)}" / "checkpoints").iterdir())) >= 1
