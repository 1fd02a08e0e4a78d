"""The regression transformer and the experiment around it."""

import json

import pytest
import torch
from made import rows

from fields.runtime import runs
from gpt.continuous.regression import RegressionConfig, RegressionTransformer
from gpt.experiments.memorise import memorise, trials
from gpt.experiments.memorise_report import mean_and_deviation
from gpt.experiments.memorise_run import EXPLODED, WINDOW, Cut, Trial, explosion, train_cell
from gpt.experiments.options import MemoriseConfig
from scripts.animations.regression import read_experiment

SMALL = RegressionConfig(49, n_layer=2, n_head=2, n_embd=16)


def model(seed: int = 0, mean: float = 0.1, scale: float = 0.5) -> RegressionTransformer:
    return RegressionTransformer.create(SMALL, torch.tensor(mean), torch.tensor(scale), seed).eval()


def test_no_weight_sees_itself_or_what_follows(tiny):
    made, weights = model(), rows(tiny, 3)
    before = made.teacher_forced(weights)
    changed = weights.clone()
    changed[:, 20:] += 1
    after = made.teacher_forced(changed)
    torch.testing.assert_close(before[:, :21], after[:, :21], atol=1e-5, rtol=0)  # weight 20 itself is predicted
    assert float((before[:, 21:] - after[:, 21:]).abs().max()) > 1e-3
    assert torch.allclose(before[:, 0], weights[:, 0])


def test_a_roll_out_feeds_its_own_predictions_back(tiny):
    made, weights = model(), rows(tiny, 3)
    for first in (1, 5, 48):
        rolled = made.roll_out(weights[:, :first])
        assert torch.allclose(rolled[:, :first], weights[:, :first], atol=1e-6)
        again = made.teacher_forced(rolled)  # without a cache: each weight from the ones written before it
        torch.testing.assert_close(again[:, first:], rolled[:, first:], atol=1e-5, rtol=0)


def test_saved_models_recite_the_same(tiny, tmp_path):
    made = model(3)
    made.save_pretrained(tmp_path)
    loaded = RegressionTransformer.from_pretrained(tmp_path)
    first = rows(tiny, 2)[:, :1]
    assert torch.equal(loaded.eval().roll_out(first), made.roll_out(first))
    assert not torch.equal(model(4).roll_out(first), made.roll_out(first))


@torch.no_grad()
def test_loss_is_in_units_of_the_scale(tiny):
    made, weights = model(), rows(tiny, 4)
    error = (made.teacher_forced(weights) - weights)[:, 1:]
    assert float(made.loss(weights)) == pytest.approx(float(error.abs().mean()) / 0.5, rel=1e-4)
    assert float(made.loss(weights, "mse")) == pytest.approx(float(error.square().mean()) / 0.25, rel=1e-4)


def test_wrong_sizes():
    with pytest.raises(ValueError, match="n_embd must be a multiple"):
        RegressionConfig(49, n_head=3, n_embd=16)
    with pytest.raises(ValueError, match="at least 2 weights"):
        RegressionConfig(1)
    with pytest.raises(ValueError, match="scale must be above 0"):
        RegressionTransformer.create(SMALL, torch.tensor(0.0), torch.tensor(0.0))
    with pytest.raises(ValueError, match="exceeds the context of 48"):
        model()(torch.zeros(1, 49))


def test_explosion_is_the_first_window_above_the_bound():
    errors = torch.zeros(3, 100)
    errors[1, 40:] = 1.9 * EXPLODED
    errors[2, 10] = 0.9 * EXPLODED * WINDOW  # a single error does not make it
    assert explosion(errors).tolist() == [100, 40 - WINDOW // 2 + 1, 100]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_one_field_is_memorised_and_seeds_repeat(tiny, optimizer):
    config = MemoriseConfig(steps=150, lr=4e-3, optimizer=optimizer, model=SMALL_OPTIONS)
    weights = rows(tiny, 1)
    made = [train_cell(config, Trial(1, 0, "meta"), weights, "no", Cut()) for _ in range(2)]
    rolled = [m.roll_out(weights[:, :1]) for m in made]
    assert torch.equal(*rolled)
    fresh = model(0, 0.0).roll_out(weights[:, :1])
    assert (rolled[0] - weights).abs().mean() < 0.3 * (fresh - weights).abs().mean()


SMALL_OPTIONS = type(MemoriseConfig().model)(n_layer=1, n_head=1, n_embd=16)


def test_the_experiment_in_small_and_what_is_there_is_not_done_again(tmp_path, capsys):
    settings = {
        "out": tmp_path / "a",
        "steps": 3,
        "model": SMALL_OPTIONS,
        "seeds": 2,
        "between": (),
        "target_psnr": 15.0,
    }
    first = MemoriseConfig(starts=("unconditioned", "aligned"), n=(1, 2), **settings)
    results = memorise(first)
    assert len(results["cells"]) == len(trials(first)) == 8
    for name in ("table.md", "results.json", "roll-outs.png", "curves.png"):
        assert (first.folder / name).stat().st_size > 100
    table = (first.folder / "table.md").read_text()
    assert table.count("\n") == 2 + 4 and "| aligned | 2 | 2 |" in table
    cell = first.folder / "cells" / "aligned-n2-seed1"
    numbers = json.loads((cell / "cell.json").read_text())
    assert len(numbers["psnr_own"]) == 2 and numbers["seed"] == 1
    before = (cell / "rows.safetensors").read_bytes()
    runs.write_json(cell / "cell.json", numbers)
    stamp = (cell / "model" / "config.json").stat().st_mtime_ns
    memorise(MemoriseConfig(starts=("unconditioned", "aligned", "conditioned"), n=(1, 2), **settings))  # more cells
    assert "8 of 12 cells are there already" in capsys.readouterr().out
    assert (cell / "model" / "config.json").stat().st_mtime_ns == stamp
    assert (cell / "rows.safetensors").read_bytes() == before
    found = read_experiment(first.folder, "aligned", (2,))  # what an animation reads
    assert len(found.rows[2]) == 2 and found.rows[2][1][0].shape == found.rows[2][1][1].shape
    with pytest.raises(ValueError, match="made with another configuration"):
        memorise(MemoriseConfig(starts=("unconditioned",), n=(1, 2), **{**settings, "steps": 4}))


def test_too_few_signals_and_wrong_flags(tmp_path):
    with pytest.raises(ValueError, match="need 3000 training signals, digits has 1437"):
        memorise(MemoriseConfig(out=tmp_path / "x", n=(1000,), between=()))
    with pytest.raises(ValueError, match="--steps must be at least 1"):
        MemoriseConfig(steps=0)
    with pytest.raises(ValueError, match="need at least one entry"):
        MemoriseConfig(starts=())


def test_spread():
    assert mean_and_deviation([1.0], 1) == "1.0" and mean_and_deviation([1.0, 3.0], 1) == "2.0 ± 1.4"


def test_too_few_signals_are_said_before_the_folder_is_claimed(tmp_path):
    with pytest.raises(ValueError, match="need .* training signals"):
        memorise(MemoriseConfig(out=tmp_path / "g", seeds=10_000, threads=1))
    assert not (tmp_path / "g").exists()
