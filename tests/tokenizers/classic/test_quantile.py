"""Quantile buckets: np.quantile where it can, sense where quantiles coincide."""

import numpy as np
import pytest
import torch
from made import generator

from fields.model import FieldConfig
from tokenizers.classic.options import QuantileConfig
from tokenizers.classic.quantile import QuantileTokenizer, buckets

FIELD = FieldConfig(hidden=(1,), octaves=0)  # 2 -> 1 -> 1, 5 weights


def tokenizer_of(values: torch.Tensor, **options) -> QuantileTokenizer:
    """All weights drawn from `values`, none standardised."""
    config = QuantileConfig(**{"vocab_size": 8, "standardize": "none", "field": FIELD.to_dict(), **options})
    return QuantileTokenizer(config).fit(values.reshape(-1, FIELD.size))


def test_edges_are_numpys_quantiles():
    values = torch.randn(2000, generator=generator())
    tokenizer = tokenizer_of(values, vocab_size=16)
    expected = np.quantile(values.double().numpy(), np.arange(1, 16) / 16)
    assert np.allclose(tokenizer.edges[0].numpy(), expected, atol=1e-6)
    ids = tokenizer.encode(values.reshape(-1, 5)).flatten()
    assert torch.equal(ids, torch.from_numpy(np.searchsorted(expected, values.double().numpy())))
    assert torch.bincount(ids).tolist() == [125] * 16
    means = [float(values[ids == i].double().mean()) for i in range(16)]
    assert np.allclose(tokenizer.centres[0].numpy(), means, atol=1e-6)


MANY_ZEROS = torch.cat([torch.zeros(900), torch.randn(100, generator=generator(1))])
TWO = torch.tensor([-1.0, -1, -1, 1, 1]).repeat(20)
CLOSE = torch.arange(100) * 1e-9


@pytest.mark.parametrize(
    "values, made",
    [(MANY_ZEROS, 8), (TWO, 2), (torch.full((100,), 5.0), 1), (CLOSE, 8), (torch.tensor([0.0] * 8 + [1, 2]), 3)],
    ids=["90% zeros", "two values", "one value", "close", "few"],
)
@pytest.mark.parametrize("standardize", ["none", "position"])
def test_repeated_values(values, made, standardize):
    values = values[torch.randperm(len(values), generator=generator(2))]
    tokenizer = tokenizer_of(values, standardize=standardize)
    ids = tokenizer.encode(values.reshape(-1, 5))
    decoded = tokenizer.decode(ids)
    assert tokenizer.codes <= 8 and int(ids.max()) < tokenizer.codes
    if standardize == "none":
        assert tokenizer.codes == made == len(ids.unique())  # no bucket without members
    assert bool(decoded.isfinite().all()) and torch.equal(tokenizer.encode(decoded), ids)
    if standardize == "none" and len(values.unique()) <= 8:
        assert torch.equal(decoded.flatten(), values)


def test_a_frequent_value_has_its_own_bucket():
    tokenizer = tokenizer_of(MANY_ZEROS)
    ids = tokenizer.encode(MANY_ZEROS.reshape(-1, 5)).flatten()
    zero = ids[MANY_ZEROS == 0]
    assert len(zero.unique()) == 1 and not bool((ids[MANY_ZEROS != 0] == zero[0]).any())
    assert float(tokenizer.decode(torch.full((1, 5), int(zero[0])))[0, 0]) == 0


def test_values_beyond_the_training_range_fall_into_the_end_buckets():
    tokenizer = tokenizer_of(torch.randn(1000, generator=generator(3)))
    ids = tokenizer.encode(torch.tensor([[-1e30, -50.0, 0.0, 50.0, 1e30]]))
    assert ids[0, :2].tolist() == [0, 0] and ids[0, 3:].tolist() == [7, 7]


def test_means_lie_in_their_buckets():
    values = np.sort(np.random.default_rng(0).normal(size=3000).round(1)).astype(np.float32)
    for k in (2, 7, 20, 50, 200):
        edges, means = buckets(values.copy(), k)
        assert len(means) == len(edges) + 1 <= k and (np.diff(edges) > 0).all()
        assert (means[:-1] <= edges).all() and (edges < means[1:]).all()
        assert (np.bincount(np.searchsorted(edges, values), minlength=len(means)) > 0).all()
