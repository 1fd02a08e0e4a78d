"""Uniform buckets: equally wide, clipped beyond the span."""

import numpy as np
import pytest
import torch
from made import generator

from fields.model import FieldConfig
from tokenizers.classic.options import UniformConfig
from tokenizers.classic.uniform import UniformTokenizer, even

FIELD = FieldConfig(hidden=(1,), octaves=0)  # 2 -> 1 -> 1, 5 weights


def tokenizer_of(values: torch.Tensor, **options) -> UniformTokenizer:
    """All weights drawn from `values`, none standardised."""
    config = UniformConfig(**{"vocab_size": 8, "standardize": "none", "field": FIELD.to_dict(), **options})
    return UniformTokenizer(config).fit(values.reshape(-1, FIELD.size))


def test_buckets_are_equally_wide_between_low_and_high():
    values = torch.linspace(-1, 3, 1000)
    tokenizer = tokenizer_of(values)
    assert torch.allclose(tokenizer.edges[0], torch.linspace(-1, 3, 9)[1:-1])
    assert torch.allclose(tokenizer.centres[0], torch.linspace(-1, 3, 17)[1::2])
    rows = values.reshape(-1, FIELD.size)
    assert torch.bincount(tokenizer.encode(rows).flatten()).tolist() == [125] * 8
    assert float((tokenizer.decode(tokenizer.encode(rows)) - rows).abs().max()) < 0.25 + 1e-5
    assert tokenizer.has_ordered_codes and tokenizer.code_spacing() == pytest.approx(0.5)


@pytest.mark.parametrize("standardize, mean, std", [("none", 5.0, 2.0), ("position", 0.0, 1.0)])
def test_beyond_the_span_lie_the_end_buckets(standardize, mean, std):
    values = 5 + 2 * torch.randn(4000, FIELD.size, generator=generator())
    tokenizer = tokenizer_of(values, standardize=standardize, span=1.5)
    assert tokenizer.edges[0, 0] == pytest.approx(mean - 1.125 * std, abs=0.05 * std)
    assert tokenizer.edges[0, -1] == pytest.approx(mean + 1.125 * std, abs=0.05 * std)
    far = torch.tensor([[-1e30, -50.0, 5.0, 50.0, 1e30]])
    ids = tokenizer.encode(far)
    assert ids[0, :2].tolist() == [0, 0] and ids[0, 3:].tolist() == [7, 7]
    assert torch.equal(tokenizer.encode(tokenizer.decode(ids)), ids)


def test_one_value_is_one_code():
    edges, centres = even(np.full(20, 0.5, np.float32), 8, 4.0)
    assert len(edges) == 0 and centres.tolist() == [0.5]
    tokenizer = tokenizer_of(torch.full((20,), 0.5))
    assert tokenizer.codes == 1 and float(tokenizer.decode(torch.zeros(1, 5, dtype=torch.int64))[0, 0]) == 0.5


def test_span_must_be_positive():
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="--span must be above 0"):
            UniformConfig(span=wrong)
