"""Round trips of shapes: numbers and views of shapes, fields and what vocabularies make of them."""

import pytest
import torch

from fields.fitting.memory import fit
from fields.model import FieldConfig
from fields.signals.options import ShapeOptions, SignalsConfig
from fields.signals.registry import load_signals
from tokenizers.build import build
from tokenizers.classic.options import KMeansConfig, PCAConfig
from tokenizers.compare import compare
from tokenizers.options import CompareConfig, ReportConfig
from tokenizers.registry import BuildConfig
from tokenizers.report import surfaces


@pytest.fixture(scope="module")
def shapes():
    return load_signals(SignalsConfig("solids", count=24, shape=ShapeOptions(near=256, uniform=256)))


@pytest.fixture(scope="module")
def data(shapes):
    field = FieldConfig(hidden=(16,), octaves=1, in_dim=3)
    return fit(shapes, field=field, steps=120, meta_steps=10, quiet=True)


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(surfaces, "SIZE", 24)
    monkeypatch.setattr(surfaces, "FINE", 32)
    monkeypatch.setattr(surfaces, "POINTS", 500)
    monkeypatch.setattr(surfaces, "SIDE", 32)


def test_a_shape_meets_itself_and_an_empty_field_has_no_surface(data, shapes):
    rows = data.weights("train", [0, 1])
    empty = torch.zeros_like(rows)
    empty[:, -1] = -5.0  # the last bias: outside everywhere
    places = shapes.find(data.ids("train")[:2])
    sides, views = surfaces.compare_surfaces(data, shapes, places, {"fields": rows, "empty": empty})
    own, fields, none = sides
    assert own["iou"] == 1 and own["closed"] == 1 and own["parts"] >= 1 and own["without_surface"] == 0
    assert own["chamfer"] < fields["chamfer"] and fields["iou"] > 0.2 and own["f_score"] > fields["f_score"] > 0
    assert none["without_surface"] == 1 and none["chamfer"] is None and none["closed"] == 0 and none["iou"] == 0
    assert views.shape == (6, 32, 32, 3) and bool((views[2] == 1).all()) and not bool((views[0] == 1).all())


def test_comparing_tokenizers_of_shapes_shows_their_surfaces(data, tmp_path, capsys):
    data.save(tmp_path / "fields")
    for name, settings in (("k", KMeansConfig(vocab_size=16)), ("p", PCAConfig(vocab_size=16, components=8))):
        report = ReportConfig(sizes=(), probe_rows=0)
        build(BuildConfig(settings, report, fields=tmp_path / "fields", out=tmp_path / name))
    paths = (str(tmp_path / "k"), str(tmp_path / "p"))
    config = CompareConfig(paths, str(tmp_path / "fields"), tmp_path / "c", surfaces=2, signals="solids")
    found = compare(config)["surfaces"]
    assert [row["name"] for row in found["rows"]] == ["shapes", "fields", "k", "p"] and found["shapes"] == 2
    assert (tmp_path / "c" / "surfaces.png").read_bytes()[:4] == b"\x89PNG" and "parts" in capsys.readouterr().out
    assert "F-score" in (tmp_path / "c" / "compare.md").read_text()
    assert "surfaces of 2 shapes" in (tmp_path / "c" / "report.html").read_text().lower()
    with pytest.raises(ValueError, match="--surfaces"):
        CompareConfig(paths, "f", tmp_path, surfaces=-1)
