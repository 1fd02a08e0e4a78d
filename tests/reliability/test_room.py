"""Large jobs say what they need, and are refused before any work where it is not there."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from toy import config, make_corpus

from fields.formats.options import MeshConfig
from fields.formats.surfaces import write_meshes
from fields.model import FieldConfig
from fields.runtime import resources
from fields.runtime.resources import check_memory, check_room, gibibytes
from fields.storage.dataset import WeightDataset
from fields.storage.rows import Rows
from gpt.continuous.options import TrainFlowConfig
from gpt.continuous.train_flow import train_flow
from gpt.evaluation.evaluate import evaluate
from gpt.options import EvaluateConfig, ShapeSettings
from gpt.sampling.options import SampleConfig
from gpt.sampling.sample import sample
from gpt.train_gpt import ModelConfig, train
from tokenizers import compare as module
from tokenizers.build import build
from tokenizers.classic.options import KMeansConfig
from tokenizers.compare import compare
from tokenizers.options import CompareConfig, RefitConfig
from tokenizers.registry import BuildConfig


def test_room_on_the_disk(tmp_path, monkeypatch, capsys):
    check_room(tmp_path / "new" / "er", 1 << 20, "fields")
    assert not capsys.readouterr().out and not (tmp_path / "new").exists()
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: SimpleNamespace(total=1 << 40, free=4 << 30))
    check_room(tmp_path, 3 << 30, "fields")
    assert "fields: about 3.0 GiB in" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match=r"fields need about 5.0 GiB in .*, and 4.0 GiB are free there"):
        check_room(tmp_path, 5 << 30, "fields")
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: SimpleNamespace(total=1 << 40, free=100))
    (tmp_path / "part").write_bytes(bytes(950))  # of an interrupted job
    check_room(tmp_path, 1000, "fields")
    assert gibibytes(3 << 19) == "1.5 MiB"


def test_a_run_without_room_begins_nothing(tmp_path, monkeypatch):
    settings = config(make_corpus(tmp_path))
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: SimpleNamespace(total=1 << 40, free=1000))
    with pytest.raises(RuntimeError, match="checkpoints and models need about"):
        train(settings)
    assert not (settings.out / "checkpoints").exists()


def test_models_beyond_the_memory_are_not_made(tmp_path, monkeypatch):
    settings = config(make_corpus(tmp_path), model=ModelConfig(n_layer=4, n_head=2, n_embd=1 << 17))
    with pytest.raises(ValueError, match=r"need about [\d.]+ GiB, and cpu has .* Choose smaller --model sizes"):
        train(settings)
    monkeypatch.setattr(resources, "memory", lambda device: 1 << 62)
    monkeypatch.setattr(resources, "free_memory", lambda: 1 << 62)
    check_memory(1 << 60, "weights", "cpu")


def shapes(folder):
    """Three fields of three coordinates."""
    field = FieldConfig(hidden=(3,), octaves=0, in_dim=3, output="linear")
    WeightDataset.from_rows(field, {"train": Rows(torch.zeros(3, field.size))}).save(folder)
    return folder


COMMANDS = {
    "weights that are learnt from": lambda root: build(
        BuildConfig(KMeansConfig(), fields=root / "fields", out=root / "k")
    ),
    "weights of the training fields": lambda root: train_flow(
        TrainFlowConfig(str(root / "fields"), out=root / "w", threads=1)
    ),
    "900,000,000 new fields": lambda root: train_flow(
        TrainFlowConfig(str(root / "fields"), out=root / "w", n=900_000_000, threads=1)
    ),
    "keys and values of 64 fields": lambda root: draw(root, n=2),
    "tokens of 900,000,000 fields": lambda root: draw(root, n=900_000_000),
    "pictures of 1 field": lambda root: evaluate(EvaluateConfig(str(root / "fields"), out=root / "e", n=1, threads=1)),
    "codes of 40 training fields and pictures of 10": lambda root: compare(
        CompareConfig((str(root / "tokenizer"),), str(root / "fields"), root / "c", threads=1)
    ),
    r"surfaces of \d+ fields": lambda root: surfaces(root),
    r"volumes of 16\^3 cells": lambda root: write_meshes(MeshConfig(shapes(root / "s"), root / "m", size=16)),
}


def surfaces(root):
    """An evaluation of three shapes."""
    field = FieldConfig(hidden=(3,), octaves=0, in_dim=3, output="linear")
    rows = Rows(torch.zeros(3, field.size))
    WeightDataset.from_rows(field, {"train": rows, "test": rows}).save(root / "v")
    return evaluate(EvaluateConfig(str(root / "v"), out=root / "ev", threads=1, shapes=ShapeSettings(size=8, points=8)))


def test_an_evaluation_of_shapes_says_its_time_before_it_begins(tmp_path, capsys):
    with pytest.raises(ValueError, match="fewer than 2 fields on one side have a surface"):
        surfaces(tmp_path)
    assert re.search(
        r"[\d,]+ surfaces on grids of 8\^3 cells, and .* of 8 points: about [\d.]+ (s|min|h)", capsys.readouterr().out
    )


def test_a_long_comparison_says_its_time_before_it_begins(trained, tmp_path, monkeypatch, capsys):
    config = CompareConfig(
        (str(trained / "tokenizer"),), str(trained / "fields"), tmp_path / "c", RefitConfig(True, 4), threads=1
    )
    compare(config)
    assert "1 tokenizer: about" not in capsys.readouterr().out
    monkeypatch.setattr(module, "LONG", 0)
    compare(replace(config, overwrite=True))
    assert re.search(r"1 tokenizer: about \d+ s\n", capsys.readouterr().out)


def draw(root, n):
    return sample(SampleConfig(str(root / "gpt"), root / "samples", n=n, threads=1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    train(config(make_corpus(root), steps=2, eval_every=2))
    return root


@pytest.mark.parametrize("what", COMMANDS)
def test_jobs_beyond_the_memory_are_refused_before_they_begin(trained, monkeypatch, what):
    size = 1000 if "900" not in what else 1 << 30
    monkeypatch.setattr(resources, "memory", lambda device: size)
    with pytest.raises(ValueError, match=rf"{what}.* need about .* of memory. Choose "):
        COMMANDS[what](trained)
    assert not any((trained / out).exists() for out in ("k", "w", "samples", "m"))


def test_a_large_job_is_said(monkeypatch, capsys):
    monkeypatch.setattr(resources, "memory", lambda device: 64 << 30)
    monkeypatch.setattr(resources, "free_memory", lambda: 8 << 30)
    check_memory(1 << 29, "volumes", "cpu")
    assert not capsys.readouterr().out
    check_memory(2 << 30, "volumes", "cpu")
    assert "volumes: about 2.0 GiB of memory, 8.0 GiB are free" in capsys.readouterr().out
    with pytest.raises(
        ValueError, match="need about 9.0 GiB of memory, and 8.0 GiB of it are free on cpu. Choose a smaller --n"
    ):
        check_memory(9 << 30, "volumes", "cpu", "a smaller --n")
