"""The typed rows, and columns of the older format."""

import pyarrow as pa
import pytest
import torch
from edited import unmarked
from made import rows

from fields.storage.columns import current, extents, stored_names
from fields.storage.dataset import WeightDataset
from fields.storage.rows import Rows


def test_rows_fill_in_pick_and_join(tiny):
    whole = Rows(rows(tiny, 5), [f"a/{i}" for i in range(5)], [0, 1, 0, 1, 0], extent=[[4, 5]] * 5)
    assert whole.quality.isnan().all() and whole.seeds.tolist() == [0] * 5
    part = whole.pick([3, 1])
    assert part.ids == ["a/3", "a/1"] and torch.equal(part.weights, whole.weights[[3, 1]])
    assert whole.pick(torch.tensor([True, False, True, False, False])).ids == ["a/0", "a/2"]
    assert whole.pick(slice(3, None)).ids == ["a/3", "a/4"] and len(whole.pick([])) == 0
    both = Rows.concatenate([whole.pick([0]), part])
    assert both.ids == ["a/0", "a/3", "a/1"] and both.labels.tolist() == [0, 1, 1] and both.extent.shape == (3, 2)
    other = whole.with_weights(torch.zeros_like(whole.weights))
    assert other.ids == whole.ids and not other.weights.any() and "5 fields of 49" in repr(whole)
    with pytest.raises(ValueError, match="labels has 2 entries for 5 rows"):
        Rows(whole.weights, labels=[0, 1])
    with pytest.raises(ValueError, match="no 'colour'"):
        Rows.of({"weights": whole.weights, "colour": None})


def test_a_split_comes_back_as_rows(dataset):
    found = dataset.rows("train")
    assert torch.equal(found.weights, dataset.weights("train")) and found.ids == dataset.ids("train")
    again = WeightDataset.from_rows(
        dataset.config, {s: dataset.rows(s) for s in dataset.splits}, dataset.reference, dataset.signals
    )
    assert again.fingerprint == dataset.fingerprint and torch.equal(again.quality("test"), dataset.quality("test"))
    assert dataset.rows("train", [7, 2]).ids == [dataset.ids("train")[7], dataset.ids("train")[2]]


def test_columns_of_the_older_format_are_read(dataset, tmp_path):
    import json

    import pyarrow.parquet as pq

    dataset.save(tmp_path / "new")
    for file in (tmp_path / "new" / "data").glob("*.parquet"):
        table = pq.read_table(file)
        sides = extents(table["extent"])
        table = table.drop_columns(["extent"]).rename_columns(
            ["psnr" if n == "quality" else n for n in table.column_names if n != "extent"]
        )
        for i, name in enumerate(("height", "width")):
            table = table.append_column(name, pa.array(sides[:, i].numpy(), pa.int32()))
        pq.write_table(table.replace_schema_metadata(None), file)
    card = unmarked(tmp_path / "new" / "field.json", ("checksum", "files"))
    (tmp_path / "new" / "field.json").write_text(json.dumps(card | {"format": "neural-fields-as-data/weights/1"}))
    for stream in (False, True):
        old = WeightDataset.load(tmp_path / "new", stream=stream)
        for split in dataset.splits:
            assert torch.equal(old.quality(split), dataset.quality(split))
            assert torch.equal(old.extent(split), dataset.extent(split))
    whole = WeightDataset.load(tmp_path / "new")
    whole._fingerprint = None
    assert whole.fingerprint == dataset.fingerprint
    (tmp_path / "new" / "field.json").write_text(json.dumps(card | {"format": "neural-fields-as-data/weights/9"}))
    with pytest.raises(ValueError, match="weights/9"):
        WeightDataset.load(tmp_path / "new")


def test_extents_of_several_lengths_are_filled_up():
    column = pa.array([[4, 5], [7], []], pa.list_(pa.int32()))
    assert extents(column).tolist() == [[4, 5], [7, 0], [0, 0]]
    assert extents(pa.chunked_array([], pa.list_(pa.int32()))).shape == (0, 2)
    assert stored_names(["weights", "quality", "extent"], ["weights", "psnr", "height", "width"]) == [
        "weights", "psnr", "height", "width",
    ]  # fmt: skip
    assert current(pa.table({"a": [1]})).column_names == ["a"]
