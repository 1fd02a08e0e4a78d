"""Foreign and damaged folders among checkpoints: not counted, not removed, gone past when training goes on."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from toy import config, make_corpus

from gpt.train_gpt import train
from gpt.training.checkpoints import Checkpoints, fault_of, whole
from gpt.training.trainer import Trainer


def made(folder, keep=1, steps=(1, 2)):
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(torch.nn.Linear(2, 2))
    checkpoints = Checkpoints(folder, accelerator, keep)
    for step in steps:
        checkpoints.save(step, {"best": None, "stale": 0, "stopped": False, "last": None})
    return checkpoints


def test_foreign_and_damaged_folders_neither_count_nor_go(tmp_path):
    checkpoints = made(tmp_path, keep=2, steps=(1, 2))
    (tmp_path / "step-0000099").mkdir()
    (tmp_path / "step-0000098").mkdir()
    (tmp_path / "step-0000098" / "notes.txt").write_text("mine")
    file = next(p for p in (tmp_path / "step-0000002").iterdir() if p.name != "trainer.json")
    file.write_bytes(file.read_bytes()[:-1])
    checkpoints.save(3, {})
    checkpoints.save(4, {})
    assert sorted(int(p.name[5:]) for p in tmp_path.glob("step-*")) == [2, 3, 4, 98, 99]
    assert [p.name for p in checkpoints.all() if whole(p)] == ["step-0000003", "step-0000004"]


@pytest.mark.parametrize("text", ["null", "[]", "{", "", '{"step": 2}', '{"step": "2", "files": {}}', '{"files": [1]}'])
def test_a_damaged_record_falls_back_to_the_older_checkpoint(tmp_path, text):
    checkpoints = made(tmp_path, keep=2)
    (tmp_path / "step-0000002" / "trainer.json").write_text(text)
    assert fault_of(tmp_path / "step-0000002")
    state, _ = checkpoints.load()
    assert state["step"] == 1
    values = json.loads((tmp_path / "step-0000001" / "trainer.json").read_text())
    assert values["step"] == 1


@pytest.mark.parametrize(("before", "now", "better"), [
    (None, float("nan"), False), (3.0, float("nan"), False), (float("nan"), 3.0, True), (3.0, 2.0, True),
    (2.0, 3.0, False), (None, float("inf"), False), (None, 4.0, True),
])  # fmt: skip
def test_a_validation_that_is_not_finite_is_never_the_best(monkeypatch, before, now, better):
    task = SimpleNamespace(score="bits", validate=lambda *_: {"bits": now})
    trainer = object.__new__(Trainer)
    trainer.config, trainer.task, trainer.accelerator = SimpleNamespace(patience=None, out=None), task, None
    trainer.micro, trainer.usable = 1, lambda: "model"
    trainer.best, trainer._log_validation = None, lambda *_: None
    trainer.state = {"step": 1, "best": None if before is None else {"step": 1, "bits": before}, "stale": 0}
    trainer.validate(2)
    assert (trainer.best == "model") == better
    assert (trainer.state["best"] == {"step": 2, "bits": now}) == better


def stopped_at(monkeypatch, settings, step):
    """A run that ends after a step's validation, before its checkpoint."""
    save = Trainer.save

    def ends(self, at):
        if at == step:
            raise RuntimeError("killed")
        save(self, at)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(Trainer, "save", ends)
        train(settings)


def test_best_goes_back_with_the_checkpoint_it_belongs_to(tmp_path, monkeypatch, capsys):
    settings = config(make_corpus(tmp_path), eval_every=2, steps=8)
    stopped_at(monkeypatch, settings, 6)
    card, copy = settings.out / "best" / "model.json", settings.out / "checkpoints" / "step-0000004" / "best"
    assert json.loads(card.read_text())["step"] == 6  # ahead of the newest checkpoint
    assert json.loads((copy / "model.json").read_text())["step"] == 4
    stopped_at(monkeypatch, settings, 6)
    assert "best/ is that of step 4 again" in capsys.readouterr().out
    shutil.rmtree(settings.out / "best")  # by hand
    train(settings)
    assert (
        json.loads(card.read_text())["step"] == json.loads((settings.out / "last" / "model.json").read_text())["step"]
    )
    assert json.loads((settings.out / "checkpoints" / "step-0000008" / "trainer.json").read_text())["best"]["step"] == 8


def test_a_finished_model_outlives_its_checkpoints(tmp_path):
    settings = config(make_corpus(tmp_path))
    train(settings)
    before = {p: p.read_bytes() for p in (settings.out / "best").rglob("*") if p.is_file()}
    shutil.rmtree(settings.out / "checkpoints")
    with pytest.raises(RuntimeError, match="holds models of step 12 but no checkpoint to continue from"):
        train(settings)
    assert before == {p: p.read_bytes() for p in (settings.out / "best").rglob("*") if p.is_file()}


def test_a_prolonged_run_says_its_new_learning_rate(tmp_path, capsys):
    settings = config(make_corpus(tmp_path))
    train(settings)
    assert "the learning rate falls until" not in capsys.readouterr().out
    train(dataclasses.replace(settings, steps=24))
    assert "the learning rate falls until step 24 now, so it goes from 0.0001 (step 12) to" in capsys.readouterr().out
