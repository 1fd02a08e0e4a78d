"""The subspace start: rows that differ in a few directions, learnt on training signals alone, kept beside the fields."""

from dataclasses import replace

import pytest
import torch

import fields
from fields.fitting.engine import Points, Schedule, fit_block, quality
from fields.fitting.fit import fit
from fields.fitting.options import FitConfig
from fields.fitting.starts import random_rows
from fields.fitting.subspace import SIZE, learn_subspace
from fields.model import FIELDS
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.signals.samples import Samples
from fields.storage.dataset import WeightDataset
from fields.storage.reference import SUBSPACE

DIGITS = FIELDS["digits"]
QUICK = FitConfig(limit=24, steps=12, subspace_steps=20, dimensions=6, start="subspace", threads=1, fits=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A fitted dataset with a subspace, never written to."""
    out = tmp_path_factory.mktemp("subspace") / "fields"
    return out, fit(replace(QUICK, out=out))


def test_a_block_moves_in_the_directions_given():
    generator = torch.Generator().manual_seed(0)
    targets, coords = torch.rand(5, 20, 1, generator=generator), torch.rand(20, 2, generator=generator) * 2 - 1
    start = random_rows(DIGITS, [0]).expand(5, -1)
    points, schedule = Points(DIGITS, coords, 1.0, 0), Schedule(30, 1e-2)
    free = fit_block(DIGITS, start, targets, points, schedule)
    whole = fit_block(DIGITS, start, targets, points, schedule, basis=torch.eye(DIGITS.size))
    assert torch.allclose(free, whole, atol=1e-4)
    basis = torch.randn(3, DIGITS.size, generator=generator)
    rows = fit_block(DIGITS, start, targets, points, replace(schedule, target=9.0), basis=basis)
    places = torch.linalg.lstsq(basis.T, (rows - start).T).solution
    assert torch.allclose(start + places.T @ basis, rows, atol=1e-4)
    assert quality(DIGITS, rows, targets, coords).mean() > quality(DIGITS, start, targets, coords).mean()


def test_a_subspace_is_learnt_from_training_signals_only():
    signals = load_signals(SignalsConfig())
    train = signals.indices("train")[:60]
    alone = signals.subset(train)
    row = random_rows(DIGITS, [0])[0]
    found = learn_subspace(DIGITS, signals, train, row, dimensions=8, steps=800, quiet=True)
    again = learn_subspace(DIGITS, alone, torch.arange(60), row, dimensions=8, steps=800, quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    middle, basis = found
    values, points = signals.values(train), Points(DIGITS, signals.points(DIGITS, train[:1]), 1.0, 0)
    start = middle.expand(60, -1)
    fitted = fit_block(DIGITS, start, values, points, Schedule(60, 1e-2), basis=basis)
    assert (
        quality(DIGITS, fitted, values, points.coords).mean() > quality(DIGITS, start, values, points.coords).mean() + 2
    )
    places = torch.linalg.lstsq(basis.T, (fitted - start).T).solution
    assert SIZE / 5 < float(places.std()) < 5 * SIZE  # fits end where training fields lie


def test_points_of_their_own():
    generator = torch.Generator().manual_seed(0)
    coords = torch.rand(9, 30, 3, generator=generator) * 2 - 1
    data = fields.fit(
        coords,
        (coords[..., :1] > 0).float(),
        kind="shapes",
        start="subspace",
        dimensions=4,
        subspace_steps=10,
        steps=5,
        quiet=True,
    )
    assert torch.linalg.matrix_rank(data.weights("train") - data.reference.row, rtol=1e-4) <= 4


def test_a_dataset_keeps_its_subspace(made, tmp_path):
    out, data = made
    assert (out / SUBSPACE).is_file() and data.reference.tensors["basis"].shape == (6, DIGITS.size)
    again = WeightDataset.load(out)
    assert again.fingerprint == data.fingerprint
    again.save(tmp_path / "copy")
    assert WeightDataset.load(tmp_path / "copy").reference.tensors.keys() == {"basis", "row"}


def test_a_subspace_is_taken_over(made, tmp_path):
    out, data = made
    other = fit(replace(QUICK, out=tmp_path / "other", reference=str(out), limit=5))
    assert other.reference.encoder == data.reference.encoder
    same = [data.ids("train").index(name) for name in other.ids("train")]
    assert torch.allclose(other.weights("train"), data.weights("train", same), atol=1e-6)
    with pytest.raises(ValueError, match="has no encoder: its fields started from subspace"):
        fit(replace(QUICK, out=tmp_path / "no", reference=str(out), start="amortised"))


def test_damage_and_too_few_signals_are_refused(made, tmp_path):
    _, data = made
    data.save(tmp_path / "x")
    (tmp_path / "x" / SUBSPACE).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="cannot be read"):
        WeightDataset.load(tmp_path / "x")
    one = Samples("one", ["a"], ["train"], torch.rand(1, 5, 2), torch.rand(1, 5, 1))
    with pytest.raises(ValueError, match="at least 2 training signals"):
        learn_subspace(DIGITS, one, torch.arange(1), random_rows(DIGITS, [0])[0], quiet=True)
