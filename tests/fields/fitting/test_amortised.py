"""The amortised start: an encoder learnt on training signals, stored beside the fields, taken over, refused where it cannot be."""

import shutil
from dataclasses import replace

import pytest
import torch
from loopback_env import HUB
from made import generator

import fields
from fields.fitting import parts
from fields.fitting.amortised import Encoder, input_grid, learn_encoder
from fields.fitting.engine import quality
from fields.fitting.fit import Worker, fit
from fields.fitting.options import FitConfig
from fields.fitting.starts import random_rows
from fields.model import FIELDS, FieldConfig
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.storage.dataset import WeightDataset
from fields.storage.reference import ENCODER

DIGITS = FIELDS["digits"]
QUICK = FitConfig(limit=24, steps=12, meta_steps=5, encoder_steps=20, start="amortised", threads=1, fits=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A fitted dataset with an amortised start, never written to."""
    out = tmp_path_factory.mktemp("amortised") / "fields"
    return out, fit(replace(QUICK, out=out))


def test_encoder_predicts_better_fields_than_its_base_row():
    signals = load_signals(SignalsConfig())
    row, train, held_out = random_rows(DIGITS, [0])[0], signals.indices("train"), signals.indices("validation")
    encoder = learn_encoder(DIGITS, signals, train, row, share=0.5, steps=150, quiet=True)
    values, points = signals.values(held_out), signals.points(DIGITS, held_out)
    rows = encoder(values, (8, 8))
    assert rows.shape == (len(held_out), DIGITS.size)
    base = quality(DIGITS, encoder.row.expand_as(rows), values, points).mean()
    assert quality(DIGITS, rows, values, points).mean() > base + 1


def test_encoder_looks_at_training_signals_only():
    signals = load_signals(SignalsConfig())
    train = signals.subset(signals.indices("train"))
    row = random_rows(DIGITS, [0])[0]
    seen = learn_encoder(DIGITS, signals, signals.indices("train"), row, share=1, steps=5, quiet=True)
    alone = learn_encoder(DIGITS, train, train.indices("train"), row, share=1, steps=5, quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(seen.state_dict().values(), alone.state_dict().values(), strict=True))


def test_dataset_keeps_its_encoder(made, tmp_path):
    out, data = made
    assert data.reference.start == "amortised" and (out / ENCODER).is_file() and not (out / "parts").exists()
    again = WeightDataset.load(out)
    assert again.fingerprint == data.fingerprint
    assert torch.equal(again.reference.row, again.reference.tensors["row"])
    again.save(tmp_path / "copy")
    assert WeightDataset.load(tmp_path / "copy").reference.tensors.keys() == again.reference.tensors.keys()


def test_a_fit_is_reproduced_from_the_stored_encoder(made, tmp_path):
    out, data = made
    taken = fit(replace(QUICK, out=tmp_path / "taken", reference=str(out)))
    assert torch.equal(taken.weights("test"), data.weights("test")) and taken.fingerprint == data.fingerprint
    in_memory = fields.fit(
        load_signals(SignalsConfig()).subset(list(range(4))), reference=data.reference, steps=3, quiet=True
    )
    assert in_memory.reference.start == "amortised"


def test_damaged_and_missing_encoders_are_named(made, tmp_path):
    out, _ = made
    shutil.copytree(out, tmp_path / "d")
    kept = (out / ENCODER).read_bytes()
    (tmp_path / "d" / ENCODER).write_bytes(kept[:-4] + b"\1\2\3\4")
    with pytest.raises(ValueError, match="is not the encoder that field.json describes"):
        WeightDataset.load(tmp_path / "d")
    (tmp_path / "d" / ENCODER).write_bytes(kept[:100])
    with pytest.raises(ValueError, match="cannot be read"):
        WeightDataset.load(tmp_path / "d")
    (tmp_path / "d" / ENCODER).unlink()  # the fields themselves do not need it
    assert len(WeightDataset.load(tmp_path / "d").weights("train")) == 24
    with pytest.raises(ValueError, match="has no encoder"):
        fit(replace(QUICK, out=tmp_path / "e", reference=str(tmp_path / "d")))


def test_interrupted_fits_go_on_with_the_same_encoder(made, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART", 16)
    for room in ("CACHE", "MEMORY"):
        monkeypatch.setattr(parts, room, 8 * 8 * 64)
    whole = fit(replace(QUICK, out=tmp_path / "whole"))
    original, calls = Worker.__call__, []

    def stop(self, block):
        calls.append(block)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return original(self, block)

    monkeypatch.setattr(Worker, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        fit(replace(QUICK, out=tmp_path / "d"))
    monkeypatch.setattr(Worker, "__call__", original)
    monkeypatch.setattr("fields.fitting.fit.make_reference", lambda *a, **k: pytest.fail("the encoder is there"))
    assert fit(replace(QUICK, out=tmp_path / "d")).fingerprint == whole.fingerprint


def test_several_fits_of_one_signal_begin_around_its_prediction(tmp_path):
    data = fit(replace(QUICK, out=tmp_path / "d", fits=2, limit=4))
    assert len(data.weights("train")) == 8 and len(data.weights("train").unique(dim=0)) == 8


@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_and_colour(channels):
    """Other sizes than the encoder's are averaged or repeated to its grid."""
    pictures = torch.rand(6, 9, 7, channels, generator=generator())
    options = {"start": "amortised", "steps": 3, "meta_steps": 2, "encoder_steps": 3, "quiet": True}
    data = fields.fit(pictures, field=FieldConfig(hidden=(4,), octaves=1, out_dim=channels), **options)
    assert data.weights("train").isfinite().all()
    encoder = Encoder.of(data.reference.tensors)
    for size in ((9, 7), (18, 14), (3, 20)):
        values = torch.rand(2, size[0] * size[1], channels, generator=generator())
        assert encoder(values, size).shape == (2, data.config.size)


def test_points_on_a_line_and_points_of_their_own():
    x = torch.linspace(-1, 1, 16)[:, None]
    values = torch.rand(5, 16, 1, generator=generator())
    options = {"start": "amortised", "steps": 3, "meta_steps": 2, "encoder_steps": 3, "quiet": True}
    field = FieldConfig(hidden=(4,), octaves=1, in_dim=1, output="linear")
    assert fields.fit(x, values, field=field, **options).weights("train").isfinite().all()
    with pytest.raises(ValueError, match="points of its own. Use --start meta"):
        fields.fit(x.expand(5, 16, 1), values, field=field, **options)


def test_an_encoder_of_other_signals_is_refused(made):
    _, data = made
    with pytest.raises(ValueError, match="the encoder of the start has"):
        fields.fit(
            torch.rand(3, 8, 8, 3), field=replace(DIGITS, out_dim=3), reference=data.reference, quiet=True, steps=2
        )


def test_input_grid_keeps_the_shape():
    assert input_grid((28, 28)) == [28, 28] and input_grid((64, 64)) == [32, 32] and input_grid((5000,)) == [1024]
    assert input_grid((1, 4000)) == [1, 1024] and input_grid((3, 40000)) == [1, 1024]


def test_published_with_its_encoder(made, tmp_path, monkeypatch):
    HUB.reset()
    monkeypatch.chdir(tmp_path)
    out, data = made
    data.push_to_hub("tester/amortised")
    fetched = WeightDataset.load("tester/amortised")
    assert fetched.reference.start == "amortised"
    assert all(torch.equal(fetched.reference.tensors[k], v) for k, v in data.reference.tensors.items())
