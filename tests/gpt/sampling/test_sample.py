import dataclasses
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import config, make_corpus, make_tokens

from fields.storage.dataset import WeightDataset
from gpt.checkpoint import load_model
from gpt.data import Sequences
from gpt.model import GPT, GPTConfig
from gpt.sampling.generate import STATUSES, choose, classify, sample_ids, uniforms
from gpt.sampling.options import SampleConfig
from gpt.sampling.sample import find_label, sample
from gpt.token_task import make_optimizers
from gpt.train_gpt import train
from tokenizers.tokens import TokenDataset
from tokenizers.vocab import Vocab


def tiny(t: int = 9, **kwargs) -> GPT:
    values = {"codes": 5, "tokens_per_field": t, "n_layer": 1, "n_head": 1, "n_embd": 8, "dropout": 0.0, **kwargs}
    return GPT.create(GPTConfig(**values), torch.zeros(t, 0).long())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A model of labelled fields, barely trained."""
    root = make_corpus(tmp_path_factory.mktemp("sample"))
    train(config(root, labels=True))
    return root


# -- draws -------------------------------------------------------------------------------------------------------------


def test_a_field_is_the_same_whatever_else_is_asked_for():
    model = tiny()
    many = sample_ids(model, 100, seed=3, block=16)
    assert torch.equal(sample_ids(model, 5, seed=3, block=16).codes, many.codes[:5])
    later = sample_ids(model, 30, seed=3, first=41, block=16)
    assert torch.equal(later.codes, many.codes[41:71]) and later.index.tolist() == list(range(41, 71))
    shares = [sample_ids(model, 100, seed=3, block=16, share=(rank, 2)) for rank in range(2)]
    assert torch.equal(type(many).join(shares[::-1]).codes, many.codes)
    assert not torch.equal(sample_ids(model, 5, seed=4, block=16).codes, many.codes[:5])
    told = []
    threads = sample_ids(model, 100, seed=3, block=16, workers=3, progress=told.append)
    assert torch.equal(threads.codes, many.codes) and sum(told) == 100
    assert many.report()["distinct"] > 1


def test_more_processes_than_blocks():
    assert len(sample_ids(tiny(), 3, share=(1, 2))) == 0


def test_noise_depends_on_seed_and_field_alone():
    u = uniforms(1, torch.tensor([0, 7, 8]), 6)
    assert torch.equal(u[1], uniforms(1, torch.tensor([7]), 6)[0])
    assert torch.equal(u[:, :3], uniforms(1, torch.tensor([0, 7, 8]), 3))
    assert len(set(u.flatten().tolist())) == 18 and u.min() >= 0 and u.max() < 1


def test_temperature_zero_is_greedy_and_all_fields_are_equal():
    draws = sample_ids(tiny(), 4, temperature=0.0)
    assert draws.report()["distinct"] == 1


LOGITS = torch.tensor([[0.0, 1.0, 2.0, 3.0]])


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 1e-8, 1.0, 1e8])
def test_every_setting_gives_an_id(temperature):
    us = (0.0, 0.999, 1 - 2**-53)
    for top_k, top_p, u in product((None, 0, 1, 4, 5), (None, 0.0, 1e-9, 0.5, 1.0), us):
        picked = choose(LOGITS, torch.tensor([u], dtype=torch.float64), temperature, top_k, top_p)
        greedy = temperature < 1e-3 or top_k == 1 or (top_p is not None and top_p < 0.1)
        assert picked.tolist() == [3] if greedy else 0 <= int(picked) < 4


def test_frequencies_follow_the_distribution():
    n = 20_000
    u = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    picked = choose(LOGITS.expand(n, 4), u, 2.0, None, None)
    assert torch.allclose(torch.bincount(picked).double() / n, (LOGITS[0].double() / 2).softmax(0), atol=0.01)
    two = choose(LOGITS.expand(n, 4), u, 1.0, 2, None)
    assert set(two.tolist()) == {2, 3}
    assert set(choose(LOGITS.expand(n, 4), u, 1.0, None, 0.7).tolist()) == {2, 3}  # .644, then .881


@pytest.mark.parametrize("temperature", (0.5, 1.0, 1.7))
@pytest.mark.parametrize(("top_k", "top_p"), list(product((None, 3, 9), (None, 0.3, 0.6, 0.95))))
def test_shares_are_those_of_the_reduced_distribution(temperature, top_k, top_p):
    """Against the definition: temper, keep the k likeliest, then of these the fewest that reach p, and renormalise."""
    logits = np.random.default_rng(0).normal(size=9) * 2
    p = np.exp(logits / temperature)
    order = np.argsort(-p)
    p[order[top_k or 9 :]] = 0
    p /= p.sum()
    if top_p is not None:
        kept = np.searchsorted(np.cumsum(p[order]), top_p) + 1
        p[order[kept:]] = 0
        p /= p.sum()
    n = 20_000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n  # every share of the uniform numbers equally often
    picked = choose(torch.from_numpy(logits).float().expand(n, 9), u, temperature, top_k, top_p)
    assert np.abs(np.bincount(picked.numpy(), minlength=9) / n - p).max() < 2 / n + 1e-6


def test_logits_that_are_no_numbers_are_refused():
    with pytest.raises(RuntimeError, match="not finite"):
        choose(torch.tensor([[0.0, float("nan")]]), torch.tensor([0.5]).double(), 1.0, None, None)


@pytest.mark.parametrize(
    "values",
    [{"n": 0}, {"n": -1}, {"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": -1}]
    + [{"top_p": 1.5}, {"top_p": -0.1}, {"seed": -1}, {"first": -1}, {"block": 0}],
)
def test_settings_that_mean_nothing_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values)).replace("_", "-")):
        SampleConfig("model", Path("out"), **values)
    with pytest.raises(ValueError):
        sample_ids(tiny(), **{"n": 1, **values})


# -- what a sequence is ------------------------------------------------------------------------------------------------


def test_every_sequence_is_classified():
    v = Vocab(5)
    ids = [
        [1, 2, 3, v.eos],
        [1, 2, v.eos, v.pad],
        [1, 2, 3, 4],
        [v.eos, v.pad, v.pad, v.pad],
        [1, v.sos, v.pad, v.pad],
        [1, 2, 3, v.pad],
    ]
    draws = classify(tiny(3), torch.arange(6), torch.tensor(ids))
    names = [STATUSES[i] for i in draws.status]
    assert names == ["complete", "too short", "too long", "empty", "malformed", "malformed"]
    assert draws.codes.tolist() == [[1, 2, 3], [1, 2, -1], [1, 2, 3], [-1] * 3, [1, -1, -1], [1, 2, 3]]
    labelled = tiny(1, labels=2)
    draws = classify(labelled, torch.arange(2), torch.tensor([[v.pad + 2, 4, v.eos], [3, 4, v.eos]]))
    assert draws.labels.tolist() == [1, -1] and [STATUSES[i] for i in draws.status] == ["complete", "malformed"]


@pytest.mark.parametrize("labels", [0, 2])
def test_untrained_model_without_grammar_never_crashes(labels):
    report = sample_ids(tiny(labels=labels), 200, grammar=False).report()
    assert sum(report[name] for name in STATUSES) == report["asked"] == 200


def test_end_at_once():
    model = tiny()
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.fill_(1)
        model.head.weight[model.config.vocab.eos] = 9
    assert sample_ids(model, 6, grammar=False).report()["empty"] == 6
    assert sample_ids(model, 6).report()["complete"] == 6


def test_the_end_is_learnt():
    model = tiny(8, n_embd=16).train()

    class Settings:
        optimizer, weight_decay, lr, betas = "adamw", 0.0, 1e-2, (0.9, 0.99)

    [optimizer] = make_optimizers(Settings, model)
    codes = torch.randint(5, (4, 8), generator=torch.Generator().manual_seed(0))
    codes[:, 6:] = 0
    data = Sequences(codes, model.config.vocab, lengths=torch.full((4,), 6))  # ends before the context does
    inputs, targets = data.batch(torch.arange(4))
    for _ in range(150):
        model(inputs, targets).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    lengths = (sample_ids(model, 20, grammar=False).codes >= 0).sum(1)
    assert (lengths == 6).sum() >= 19


def test_labels_of_draws():
    assert sample_ids(tiny(labels=3), 5, label=2).labels.tolist() == [2] * 5
    assert set(sample_ids(tiny(labels=3), 40).labels.tolist()) == {0, 1, 2}
    with pytest.raises(ValueError, match="trained without labels"):
        sample_ids(tiny(), 1, label=0)
    names = ["red", "green"]
    assert find_label("green", names) == find_label("1", names) == 1 and find_label(None, None) is None
    with pytest.raises(ValueError, match="--label pink is unknown. Labels: red, green"):
        find_label("pink", names)
    with pytest.raises(ValueError, match="trained without labels"):
        find_label("red", None)


@pytest.mark.parametrize("prompt", [[5], [-2], [0] * 10])
def test_bad_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="a prompt holds at most 9 codes"):
        sample_ids(tiny(), 1, prompt=torch.tensor(prompt))


def test_codes_given_anywhere_stay_and_the_others_are_drawn():
    given = torch.tensor([-1, 2, -1, -1, 1, -1, -1, -1, 0])
    codes = sample_ids(tiny(), 8, prompt=given, seed=3).codes
    assert bool((codes[:, given >= 0] == given[given >= 0]).all()) and len(codes[:, given < 0].unique(dim=0)) > 1
    again = sample_ids(tiny(), 8, prompt=given, seed=3, cache=False).codes
    assert torch.equal(codes, again)


# -- the command -------------------------------------------------------------------------------------------------------


def test_sampling_writes_a_weight_dataset(trained, tmp_path):
    wanted = SampleConfig(str(trained / "gpt"), tmp_path / "out", n=6, label="green", fields=trained / "fields")
    report = sample(wanted)
    data, tokens = WeightDataset.load(tmp_path / "out"), TokenDataset.load(tmp_path / "out")
    _, tokenizer, _ = load_model(trained / "gpt")
    assert report["complete"] == report["saved"] == 6
    assert data.labels("samples").tolist() == [1] * 6 and list(data.splits) == ["samples"]
    assert torch.equal(data.weights("samples"), tokenizer.decode(tokens.ids("samples")))
    assert tokens.dataset_fingerprint == data.fingerprint and data.extent("samples")[0].tolist() == [8, 8]
    assert (tmp_path / "out" / "samples.png").is_file()
    assert sample(wanted) == report  # already there
    with pytest.raises(ValueError, match="seed: 0 there, 1 now"):
        sample(dataclasses.replace(wanted, seed=1))
    more = dataclasses.replace(wanted, n=9, out=tmp_path / "more")
    sample(more)
    assert torch.equal(WeightDataset.load(more.out).weights("samples")[:6], data.weights("samples"))


def test_another_tokenizer_is_refused_before_any_file(trained, tmp_path):
    own = load_model(trained / "gpt")[1].fingerprint
    for codes, seed in ((8, 1), (6, 0)):
        other = make_tokens(trained, WeightDataset.load(trained / "fields"), codes, seed, f"other-{codes}")
        with pytest.raises(ValueError, match=own):
            sample(SampleConfig(str(trained / "gpt"), tmp_path / "out", tokenizer=other))
    assert not (tmp_path / "out").exists()


def test_no_readable_field_is_one_sentence(trained, tmp_path):
    with pytest.raises(RuntimeError, match="none of 2 sequences is a readable field"):
        sample(SampleConfig(str(trained / "gpt"), tmp_path / "out", n=2, grammar=False, temperature=1e8))


def test_missing_or_damaged_models_are_told(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="scripts/train_gpt.py"):
        load_model(tmp_path)
    train(config(trained, "damaged", steps=1, warmup=0))
    file = trained / "damaged" / "best" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match="is damaged or"):
        load_model(trained / "damaged")
