"""Datasets that are read shard by shard give what those in memory give."""

import numpy as np
import pytest
import torch
from edited import edit
from loopback_env import HUB
from made import rows
from toy import config, make_corpus

from fields.runtime.runs import read_json
from fields.storage import dataset as module
from fields.storage.dataset import WeightDataset
from gpt.corpus import load_corpus
from gpt.data import Sequences, unigram_bits
from gpt.train_gpt import train
from tokenizers import tokens as token_files
from tokenizers.build import build
from tokenizers.classic.options import KMeansConfig
from tokenizers.options import ReportConfig
from tokenizers.registry import BuildConfig
from tokenizers.tokens import TokenDataset


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """Small shards and row groups, an empty hub."""
    HUB.reset()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "ROWS_PER_SHARD", 12)
    monkeypatch.setattr(module, "ROW_GROUP", 4 * 49 * 5)
    monkeypatch.setattr("fields.hub.shards.ROWS_PER_SHARD", 12)
    monkeypatch.setattr("fields.hub.shards.ROW_GROUP", 4 * 49 * 5)


@pytest.fixture(params=["folder", "hub"])
def source(request, dataset, tmp_path) -> str:
    """The dataset of conftest, here or on the Hub."""
    if request.param == "folder":
        dataset.save(tmp_path / "d")
        return str(tmp_path / "d")
    dataset.push_to_hub("tester/d")
    return "tester/d"


def test_streamed_rows_are_the_rows(source, dataset):
    data = WeightDataset.load(source, stream=True)
    assert list(data.splits) == list(dataset.splits) and data.fingerprint == dataset.fingerprint
    for split in dataset.splits:
        assert torch.equal(data.weights(split), dataset.weights(split))
        assert data.ids(split) == dataset.ids(split) and torch.equal(data.labels(split), dataset.labels(split))
        assert torch.equal(data.quality(split), dataset.quality(split))
    chosen = [39, 0, 13, 13, 5, 38]
    assert torch.equal(data.weights("train", chosen), dataset.weights("train", chosen))
    assert data.weights("train", []).shape == (0, dataset.config.size)
    assert torch.equal(torch.cat(list(data.batches("train", 7))), dataset.weights("train"))
    assert torch.equal(data.render("test", [1, 9]), dataset.render("test", [1, 9]))
    data.check()


def test_a_tokenizer_of_streamed_fields_is_the_same(source, dataset, tmp_path):
    asked = BuildConfig(KMeansConfig(vocab_size=8), ReportConfig(sizes=()), source, tmp_path / "a", 1)
    first = build(asked)
    HUB.log.clear()
    second = build(BuildConfig(asked.tokenizer, asked.report, source, tmp_path / "b", 1, stream=True))
    assert first.fingerprint == second.fingerprint
    assert TokenDataset.load(tmp_path / "a").fingerprint == TokenDataset.load(tmp_path / "b").fingerprint
    ours, theirs = read_json(tmp_path / "a" / "report.json"), read_json(tmp_path / "b" / "report.json")
    assert ours == theirs
    if source == "tester/d":
        parquet = [method for method, path, _, _ in HUB.log if ".parquet" in path and method == "GET"]
        assert parquet  # read by ranges, from the Hub


def test_training_on_mapped_tokens_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "ROWS_PER_SHARD", 12)
    root = make_corpus(tmp_path)
    kept, mapped = load_corpus(root / "fields", root / "tokenizer", labels=True), None
    for _ in range(2):  # the files are made, then found
        mapped = load_corpus(root / "fields", root / "tokenizer", labels=True, mapped=tmp_path / "m")
    assert isinstance(mapped.train.ids.array, np.memmap) and mapped.parents == kept.parents
    picked = torch.tensor([5, -1, 39])
    assert all(torch.equal(a, b) for a, b in zip(kept.train.batch(picked), mapped.train.batch(picked), strict=True))
    other = kept.held_out.ids
    assert unigram_bits(mapped.train.ids, other, 8) == unigram_bits(kept.train.ids, other, 8)
    results = [train(config(root, out, labels=True, stream=s)) for out, s in (("one", False), ("two", True))]
    assert results[0] == results[1]


def test_mapped_files_of_other_tokens_are_made_anew(tmp_path):
    root = make_corpus(tmp_path)
    load_corpus(root / "fields", root / "tokenizer", mapped=tmp_path / "m")
    before = (tmp_path / "m" / "train.ids").read_bytes()
    edit(tmp_path / "m" / "train.json", lambda card: {**card, "tokens": "0" * 16})
    (tmp_path / "m" / "train.ids").write_bytes(b"\0" * len(before))
    assert isinstance(load_corpus(root / "fields", root / "tokenizer", mapped=tmp_path / "m").train, Sequences)
    assert (tmp_path / "m" / "train.ids").read_bytes() == before


def test_damaged_and_missing_shards_are_named(dataset, tiny, tmp_path):
    dataset.save(tmp_path / "d")
    file = tmp_path / "d" / "data" / "train-00001-of-00004.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    with pytest.raises(ValueError, match="train-00001-of-00004.parquet is not a readable Parquet file"):
        WeightDataset.load(tmp_path / "d", stream=True)
    file.unlink()
    with pytest.raises(ValueError, match="has 3 of 4 shards of split train"):
        WeightDataset.load(tmp_path / "d", stream=True)
    wide = WeightDataset.from_rows(tiny, {"train": {"weights": rows(tiny, 3)}})
    wide.save(tmp_path / "w")
    (tmp_path / "w" / "data" / "train-00000-of-00001.parquet").write_bytes(whole)
    with pytest.raises(FileNotFoundError, match="holds no Parquet files"):
        (tmp_path / "w" / "data" / "train-00000-of-00001.parquet").unlink()
        WeightDataset.load(tmp_path / "w", stream=True)
