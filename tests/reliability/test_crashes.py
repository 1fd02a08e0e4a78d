"""Every command killed (`kill -9`) before its file operations, then started again: same bytes, no orphan, nothing refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    "torch.utils.data", "accelerate", "datasets", "pyarrow.parquet", "sklearn.cluster", "matplotlib.figure", "tyro",
    "matplotlib.backends.backend_agg", "fields.fitting.fit", "fields.fitting.align", "fields.formats.exporter",
    "fields.formats.importer", "tokenizers.registry", "tokenizers.tokens", "gpt.pipeline", "gpt.sampling.sample",
    "gpt.evaluation.evaluate",
]  # fmt: skip
FIT = ["scripts/fit_fields.py", "--signals", "in/pictures", "--steps", "3", "--meta-steps", "2", "--threads", "1"]
MODEL = ["--model.n-layer", "1", "--model.n-head", "2", "--model.n-embd", "8"]
TRAIN = ["scripts/train_gpt.py", "--fields", "in/f", "--tokenizer", "in/t", "--batch", "4", "--threads", "1", "--steps", "4",
         "--eval-every", "2", "--samples", "2", "--sample-every", "1", "--precision", "fp32", *MODEL]  # fmt: skip
BUILD = ["-m", "tokenizers.build", "kmeans", "--vocab-size", "8", "--sizes", "--threads", "1"]
BEFORE = {
    "fit": [*FIT, "--out", "in/f"],
    "build": [*BUILD, "--fields", "in/f", "--out", "in/t"],
    "train": [*TRAIN, "--out", "in/g"],
    "sample": ["scripts/sample.py", "--model", "in/g", "--n", "6", "--out", "in/s"],
    "export": ["scripts/export_fields.py", "in/f", "--format", "state-dicts", "--out", "in/e"],
}
COMMANDS = {
    "fit": [*FIT, "--out", "work/o"],
    "fit and align": [*FIT, "--start", "unconditioned", "--align", "--out", "work/o"],
    "align": ["scripts/align_fields.py", "--fields", "in/f", "--out", "work/o"],
    "build": [*BUILD, "--fields", "in/f", "--out", "work/o"],
    "encode": ["-m", "tokenizers.encode", "--tokenizer", "in/t", "--fields", "in/f", "--out", "work/o"],
    "decode": ["-m", "tokenizers.decode", "--tokenizer", "in/t", "--tokens", "in/t", "--out", "work/o"],
    "compare": ["-m", "tokenizers.compare", "in/t", "--fields", "in/f", "--out", "work/o", "--signals", "in/pictures"],
    "train": [*TRAIN, "--out", "work/o"],
    "sample": ["scripts/sample.py", "--model", "in/g", "--n", "6", "--out", "work/o", "--fields", "in/f"],
    "export": ["scripts/export_fields.py", "in/f", "--format", "safetensors", "--out", "work/o"],
    "import": ["scripts/import_fields.py", "generic", "in/e", "--out", "work/o"],
    "evaluate": ["scripts/evaluate.py", "--samples", "in/s", "--fields", "in/f", "--model", "in/g", "--out", "work/o",
                 "--signals", "in/pictures", "--threads", "1"],
}  # fmt: skip


LONGER = {
    "flow": ["scripts/train_flow.py", "--fields", "in/f", "--steps", "2", "--batch", "4", "--n", "4", "--samples", "0", "--threads",
             "1", "--precision", "fp32", "--model.n-layer", "1", "--model.n-head", "1", "--model.n-embd", "8", "--out", "work/o"],
    "compare vocabularies": ["scripts/compare_vocabularies.py", "in/t", "--fields", "in/f", "--steps", "2", "--batch", "4", "--n",
                             "2", "--threads", "1", "--precision", "fp32", *MODEL, "--classifiers", "in/c", "--out", "work/o"],
    "regression": ["scripts/train_regression.py", "--signals", "in/pictures", "--starts", "conditioned", "--n", "2", "--between",
                   "--seeds", "1", "--steps", "2", "--threads", "1", "--precision", "fp32", "--out", "work/o"],
}  # fmt: skip
"""Tried with two processes, not killed."""


def pictures(folder: Path, n: int = 24) -> Path:
    """Small gray pictures of two classes."""
    random = np.random.default_rng(0)
    for i in range(n):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(path)
    return folder


def crash(tmp_path: Path, names: list[str], **options: int) -> dict[str, dict]:
    """What the tries found, by command."""
    pictures(tmp_path / "in" / "pictures")
    spec = {"root": str(tmp_path), "modules": MODULES, "before": BEFORE, **options}
    every = COMMANDS | LONGER
    (tmp_path / "spec.json").write_text(json.dumps({**spec, "commands": {name: every[name] for name in names}}))
    words = [sys.executable, str(ROOT / "tests" / "support" / "crash.py"), str(tmp_path / "spec.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_anywhere_the_same_command_ends_well(tmp_path, name):
    found = crash(tmp_path, [name], points=12)[name]
    assert not found.get("failed"), found["failed"]
    assert found["points"] >= 6 and not found["problems"], found["problems"]


@pytest.mark.slow
def test_two_at_once_and_overwritten_the_same_comes_out(tmp_path):
    """One does the work, or both find it done; the loser says in a sentence who holds the folder. --overwrite begins anew."""
    found = crash(tmp_path, [*COMMANDS, *LONGER])
    assert set(found) == {*COMMANDS, *LONGER}
    assert not {name: row for name, row in found.items() if row.get("failed") or row["problems"]}
    assert any(row["refused"] for row in found.values()), "no two were ever at work together"
