"""Fitting end to end: starts, resuming, several fits, divergence, processes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fields.fitting import parts, starts
from fields.fitting.engine import fit_block
from fields.fitting.fit import Worker, architecture_for, fit, fit_fields, main
from fields.fitting.memory import fit_from
from fields.fitting.options import FitConfig
from fields.fitting.parts import FitBlock, cut
from fields.fitting.starts import make_reference, random_rows, schedule_for
from fields.model import FIELDS, FieldConfig
from fields.runtime import launch, runs
from fields.signals.options import ShapeOptions, SignalsConfig
from fields.signals.registry import load_signals
from fields.signals.samples import Samples
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference
from fields.symmetry import deviation

ROOT = Path(__file__).resolve().parents[3]
QUICK = FitConfig(limit=24, steps=12, meta_steps=10, threads=1, fits=1)


def test_digits_reach_the_stated_quality(tmp_path):
    data = fit(FitConfig(out=tmp_path / "d", limit=60, meta_steps=100, threads=1, fits=1))
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 60, "validation": 60, "test": 60}
    assert data.quality("train").mean() > 29 and data.reference.start == "meta"
    assert data.config == FIELDS["digits"]
    again = data.render("test")
    images = load_signals(SignalsConfig()).images(load_signals(SignalsConfig()).find(data.ids("test")))
    from fields.metrics.pairs import psnr

    assert torch.allclose(psnr(again, images), data.quality("test"), atol=1e-2)


def test_same_seed_same_rows_whatever_the_threads(tmp_path):
    one = fit(replace(QUICK, out=tmp_path / "a"))
    two = fit(replace(QUICK, out=tmp_path / "b", threads=2))
    assert one.fingerprint == two.fingerprint
    assert fit(replace(QUICK, out=tmp_path / "c", seed=1)).fingerprint != one.fingerprint


def test_interrupted_fits_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parts, "PART", 16)
    for room in ("CACHE", "MEMORY"):  # a few fields in a block, on a CPU and on a GPU
        monkeypatch.setattr(parts, room, 8 * 8 * 64)
    whole = fit(replace(QUICK, out=tmp_path / "whole"))
    calls = []

    def stop(self, block):
        calls.append(block)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return original(self, block)

    original = Worker.__call__
    monkeypatch.setattr(Worker, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(replace(QUICK, out=tmp_path / "parts"))
    monkeypatch.setattr(Worker, "__call__", original)
    kept = sorted((tmp_path / "parts" / "parts").glob("part-*.npz"))
    assert kept and not (tmp_path / "parts" / "field.json").exists()
    kept[0].write_bytes(kept[0].read_bytes()[:40])  # a damaged part is fitted again
    resumed = fit(replace(QUICK, out=tmp_path / "parts"))
    assert resumed.fingerprint == whole.fingerprint
    assert not (tmp_path / "parts" / "parts").exists()
    again = fit(replace(QUICK, out=tmp_path / "parts"))
    assert "is complete" in capsys.readouterr().out and again.fingerprint == whole.fingerprint
    with pytest.raises(ValueError, match="steps: 12 there, 13 now"):
        fit(replace(QUICK, out=tmp_path / "parts", steps=13))


def test_parts_of_a_lost_process_are_fitted_alone(tmp_path, monkeypatch):
    """Of two processes one is lost with its parts: the next start, alone, fits these and no others."""
    monkeypatch.setattr(parts, "PART", 16)
    for room in ("CACHE", "MEMORY"):
        monkeypatch.setattr(parts, room, 8 * 8 * 64)
    whole = fit(replace(QUICK, out=tmp_path / "whole"))
    calls, original = [], Worker.__call__

    def count(self, block):
        calls.append(block)
        return original(self, block)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fields.fitting.fit.assemble", killed)
        fit(replace(QUICK, out=tmp_path / "d"))
    kept = sorted((tmp_path / "d" / "parts").glob("part-*.npz"))
    for file in kept[1::2]:  # those of the second process
        file.unlink()
    monkeypatch.setattr(Worker, "__call__", count)
    assert fit(replace(QUICK, out=tmp_path / "d")).fingerprint == whole.fingerprint
    every = cut(FIELDS["digits"], load_signals(SignalsConfig()).subset(list(range(72))), 1, torch.device("cpu"))
    assert 0 < len(calls) < sum(map(len, every)) and len(kept) > 2


def test_several_fits_of_one_signal_share_its_split_and_differ(tmp_path):
    data = fit(replace(QUICK, out=tmp_path / "d", fits=3))
    assert len(data.weights("train")) == 72 and len(set(data.ids("train"))) == 24
    first = [i for i, name in enumerate(data.ids("train")) if name == data.ids("train")[0]]
    assert len(first) == 3 and len(data.weights("train", first).unique(dim=0)) == 3
    assert len(set(data.seeds("train").tolist())) == 72


def test_starts(tmp_path):
    signals = load_signals(SignalsConfig())
    config = FIELDS["digits"]

    def made(start: str, given: str | None = None, field: FieldConfig = config) -> Reference:
        return make_reference(field, signals, replace(QUICK, start=start, reference=given))

    none = made("unconditioned")
    assert none.row is None
    train = signals.ids[int(signals.indices("train")[0])]
    one = made("conditioned", train)
    assert one.row.shape == (169,) and train in one.how
    held_out = signals.ids[int(signals.indices("test")[0])]
    with pytest.raises(ValueError, match="is in the held-out split"):
        made("conditioned", held_out)
    with pytest.raises(ValueError, match="belongs to --start conditioned"):
        made("meta", train)
    data = fit(replace(QUICK, out=tmp_path / "d"))
    taken = made("conditioned", str(tmp_path / "d"))
    assert torch.equal(taken.row, data.reference.row)
    with pytest.raises(ValueError, match="holds fields"):
        made("conditioned", str(tmp_path / "d"), FieldConfig())


def test_meta_start_looks_at_training_signals_only():
    signals = load_signals(SignalsConfig())
    config = replace(QUICK, start="meta", meta_steps=5)
    seen = make_reference(FIELDS["digits"], signals, config, quiet=True)
    train = signals.subset(signals.indices("train"))
    assert torch.equal(seen.row, make_reference(FIELDS["digits"], train, config).row)


def test_siren_start_is_bounded():
    config = FieldConfig(hidden=(8, 8), octaves=0, activation="sine")
    rows = random_rows(config, [0, 1])
    assert rows[:, : 8 * 3].abs().max() <= 0.5 and not torch.equal(rows[0], rows[1])
    assert torch.equal(random_rows(config, [1])[0], rows[1])


def test_diverged_fields_are_refitted_or_left_out_by_name(capsys):
    signals = load_signals(SignalsConfig()).subset([0, 1])
    config = replace(QUICK, steps=10)
    reference = make_reference(FIELDS["digits"], signals, replace(config, start="meta", meta_steps=3))
    device = torch.device("cpu")
    block = cut(FIELDS["digits"], signals, 1, device)[0][0]
    wild = replace(schedule_for(config, signals), lr=float("1e38"))
    rows, decibels = Worker(FIELDS["digits"], signals, config, wild, reference, device)(block)
    assert rows.isnan().all(1).equal(decibels.isnan())
    assert signals.ids[0] in capsys.readouterr().out or decibels.isfinite().all()


def saturated(bias: float) -> tuple[Worker, FitBlock]:
    """A solid to be fitted from a start whose last layer says `bias`, far outside, at every point."""
    options = ShapeOptions(near=256, uniform=256, target="distance")
    signals = load_signals(SignalsConfig("solids", count=1, shape=options))
    field = replace(signals.architecture(), hidden=(8, 8), octaves=1)
    row, config = random_rows(field, [0])[0], FitConfig("solids", start="conditioned", steps=100)
    row[-1] = bias
    schedule, device = replace(schedule_for(config, signals), pixels=1.0), torch.device("cpu")
    work = Worker(field, signals, config, schedule, Reference("conditioned", "made here", row), device)
    return work, cut(field, signals, 1, device)[0][0]


def test_an_empty_shape_is_refitted_from_a_softened_start(capsys):
    work, block = saturated(10)  # tanh is 1 there, its gradient 0
    targets, points = work.signals.values([0]), work._points(block)
    stuck = fit_block(work.architecture, work._start(block), targets, points, work.schedule)
    assert work._quality(block, stuck, targets, points) == 0
    rows, reached = work(block)
    assert rows.isfinite().all() and reached > 0.3
    said = " ".join(capsys.readouterr().out.split())
    assert "solids/0/0 ended without any inside of its shape at --lr 0.01; refitted at 0.01 from its start" in said


def test_an_empty_shape_that_stays_empty_is_left_out(capsys):
    work, block = saturated(1e4)
    rows, reached = work(block)
    assert rows.isnan().all() and reached.isnan().all()
    assert "of its shape at every learning rate tried and is left out" in " ".join(capsys.readouterr().out.split())


def test_failed_shapes_are_named(tmp_path):
    """One shape is half of the cube, the other a single point, which a field of two neurons does not find."""
    points = torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    values = torch.stack([(points[:, :1] > 0).float(), torch.zeros(400, 1)])
    values[1, 0] = 1
    signals = Samples("halves", ["half", "point"], ["train", "train"], points, values, kind="shapes")
    field = FieldConfig(hidden=(2,), octaves=0, in_dim=3)
    config = FitConfig("halves", steps=200, lr=0.03, threads=1)
    start = Reference("conditioned", "made here", random_rows(field, [0])[0])
    start.row[-1] = -2  # mostly outside
    accelerator = launch.start(threads=1, precision="fp32")
    data = fit_fields(field, signals, config, out=tmp_path / "d", accelerator=accelerator, reference=start)
    assert data.ids("train") == ["half"] and data.quality("train") > 0.5
    assert runs.read_json(tmp_path / "d" / "failed.json", "", list) == ["point"]
    with pytest.raises(RuntimeError, match="every field diverged or failed"):
        fit_from(field, signals.subset([1]), config, start)


def test_image_folder_of_mixed_sizes(tmp_path, capsys):
    """Odd sizes are fitted, a broken file is named, everything else is kept, and the command says so."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, size in enumerate([(7, 28), (28, 7), (1, 5), (29, 31)]):
        values = np.linspace(0, 255, size[0] * size[1]).reshape(size).astype(np.uint8)
        Image.fromarray(values).save(pictures / f"{i}.png")
    (pictures / "broken.png").write_bytes(b"")
    config = FitConfig(signals=str(pictures), out=tmp_path / "d", steps=100, meta_steps=5, threads=1)
    with pytest.raises(RuntimeError, match="1 signal could not be fitted: broken.png. All are in"):
        main(config)
    data = WeightDataset.load(tmp_path / "d")
    assert sorted(map(tuple, data.extent("train").tolist())) == [(1, 5), (7, 28), (28, 7), (29, 31)]
    assert data.quality("train").isfinite().all()
    with pytest.raises(ValueError, match="one size"):
        data.render("train")


def test_colour_gets_three_outputs(tmp_path):
    (tmp_path / "pictures").mkdir()
    values = np.random.default_rng(0).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "pictures" / "a.png")
    signals = load_signals(SignalsConfig(str(tmp_path / "pictures")))
    assert architecture_for(signals).out_dim == 3
    data = fit(FitConfig(signals=str(tmp_path / "pictures"), out=tmp_path / "d", steps=20, meta_steps=2, threads=1))
    assert data.render("train").shape == (1, 5, 5, 3)


def test_wrong_settings_are_refused():
    for wrong in (dict(steps=0), dict(lr=0), dict(pixels=1.5), dict(limit=0), dict(betas=(0.5, 1.0)), dict(fits=0)):
        with pytest.raises(ValueError, match="--"):
            FitConfig(**wrong)


LAUNCH = ["launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
SCRIPT = [
    "scripts/fit_fields.py",
    "--limit",
    "24",
    "--steps",
    "12",
    "--meta-steps",
    "10",
    "--threads",
    "1",
    "--fits",
    "1",
]


def command(*launcher: str) -> list[str]:
    """accelerate of this interpreter."""
    return [sys.executable, "-m", "accelerate.commands.accelerate_cli", *launcher, *SCRIPT]


@pytest.mark.slow
def test_two_processes_give_the_same_dataset(tmp_path, on_cpu):
    one = fit(replace(QUICK, out=tmp_path / "one"))
    call = [*command(*LAUNCH, "--dynamo_backend", "no"), "--out", str(tmp_path / "two")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "world size 2" in done.stdout
    assert WeightDataset.load(tmp_path / "two").fingerprint == one.fingerprint


@pytest.mark.slow
def test_processes_that_are_alone_are_refused(tmp_path):
    call = [*command("launch", "--cpu", "--num_processes", "2"), "--out", str(tmp_path / "d")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0 and "2 processes were asked for" in done.stderr
    assert not (tmp_path / "d").exists()


@pytest.mark.slow
def test_kill_and_resume(tmp_path, warm):
    call = [
        "scripts/fit_fields.py",
        "--meta-steps",
        "10",
        "--steps",
        "400",
        "--threads",
        "1",
        "--fits",
        "3",
        "--limit",
        "600",
    ]
    how = {"environment": {"ACCELERATE_USE_CPU": "true"}}  # a GPU would be done before it is killed
    log = tmp_path / "log.txt"
    assert warm.run([*call, "--out", "whole"], tmp_path, log, **how) == 0, log.read_text()
    pid = warm.begin([*call, "--out", "d"], tmp_path, log, **how)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "d" / "parts").glob("part-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    assert warm.end(pid) == -signal.SIGKILL
    assert not (tmp_path / "d" / "field.json").exists()
    assert warm.run([*call, "--out", "d"], tmp_path, log, **how) == 0 and "resuming" in log.read_text()
    assert WeightDataset.load(tmp_path / "d").fingerprint == WeightDataset.load(tmp_path / "whole").fingerprint


def test_fitted_and_aligned_at_once(tmp_path, capsys):
    settings = {"start": "unconditioned", "steps": 20, "limit": 8, "fits": 1}
    plain = fit(FitConfig(out=tmp_path / "plain", **settings))
    config = FitConfig(out=tmp_path / "aligned", align=True, **settings)
    made = fit(config)
    assert float(deviation(made.config, made.weights("train"), plain.weights("train")).max()) < 1e-5
    assert not torch.equal(made.weights("train"), plain.weights("train"))
    report = runs.read_json(config.folder / "align.json")
    assert report["after"]["to_reference"] < report["before"]["to_reference"]
    assert (config.folder / "interpolation.png").stat().st_size > 1000
    (config.folder / "align.json").unlink()  # as if it had been killed between fitting and aligning
    capsys.readouterr()
    fit(config)
    assert (config.folder / "align.json").is_file()
    fit(config)
    assert "is complete" in capsys.readouterr().out


def test_fields_of_a_poor_fit_are_said_to_be_poor(tmp_path, capsys):
    """Unlearnt starts get enough steps by themselves; too few are warned of, and only then."""
    settings = FitConfig(limit=6, start="unconditioned", threads=1, fits=1)
    good = fit(replace(settings, out=tmp_path / "good"))
    assert good.quality("train").mean() > 28
    assert "warning" not in capsys.readouterr().out
    poor = fit(replace(settings, steps=20, out=tmp_path / "poor"))
    assert poor.quality("train").mean() < 20
    assert "below 20.00 dB" in capsys.readouterr().out


@pytest.mark.parametrize("sides", [(5, 9), (8, 8), (70, 80)])
def test_a_learnt_start_looks_at_all_sizes_with_bounded_points(sides, monkeypatch):
    """Signals of several sizes and large ones: every training signal counts, and a step sees no more than SEEN points."""
    from fields.signals.images import Images

    g = torch.Generator().manual_seed(0)
    extent = torch.randint(sides[0], sides[1] + 1, (9, 2), generator=g)
    extent = extent if sides[0] != sides[1] else torch.full((9, 2), sides[0])
    ramps = [((torch.arange(w) + 0.5) / w).expand(h, w)[..., None] for h, w in extent.tolist()]  # bright to the right
    splits = ["train"] * 8 + ["test"]
    signals = Images("made", [f"made/{i}" for i in range(9)], splits, [ramp.numpy().copy() for ramp in ramps])
    seen = []
    monkeypatch.setattr(starts, "SEEN", 1500)
    monkeypatch.setattr(starts, "fit_block", lambda c, row, targets, points, s: seen.append((targets, points)) or row)
    made = make_reference(FIELDS["digits"], signals, FitConfig(steps=3, pixels=0.5, meta_steps=4), quiet=True)
    assert "over 8 training signals" in made.how and ("points each" in made.how) == (sides != (8, 8))
    for targets, points in seen:
        assert targets.shape[0] == 8 and targets.shape[1] == points.coords.shape[-2] <= 3000
        assert all(len(part) <= 1500 for part in points.parts)
        x = points.coords[..., 0] if points.coords.ndim == 3 else points.coords[:, 0].expand(8, -1)
        assert torch.allclose(targets[..., 0], (x + 1) / 2, atol=1e-6)  # values stand at their own points
