"""Other people's weight files: the formats, the proof by rendering, and files that are not what they should be."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from foreign_files import WRITERS, bring, config_of, save, state
from made import rows
from safetensors.torch import save_file

from fields import layout
from fields.fitting.engine import Points, Schedule, fit_block, quality
from fields.fitting.starts import random_rows
from fields.formats.importer import import_fields, main
from fields.formats.options import Conventions, ImportConfig
from fields.formats.readers import read
from fields.formats.weight_formats import WEIGHT_FORMATS
from fields.model import FieldConfig
from fields.runtime.runs import read_json
from fields.signals.images import grid
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.storage.dataset import WeightDataset

CASES = {
    "nefgpt": ({}, [5, 58828], ["mnist/train/5", "mnist/train/58828"], ["train", "train"], None, (28, 28)),
    "dwsnets": ({}, [5, 7], ["mnist/train/5", "mnist/train/7"], ["train", "train"], [3, 4], (28, 28)),
    "nfn": ({}, [5, 45_000, 60_003], ["mnist/train/5", "mnist/train/45000", "mnist/test/3"],
            ["train", "validation", "test"], [3, 4, 9], (28, 28)),
    "arena": ({}, [54_999, 55_000], ["mnist/train/54999", "mnist/train/55000"], ["train", "validation"], [3, 4], (28, 28)),
    "hyperdiffusion": ({"hidden": (8, 8, 8)}, [5, 6], ["shapenet/5a", "shapenet/6a"], ["train", "train"], None, (0,)),
    "implicit-zoo": ({"out_dim": 3}, [5, 6], ["cifar10/train/5", "cifar10/train/6"], ["train", "train"], [3, 4], (32, 32)),
    "u2ni": ({"hidden": (8,) * 8}, [5, 6], ["thingi10k/100005", "thingi10k/100006"], ["train", "train"], None, (0,)),
    "niq": ({"activation": "elu"}, [5, 6], ["niq/shape5", "niq/shape6"], ["train", "train"], None, (0,)),
    "generic": ({"octaves": 1}, [5, 6], ["net_5", "net_6"], ["train", "train"], None, (9, 7)),
}  # fmt: skip


@pytest.mark.parametrize("source", CASES)
def test_every_format_gives_the_rows_and_what_its_paths_say(source, tmp_path):
    changes, numbers, ids, splits, labels, size = CASES[source]
    config = config_of(source, **changes)
    weights = rows(config, len(numbers))
    WRITERS[source](tmp_path / "theirs", config, weights, numbers, labels or range(len(numbers)))
    extra = {"size": (9, 7), "field": Conventions(octaves=1)} if source == "generic" else {}
    data = bring(source, tmp_path / "theirs", tmp_path / "ours", **extra)
    assert data.config == config
    for split in set(splits):
        at = [i for i, s in enumerate(splits) if s == split]
        assert torch.equal(data.weights(split), weights[at]) and data.ids(split) == [ids[i] for i in at]
        assert data.extent(split).tolist() == [list(size)] * len(at)
        assert data.labels(split) is None if labels is None else data.labels(split).tolist() == [labels[i] for i in at]
    assert data.signals["source"]["format"] == source and data.reference.start == "unknown"
    if source == "implicit-zoo":
        assert data.quality("train").tolist() == [35.0, 36.0] and data.seeds("train").tolist() == [42, 42]
    if config.in_dim == 3:
        assert data.signals["inside"] == ("above 0" if source == "hyperdiffusion" else "below 0")
    assert (tmp_path / "ours" / "preview.png").stat().st_size > 500
    assert list(WRITERS) == list(WEIGHT_FORMATS)


@pytest.fixture(scope="module")
def digits():
    return load_signals(SignalsConfig())


def fitted(source: str, signals, numbers: list[int]) -> tuple[FieldConfig, torch.Tensor, torch.Tensor]:
    """Fields by a source's conventions, fitted to digits, and their PSNR."""
    torch.set_num_threads(1)
    config = config_of(source, hidden=(16, 16), **({"w0": 10.0} if source == "arena" else {}))
    points = Points(config, grid(config, 8, 8), 1.0, 0)
    targets = signals.images(numbers).flatten(1, 2)
    rate = 3e-3 if config.activation == "sine" else 2e-2
    found = fit_block(config, random_rows(config, numbers), targets, points, Schedule(250, rate, (0.9, 0.999)))
    return config, found, quality(config, found, targets, points.coords)


WRONG = {
    "nefgpt": (Conventions(coords="centres"), "--field.coords corner"),
    "dwsnets": (Conventions(output="linear"), "--field.output offset"),
    "nfn": (Conventions(axes="xy"), "--field.axes yx"),
    "arena": (Conventions(w0=30.0), "--field.w0 10"),
}


@pytest.mark.parametrize("source", WRONG)
def test_rendering_proves_the_conventions_and_names_the_right_one(source, digits, tmp_path):
    numbers = [0, 1, 2, 3]
    config, weights, decibels = fitted(source, digits, numbers)
    assert decibels.mean() > 25
    WRITERS[source](tmp_path / "theirs", config, weights, numbers, digits.labels[numbers].tolist())
    data = bring(source, tmp_path / "theirs", tmp_path / "ours", signals="digits")
    assert data.ids("train") == ["digits/0", "digits/1", "digits/2", "digits/3"]
    assert (data.quality("train") - decibels).abs().max() < 0.01
    assert data.labels("train").tolist() == digits.labels[numbers].tolist() and data.label_names == digits.label_names
    wrong, right = WRONG[source]
    with pytest.raises(ValueError, match=f"come to .* dB .* expected at least --min-psnr .*{right} it would be"):
        bring(source, tmp_path / "theirs", tmp_path / "no", signals="digits", field=wrong)
    assert not (tmp_path / "no").exists()
    forced = bring(source, tmp_path / "theirs", tmp_path / "yes", signals="digits", field=wrong, force=True)
    assert forced.quality("train").mean() < 20 and torch.equal(forced.weights("train"), weights)


def test_frequencies_come_from_the_files_or_from_the_user(tmp_path):
    config = config_of("arena", w0=9.0)
    WRITERS["arena"](tmp_path / "a", config, rows(config, 2), [0, 1], [0, 1])
    assert bring("arena", tmp_path / "a", tmp_path / "oa").config.w0 == 9.0
    WRITERS["arena"](tmp_path / "b", config, rows(config, 2), [0, 1], [0, 1], known=False)
    assert bring("arena", tmp_path / "b", tmp_path / "ob").config.w0 == 8.0  # fit-a-nef's own default
    assert bring("arena", tmp_path / "b", tmp_path / "oc", field=Conventions(w0=9.0)).config == config


def test_splits_from_lists_beside_the_files(tmp_path):
    config = config_of("dwsnets")
    WRITERS["dwsnets"](tmp_path / "d", config, rows(config, 3), [1, 2, 3], [0, 0, 0])
    WRITERS["dwsnets"](tmp_path / "d", config, rows(config, 1, seed=1), [1], [0], part="testing")
    tails = {"train": [1], "val": [2, 3]}
    listed = {
        k: {"path": [f"/elsewhere/mnist_png_training_0_{i}/checkpoints/model_final.pth" for i in v], "label": ["0"]}
        for k, v in tails.items()
    }
    (tmp_path / "d" / "mnist_splits.json").write_text(json.dumps(listed))
    data = bring("dwsnets", tmp_path / "d", tmp_path / "o")
    found = {split: data.ids(split) for split in data.splits}
    assert found == {
        "train": ["mnist/train/1"],
        "validation": ["mnist/train/2", "mnist/train/3"],
        "test": ["mnist/test/1"],
    }
    config = config_of("hyperdiffusion")
    WRITERS["hyperdiffusion"](tmp_path / "h", config, rows(config, 2), [1, 2], [0, 0])
    (tmp_path / "h" / "test_split.lst").write_text("2a\n")
    data = bring("hyperdiffusion", tmp_path / "h", tmp_path / "p")
    assert data.ids("train") == ["shapenet/1a"] and data.ids("test") == ["shapenet/2a"]
    (tmp_path / "d" / "mnist_splits.json").write_text("{")
    with pytest.raises(ValueError, match="mnist_splits.json cannot be used"):
        bring("dwsnets", tmp_path / "d", tmp_path / "q")


def test_architectures_are_never_mixed(tmp_path, capsys):
    for width, number in ((4, 1), (5, 2)):
        config = config_of("nefgpt", hidden=(width, width))
        WRITERS["nefgpt"](tmp_path / "n", config, rows(config, 1), [number], [0])
    report = import_fields(ImportConfig("nefgpt", tmp_path / "n", tmp_path / "o"))
    assert "never mixed" in capsys.readouterr().out
    folders = [group["folder"] for group in report["groups"]]
    assert folders == ["2-4x2-1-relu-logit", "2-5x2-1-relu-logit"]
    assert [WeightDataset.load(tmp_path / "o" / f).config.hidden for f in folders] == [(4, 4), (5, 5)]
    assert (
        all((tmp_path / "o" / f / "run.json").is_file() for f in folders) and not (tmp_path / "o/field.json").exists()
    )


def test_again_is_complete_and_another_configuration_is_refused(tmp_path, capsys):
    config = config_of("nefgpt")
    WRITERS["nefgpt"](tmp_path / "n", config, rows(config, 2), [1, 2], [0, 0])
    first = bring("nefgpt", tmp_path / "n", tmp_path / "o").fingerprint
    assert bring("nefgpt", tmp_path / "n", tmp_path / "o", min_psnr=3.0).fingerprint == first
    assert "is complete" in capsys.readouterr().out
    with pytest.raises(ValueError, match="another configuration .field"):
        bring("nefgpt", tmp_path / "n", tmp_path / "o", field=Conventions(axes="yx"))
    WRITERS["nefgpt"](tmp_path / "n", config, rows(config, 1, seed=3), [1], [0])
    with pytest.raises(ValueError, match="another configuration .parent files"):
        bring("nefgpt", tmp_path / "n", tmp_path / "o")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds files but no run.json"):
        bring("nefgpt", tmp_path / "n", tmp_path / "mine")


def test_one_signal_in_two_splits_is_refused_before_anything_is_written(tmp_path):
    config = config_of("hyperdiffusion")
    WRITERS["hyperdiffusion"](tmp_path / "h", config, rows(config, 2), [1, 2], [0, 0])
    listed = {"train": ["occ_1a_jitter_0_model_final.pth"], "test": ["occ_1a_jitter_1_model_final.pth"]}
    (tmp_path / "h" / listed["test"][0]).write_bytes((tmp_path / "h" / listed["train"][0]).read_bytes())
    paths = {split: {"path": [f"{tmp_path.name}/h/{name}" for name in names]} for split, names in listed.items()}
    (tmp_path / "h" / "splits.json").write_text(json.dumps(paths))
    with pytest.raises(ValueError, match="signal shapenet/1a is in two splits"):
        bring("hyperdiffusion", tmp_path / "h", tmp_path / "o")
    assert not (tmp_path / "o").exists()


# -- files that are not what they should be ------------------------------------------------------------------------


class Trap:
    """Unpickling this would make a folder."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_nothing_in_a_file_is_run(tmp_path):
    marker = tmp_path / "marker"
    config = config_of("nefgpt")
    good = state(config, rows(config, 1)[0], "layers.{i}.{kind}")
    save({"state_dict": good, "trap": Trap(marker)}, tmp_path / "a" / "nef_train_1.pth")
    with pytest.raises(ValueError, match=r"holds Python objects \(\w+\.mkdir\), not only tensors.*was not loaded"):
        bring("nefgpt", tmp_path / "a", tmp_path / "o")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "nef_train_1.pth").write_bytes(pickle.dumps(Trap(marker)))
    (tmp_path / "b" / "old.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="Python objects|truncated or corrupt"):
        bring("nefgpt", tmp_path / "b", tmp_path / "o")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # as torch.jit.save lays a program out
        for name in ("data.pkl", "constants.pkl", "version", "code/__torch__.py"):
            archive.writestr(f"script/{name}", b"3\n" if name == "version" else pickle.dumps(Trap(marker)))
    with pytest.raises(ValueError, match="script.pt: holds a TorchScript program, which was not loaded"):
        bring("generic", tmp_path / "script.pt", tmp_path / "o")
    np.savez(tmp_path / "b" / "shape.npz", **{"0000.dense.A": np.array([Trap(marker)], dtype=object)})
    with pytest.raises(ValueError, match="shape.npz: .*allow_pickle"):
        bring("niq", tmp_path / "b", tmp_path / "o")
    assert not marker.exists() and not (tmp_path / "o").exists()


def test_hdf5_links_to_other_files_are_not_followed(tmp_path):
    config = config_of("u2ni")
    WRITERS["u2ni"](tmp_path / "secret", config, rows(config, 1), [1], [0])
    (tmp_path / "u").mkdir()
    with h5py.File(tmp_path / "u" / "1_sf.h5", "w") as file:
        file["dense"] = h5py.ExternalLink(str(tmp_path / "secret" / "100001_sf.h5"), "/dense")
    with h5py.File(tmp_path / "u" / "2_sf.h5", "w") as file:
        file.create_dataset("dense/dense/kernel:0", (3, 6), "f4", external=str(tmp_path / "raw"))
    (tmp_path / "raw").write_bytes(bytes(72))
    with pytest.raises(ValueError, match="1_sf.h5: no key like .*2_sf.h5: .*is stored in another file"):
        bring("u2ni", tmp_path / "u", tmp_path / "o")


@pytest.mark.parametrize("names", [
    "layers.{i}.0.{kind}", "net.net.{i}.0.{kind}", "module.0.{i}.linear.{kind}", "block{i}.fc2.{kind}",
    ("net.0.linear.{kind}", "net.1.linear.{kind}", "net.2.{kind}"), ("a.0.0.{kind}", "a.0.1.{kind}", "a.1.0.{kind}"),
])  # fmt: skip
@pytest.mark.parametrize("under", [None, "net", "weights/ema"])
def test_lists_inside_lists_and_dicts_inside_dicts(names, under, tmp_path):
    """The layer is the number that differs between keys; the state dict lies under any one key."""
    config = config_of("generic", octaves=1)
    weights = rows(config, 1)[0]
    state_of = {}
    for i in range(3):
        one = state(config, weights, "{i}.{kind}")
        name = names if isinstance(names, str) else names[i]
        state_of |= {name.format(i=i, kind=kind): one[f"{i}.{kind}"] for kind in ("weight", "bias")}
    for key in reversed((under or "").split("/") if under else []):
        state_of = {"epoch": 3, key: state_of}
    (tmp_path / "n").mkdir()
    save(state_of, tmp_path / "n" / "a.pth")
    data = bring("generic", tmp_path / "n", tmp_path / "o", size=(9, 7), field=Conventions(octaves=1))
    assert torch.equal(data.weights("train")[0], weights)


def test_two_networks_in_a_file_are_not_guessed(tmp_path):
    one = state(config_of("generic"), rows(config_of("generic"), 1)[0], "layers.{i}.{kind}")
    (tmp_path / "n").mkdir()
    save({"old": one, "new": one}, tmp_path / "n" / "a.pth")
    with pytest.raises(ValueError, match="tensors under several keys .old, new."):
        bring("generic", tmp_path / "n", tmp_path / "o")


def quantised(good: dict) -> dict[str, dict]:
    """A state dict as others store it in 8 bits, and all files in which it comes."""
    rows, one, packed = {}, {}, {}
    for name, value in good.items():
        layer, _, kind = name.rpartition(".")
        scale = value.abs().flatten(1).amax(1) / 127 if kind == "weight" else value.abs().max()[None] / 100
        zero = 0 if kind == "weight" else 3
        shape = [-1] + [1] * (value.ndim - 1)
        whole = (value / scale.reshape(shape) + zero).round().to(torch.int8)
        rows |= {name: whole, f"{name}_scale": scale.reshape(shape)}
        rows |= {f"{name}_zero_point": torch.tensor(zero)} if zero else {}
        one[name] = value
        if kind == "weight":
            scale = value.abs().max() / 127
            one |= {name: (value / scale).round().to(torch.int16), f"{layer}.scale": scale}
            tensor = torch.quantize_per_tensor(value, float(scale), 0, torch.qint8)
            packed |= {f"{layer}.scale": torch.tensor(7.0), f"{layer}.zero_point": torch.tensor(0)}
            packed[f"{layer}._packed_params._packed_params"] = (tensor, good[f"{layer}.bias"])
            packed[f"{layer}._packed_params.dtype"] = torch.qint8
    return {"rows": rows, "one": one, "packed": packed}


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of its quantised tensors
def test_integers_are_read_by_the_scale_beside_them(tmp_path):
    config = config_of("generic")
    good = state(config, rows(config, 1)[0], "layers.{i}.{kind}")
    for how, content in quantised(good).items():
        save(content, tmp_path / f"{how}.pt")
        numbers = {k: v.contiguous() for k, v in content.items() if torch.is_tensor(v)}
        files = [tmp_path / f"{how}.pt"]
        if how != "packed":
            save_file(numbers, tmp_path / f"{how}.safetensors")
            np.savez(tmp_path / f"{how}.npz", **{k: v.numpy() for k, v in numbers.items()})
            files += [tmp_path / f"{how}.safetensors", tmp_path / f"{how}.npz"]
        for file in files:
            found = read(file).tensors
            assert set(found) == set(good), file
            for name, value in good.items():
                assert float((found[name] - value).abs().max()) <= 0.51 * float(value.abs().max()) / 100, (file, name)
    for name, content, said in (
        (
            "bare",
            {"layers.0.weight": torch.ones(4, 3, dtype=torch.int8)},
            "int8 without their scale .layers.0.weight_scale.",
        ),
        (
            "odd",
            {"a.weight": torch.ones(4, 3, dtype=torch.int8), "a.weight_scale": torch.ones(3)},
            "one for each of its 4 rows",
        ),
        (
            "bool",
            {"a.weight": torch.ones(4, 3, dtype=torch.bool)},
            "floating-point numbers, got bool; save it as float32",
        ),
    ):
        save(content, tmp_path / f"{name}.pt")
        with pytest.raises(ValueError, match=said):
            read(tmp_path / f"{name}.pt")


def test_weight_norm_counters_and_networks_without_bias(tmp_path):
    config = config_of("generic")
    good = state(config, rows(config, 1)[0], "layers.{i}.{kind}")
    normed, parted = dict(good), dict(good)
    for i in range(3):
        weight = good[f"layers.{i}.weight"]
        length, name = weight.norm(dim=1, keepdim=True), f"layers.{i}"
        del normed[f"{name}.weight"], parted[f"{name}.weight"]
        normed |= {f"{name}.weight_g": length, f"{name}.weight_v": 3 * weight}
        parts = (length[:, 0], weight / 2)
        parted |= {f"{name}.parametrizations.weight.original{k}": part for k, part in enumerate(parts)}
    for how in (normed, parted, good | {"step": torch.tensor(5)}):
        save(how, tmp_path / "a.pth")
        found = read(tmp_path / "a.pth").tensors
        assert set(found) == set(good) and all(torch.allclose(found[k], good[k], atol=1e-6) for k in good)
    save({k: v for k, v in good.items() if "weight" in k}, tmp_path / "n" / "a.pth")
    bring("generic", tmp_path / "n", tmp_path / "o")
    zeros = {k: v if "weight" in k else torch.zeros_like(v) for k, v in good.items()}
    expected = layout.join([(zeros[f"layers.{i}.weight"][None], zeros[f"layers.{i}.bias"][None]) for i in range(3)])
    assert torch.equal(WeightDataset.load(tmp_path / "o").weights("train"), expected)
    turned = {k: v.T.contiguous() if "weight" in k else v for k, v in good.items()}
    save(turned, tmp_path / "t" / "a.pth")
    with pytest.raises(ValueError, match=r"the matrices look transposed; save them as \(out, in\)"):
        bring("generic", tmp_path / "t", tmp_path / "p")


def test_bad_files_are_named_counted_and_left_out(tmp_path):
    config = config_of("nefgpt")
    weights = rows(config, 3)
    WRITERS["nefgpt"](tmp_path / "n", config, weights, [1, 2, 3], [0, 0, 0])
    good = state(config, weights[0], "layers.{i}.{kind}")
    whole = (tmp_path / "n" / "nef_train_1.pth").read_bytes()
    (tmp_path / "n" / "nef_train_10.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "n" / "nef_train_11.pth").write_bytes(b"")
    (tmp_path / "n" / "nef_train_12.pth").write_text("<html>not found</html>")
    save({k: v for k, v in good.items() if k != "layers.1.bias"}, tmp_path / "n" / "nef_train_13.pth")
    save({**good, "layers.1.weight": torch.ones(6, 5)}, tmp_path / "n" / "nef_train_14.pth")
    save({**good, "layers.0.weight": torch.ones(6, 18)}, tmp_path / "n" / "nef_train_15.pth")
    save({**good, "layers.0.bias": torch.full((6,), torch.nan)}, tmp_path / "n" / "nef_train_16.pth")
    save({**good, "gamma": torch.ones(2)}, tmp_path / "n" / "nef_train_17.pth")
    save({**good, "layers.0.bias": torch.ones(6, dtype=torch.int64)}, tmp_path / "n" / "nef_train_18.pth")
    save([1, 2], tmp_path / "n" / "nef_train_19.pth")
    leaky = {"state_dict": good, "model_config": {"use_leaky_relu": True, "multires": 4}}
    save(leaky, tmp_path / "n" / "nef_train_20.pth")
    save({**good, "layers.0.bias": torch.full((6,), 1e20)}, tmp_path / "n" / "nef_train_21.pth")
    save({**good, "layers.0.bias": torch.ones(6).to_sparse()}, tmp_path / "n" / "nef_train_22.pth")
    with pytest.raises(RuntimeError, match="13 of 16 files .or rows. are not in the dataset: .*nef_train_10.pth"):
        main(ImportConfig("nefgpt", tmp_path / "n", tmp_path / "o"))
    data = WeightDataset.load(tmp_path / "o")
    assert torch.equal(data.weights("train"), weights)
    said = dict(read_json(tmp_path / "o" / "import.json")["skipped"])
    expected = {
        10: "truncated or corrupt", 11: "empty file", 12: "truncated or corrupt", 13: "layers.1.weight has no matching bias",
        14: "do not fit together", 15: "expected widths (16, 6, 6, 1)", 16: "not finite", 17: "unexpected key gamma",
        18: "floating-point", 19: "expected a state dict, got a list", 20: "its use_leaky_relu is True",
        21: "above 1e+06", 22: "stored sparsely",
    }  # fmt: skip
    for number, text in expected.items():
        assert text in said[f"nef_train_{number}.pth"], said
    with pytest.raises(RuntimeError, match="13 of 16"):  # the second time, too
        main(ImportConfig("nefgpt", tmp_path / "n", tmp_path / "o"))


def test_paths_may_say_anything(tmp_path):
    """Numbers too large for a column, labels that are none, names that are not UTF-8, links that lead elsewhere."""
    config = config_of("dwsnets")
    WRITERS["dwsnets"](tmp_path / "far", config, rows(config, 1), [5], [3])
    far, near = tmp_path / "far" / "mnist_png_training_3_5", tmp_path / "d" / "mnist_png_training_3_5"
    (tmp_path / "d" / "mnist_png_training_4_6").mkdir(parents=True)
    kept = {"_3_8": 0, f"_3_{10**30}": 0}
    wrong = {
        f"_3_7-{10**30}": "its seed is 1000",
        "_-7_9": "its label is -7, expected -1 .. 9",
        "_77_9": "its label is 77",
    }
    for name in (*kept, *wrong):
        target = tmp_path / "d" / f"mnist_png_training{name}" / "checkpoints" / "model_final.pth"
        save(state(config, rows(config, 1)[0], "seq.{i}.{kind}"), target)
    near.mkdir()
    os.symlink(far / "checkpoints", near / "checkpoints")
    os.symlink(far / "checkpoints" / "model_final.pth", tmp_path / "d" / "link.pth")
    os.symlink(tmp_path / "nothing", tmp_path / "d" / "broken.pth")
    with open(os.fsencode(tmp_path / "d") + b"/\xff.pth", "wb") as file:
        file.write(b"x")
    with pytest.raises(RuntimeError, match=r"7 of 9 files"):
        main(ImportConfig("dwsnets", tmp_path / "d", tmp_path / "o"))
    assert WeightDataset.load(tmp_path / "o").ids("train") == ["mnist/train/8", f"mnist/train/{10**30}"]
    said = dict(read_json(tmp_path / "o" / "import.json")["skipped"])
    for name, text in wrong.items():
        assert text in said[f"mnist_png_training{name}/checkpoints/model_final.pth"]
    assert said["mnist_png_training_3_5/checkpoints"] == "a link to a folder: not followed"
    assert said["link.pth"].startswith("a link that leads outside the folder") and said["broken.pth"] == "a broken link"
    assert "its name is not UTF-8" in said.values()


@pytest.mark.parametrize("omega", ["fast", float("nan"), [30.0], True])
def test_a_network_description_of_nonsense_is_named(omega, tmp_path):
    config = config_of("arena")
    WRITERS["arena"](tmp_path / "a", config, rows(config, 2), [0, 1], [0, 1], known=False)
    (tmp_path / "a" / "nef.json").write_text(json.dumps({"name": "SIREN", "params": {"omega_0": omega}}))
    with pytest.raises(ValueError, match="nefs_0-2.hdf5: --field.w0 cannot be"):
        bring("arena", tmp_path / "a", tmp_path / "o")
    (tmp_path / "f.json").write_text(json.dumps({"activation": "evil", "in_dim": "2"}))
    with pytest.raises(ValueError, match="--field.in-dim cannot be '2'"):
        bring("arena", tmp_path / "a", tmp_path / "o", field_file=tmp_path / "f.json")


def test_rows_that_are_not_finite_leave_a_stack(tmp_path):
    config = config_of("arena")
    weights = rows(config, 3)
    weights[1, 4] = torch.inf
    WRITERS["arena"](tmp_path / "a", config, weights, [0, 1, 2], [0, 1, 2])
    report = import_fields(ImportConfig("arena", tmp_path / "a", tmp_path / "o"))
    assert report["skipped"] == [("nefs_0-3.hdf5 row 1", "has weights that are not finite, or above 1e+06")]
    data = WeightDataset.load(tmp_path / "o")
    assert data.ids("train") == ["mnist/train/0", "mnist/train/2"] and data.labels("train").tolist() == [0, 2]


def test_other_networks_are_refused_by_name(tmp_path):
    config = config_of("niq")
    WRITERS["niq"](tmp_path, config, rows(config, 1), [1], [0])
    with np.load(tmp_path / "shape1.npz") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "shape1.npz", **arrays, **{"0006.pow2_frequency_encode.coefs": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match="pow2_frequency_encode.coefs belongs to an operation that no field here has"):
        bring("niq", tmp_path, tmp_path / "o")


def test_wrong_places_are_one_sentence(tmp_path, digits):
    with pytest.raises(FileNotFoundError, match="nowhere not found. Give a file or folder of nfn fields"):
        bring("nfn", tmp_path / "nowhere", tmp_path / "o")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no file ending in .h5, as u2ni fields do"):
        bring("u2ni", tmp_path / "empty", tmp_path / "o")
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="files ending in .npz, got a.txt"):
        bring("niq", tmp_path / "a.txt", tmp_path / "o")
    with pytest.raises(ValueError, match="--data-root is the folder of the pictures"):
        ImportConfig("nfn", tmp_path, tmp_path / "o", data_root=tmp_path)
    config = config_of("nefgpt")
    WRITERS["nefgpt"](tmp_path / "n", config, rows(config, 1), [58828], [0])
    with pytest.raises(
        ValueError, match=r"none of the fields' signals .digits/58828, \.\.\.. is among the 1,797 signals of digits"
    ):
        bring("nefgpt", tmp_path / "n", tmp_path / "o", signals="digits")
    config = config_of("u2ni")
    WRITERS["u2ni"](tmp_path / "u", config, rows(config, 1), [1], [0])
    with pytest.raises(ValueError, match="no picture shows what fields 3 -> "):
        bring("u2ni", tmp_path / "u", tmp_path / "o", signals="digits")
    with pytest.raises(ValueError, match="expected widths .* it would fit --field.in-dim 3 --field.octaves 0"):
        save(state(config, rows(config, 1)[0], "l.{i}.{kind}"), tmp_path / "g" / "1.pth")
        bring("generic", tmp_path / "g", tmp_path / "o")
    with pytest.raises(ValueError, match=r"expected widths \(3, 9, 1\)"):
        bring("generic", tmp_path / "g", tmp_path / "o", field=Conventions(hidden=(9,), octaves=0, in_dim=3))
    assert not (tmp_path / "o").exists()
