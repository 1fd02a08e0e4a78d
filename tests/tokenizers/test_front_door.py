"""The contents page of the package, and use in memory."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from made import SMALL, rows

import tokenizers
from fields.model import FieldConfig
from fields.storage.rows import Rows
from tokenizers import TOKENIZERS, KMeansTokenizer, TokenDataset, load_tokenizer
from tokenizers.registry import class_of

FIELD = FieldConfig(hidden=(8,), octaves=2)
README = Path(tokenizers.__file__).parent / "README.md"


def test_every_name_of_the_contents_page_is_defined_where_it_says():
    for name in tokenizers.__all__:
        assert getattr(tokenizers, name) is not None
    for kind, (config, _) in TOKENIZERS.items():
        assert {config.__name__, class_of(kind).__name__} <= set(dir(tokenizers))


def test_an_unknown_name_is_the_import_error_of_the_readme():
    with pytest.raises(ImportError, match="cannot import name 'Encoding' from 'tokenizers'"):
        exec("from tokenizers import Encoding")
    with pytest.raises(AttributeError, match="it offers"):
        _ = tokenizers.nothing


def test_importing_the_package_imports_nothing_else():
    code = "import sys, tokenizers; assert 'torch' not in sys.modules and 'tokenizers.base' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_and_ids_as_notebooks_have_them():
    weights = rows(FIELD, 30)
    tokenizer = KMeansTokenizer.for_field(FIELD, vocab_size=8).fit(weights)
    ids = tokenizer.encode(weights)
    for given in (weights.numpy(), Rows(weights), [weights[:9], weights[9:].numpy()]):
        again = KMeansTokenizer.for_field(FIELD, vocab_size=8).fit(given)
        assert again.fingerprint == tokenizer.fingerprint
    assert torch.equal(tokenizer.encode(weights.numpy()), ids) and torch.equal(tokenizer.encode(Rows(weights)), ids)
    for given in (ids.numpy(), ids.tolist(), ids.int()):
        assert torch.equal(tokenizer.decode(given), tokenizer.decode(ids))
    with pytest.raises(ValueError, match=r"method; of a WeightDataset, weights\('train'\)"):
        tokenizer.fit(weights.numpy)
    with pytest.raises(ValueError, match="for_field"):
        KMeansTokenizer(FIELD)
    assert repr(tokenizer.standardizer) == f"Standardizer(position, {FIELD.size} weights)"


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_rows_to_ids_in_memory(kind):
    weights = rows(FIELD, 60)
    tokenizer = class_of(kind).for_field(FIELD, vocab_size=8, **SMALL.get(kind, {}))
    assert "not fitted" in repr(tokenizer)
    ids = tokenizer.fit(weights).encode(weights)
    assert ids.shape == (60, tokenizer.tokens_per_field) and tokenizer.decode(ids).shape == weights.shape
    assert f"{tokenizer.codes} codes" in repr(tokenizer) and str(FIELD) in repr(tokenizer)


def test_ids_to_a_dataset_in_memory():
    weights = rows(FIELD, 60)
    tokenizer = KMeansTokenizer.for_field(FIELD, vocab_size=16).fit(weights)
    tokens = TokenDataset.from_ids(tokenizer, {"train": {"ids": tokenizer.encode(weights)}})
    assert torch.equal(tokens.ids("train"), tokenizer.encode(weights))
    assert repr(tokens) == f"TokenDataset(kmeans, 16 codes, {FIELD.size} tokens per field; train 60)"


@pytest.fixture
def registry():
    """The table of tokenizers, as it was before."""
    before = dict(TOKENIZERS)
    yield TOKENIZERS
    TOKENIZERS.clear()
    TOKENIZERS.update(before)


def test_the_readmes_examples_run(registry, tmp_path, monkeypatch):
    """Every python block of README.md in order; the toy tokenizer in it then saves, loads and encodes."""
    blocks = README.read_text(encoding="utf-8").split("```python\n")[1:]
    module = ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", module)
    for block in blocks:
        exec(block.split("```")[0], module.__dict__)
    weights = rows(FIELD, 50)
    toy = registry["sign"][1].for_field(FIELD).fit(weights)
    toy.save_pretrained(tmp_path)
    assert torch.equal(load_tokenizer(tmp_path).encode(weights), toy.encode(weights))
    assert torch.equal(toy.encode(toy.decode(toy.encode(weights))), toy.encode(weights))
