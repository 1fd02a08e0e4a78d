"""Every command killed (`kill -9`) before its file operations, then started again: same bytes, no orphan, nothing refused."""

from pathlib import Path

import crash
import numpy as np
import pytest
from PIL import Image

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
"""Killed at fewer points, the comparison not at all."""


def pictures(folder: Path, n: int = 24) -> Path:
    """Small gray pictures of two classes."""
    random = np.random.default_rng(0)
    for i in range(n):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory, warm) -> Path:
    """A scratch folder with what the commands read."""
    root = tmp_path_factory.mktemp("crashes")
    pictures(root / "in" / "pictures")
    for name, words in BEFORE.items():
        assert warm.run(words, root, root / "log.txt", **crash.CPU) == 0, (name, (root / "log.txt").read_text())
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMMANDS, "flow", "regression"])
def test_killed_anywhere_the_same_command_ends_well(root, warm, name):
    found = crash.try_points(warm, (COMMANDS | LONGER)[name], root, points=12 if name in COMMANDS else 6)
    assert not found.get("failed"), found["failed"]
    assert found["points"] >= 6 and not found["problems"], found["problems"]


@pytest.mark.slow
def test_two_at_once_and_overwritten_the_same_comes_out(root, warm):
    """One does the work, or both find it done; the loser says in a sentence who holds the folder. --overwrite begins anew."""
    found = {name: crash.try_two(warm, words, root) for name, words in (COMMANDS | LONGER).items()}
    assert not {name: row for name, row in found.items() if row.get("failed") or row["problems"]}
    assert any(row["refused"] for row in found.values()), "no two were ever at work together"
