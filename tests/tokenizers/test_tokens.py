"""Token folders: types, round trips, fingerprints, and readers that do not know us."""

import pytest
import torch

from tokenizers import tokens as module
from tokenizers.classic.kmeans import KMeansTokenizer
from tokenizers.classic.options import KMeansConfig
from tokenizers.decode import decode_dataset
from tokenizers.encode import encode_dataset
from tokenizers.tokens import TokenDataset


@pytest.fixture
def tokenizer(dataset) -> KMeansTokenizer:
    config = KMeansConfig(vocab_size=16, field=dataset.config.to_dict())
    return KMeansTokenizer(config).fit(dataset.batches("train"))


def test_round_trip(dataset, tokenizer, tmp_path):
    fingerprint = encode_dataset(tokenizer, dataset, tmp_path / "tokens", progress=False)
    tokens = TokenDataset.load(tmp_path)  # the tokenizer's folder will do
    assert tokens.fingerprint == fingerprint and tokens.splits == ["train", "validation", "test"]
    assert tokens.codes == 16 and torch.equal(tokens.slots, tokenizer.slots) and tokens.vocab.labels == 2
    assert tokens.slot_sizes == tokenizer.slot_sizes and tokens.tokens_per_field == dataset.config.size
    assert tokens.tokenizer_fingerprint == tokenizer.fingerprint and tokens.dataset_fingerprint == dataset.fingerprint
    for split in tokens.splits:
        assert torch.equal(tokens.ids(split), tokenizer.encode(dataset.weights(split)))
        assert torch.equal(tokens.labels(split), dataset.labels(split))
        assert tokens.signal_ids(split) == dataset.ids(split)
    assert torch.equal(torch.cat(list(tokens.batches("train", 7))), tokens.ids("train"))
    assert torch.equal(tokens.ids("train", slice(5, 9)), tokens.ids("train")[5:9])


def test_plain_datasets_reads_it(dataset, tokenizer, tmp_path):
    from datasets import List, Value, load_dataset

    encode_dataset(tokenizer, dataset, tmp_path / "tokens", progress=False)
    files = {s: str(tmp_path / "tokens" / f"{s}-*.parquet") for s in ("train", "validation", "test")}
    plain = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert plain["train"].features["ids"] == List(Value("uint8"), length=dataset.config.size)
    assert plain["train"].features["label"].names == ["even", "odd"]
    assert plain["test"][3]["ids"] == tokenizer.encode(dataset.weights("test"))[3].tolist()
    assert set(plain["validation"]["split"]) == {"validation"}


def test_smallest_types():
    assert [module.smallest(v).name for v in (2, 256, 257, 65_536, 65_537)] == [
        "uint8",
        "uint8",
        "uint16",
        "uint16",
        "uint32",
    ]


def test_fingerprint_does_not_depend_on_cutting(dataset, tokenizer, tmp_path, monkeypatch):
    first = encode_dataset(tokenizer, dataset, tmp_path / "a", progress=False)
    monkeypatch.setattr(module, "ROWS_PER_SHARD", 12)
    monkeypatch.setattr("tokenizers.encode.VALUES", 5 * dataset.config.size)
    assert encode_dataset(tokenizer, dataset, tmp_path / "b", progress=False) == first
    assert len(list((tmp_path / "b").glob("train-*-of-00004.parquet"))) == 4
    assert torch.equal(TokenDataset.load(tmp_path / "b").ids("train"), TokenDataset.load(tmp_path / "a").ids("train"))
    rows = {s: {"ids": tokenizer.encode(dataset.weights(s)), "signal_id": dataset.ids(s)} for s in dataset.splits}
    for s in rows:
        rows[s]["labels"] = dataset.labels(s)
    assert TokenDataset.from_ids(tokenizer, rows, dataset).fingerprint == first
    rows["test"]["ids"][0, 0] += 1
    assert TokenDataset.from_ids(tokenizer, rows, dataset).fingerprint != first


def test_decoding(dataset, tokenizer, tmp_path):
    encode_dataset(tokenizer, dataset, tmp_path / "tokens", progress=False)
    tokens = TokenDataset.load(tmp_path / "tokens")
    decoded = decode_dataset(tokens, tokenizer)
    assert decoded.config == dataset.config and decoded.label_names == dataset.label_names
    assert decoded.ids("test") == dataset.ids("test") and torch.equal(decoded.extent("test"), dataset.extent("test"))
    assert torch.equal(decoded.weights("test"), tokenizer.decode(tokens.ids("test")))
    other = KMeansTokenizer(KMeansConfig(vocab_size=16, seed=1, field=dataset.config.to_dict()))
    other.fit(dataset.batches("train"))
    with pytest.raises(ValueError, match=f"{tokenizer.fingerprint}.*not by {other.fingerprint}"):
        decode_dataset(tokens, other)


def test_samples_without_labels(tokenizer, tmp_path):
    ids = torch.randint(16, (3, tokenizer.tokens_per_field), generator=torch.Generator().manual_seed(0))
    tokens = TokenDataset.from_ids(tokenizer, {"samples": {"ids": ids}, "train": {"ids": ids[:0]}})
    tokens.save(tmp_path / "tokens")
    found = TokenDataset.load(tmp_path / "tokens")
    assert found.splits == ["samples"] and found.labels("samples") is None and torch.equal(found.ids("samples"), ids)
    assert found.fingerprint == tokens.fingerprint and found.signal_ids("samples") == [""] * 3
    with pytest.raises(ValueError, match="split 'test' not found; these tokens have samples"):
        found.ids("test")
    with pytest.raises(ValueError, match=r"lie in \[0, 16\)"):
        TokenDataset.from_ids(tokenizer, {"samples": {"ids": ids + 16}})
    with pytest.raises(ValueError, match="no fields to write"):
        TokenDataset.from_ids(tokenizer, {"samples": {"ids": ids[:0]}}).save(tmp_path / "none")


def test_damage_is_one_sentence(dataset, tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m tokenizers.encode"):
        TokenDataset.load(tmp_path)
    encode_dataset(tokenizer, dataset, tmp_path, progress=False)
    file = tmp_path / "test-00000-of-00001.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:40])
    with pytest.raises(ValueError, match="split test is not readable"):
        TokenDataset.load(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="some are missing"):
        TokenDataset.load(tmp_path)
    file.write_bytes((tmp_path / "train-00000-of-00001.parquet").read_bytes())
    with pytest.raises(ValueError, match="has 40 rows"):
        TokenDataset.load(tmp_path)
