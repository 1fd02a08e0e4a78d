"""Rows are checked at the door: what is missing, not finite or beyond a field's weights is refused by file, split and row."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from edited import MARKS, edit
from toy import make_corpus

from fields.storage.dataset import WeightDataset


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def spoil(folder, column, row, value):
    """One cell of the training split becomes another."""
    file = next((folder / "data").glob("train-*"))
    table = pq.read_table(file)
    cells = table[column].to_pylist()
    cells[row] = value(cells[row])
    at = table.column_names.index(column)
    pq.write_table(
        table.set_column(at, table.schema.field(column), pa.array(cells, table.schema.field(column).type)), file
    )
    edit(folder / "field.json", lambda card: None, MARKS)


BAD = {
    "nan": ("weights", lambda w: [float("nan"), *w[1:]], "is not finite"),
    "infinite": ("weights", lambda w: [*w[:-1], float("inf")], "is not finite"),
    "huge": ("weights", lambda w: [1e38, *w[1:]], "holds a weight of 1e.38"),
    "null row": ("weights", lambda w: None, "has no weights|has 0 weights|has nan weights|weights"),
    "null id": ("signal_id", lambda w: None, "has no signal_id"),
    "null label": ("label", lambda w: None, "has no label"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", BAD)
def test_bad_rows_are_refused_by_file_split_and_row(corpus, tmp_path, kind, stream):
    import shutil

    column, value, said = BAD[kind]
    shutil.copytree(corpus / "fields", tmp_path / "f")
    spoil(tmp_path / "f", column, 2, value)
    with pytest.raises(ValueError, match=rf"train-00000.*row 2.*({said})"):
        data = WeightDataset.load(tmp_path / "f", stream=stream)
        data.rows("train")


def test_good_rows_and_unknown_quality_pass(corpus, tmp_path):
    import shutil

    shutil.copytree(corpus / "fields", tmp_path / "f")
    spoil(tmp_path / "f", "quality", 2, lambda _: None)
    for stream in (False, True):
        data = WeightDataset.load(tmp_path / "f", stream=stream)
        assert bool(data.quality("train").isnan()[2]) and bool(data.weights("train").isfinite().all())


def test_diverged_rows_are_not_made_into_a_dataset(corpus):
    data = WeightDataset.load(corpus / "fields")
    for bad in (float("nan"), 1e30):
        weights = data.weights("train").clone()
        weights[3, 0] = bad
        with pytest.raises(ValueError, match="split train: row 3"):
            WeightDataset.from_rows(data.config, {"train": {"weights": torch.as_tensor(weights)}})
