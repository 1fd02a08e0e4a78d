"""Principal components: the known answer, the metric, and what is refused."""

import pytest
import torch
from made import SMALL, generator, rows

from fields.metrics.pairs import psnr
from fields.model import FieldConfig, values
from fields.view.render import render
from tokenizers.classic import components
from tokenizers.classic.components import directions, gauss_newton, low_rank_directions, metric_product
from tokenizers.classic.options import PCAConfig
from tokenizers.classic.pca import PCATokenizer
from tokenizers.registry import class_of

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


@pytest.mark.parametrize("n", [30, 400])
def test_the_low_rank_method_finds_the_exact_components(n, monkeypatch):
    """Exactly where the subspace holds all rows; else nearly, and always with exact inverses."""
    monkeypatch.setattr(components, "WIDE_FIELDS", components.FIELDS)
    basis = torch.randn(10, FIELD.size, generator=generator(1)) * torch.logspace(0, -2, 10)[:, None]
    weights = rows(FIELD, 1) + torch.randn(n, 10, generator=generator(2)) @ basis
    z, std = (weights - weights.mean(0)).double(), torch.ones(FIELD.size).double()
    covariance, metric = z.T @ z / n, gauss_newton(FIELD, weights, 0)
    metric += components.RIDGE * metric.diagonal().mean() * torch.eye(len(metric))
    product = metric_product(FIELD, weights, std, 0)
    assert torch.allclose(product(z.T), metric @ z.T)
    exact, back = directions(covariance, metric, 8)
    found, found_back = low_rank_directions(z, product, 8, seed=0)
    sign = (exact * found).sum(0).sign()
    assert torch.allclose(found * sign, exact, rtol=1e-5, atol=1e-7 * float(exact.abs().max()))
    assert torch.allclose(found_back * sign[:, None], back, rtol=1e-5, atol=1e-6 * float(back.abs().max()))
    assert torch.allclose(found_back @ found, torch.eye(8, dtype=torch.float64), atol=1e-8)


def test_more_components_than_rows_are_zero():
    z = rows(FIELD, 5).double()
    analysis, synthesis = low_rank_directions(z, lambda x: x, 9, seed=0)
    assert analysis.shape == (FIELD.size, 9) and not analysis[:, 5:].any() and not synthesis[5:].any()
    assert torch.allclose(z @ analysis @ synthesis, z, atol=1e-9)


@pytest.mark.parametrize("kind", ["pca", "vqvae", "graph"])
def test_wide_fields_are_tokenised_as_well_as_by_the_exact_method(kind, monkeypatch):
    weights, reached = rows(FIELD, 300), []
    for widest in (components.WIDEST, 10):
        monkeypatch.setattr(components, "WIDEST", widest)
        options = SMALL.get(kind, {}) | ({"steps": 0} if kind != "pca" else {})
        tokenizer = class_of(kind).for_field(FIELD, vocab_size=32, **options).fit(weights)
        decoded = render(FIELD, tokenizer.decode(tokenizer.encode(weights)), 8, 8)
        reached.append(float(psnr(decoded, render(FIELD, weights, 8, 8)).mean()))
    assert reached[1] == pytest.approx(reached[0], abs=0.5)
