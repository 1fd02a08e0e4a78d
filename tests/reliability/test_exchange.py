"""What belongs together is compared when it is read: shards, cards and models of others are refused, streamed or not."""

import json
import shutil

import pytest
from edited import edit, unmarked
from toy import config, make_corpus

from fields.runtime.records import read_json, sealed
from fields.storage.dataset import WeightDataset
from gpt.checkpoint import load_model
from gpt.train_gpt import train
from tokenizers.registry import load_tokenizer
from tokenizers.tokens import TokenDataset


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two corpora of equal shape and other content."""
    root = tmp_path_factory.mktemp("pair")
    for name, seed in (("one", 0), ("two", 1)):
        make_corpus(root / name, seed=seed)
    return root


def fields(folder, stream):
    data = WeightDataset.load(folder, stream=stream)
    return [data.weights(split).tolist() for split in data.splits]


def tokens(folder, stream):
    data = TokenDataset.load(folder, stream=stream)
    return [data.ids(split).tolist() for split in data.splits]


PLACES = {"fields": ("fields", "fields/data", fields), "tokens": ("tokenizer/tokens", "tokenizer/tokens", tokens)}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", PLACES)
@pytest.mark.parametrize("which", ["train", "all"])
def test_shards_of_another_run_are_refused(pair, tmp_path, what, stream, which):
    place, inner, read = PLACES[what]
    shutil.copytree(pair / "one", tmp_path / "c")
    read(tmp_path / "c" / place, stream)
    for file in (pair / "two" / inner).glob("*.parquet" if which == "all" else f"{which}-*.parquet"):
        shutil.copyfile(file, tmp_path / "c" / inner / file.name)
    with pytest.raises(ValueError, match="damaged or was replaced"):
        read(tmp_path / "c" / place, stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", PLACES)
def test_the_shards_of_two_splits_are_not_exchanged(pair, tmp_path, what, stream):
    place, inner, read = PLACES[what]
    shutil.copytree(pair / "one", tmp_path / "c")
    a, b = (next((tmp_path / "c" / inner).glob(f"{split}-*")) for split in ("train", "validation"))
    a.rename(tmp_path / "kept"), b.rename(a), (tmp_path / "kept").rename(b)
    with pytest.raises(ValueError):
        read(tmp_path / "c" / place, stream)


@pytest.mark.parametrize("stream", [False, True])
def test_what_recorded_nothing_passes(pair, tmp_path, stream):
    shutil.copytree(pair / "one", tmp_path / "c")
    for place, name, read in (("fields", "field.json", fields), ("tokenizer/tokens", "tokens.json", tokens)):
        wanted, file = read(tmp_path / "c" / place, stream), tmp_path / "c" / place / name
        file.write_text(json.dumps(unmarked(file, ("checksum", "files"))))
        assert read(tmp_path / "c" / place, stream) == wanted


@pytest.mark.parametrize("file", ["fields/field.json", "tokenizer/config.json", "tokenizer/tokens/tokens.json"])
def test_an_edited_card_is_said_to_be_edited(pair, tmp_path, file):
    shutil.copytree(pair / "one", tmp_path / "c")
    path = tmp_path / "c" / file
    text = path.read_text()
    path.write_text(text.replace('"format": "neural', '"format": "Neural'))
    with pytest.raises(ValueError, match="damaged or was edited: its checksum is .*remove the line `checksum`"):
        read_json(path)
    path.write_text(json.dumps(json.loads(text)))  # other spaces are the same content
    assert read_json(path) == unmarked(path, ("checksum",)) and "checksum" in sealed(read_json(path))


def test_a_tokenizer_of_others_is_refused(pair, tmp_path):
    shutil.copytree(pair / "one" / "tokenizer", tmp_path / "t")
    shutil.copyfile(pair / "two" / "tokenizer" / "model.safetensors", tmp_path / "t" / "model.safetensors")
    with pytest.raises(ValueError, match="do not belong together"):
        load_tokenizer(tmp_path / "t")


@pytest.fixture(scope="module")
def models(pair):
    """Two models of equal shape; what they need to be loaded lies beside them."""
    for name in ("one", "two"):
        train(config(pair / name, steps=2, eval_every=2))
    return pair


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer/config.json", "tokenizer"])
def test_parts_of_another_model_are_refused(models, tmp_path, name):
    shutil.copytree(models / "one" / "gpt" / "best", tmp_path / "m")
    load_model(tmp_path / "m")
    other = models / "two" / "gpt" / "best" / name
    if name == "config.json":
        edit(tmp_path / "m" / name, lambda config: {**config, "n_head": 1})
    elif other.is_dir():
        shutil.rmtree(tmp_path / "m" / name)
        shutil.copytree(other, tmp_path / "m" / name)
    else:
        shutil.copyfile(other, tmp_path / "m" / name)
    with pytest.raises(ValueError, match="damaged or was replaced|do not belong together|was trained on tokens"):
        load_model(tmp_path / "m")
