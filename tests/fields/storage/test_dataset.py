"""Weight datasets: what is stored comes back, and nothing else gets in."""

import json

import pytest
import torch
from edited import edit, unmarked
from made import rows

from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference


def test_rows_survive_bit_for_bit(dataset, tmp_path):
    odd = dataset.weights("train")
    odd[0, :4] = torch.tensor([1e-40, -0.0, 9e5, 1 / 3])  # denormal, signed zero, near the largest that pass
    data = WeightDataset.from_rows(dataset.config, {"train": {"weights": odd}}, dataset.reference)
    data.save(tmp_path / "d")
    back = WeightDataset.load(tmp_path / "d")
    assert torch.equal(back.weights("train").view(torch.int32), odd.view(torch.int32))
    assert torch.equal(back.reference.row, dataset.reference.row)


def test_save_load_keeps_everything(dataset, tmp_path):
    dataset.save(tmp_path / "d")
    back = WeightDataset.load(tmp_path / "d")
    assert back.fingerprint == dataset.fingerprint and back.config == dataset.config
    for split in ("train", "validation", "test"):
        assert back.ids(split) == dataset.ids(split)
        assert torch.equal(back.labels(split), dataset.labels(split))
        assert torch.equal(back.weights(split), dataset.weights(split))
    assert torch.equal(back.weights("train", [3, 1]), dataset.weights("train")[[3, 1]])
    assert torch.equal(torch.cat(list(back.batches("train", 7))), dataset.weights("train"))
    assert back.render("test").shape == (10, 4, 5, 1)


def test_readable_without_this_code(dataset, tmp_path):
    import datasets

    dataset.save(tmp_path / "d")
    plain = datasets.load_dataset(str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in plain.items()} == {"train": 40, "validation": 10, "test": 10}
    assert plain["train"].features["label"].names == ["even", "odd"]
    assert len(plain["train"][0]["weights"]) == dataset.config.size
    card = json.loads((tmp_path / "d" / "field.json").read_text())
    assert card["layers"][0] == ["layers.0.weight", [6, 6]] and card["field"]["activation"] == "relu"


def test_types_do_not_depend_on_the_rows(tiny, tmp_path):
    for name, n in (("one", 1), ("none", 0)):
        data = WeightDataset.from_rows(tiny, {"train": {"weights": rows(tiny, n)}, "test": {"weights": rows(tiny, 2)}})
        data.save(tmp_path / name)
        assert str(WeightDataset.load(tmp_path / name).splits["test"].features["quality"].dtype) == "float32"
    with pytest.raises(ValueError, match="no rows to save"):
        WeightDataset.from_rows(tiny, {"train": {"weights": rows(tiny, 0)}}).save(tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_mixed_architectures_are_refused(dataset, tmp_path):
    other = FieldConfig(hidden=(8,), octaves=1)
    more = WeightDataset.from_rows(other, {"train": {"weights": rows(other, 3)}}, signals=dataset.signals)
    with pytest.raises(ValueError, match="dataset 1 .*cannot be combined"):
        dataset.concatenate(more)
    dataset.save(tmp_path / "d")
    more.save(tmp_path / "m")
    shard = "train-00000-of-00001.parquet"
    (tmp_path / "d" / "data" / shard).write_bytes((tmp_path / "m" / "data" / shard).read_bytes())
    with pytest.raises(ValueError, match="row 0 has 65 weights"):
        WeightDataset.load(tmp_path / "d")


def test_concatenate_joins_split_by_split(dataset):
    more = WeightDataset.from_rows(
        dataset.config,
        {"train": {"weights": rows(dataset.config, 5), "labels": torch.ones(5)}},
        signals=dataset.signals,
    )
    both = dataset.concatenate(more)
    assert len(both.weights("train")) == 45 and len(both.weights("test")) == 10
    assert both.reference.start == "unknown"


def test_no_signal_in_two_splits(tiny):
    two = {"weights": rows(tiny, 2), "signal_id": ["made/1", "made/2"]}
    with pytest.raises(ValueError, match="made/1 is in two splits"):
        WeightDataset.from_rows(tiny, {"train": two, "test": {"weights": rows(tiny, 1), "signal_id": ["made/1"]}})


def test_bad_rows_and_folders_are_refused(tiny, tmp_path):
    bad = rows(tiny, 3)
    bad[1, 0] = float("nan")
    with pytest.raises(ValueError, match="split train: row 1 is not finite"):
        WeightDataset.from_rows(tiny, {"train": {"weights": bad}})
    with pytest.raises(FileNotFoundError, match="scripts/fit_fields.py"):
        WeightDataset.load(tmp_path)
    WeightDataset.from_rows(tiny, {"train": {"weights": rows(tiny, 3)}}).save(tmp_path / "d")
    shard = tmp_path / "d" / "data" / "train-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable Parquet"):
        WeightDataset.load(tmp_path / "d")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="no Parquet"):
        WeightDataset.load(tmp_path / "d")


def test_reference_survives_json(dataset):
    values = json.loads(json.dumps(dataset.reference.to_dict()))
    assert torch.equal(Reference.from_dict(values).row, dataset.reference.row)


@pytest.mark.parametrize("key", ["field", "reference", "signals"])
def test_a_card_that_lacks_something_is_named(key, dataset, tmp_path):
    dataset.save(tmp_path)
    card = unmarked(tmp_path / "field.json", ("checksum",))
    for wrong in ({k: v for k, v in card.items() if k != key}, {**card, key: None}, [card]):
        (tmp_path / "field.json").write_text(json.dumps(wrong))
        with pytest.raises(
            ValueError, match=f"field.json: (`{key}` is (missing|None)|it holds .* expected an object).*made with"
        ):
            WeightDataset.load(tmp_path)


@pytest.mark.parametrize("stream", [False, True])
def test_a_lost_split_is_noticed(stream, dataset, tmp_path):
    dataset.save(tmp_path / "d")
    for file in (tmp_path / "d" / "data").glob("test-*"):
        file.unlink()
    with pytest.raises(ValueError, match="has 0 rows of split test, its field.json says 10. Download or make it again"):
        WeightDataset.load(tmp_path / "d", stream=stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "row, message",
    [
        ([0.5, 1.0], r"the reference row has shape \(2,\), expected"),
        ([[1.0], [1.0, 2.0]], "`reference` in field.json cannot be read"),
        ("abc", "`reference` in field.json cannot be read"),
    ],
)
def test_a_reference_that_is_no_field_is_refused(row, message, stream, dataset, tmp_path):
    dataset.save(tmp_path / "d")
    edit(tmp_path / "d" / "field.json", lambda card: card["reference"].update(row=row))
    with pytest.raises(ValueError, match=message):
        WeightDataset.load(tmp_path / "d", stream=stream)
