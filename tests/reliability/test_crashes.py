"""Every command killed (`kill -9`) before its file operations, then started again: same bytes, no orphan, nothing refused."""

import errno
from pathlib import Path

import crash
import numpy as np
import pytest
from loopback_env import HUB
from made import SOLID, diamonds
from PIL import Image

from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference

FIT = ["scripts/fit_fields.py", "--signals", "in/pictures", "--steps", "3", "--meta-steps", "2", "--threads", "1"]
MODEL = ["--model.n-layer", "1", "--model.n-head", "2", "--model.n-embd", "8"]
TRAIN = ["scripts/train_gpt.py", "--fields", "in/f", "--tokenizer", "in/t", "--batch", "4", "--threads", "1", "--steps", "4",
         "--eval-every", "2", "--samples", "2", "--sample-every", "1", "--precision", "fp32", *MODEL]  # fmt: skip
BUILD = ["-m", "tokenizers.build", "kmeans", "--vocab-size", "8", "--sizes", "--threads", "1"]
DRY = ["--dry-run", "--license", "mit", "--out", "work/o"]
BEFORE = {
    "fit": [*FIT, "--out", "in/f"],
    "build": [*BUILD, "--fields", "in/f", "--out", "in/t"],
    "train": [*TRAIN, "--out", "in/g"],
    "sample": ["scripts/sample.py", "--model", "in/g", "--n", "6", "--out", "in/s"],
    "export": ["scripts/export_fields.py", "in/f", "--format", "state-dicts", "--out", "in/e"],
    "push": ["scripts/publish.py", "model", "in/g", "tester/model", "--license", "mit"],
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
    "flow": ["scripts/train_flow.py", "--fields", "in/f", "--tokenizer", "in/t", "--steps", "2", "--batch", "4", "--n", "4",
             "--samples", "0", "--threads", "1", "--precision", "fp32", "--model.n-layer", "1", "--model.n-head", "1",
             "--model.n-embd", "8", "--out", "work/o"],
    "compare vocabularies": ["scripts/compare_vocabularies.py", "in/t", "--fields", "in/f", "--steps", "2", "--batch", "4", "--n",
                             "2", "--threads", "1", "--precision", "fp32", *MODEL, "--classifiers", "in/c", "--out", "work/o"],
    "regression": ["scripts/train_regression.py", "--signals", "in/pictures", "--starts", "conditioned", "--n", "2", "--between",
                   "--seeds", "1", "--steps", "2", "--threads", "1", "--precision", "fp32", "--out", "work/o"],
    "diagnose": ["scripts/diagnose.py", "--model", "in/g", "--n", "4", "--signals", "in/pictures", "--classifiers", "in/c",
                 "--threads", "1", "--out", "work/o"],
    "picture tokens": ["scripts/train_pictures.py", "--signals", "in/pictures", "--grid", "2", "2", "--vocab-size", "4",
                       "--decoder-steps", "2", "--steps", "2", "--batch", "4", "--n", "4", "--classifiers", "in/c", "--threads",
                       "1", *MODEL, "--out", "work/o"],
    "mesh": ["scripts/mesh.py", "--fields", "in/solids", "--n", "3", "--size", "8", "--turntable", "1", "--picture", "8", "--out",
             "work/o"],
    "animate": ["scripts/animate.py", "fit", "--signals", "in/pictures", "--steps", "3", "--seconds", "0.2", "--readme", "--out",
                "work/o.gif"],
    "show": ["scripts/show.py", "in/f", "--out", "work/o.png"],
    "publish fields": ["scripts/publish.py", "fields", "in/f", "tester/f", *DRY],
    "publish demo": ["scripts/publish.py", "demo", "tester/model", "tester/demo", *DRY],
    "push a model": ["scripts/publish.py", "model", "in/g", "tester/pushed", "--license", "mit", "--out", "work/o"],
}  # fmt: skip
"""Killed at fewer points."""


def pictures(folder: Path, n: int = 24) -> Path:
    """Small gray pictures of two classes."""
    random = np.random.default_rng(0)
    for i in range(n):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(path)
    return folder


def solids() -> WeightDataset:
    """Fields of octahedra."""
    splits = {}
    for seed, split in enumerate(("train", "validation", "test")):
        ids = [f"{split}/{i}" for i in range(8)]
        splits[split] = {"weights": diamonds(8, seed), "signal_id": ids}
    return WeightDataset.from_rows(SOLID, splits, Reference(), {"name": "made"})


@pytest.fixture(scope="module")
def root(tmp_path_factory, warm) -> Path:
    """A scratch folder with what the commands read."""
    root = tmp_path_factory.mktemp("crashes")
    pictures(root / "in" / "pictures")
    solids().save(root / "in" / "solids")
    HUB.reset()
    for name, words in BEFORE.items():
        assert warm.run(words, root, root / "log.txt", **crash.CPU) == 0, (name, (root / "log.txt").read_text())
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMMANDS, *LONGER])
def test_killed_anywhere_the_same_command_ends_well(root, warm, name):
    found = crash.try_points(
        warm, (COMMANDS | LONGER)[name], root, points=14 if name == "show" else 9 if name in COMMANDS else 3
    )
    assert not found.get("failed"), found["failed"]
    assert found["points"] >= 3 and not found["problems"], found["problems"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, "gone"])
@pytest.mark.parametrize("name", ["encode", "export", "show"])
def test_a_disk_that_fails_is_one_sentence_and_the_same_command_ends_well(root, warm, name, fault):
    """It is full or read-only from some operation on, or somebody removes the output folder."""
    found = crash.try_faults(warm, (COMMANDS | LONGER)[name], root, points=3, fault=fault)
    assert not found.get("failed"), found["failed"]
    assert not found["problems"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encode", "sample", "diagnose", "animate", "publish fields"])
def test_signals_at_random_moments_say_what_to_do(root, warm, name):
    found = crash.try_signals(warm, (COMMANDS | LONGER)[name], root, seed=len(name))
    assert not found.get("failed"), found["failed"]
    assert not found["problems"]


@pytest.mark.slow
def test_two_at_once_and_overwritten_the_same_comes_out(root, warm):
    """One does the work, or both find it done; the loser says in a sentence who holds the folder. --overwrite begins anew."""
    found = {name: crash.try_two(warm, words, root) for name, words in (COMMANDS | LONGER).items()}
    assert not {name: row for name, row in found.items() if row.get("failed") or row["problems"]}
    assert any(row["refused"] for row in found.values()), "no two were ever at work together"
