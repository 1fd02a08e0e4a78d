"""Our fields in other projects' formats, and back."""

import json

import h5py
import pytest
import torch
from edited import unmarked
from loopback_env import HUB
from made import rows
from safetensors.torch import load_file

from fields import layout
from fields.formats.exporter import IMPORT, WRITERS, export, fidelity, main, safe
from fields.formats.importer import import_fields
from fields.formats.options import ExportConfig, ImportConfig
from fields.model import FieldConfig, values
from fields.module import FieldModule
from fields.runtime.runs import read_json
from fields.runtime.text import unique
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference

SIREN = FieldConfig(hidden=(6, 6), octaves=0, activation="sine", output="offset", coords="linspace")


@pytest.fixture
def sirens() -> WeightDataset:
    """Fields as DWSNets and the Arena compute them."""
    weights, at, splits = rows(SIREN, 9), 0, {}
    for split, part, n in (("train", "train", 4), ("validation", "train", 2), ("test", "test", 3)):
        numbers = range(at, at + n)
        splits[split] = {"weights": weights[at : at + n], "labels": torch.arange(n), "seed": torch.zeros(n)}
        splits[split]["signal_id"] = [f"mnist/{part}/{i}" for i in numbers]
        at += n
    signals = {"name": "mnist", "label_names": list("0123456789"), "shape": [28, 28], "channels": 1}
    return WeightDataset.from_rows(SIREN, splits, Reference("unknown", "made"), signals)


@pytest.mark.parametrize("format", WRITERS)
def test_export_and_import_give_the_same_dataset(format, dataset, tmp_path):
    """Rows, order, ids, labels, splits and reference: one fingerprint. Also where the format computes other fields."""
    dataset.save(tmp_path / "fields")
    main(ExportConfig(tmp_path / "fields", format, tmp_path / "theirs"))
    import_fields(ImportConfig(IMPORT[format], tmp_path / "theirs", tmp_path / "back"))
    back = WeightDataset.load(tmp_path / "back")
    assert back.fingerprint == dataset.fingerprint
    for split in dataset.splits:
        assert torch.equal(back.weights(split), dataset.weights(split))
        assert torch.equal(back.quality(split), dataset.quality(split))
        assert torch.equal(back.extent(split), dataset.extent(split))
    assert back.label_names == dataset.label_names


def test_a_name_on_the_hub_is_exported(dataset, tmp_path, monkeypatch):
    HUB.reset()
    monkeypatch.chdir(tmp_path)
    dataset.push_to_hub("tester/d")
    main(ExportConfig("tester/d", "safetensors", tmp_path / "theirs"))
    assert read_json(tmp_path / "theirs" / "export.json")["fingerprint"] == dataset.fingerprint


@pytest.mark.parametrize("format", ["dwsnets", "arena"])
def test_the_public_layout_alone_gives_the_rows_back(format, sirens, tmp_path):
    """Without our sidecar: what is left is what the other projects write themselves."""
    export(sirens, format, tmp_path / "theirs")
    (tmp_path / "theirs" / "fields.json").unlink()
    import_fields(ImportConfig(format, tmp_path / "theirs", tmp_path / "back"))
    back = WeightDataset.load(tmp_path / "back")
    found = torch.cat([back.weights(split) for split in back.splits])
    assert torch.equal(found, torch.cat([sirens.weights(split) for split in sirens.splits]))
    if format == "dwsnets":
        assert back.config == sirens.config
        for split in sirens.splits:
            assert back.ids(split) == sirens.ids(split) and torch.equal(back.labels(split), sirens.labels(split))
    else:
        assert back.config.output_scale == 0.30810782  # the Arena's MNIST is standardised, ours need not be


def test_dwsnets_files_are_as_dwsnets_reads_them(sirens, tmp_path):
    report = export(sirens, "dwsnets", tmp_path / "d")
    assert report["says"] == "the networks of DWSNets compute these very fields"
    listed = json.loads((tmp_path / "d" / "splits.json").read_text())
    assert {k: len(v["path"]) for k, v in listed.items()} == {"train": 4, "val": 2, "test": 3}
    assert listed["test"]["path"][1] == (tmp_path / "d/mnist_png_testing_1_7/checkpoints/model_final.pth").as_posix()
    assert listed["test"]["label"] == ["0", "1", "2"]
    state = torch.load(listed["val"]["path"][0], weights_only=True)
    assert list(state) == [f"seq.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    x = torch.rand(5, 2) * 2 - 1
    y = x
    for i in range(2):
        y = torch.sin(30 * (y @ state[f"seq.{i}.weight"].T + state[f"seq.{i}.bias"]))
    y = y @ state["seq.2.weight"].T + state["seq.2.bias"] + 0.5
    assert (y - values(SIREN, sirens.weights("validation", [0]), x)[0]).abs().max() < 1e-5


def test_arena_files_are_as_fit_a_nef_reads_them(sirens, tmp_path):
    export(sirens, "arena", tmp_path / "a")
    names = sorted(p.name for p in (tmp_path / "a").glob("*.hdf5"))
    assert names == ["nefs_0-4.hdf5", "nefs_4-6.hdf5", "nefs_6-9.hdf5"]
    with h5py.File(tmp_path / "a" / "nefs_0-4.hdf5") as file:
        stated = json.loads(file["param_config"][0].decode())
        params, labels = file["params"][:], file["labels"][:].tolist()
    assert [name for name, _ in stated] == [
        f"{layer}.{kind}"
        for layer in ("kernel_net_0.linear", "kernel_net_1.linear", "output_linear")
        for kind in ("bias", "kernel")
    ]
    assert stated[1] == ["kernel_net_0.linear.kernel", [2, 6]] and labels == [0, 1, 2, 3]
    weight, bias = layout.split(SIREN, sirens.weights("train"))[0]
    assert (params[:, :6] == bias.numpy()).all()
    assert (params[:, 6:18].reshape(4, 2, 6) == weight.numpy().transpose(0, 2, 1)).all()
    network = json.loads((tmp_path / "a" / "nef.json").read_text())
    assert network["name"] == "SIREN" and network["params"]["omega_0"] == 30.0 and network["params"]["num_layers"] == 3


def test_safetensors_are_stacked_and_computed_at_once(dataset, tmp_path):
    export(dataset, "safetensors", tmp_path / "s")
    stacked = load_file(tmp_path / "s" / "train.safetensors")
    module = FieldModule(dataset.config)
    coords = torch.rand(7, 2)
    found = torch.func.vmap(lambda p: torch.func.functional_call(module, p, coords))(stacked)
    assert (found - values(dataset.config, dataset.weights("train"), coords)).abs().max() < 1e-5


def test_what_a_format_cannot_express_is_said(dataset):
    said = fidelity(dataset.config, "dwsnets")
    assert said.startswith("LAYOUT ONLY") and "octaves 1 (theirs: 0)" in said and "activation relu" in said
    assert "octaves" in fidelity(dataset.config, "arena")
    relu = FieldConfig(hidden=(8, 8), octaves=0, output="linear", coords="linspace")
    assert "compute these very fields" in fidelity(relu, "arena") and "LAYOUT" in fidelity(relu, "dwsnets")
    assert "LAYOUT" in fidelity(FieldConfig(hidden=(8, 9), octaves=0, output="linear", coords="linspace"), "arena")
    assert "plain" in fidelity(dataset.config, "state-dicts")


def test_names_never_leave_the_folder(tiny, tmp_path):
    ids = ["../../escape", "/etc/passwd", "a/b", "a_b", "A_b", "", ".hidden", "ö" * 300, "..", "same", "same"]
    rows_ = {"weights": rows(tiny, len(ids)), "signal_id": ids, "seed": torch.arange(len(ids))}
    data = WeightDataset.from_rows(tiny, {"train": rows_}, signals={"name": "../x", "shape": [4, 4]})
    for format in ("state-dicts", "dwsnets"):
        export(data, format, tmp_path / "in" / format)
        files = [p.relative_to(tmp_path / "in" / format) for p in (tmp_path / "in" / format).rglob("*.pth")]
        assert len(files) == len({str(f).lower() for f in files}) == len(ids)
        assert all(".." not in f.parts and not f.name.startswith(".") for f in files)
        import_fields(ImportConfig(IMPORT[format], tmp_path / "in" / format, tmp_path / "back" / format))
        back = WeightDataset.load(tmp_path / "back" / format)
        assert torch.equal(back.weights("train"), rows_["weights"]) and back.ids("train") == ids
        assert back.label_names is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "in"]
    taken: set[str] = set()
    assert [unique(safe(n), taken) for n in ("a/b", "a_b", "..", "")] == ["a_b", "a_b-2", "field", "field-2"]


def test_a_hostile_sidecar_cannot_name_files(dataset, tmp_path):
    export(dataset, "safetensors", tmp_path / "s")
    path = tmp_path / "s" / "fields.json"
    said = unmarked(path, ("checksum",))
    said["files"]["test.safetensors"]["split"][0] = "../../up"
    path.write_text(json.dumps(said))
    report = import_fields(ImportConfig("generic", tmp_path / "s", tmp_path / "o"))
    assert "says split '../../up'" in dict(report["skipped"])["test.safetensors"]
    said["files"] = {"train.safetensors": {"split": ["train"]}}
    path.write_text(json.dumps(said))
    report = import_fields(ImportConfig("generic", tmp_path / "s", tmp_path / "p"))
    assert "has no 40 entries of split" in dict(report["skipped"])["train.safetensors"]
    path.write_text(json.dumps({"field": {"wings": 2}}))
    with pytest.raises(ValueError, match="fields.json cannot be used .*wings"):
        import_fields(ImportConfig("generic", tmp_path / "s", tmp_path / "q"))


def test_again_is_complete_and_other_fields_are_refused(dataset, sirens, tmp_path, capsys):
    dataset.save(tmp_path / "fields")
    for _ in range(2):
        main(ExportConfig(tmp_path / "fields", "arena", tmp_path / "a"))
    assert "is complete" in capsys.readouterr().out
    with pytest.raises(ValueError, match="another configuration .format"):
        main(ExportConfig(tmp_path / "fields", "dwsnets", tmp_path / "a"))
    sirens.save(tmp_path / "others")
    with pytest.raises(ValueError, match="another configuration .parent fields"):
        main(ExportConfig(tmp_path / "others", "arena", tmp_path / "a"))


def test_shapes_keep_their_sign(tmp_path):
    """3-D fields come back by the generic source with the side that is inside."""
    config = FieldConfig(hidden=(6,), octaves=0, in_dim=3, output="linear")
    signals = {"name": "shapes", "quantity": "signed distance", "inside": "below 0", "channels": 1, "shape": None}
    data = WeightDataset.from_rows(config, {"train": {"weights": rows(config, 2)}}, signals=signals)
    export(data, "state-dicts", tmp_path / "s")
    import_fields(ImportConfig("generic", tmp_path / "s", tmp_path / "o"))
    back = WeightDataset.load(tmp_path / "o")
    assert back.signals["inside"] == "below 0" and back.signals["quantity"] == "signed distance"
    assert torch.equal(back.weights("train"), data.weights("train"))
