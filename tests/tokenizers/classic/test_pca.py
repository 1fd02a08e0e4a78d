"""Principal components: the known answer, the metric, and what is refused."""

import pytest
import torch
from made import generator, rows

from fields.metrics.pairs import psnr
from fields.model import FieldConfig, values
from fields.view.render import render
from tokenizers.classic.pca import PCAConfig, PCATokenizer, directions, gauss_newton

FIELD = FieldConfig(hidden=(8,), octaves=2)


def tokenizer_of(weights: torch.Tensor, **options) -> PCATokenizer:
    return PCATokenizer(PCAConfig(field=FIELD.to_dict(), **options)).fit(weights)


def test_directions_in_the_plain_metric_are_principal_components():
    covariance = torch.diag(torch.tensor([1.0, 9.0, 4.0, 0.0], dtype=torch.float64))
    analysis, synthesis = directions(covariance, torch.eye(4, dtype=torch.float64), 3)
    expected = torch.eye(4, dtype=torch.float64)[[1, 2, 0]]
    assert torch.allclose(analysis.T, expected) and torch.allclose(synthesis, expected)


def test_components_are_uncorrelated_ordered_and_invertible():
    g = generator(1)
    a, b = (torch.randn(6, 6, generator=g, dtype=torch.float64) for _ in range(2))
    covariance, metric = a @ a.T, b @ b.T + torch.eye(6)
    analysis, synthesis = directions(covariance, metric, 6)
    seen = analysis.T @ covariance @ analysis
    assert torch.allclose(seen, torch.diag(seen.diagonal()), atol=1e-8) and bool((seen.diagonal().diff() <= 0).all())
    assert torch.allclose(analysis @ synthesis, torch.eye(6, dtype=torch.float64), atol=1e-8)
    assert torch.allclose(synthesis @ metric @ synthesis.T, torch.eye(6, dtype=torch.float64), atol=1e-8)


def test_gauss_newton_predicts_small_changes():
    weights, change = rows(FIELD, 40), 1e-4 * torch.randn(FIELD.size, generator=generator(2))
    coords = torch.rand(2000, 2, generator=generator(3)) * 2 - 1
    moved = (values(FIELD, weights + change, coords) - values(FIELD, weights, coords)).double().square().mean()
    predicted = change.double() @ gauss_newton(FIELD, weights, seed=0) @ change.double()
    assert float(predicted) == pytest.approx(float(moved), rel=0.1)


def test_the_metric_of_the_function_keeps_more_of_the_picture():
    weights = rows(FIELD, 600)
    true = render(FIELD, weights[500:], 8, 8)
    reached = []
    for metric in ("function", "weights"):
        tokenizer = tokenizer_of(weights[:500], metric=metric, components=20, vocab_size=64)
        decoded = render(FIELD, tokenizer.decode(tokenizer.encode(weights[500:])), 8, 8)
        reached.append(float(psnr(decoded, true).mean()))
    assert reached[0] > reached[1] + 3


def test_fewer_rows_than_components():
    weights = rows(FIELD, 5)
    tokenizer = tokenizer_of(weights, vocab_size=512)
    assert tokenizer.tokens_per_field == FIELD.size
    decoded = tokenizer.decode(tokenizer.encode(weights))
    assert bool(decoded.isfinite().all()) and torch.allclose(decoded, weights, atol=1e-3)
    one = tokenizer_of(weights[:1])
    assert torch.equal(one.decode(one.encode(weights[:1])), weights[:1])


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="--components must be at least 1"):
        PCAConfig(components=0)
    with pytest.raises(ValueError, match="at most 4,096 weights"):
        PCATokenizer(PCAConfig(field=FieldConfig(hidden=(100, 100)).to_dict()))
