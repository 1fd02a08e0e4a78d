"""Meshes of a dataset: good fields written, fields without a surface named in the file and in the error."""

import json

import pytest
import torch

from fields.formats import surfaces
from fields.formats.options import MeshConfig
from fields.formats.surfaces import main
from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference
from fields.storage.rows import Rows

CONFIG = FieldConfig(hidden=(6,), octaves=0, in_dim=3, output="linear")


def octahedron():
    """|x| + |y| + |z| - 0.7, exactly."""
    row = torch.zeros(CONFIG.size)
    for i in range(6):
        row[3 * i + i // 2] = 1.0 if i % 2 else -1.0  # (6, 3) weights first
    row[24:30] = 1.0
    row[30] = -0.7
    return row


def made(folder, rows, **signals):
    n = len(rows)
    ids = [f"made/../{i}" for i in range(n)]
    rows = Rows(torch.stack(rows), ids, None, torch.zeros(n, dtype=torch.int64), torch.ones(n), torch.ones(n, 1).long())
    WeightDataset.from_rows(CONFIG, {"train": rows}, Reference(), {"name": "made", **signals}).save(folder)
    return folder


def test_one_good_and_bad_ones(tmp_path):
    empty = torch.zeros(CONFIG.size)
    empty[-1] = 1.0
    config = MeshConfig(made(tmp_path / "d", [octahedron(), empty, -empty]), tmp_path / "out", size=16, picture=24)
    with pytest.raises(RuntimeError, match=r"2 of 3 fields have no surface: made/\.\./1 is empty \(1.0 .. 1.0\)"):
        main(config)
    found = json.loads((tmp_path / "out" / "meshes.json").read_text())
    assert [item["outcome"] for item in found] == ["surface", "empty", "full"]
    assert found[0]["closed"] and found[0]["volume"] == pytest.approx(4 / 3 * 0.7**3, rel=0.03)
    assert [p.name for p in (tmp_path / "out").glob("*.glb")] == ["00000-made-0.glb"]
    assert (tmp_path / "out" / "sheet.png").is_file()


def test_pictures_have_the_size_asked_for(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(surfaces, "turntable", lambda *a, real=surfaces.turntable: real(*a, 2))
    folder = made(tmp_path / "d", [octahedron(), octahedron()])
    main(MeshConfig(folder, tmp_path / "out", size=12, picture=100, turntable=1))
    with (
        Image.open(next((tmp_path / "out").glob("*.gif"))) as turned,
        Image.open(tmp_path / "out" / "sheet.png") as page,
    ):
        assert turned.size == (100, 100) and page.size == (206, 104)


def test_meshes_stand_where_their_signal_stood(tmp_path):
    import trimesh

    placed = {"made/../0": {"scale": 10.0, "offset": [5.0, 0.0, 0.0]}}
    folder = made(tmp_path / "d", [octahedron()], placed=placed)
    main(MeshConfig(folder, tmp_path / "out", size=16, picture=0, format="ply"))
    back = trimesh.load_mesh(next((tmp_path / "out").glob("*.ply")))
    assert back.bounds.mean(0) == pytest.approx([5, 0, 0], abs=0.01)
    assert back.extents == pytest.approx([14, 14, 14], rel=0.02)


def test_places_that_a_format_cannot_hold_are_refused_before_the_work(tmp_path):
    folder = made(tmp_path / "d", [octahedron()], placed={"made/../0": {"scale": 1e-3, "offset": [1e6, 0, 0]}})
    with pytest.raises(ValueError, match=r"--format stl stores 7 digits, too few for made/\.\./0"):
        main(MeshConfig(folder, tmp_path / "out", size=16, picture=0, format="stl"))
    assert not (tmp_path / "out").exists()
    folder = made(tmp_path / "e", [octahedron()], placed={"made/../0": {"scale": 0, "offset": [0, 0, 0]}})
    with pytest.raises(ValueError, match="scale above 0"):
        main(MeshConfig(folder, tmp_path / "out", size=16, picture=0))


def test_sizes_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--size"):
        MeshConfig(tmp_path, tmp_path, size=4)
