"""What the READMEs say of extending: their lines, laid into a copy of this project as they say, and used from end to end."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("fields", "tokenizers", "gpt", "scripts")
EXAMPLE = re.compile(r"<!-- extend: (.*?) -->\n```python\n(.*?)```", flags=re.S)


def examples() -> list[tuple[list[str], str]]:
    """([file], lines) to append to it, or ([new file, registry], lines), of which the last one goes to the registry."""
    texts = [path.read_text(encoding="utf-8") for package in PACKAGES for path in (ROOT / package).rglob("README.md")]
    return [(found[1].split(", "), found[2]) for text in texts for found in EXAMPLE.finditer(text)]


def module(path: str) -> str:
    """`fields.signals.waves` of `fields/signals/waves.py`."""
    return path.removesuffix(".py").replace("/", ".")


def lay(root: Path, files: list[str], lines: str) -> None:
    """One example into a copy: a file does not import what stands in the registry itself."""
    registry = root / files[-1]
    lines = re.sub(rf"^from {re.escape(module(files[-1]))} import .*\n", "", lines, flags=re.M)
    if len(files) == 2:
        body, entry = lines.rstrip().rsplit("\n", 1)
        spoken = re.findall(r"\w+", re.sub('".*?"', "", entry))
        assert not (root / files[0]).exists()
        (root / files[0]).write_text(body + "\n", encoding="utf-8")
        names = [name for name in re.findall(r"^(?:def|class) (\w+)", body, flags=re.M) if name in spoken]
        wanted = f"from {module(files[0])} import {', '.join(names)}\n" if names else ""
        lines = wanted + entry + "\n"
    registry.write_text(registry.read_text(encoding="utf-8") + "\n\n" + lines, encoding="utf-8")


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of this project with all examples."""
    root = tmp_path_factory.mktemp("extended")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for files, lines in examples():
        lay(root, files, lines)
    return root


def run(root: Path, *words: str) -> str:
    """One command in the copy."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, *words], cwd=root, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (words, done.stdout[-1000:], done.stderr[-3000:])
    return done.stdout


def test_there_is_one_example_of_each():
    assert sorted(files[-1] for files, _ in examples()) == [
        *("fields/activations.py", "fields/kinds/registry.py", "fields/signals/registry.py"),
        *("gpt/checkpoint.py", "gpt/evaluation/metrics.py", "tokenizers/registry.py"),
    ]


@pytest.mark.slow
def test_signals_kind_activation_tokenizer_and_measures_from_end_to_end(extended):
    """Waves, fitted by swish fields, in the signs of their weights, sampled and measured by L1."""
    field = ["--field.activation", "swish", "--field.in-dim", "1", "--field.octaves", "2", "--field.hidden", "8", "8"]
    one = ["--threads", "1"]
    run(extended, "scripts/fit_fields.py", "--signals", "waves", *field, "--steps", "60", "--fits", "1",
        "--start", "conditioned", "--out", "w", *one)  # fmt: skip
    card = json.loads((extended / "w/field.json").read_text())
    assert card["signals"]["kind"] == "waves" and card["field"]["activation"] == "swish"
    assert (extended / "w/preview.png").is_file()
    run(extended, "-m", "tokenizers.build", "sign", "--fields", "w", "--out", "t", *one)
    small = ["--model.n-layer", "1", "--model.n-head", "1", "--model.n-embd", "16", "--samples", "0"]
    run(
        extended,
        "scripts/train_gpt.py",
        "--fields",
        "w",
        "--tokenizer",
        "t",
        "--out",
        "g",
        "--steps",
        "5",
        *small,
        *one,
    )
    run(extended, "scripts/sample.py", "--model", "g", "--n", "12", "--out", "s", "--fields", "w", *one)
    run(extended, "scripts/evaluate.py", "--samples", "s", "--fields", "w", "--model", "g", "--out", "e", *one)
    rows = json.loads((extended / "e/metrics.json").read_text())["rows"]
    assert rows[0]["l1"]["reach"]["value"] > 0 and rows[0]["l1"]["1-nna"]["value"] is not None
    assert "reach L1" in (extended / "e/table.md").read_text() and (extended / "e/samples.png").is_file()
    run(extended, "scripts/publish.py", "fields", "w", "me/waves", "--dry-run")
    assert "swish" in (extended / "runs/hub/me/waves/README.md").read_text()


@pytest.mark.slow
def test_a_model_is_trained_saved_and_loaded(extended):
    (extended / "model.py").write_text(
        """
import torch
from gpt import load_model
from gpt.continuous.gaussian import GaussianTask
from gpt.training.local import Local
from gpt.training.trainer import Trainer
from gpt.options import LoopConfig

task = GaussianTask(torch.randn(64, 5) + 1)
Trainer(LoopConfig(batch=32, lr=0.1), task, Local()).run(40, 40)
task.model.save_pretrained("m")
model, tokenizer, _ = load_model("m")
assert tokenizer is None and abs(float(model.mean.mean()) - 1) < 0.5
"""
    )
    run(extended, "model.py")
