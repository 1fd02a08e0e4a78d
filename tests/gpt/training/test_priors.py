import math

import pytest
import torch
from made import SMALL, generator, rows
from toy import FIELD, make_corpus

from fields.runtime.launch import start
from gpt.corpus import load_corpus
from gpt.data import Sequences
from gpt.model import GPT, IGNORE, GPTConfig
from gpt.token_task import make_optimizers
from gpt.training.priors import covariance_root, initialise_from_counts
from gpt.training.validate import Validator
from tokenizers.classic.kmeans import KMeansTokenizer
from tokenizers.classic.options import KMeansConfig
from tokenizers.learned.options import VQVAEConfig
from tokenizers.learned.vqvae import VQVAETokenizer
from tokenizers.vocab import Vocab


def sequences(n: int = 200, t: int = 6, codes: int = 9, labels: int = 0) -> Sequences:
    """Codes that differ by position."""
    ids = (torch.arange(t) + torch.randint(3, (n, t), generator=generator())) % codes
    return Sequences(ids, Vocab(codes, labels), torch.arange(n) % labels if labels else None)


def fresh(data: Sequences, **kwargs) -> GPT:
    t = data.ids.shape[1]
    values = {"codes": data.vocab.codes, "tokens_per_field": t, "labels": data.vocab.labels, "n_layer": 1, "n_head": 2}
    return GPT.create(GPTConfig(**{**values, "n_embd": 16, "dropout": 0.0, **kwargs}), torch.zeros(t, 0).long())


@pytest.mark.parametrize("labels", [0, 3])
def test_frequencies_are_those_of_the_targets(labels):
    data = sequences(labels=labels)
    table = data.log_frequencies()
    assert table.shape == (7 if not labels else 8, data.vocab.size)
    assert torch.allclose(table.exp().sum(1), torch.ones(len(table)))
    targets = data.batch(torch.arange(len(data)))[1]
    for t in range(targets.shape[1]):
        for i in range(data.vocab.size):
            expected = (int((targets[:, t] == i).sum()) + 1) / (len(data) + data.vocab.size)
            assert math.isclose(float(table[t, i].exp()), expected, rel_tol=1e-5)


def test_frequencies_of_fields_of_several_lengths():
    data = Sequences(torch.zeros(3, 4).long(), Vocab(2), lengths=torch.tensor([4, 2, 0]))
    targets = data.batch(torch.arange(3))[1]
    counts = (targets != IGNORE).sum(0).double()
    assert torch.allclose(data.log_frequencies().exp().double(), (torch.stack([(targets == i).sum(0) for i in range(5)], 1) + 1) / (counts[:, None] + 5))  # fmt: skip


@pytest.mark.parametrize("tie", [False, True])
def test_the_first_guess_is_the_unigram(tie):
    data = sequences()
    model = initialise_from_counts(fresh(data, unigram=True, gates=True, tie=tie), data, torch.arange(9)[:, None], 0)
    bits = Validator(data, data, 6, None).measure(model, start(threads=1, quiet=True), 50)
    assert bits is not None and abs(bits["bits_per_field"] / bits["unigram_bits_per_field"] - 1) < 0.05


def test_codes_of_similar_meaning_start_with_similar_weights():
    data = Sequences(torch.randint(9, (200, 6), generator=generator(1)), Vocab(9))
    before = torch.get_rng_state()
    models = [initialise_from_counts(fresh(data, n_embd=256), data, torch.arange(9)[:, None], 3) for _ in range(2)]
    assert torch.equal(before, torch.get_rng_state())
    for name in ("tokens", "head"):
        weight = getattr(models[0], name).weight
        assert torch.equal(weight, getattr(models[1], name).weight)
        likeness = torch.corrcoef(weight[:9])[0]
        assert likeness[1] > 0.8 and likeness[8].abs() < 0.3
        assert 0.015 < weight[:9].std() < 0.025
        assert torch.equal(weight[9:], getattr(fresh(data, n_embd=256), name).weight[9:])  # SOS, EOS, PAD as ever


def test_lengths_are_measured_where_codes_occur():
    points, even = torch.arange(64.0)[:, None].double(), torch.ones(64).double() / 64
    few = torch.zeros(64).double()
    few[30:34] = 0.25
    wide, narrow = (r @ r.T for r in (covariance_root(points, even), covariance_root(points, few)))
    assert wide[30, 33] > 0.9 and narrow[30, 33] < 0.1
    assert torch.allclose(wide.diagonal(), torch.ones(64).double())


def test_the_root_does_not_depend_on_the_eigenvectors():
    signs = torch.cartesian_prod(
        *[torch.tensor([-1.0, 1.0])] * 4
    ).double()  # equal eigenvalues: any basis of them will do
    root = covariance_root(signs, torch.ones(16).double() / 16)
    other = torch.randperm(16, generator=generator(2))
    assert torch.allclose(root, root.T)
    assert torch.allclose(covariance_root(signs[other], torch.ones(16).double() / 16), root[other][:, other])


def test_a_huge_vocabulary_starts_without_a_covariance(monkeypatch):
    data = sequences()
    monkeypatch.setattr("gpt.training.priors.MOST", 8)
    weight = fresh(data).tokens.weight
    assert torch.equal(initialise_from_counts(fresh(data), data, torch.arange(9)[:, None], 0).tokens.weight, weight)


def test_points_that_do_not_differ_are_one_code():
    data = sequences(codes=3)
    model = initialise_from_counts(fresh(data), data, torch.zeros(3, 2), 0)
    assert model.tokens.weight.isfinite().all()
    assert torch.allclose(model.tokens.weight[0], model.tokens.weight[2], atol=1e-6)


def test_points_of_another_vocabulary_are_refused():
    data = sequences()
    with pytest.raises(ValueError, match=r"points must have shape \(9, D\), got \(8, 1\)"):
        initialise_from_counts(fresh(data), data, torch.zeros(8, 1), 0)


def test_gates_are_not_decayed():
    data = sequences()

    class Settings:
        optimizer, weight_decay, lr, betas = "adamw", 0.1, 1e-3, (0.9, 0.99)

    model = fresh(data, gates=True)
    decayed, others = make_optimizers(Settings, model)[0].param_groups
    assert {id(p) for p in model.gates} <= {id(p) for p in others["params"]}
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))


def test_what_tokenizers_know_of_their_codes(tmp_path):
    weights = rows(FIELD, 60)
    field = FIELD.to_dict()
    scalar = KMeansTokenizer(KMeansConfig(vocab_size=8, field=field))
    scalar.fit(weights)
    assert torch.equal(scalar.code_vectors, torch.arange(scalar.codes)[:, None])
    pairs = KMeansTokenizer(KMeansConfig(vocab_size=8, group=2, field=field))
    pairs.fit(weights)
    assert pairs.code_vectors.shape == (8, 2)
    by_layer = KMeansTokenizer(KMeansConfig(vocab_size=8, group=2, codebook="layer", field=field))
    by_layer.fit(weights)
    assert by_layer.code_vectors is None
    for quantizer, dim in (("fsq", 1), ("lfq", 3), ("vq", None)):
        learnt = VQVAETokenizer(
            VQVAEConfig(**{**SMALL["vqvae"], "vocab_size": 8, "quantizer": quantizer, "latents": 4, "width": dim or 2}, field=field)
        )  # fmt: skip
        learnt.fit(weights)
        assert (learnt.code_vectors is None) if dim is None else (learnt.code_vectors.shape == (8, dim))


def test_a_corpus_without_known_points(tmp_path):
    corpus = load_corpus(make_corpus(tmp_path) / "fields", tmp_path / "tokenizer")
    model = fresh(corpus.train)
    weight = model.tokens.weight.clone()
    assert torch.equal(initialise_from_counts(model, corpus.train, None, 0).tokens.weight, weight)
