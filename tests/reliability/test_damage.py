"""Damaged and hostile files: refused in one sentence, or what is read is equal. Never another result."""

import shutil

import numpy as np
import pytest
import torch
from edited import edit
from toy import make_corpus

from fields.storage.dataset import WeightDataset
from tokenizers.registry import load_tokenizer
from tokenizers.tokens import TokenDataset

REFUSED = (ValueError, FileNotFoundError, RuntimeError, OSError)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def rows_of(folder):
    data = WeightDataset.load(folder)
    return [(s, data.weights(s).numpy().tobytes(), data.ids(s), data.labels(s).tolist()) for s in data.splits]


def tokens_of(folder):
    data = TokenDataset.load(folder)
    return [(s, torch.cat(list(data.batches(s, 4096))).tolist(), data.signal_ids(s)) for s in data.splits]


def damage(path, random) -> str:
    """Cut, flip a bit, overwrite a stretch, or empty; what was done."""
    data = bytearray(path.read_bytes())
    kind = ["cut", "flip", "stretch", "empty"][random.integers(4)] if random.random() > 0.6 else "flip"
    at = int(random.integers(len(data)))
    if kind == "flip":
        data[at] ^= 1 << int(random.integers(8))
    elif kind == "stretch":
        data[at : at + 16] = random.bytes(len(data[at : at + 16]))
    else:
        data = data[: at if kind == "cut" else 0]
    path.write_bytes(data)
    return kind


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("what", ["fields", "tokens"])
def test_damaged_tables_are_refused_or_equal(corpus, tmp_path, what, seed):
    folder, read = {"fields": (corpus / "fields", rows_of), "tokens": (corpus / "tokenizer" / "tokens", tokens_of)}[
        what
    ]
    wanted, random, refused = read(folder), np.random.default_rng(seed), 0
    for i in range(40):
        copy = tmp_path / str(i)
        shutil.copytree(folder, copy)
        files = sorted(copy.rglob("*.parquet"))
        kind = damage(files[random.integers(len(files))], random)
        try:
            found = read(copy)
        except REFUSED as error:
            refused += 1
            assert str(error) and len(str(error)) < 2000
        else:
            assert found == wanted, (seed, i, kind)
        shutil.rmtree(copy)
    assert refused > 20


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/b", "..", ""])
def test_names_of_splits_lead_nowhere(corpus, tmp_path, name):
    shutil.copytree(corpus / "tokenizer" / "tokens", tmp_path / "t")
    edit(tmp_path / "t" / "tokens.json", lambda card: {**card, "rows": {name: 1}})
    with pytest.raises(ValueError, match="the name of a split is"):
        TokenDataset.load(tmp_path / "t")
    data = WeightDataset.load(corpus / "fields")
    with pytest.raises(ValueError, match="the name of a split is"):
        WeightDataset.from_rows(data.config, {name: {"weights": data.weights("train")}})


SHAPES = ["null", "[]", "3", '"x"', "{}", "{", "", "[" * 100_000, '{"format": 3}', '{"rows": []}']


@pytest.mark.parametrize("text", SHAPES)
@pytest.mark.parametrize("file", ["fields/field.json", "tokenizer/config.json", "tokenizer/tokens/tokens.json"])
def test_json_of_another_shape_is_refused(corpus, tmp_path, file, text):
    shutil.copytree(corpus, tmp_path / "c")
    (tmp_path / "c" / file).write_text(text)
    read = {"field.json": rows_of, "config.json": load_tokenizer, "tokens.json": tokens_of}[file.split("/")[-1]]
    with pytest.raises((ValueError, FileNotFoundError)):
        read((tmp_path / "c" / file).parent)
