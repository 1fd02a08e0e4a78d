"""An untrained model over regions of toy fields, for the demo's tests."""

import pytest
from toy import TINY, make_fields

from gpt.checkpoint import save_model
from gpt.model import GPT, GPTConfig
from tokenizers.learned.options import RegionsConfig
from tokenizers.learned.regions import RegionsTokenizer


@pytest.fixture(scope="package")
def home(tmp_path_factory):
    """Fields, and an untrained GPT over six regions of them, in root/gpt; its run names the fields."""
    root = tmp_path_factory.mktemp("demo")
    data = make_fields(root, n=24)
    settings = {"grid": (2, 3), "side": 2, "margin": 1, "width": 4, "encoder": 0, "hidden": 0, "steps": 0}
    tokenizer = RegionsTokenizer(RegionsConfig(vocab_size=8, field=data.config.to_dict(), **settings))
    tokenizer.fit(data.weights("train"))
    sizes = {"n_layer": 1, "n_head": TINY.n_head, "n_embd": TINY.n_embd}
    model = GPT.create(GPTConfig(8, 6, tuple(tokenizer.slot_sizes), 3, **sizes), tokenizer.slots, 0)
    info = {"tokenizer": tokenizer.fingerprint, "kind": "regions", "size": [8, 8], "signals": {"name": "toy"}}
    save_model(root / "gpt" / "best", model, tokenizer, {**info, "label_names": ["red", "green", "blue"]})
    (root / "gpt" / "run.json").write_text(f'{{"config": {{"fields": "{root / "fields"}"}}}}')
    return root
