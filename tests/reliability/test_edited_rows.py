"""Datasets whose Parquet files were rewritten by hand: what no reader could use is refused by file and row."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from edited import edit

from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from fields.storage.rows import Rows

CONFIG = FieldConfig(hidden=(3,), octaves=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    generator = np.random.default_rng(0)
    rows = Rows(
        generator.normal(size=(6, CONFIG.size)).astype(np.float32), [f"p/{i}" for i in range(6)], np.arange(6) % 2,
        np.arange(6), np.linspace(20, 30, 6), np.full((6, 2), 8),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("edited") / "f"
    WeightDataset.from_rows(CONFIG, {"train": rows}, signals={"name": "p", "label_names": ["a", "b"]}).save(path)
    return path


def rewritten(folder, out, change, recorded=True):
    """A copy with one column put in place of another; without fingerprints unless `recorded`."""
    shutil.copytree(folder, out)
    file = out / "data" / "train-00000-of-00001.parquet"
    table = pq.read_table(file)
    for name, values in change.items():
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table, file)
    card = json.loads((out / "field.json").read_text())
    for key in () if recorded else ("fingerprint", "files", "checksum"):
        card.pop(key, None)
    (out / "field.json").write_text(json.dumps(card))
    return out


@pytest.mark.parametrize(
    "change",
    [
        {"quality": pa.array(np.linspace(30, 20, 6), pa.float32())},
        {"seed": pa.array([7] * 6, pa.int64())},
        {"extent": pa.array([[4, 16]] * 6, pa.list_(pa.int32()))},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_other_values_than_recorded(folder, tmp_path, change, stream):
    with pytest.raises(ValueError, match="damaged or was replaced.*(WeightDataset.save|Download or make it again)"):
        WeightDataset.load(rewritten(folder, tmp_path / "c", change), stream=stream)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"label": pa.array([0, 1, 99, 0, 1, 0])}, "row 2 has the label 99, and field.json names 2 classes"),
        ({"label": pa.array([0, -2, 0, 0, 1, 0])}, "row 1 has the label -2"),
        ({"extent": pa.array([[8, 8]] * 5 + [[-8, 8]], pa.list_(pa.int32()))}, r"row 5 has the extent \[-8, 8\]"),
        ({"extent": pa.array([[1 << 30] * 2] * 6, pa.list_(pa.int32()))}, "row 0 has the extent .* height and width"),
        ({"extent": pa.array([[8] * 3] * 6, pa.list_(pa.int32()))}, r"row 0 has the extent \[8, 8, 8\]"),
        ({"extent": pa.array([[]] * 6, pa.list_(pa.int32()))}, r"row 0 has the extent \[\]"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_values_that_no_signal_has(folder, tmp_path, change, said, stream):
    path = rewritten(folder, tmp_path / "c", change, recorded=False)
    with pytest.raises(ValueError, match=said):
        WeightDataset.load(path, stream=stream).rows("train")


def test_a_field_that_stands_twice(folder, tmp_path):
    table = pq.read_table(folder / "data" / "train-00000-of-00001.parquet")
    for name, row, said in (
        ("seed", 3, None),
        ("weights", 3, None),
        ("", 3, "rows 3 and 6 are one field, of signal p/3"),
    ):
        path = rewritten(folder, tmp_path / f"c{name}", {}, recorded=False)
        more = table.slice(row, 1)
        for column in [name] if name else []:  # another fit of the same signal
            other = table.slice(row + 1, 1)[column].combine_chunks()
            more = more.set_column(more.column_names.index(column), column, other)
        pq.write_table(pa.concat_tables([table, more]), path / "data" / "train-00000-of-00001.parquet")
        edit(path / "field.json", lambda card: card.pop("rows") and card)
        if said is None:
            assert len(WeightDataset.load(path).splits["train"]) == 7
            continue
        with pytest.raises(ValueError, match=f"split train: {said} .* 1 rows repeat others. Keep one row"):
            WeightDataset.load(path)


@pytest.mark.parametrize("stream", [False, True])
def test_shards_as_others_name_them(folder, tmp_path, stream):
    path = rewritten(folder, tmp_path / "c", {}, recorded=False)
    file = path / "data" / "train-00000-of-00001.parquet"
    named = file.rename(file.with_name("train-00000-of-00001-0123456789abcdef.parquet"))
    assert WeightDataset.load(path, stream=stream).ids("train") == WeightDataset.load(folder).ids("train")
    named.rename(named.with_name("train-0-of-x.parquet"))
    with pytest.raises(ValueError, match="is no name of a shard; expected SPLIT-00000-of-00001.parquet"):
        WeightDataset.load(path, stream=stream)


@pytest.mark.parametrize("change", [{"weights": pa.array(["[1, 2]"] * 6)}, {"quality": pa.array(["good"] * 6)}])
def test_other_types_name_the_file(folder, tmp_path, change):
    path = rewritten(folder, tmp_path / "c", change, recorded=False)
    with pytest.raises(ValueError, match="train-00000-of-00001.parquet: its columns cannot be read as"):
        WeightDataset.load(path)


def test_the_same_values_in_wider_types(folder, tmp_path):
    table = pq.read_table(folder / "data" / "train-00000-of-00001.parquet")
    wide = pa.array(table["weights"].to_pylist(), pa.list_(pa.float64()))
    path = rewritten(folder, tmp_path / "c", {"weights": wide}, recorded=False)
    assert (WeightDataset.load(path).weights("train") == WeightDataset.load(folder).weights("train")).all()
    with pytest.raises(ValueError, match="Open it without --stream"):
        WeightDataset.load(path, stream=True).rows("train")
