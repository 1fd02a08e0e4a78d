"""Precisions that a device, a call or a machine does not have: the same result, or one sentence before any work."""

import pytest
import torch
from made import SMALL, rows
from toy import FIELD, config, make_corpus

from fields.runtime import launch
from fields.runtime.launch import check_compiler, widest
from gpt.sampling.generate import choose
from gpt.train_gpt import train
from tokenizers.registry import TOKENIZERS, make_tokenizer


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("change", ["bfloat16", "half", "double"])
def test_a_vocabulary_keeps_its_precision(kind, change):
    data = rows(FIELD, 40, seed=1)
    tokenizer = make_tokenizer(TOKENIZERS[kind][0](field=FIELD.to_dict(), **SMALL.get(kind, {}))).fit(data)
    ids, decoded, mark = tokenizer.encode(data), tokenizer.decode(tokenizer.encode(data)), tokenizer.fingerprint
    getattr(tokenizer, change)()
    assert torch.equal(tokenizer.encode(data), ids) and torch.equal(tokenizer.decode(ids), decoded)
    assert tokenizer.fingerprint == mark


def test_without_float64_float32_draws_the_same(monkeypatch):
    """Apple's MPS has no float64; no test machine has one, so the dtype alone is taken away."""
    assert widest(torch.device("mps")) == torch.float32 and widest("cpu") == widest("cuda") == torch.float64
    logits = torch.randn(200, 30, generator=torch.Generator().manual_seed(0))
    u = torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = choose(logits, u, 0.8, 9, 0.9)
    monkeypatch.setattr("gpt.sampling.generate.widest", lambda device: torch.float32)
    assert (choose(logits, u.float(), 0.8, 9, 0.9) == wanted).float().mean() > 0.99


def test_training_without_float64(tmp_path, monkeypatch):
    for module in ("gpt.training.trainer", "gpt.training.validate", "gpt.sampling.generate"):
        monkeypatch.setattr(f"{module}.widest", lambda device: torch.float32)
    settings = config(make_corpus(tmp_path), steps=4, samples=2)
    assert train(settings)["step"] == 4


def test_compile_without_a_compiler_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"--compile needs a C\+\+ compiler .* leave the flag out"):
        check_compiler()
    with pytest.raises(ValueError, match="--compile needs"):
        train(config(make_corpus(tmp_path), compile=True))
