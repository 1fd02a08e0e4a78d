"""Evaluation of shapes: copies are seen, fields without a surface are counted."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from made import SOLID as CONFIG
from made import diamonds

from fields.runtime.records import read_json
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference
from fields.storage.rows import Rows
from gpt.evaluation.evaluate import evaluate
from gpt.evaluation.shapes import Clouds, simple_rows
from gpt.options import EvaluateConfig, ShapeSettings
from tokenizers.classic.kmeans import KMeansTokenizer
from tokenizers.classic.options import KMeansConfig


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One turntable of two small views."""
    monkeypatch.setattr("gpt.evaluation.shapes.SHOWN", 1)
    monkeypatch.setattr("gpt.evaluation.shapes.TURNED", (16, 8, 2))


def rows(weights, name):
    n = len(weights)
    ids = [f"{name}/{i}" for i in range(n)]
    return Rows(weights, ids, None, torch.zeros(n, dtype=torch.int64), torch.ones(n), torch.ones(n, 1).long())


def evaluated(tmp_path, samples, **options):
    splits = {"train": rows(diamonds(12, 0), "train"), "test": rows(diamonds(12, 1), "test")}
    WeightDataset.from_rows(CONFIG, splits, Reference(), {"name": "made"}).save(tmp_path / "fields")
    new = WeightDataset.from_rows(CONFIG, {"samples": rows(samples, "new")}, Reference(), {"name": "made"})
    new.save(tmp_path / "samples")
    places = {"samples": str(tmp_path / "samples"), "out": tmp_path / "out"}
    shapes = ShapeSettings(points=128, size=16)
    found = evaluate(EvaluateConfig(str(tmp_path / "fields"), n=12, threads=1, shapes=shapes, **places, **options))
    assert read_json(tmp_path / "out" / "metrics.json") == found
    return found


def test_copies_of_training_fields_have_the_score_of_training_fields(tmp_path):
    found = evaluated(tmp_path, diamonds(12, 0))
    samples, training = found["rows"][:2]
    assert samples["novelty"]["near_copies"] == 1 and "novelty" not in training
    assert samples["chamfer"]["mmd"] == training["chamfer"]["mmd"]
    assert samples["chamfer"]["1-nna"] == training["chamfer"]["1-nna"]
    assert samples["closed"] == 1 and samples["novelty"]["z_u"] < -3


def test_new_shapes_are_no_copies(tmp_path):
    found = evaluated(tmp_path, diamonds(12, 2))
    assert abs(found["rows"][0]["novelty"]["z_u"]) < 2
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == 6 and all("1-nna" in row["chamfer"] for row in found["rows"])
    assert rows["training weights + 0.3 sd noise"]["without_surface"] == 0
    assert rows["training fields"]["in_parts"] == 0
    report = (tmp_path / "out" / "report.html").read_text()
    assert "training fields" in report and report.count("data:image/webp;base64,") == 1


def test_simple_generators_are_drawn_from_training_rows():
    weights = diamonds(12, 0)
    found = simple_rows(weights, 5, 0)
    assert all(rows.shape == (5, CONFIG.size) for rows in found.values())
    assert torch.equal(found["the mean field"][3], weights.mean(0))
    drawn = found["weights drawn one by one"]
    assert bool((drawn[:, None] == weights).any(1).all()) and not bool((drawn[:, None] == weights).all(2).any())


def test_fields_without_a_surface_are_counted(tmp_path):
    weights = diamonds(12, 2)
    weights[:3, 30] = 1.0  # outside everywhere
    found = evaluated(tmp_path, weights)
    assert found["n"] == 9 and found["rows"][0]["without_surface"] == 0.25
    assert found["rows"][0]["outcomes"] == {"surface": 9, "empty": 3}


def test_surfaces_of_several_parts_are_counted(tmp_path, monkeypatch):
    from fields.view.mesh import mesh_volume

    line = torch.linspace(-1, 1, 17)
    x, y, z = torch.meshgrid(line, line, line, indexing="ij")
    two = mesh_volume(((x.abs() - 0.5) ** 2 + y**2 + z**2).sqrt() - 0.3)
    monkeypatch.setattr("gpt.evaluation.shapes.mesh_field", lambda *_, **__: two)
    found = evaluated(tmp_path, diamonds(12, 2))
    assert {row["in_parts"] for row in found["rows"]} == {1.0} and found["rows"][0]["closed"] == 1


def test_too_few_points_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--shapes.points"):
        ShapeSettings(points=1)


def test_round_trip_of_a_tokenizer_and_no_samples(tmp_path, capsys):
    splits = {name: rows(diamonds(8, seed), name) for seed, name in enumerate(("train", "validation", "test"))}
    data = WeightDataset.from_rows(CONFIG, splits, Reference(), {"name": "made"})
    data.save(tmp_path / "fields")
    tokenizer = KMeansTokenizer(KMeansConfig(vocab_size=8, field=CONFIG.to_dict())).fit(data.batches("train"))
    tokenizer.save_pretrained(tmp_path / "kmeans")
    shapes = ShapeSettings(points=64, size=12, baselines=False)
    config = EvaluateConfig(
        str(tmp_path / "fields"), tmp_path / "out", tokenizer=str(tmp_path / "kmeans"), shapes=shapes
    )
    found = evaluate(config)
    assert [row["name"] for row in found["rows"]] == ["training fields", "validation fields after round trip"]
    assert found["n"] == 8 and found["tokenizer"] == tokenizer.fingerprint and "1-nna" in found["rows"][1]["chamfer"]
    assert "32 surfaces on grids of 12^3 cells" in capsys.readouterr().out  # three sets of 8, and a pool of 8
    both = replace(config, out=tmp_path / "both", n=16, reference_split="held-out")
    found = evaluate(both)  # no held-out fields are left for a round trip
    assert found["references"] == {"name": "held-out fields", "n": 8} and len(found["rows"]) == 1
    other = evaluate(replace(config, reference_split="validation", out=tmp_path / "validation"))
    assert other["references"]["name"] == "validation fields"
    assert other["rows"][1]["name"] == "test fields after round trip"
    with pytest.raises(ValueError, match="--classifier does not apply to shapes"):
        evaluate(replace(config, classifier=tmp_path / "c.pth", out=tmp_path / "other"))


def test_where_a_side_has_fewer_surfaces_the_others_are_drawn_not_cut_off():
    side = Clouds([np.full((1, 3), i) for i in range(40)], list(range(40)), Counter(surface=40), 40)
    some = side.pick(20, 0)
    assert len(some.clouds) == 20 and max(some.rows) >= 20 and some.outcomes == side.outcomes
    assert [int(cloud[0, 0]) for cloud in some.clouds] == some.rows
    assert side.pick(40, 0).rows == side.rows
