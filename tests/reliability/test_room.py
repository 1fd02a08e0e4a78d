"""Large jobs say what they need, and are refused before any work where it is not there."""

from types import SimpleNamespace

import pytest
from toy import config, make_corpus

from fields.runtime import files, launch
from fields.runtime.files import check_room, gibibytes
from fields.runtime.launch import check_memory
from gpt.train_gpt import ModelConfig, train


def test_room_on_the_disk(tmp_path, monkeypatch, capsys):
    check_room(tmp_path / "new" / "er", 1 << 20, "fields")
    assert not capsys.readouterr().out and not (tmp_path / "new").exists()
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=4 << 30))
    check_room(tmp_path, 3 << 30, "fields")
    assert "fields: about 3.0 GiB in" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match=r"fields need about 5.0 GiB in .*, and 4.0 GiB are free there"):
        check_room(tmp_path, 5 << 30, "fields")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    (tmp_path / "part").write_bytes(bytes(950))  # of an interrupted job
    check_room(tmp_path, 1000, "fields")
    assert gibibytes(3 << 19) == "1.5 MiB"


def test_a_run_without_room_begins_nothing(tmp_path, monkeypatch):
    settings = config(make_corpus(tmp_path))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(RuntimeError, match="checkpoints and models need about"):
        train(settings)
    assert not (settings.out / "checkpoints").exists()


def test_models_beyond_the_memory_are_not_made(tmp_path, monkeypatch):
    settings = config(make_corpus(tmp_path), model=ModelConfig(n_layer=4, n_head=2, n_embd=1 << 17))
    with pytest.raises(ValueError, match=r"need about [\d.]+ GiB, and cpu has .* Choose smaller --model sizes"):
        train(settings)
    monkeypatch.setattr(launch, "memory", lambda device: None)
    check_memory(1 << 60, "weights", "cpu")
