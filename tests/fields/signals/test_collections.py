"""Collections that users lay in a folder: their layouts, classes, licences, and what may not be published."""

import gzip
import json

import pytest

from fields.hub.cards import licence, may_publish
from fields.signals import shapes
from fields.signals.options import ShapeOptions, SignalsConfig
from fields.signals.registry import load_signals


@pytest.fixture
def lay(tmp_path, monkeypatch):
    """Write a small closed mesh at a path of a collection; `load` reads the collection."""
    import trimesh

    monkeypatch.setattr(shapes, "CACHE", tmp_path / "cache")
    root = tmp_path / "root"

    def put(*paths: str) -> None:
        for i, path in enumerate(paths):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            trimesh.creation.box((1, 1, 1 + i)).export(root / path)

    def load(name: str, where=None):
        return load_signals(SignalsConfig(name, data_root=where or root, shape=ShapeOptions(near=20, uniform=20)))

    return root, put, load


def test_abo(lay):
    root, put, load = lay
    put("3dmodels/original/A/B01.glb", "3dmodels/original/B/B02.glb")
    assert load("abo").labels is None
    (root / "listings" / "metadata").mkdir(parents=True)
    lines = [{"3dmodel_id": "B01", "product_type": [{"value": "CHAIR"}]}, {"item_id": "other"}]
    with gzip.open(root / "listings" / "metadata" / "listings_0.json.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, lines)))
    for where in (root, root / "3dmodels"):
        found = load("abo", where)
        assert found.label_names == ["CHAIR", "unknown"] and found.labels.tolist() == [0, 1]
    assert found.ids[0] == "abo/original/A/B01.glb" and licence(found.describe(), None)[0] == "cc-by-4.0"
    may_publish(found.describe())


def test_thingi10k_keeps_each_licence(lay, capsys):
    root, put, load = lay
    put("raw_meshes/32770.stl", "raw_meshes/34785.stl", "raw_meshes/9.stl")
    with pytest.raises(FileNotFoundError, match="no input_summary.csv"):
        load("thingi10k")
    head = '"ID","Thing ID","License"\n'
    (root / "input_summary.csv").write_text(
        head + '32770,1,"Creative Commons - Attribution"\n34785,2,"GNU - GPL"\n9,3,\n'
    )
    found = load("thingi10k")
    assert [i.rsplit("/", 1)[1] for i in found.ids] == ["32770.stl", "34785.stl"]
    assert found.skipped == [("raw_meshes/9.stl", "no licence in input_summary.csv")]
    said = found.describe()
    assert said["placed"]["thingi10k/raw_meshes/34785.stl"]["licence"] == "GNU - GPL"
    name, source = licence(said, None)
    assert name == "other" and "Attribution (1)" in source and "GPL (1)" in source
    assert found.subset([1]).describe()["placed"].keys() == {"thingi10k/raw_meshes/34785.stl"}


def test_shapenet_is_not_published(lay):
    root, put, load = lay
    put("02691156/a1/models/model_normalized.obj", "03001627/c3/model.obj", "03001627/c3/other.obj")
    found = load("shapenet")
    assert found.label_names == ["02691156", "03001627"] and len(found) == 2
    (root / "taxonomy.json").write_text(json.dumps([{"synsetId": "02691156", "name": "airplane,aeroplane,plane"}]))
    assert load("shapenet").label_names == ["03001627", "airplane"]
    one = load("shapenet", root / "02691156")
    assert one.label_names == ["airplane"] and one.ids == ["shapenet/a1/models/model_normalized.obj"]
    for name in ("shapenet", "samples of shapenet"):
        with pytest.raises(ValueError, match="terms forbid"):
            may_publish({**found.describe(), "name": name})


def test_what_is_not_there_is_said(lay, tmp_path):
    root, put, load = lay
    with pytest.raises(FileNotFoundError, match="--data-root DIR, the folder 3dmodels"):
        load_signals(SignalsConfig("abo"))
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load("abo", tmp_path / "nowhere")
    put("thing.stl")
    with pytest.raises(FileNotFoundError, match="contains no mesh of shapenet"):
        load("shapenet")
