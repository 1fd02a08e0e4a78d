"""Chamfer distances against brute force, points by area, F-score."""

import numpy as np
import pytest
import torch

from fields.metrics import clouds


def made(n, seed=0):
    return [np.random.default_rng([seed, i]).normal(size=(40, 3)) for i in range(n)]


def brute(a, b):
    squared = ((a[:, None] - b[None]) ** 2).sum(-1)
    return squared.min(1).mean() + squared.min(0).mean()


def test_chamfer_is_brute_force():
    a, b = made(2)
    assert clouds.chamfer(a, b) == pytest.approx(brute(a, b))
    assert clouds.chamfer(a, a) == 0


def test_matrices_are_pairs():
    a, b = made(4), made(3, 1)
    whole = clouds.chamfer_matrix(a, b)
    assert whole.shape == (4, 3) and whole[2, 1] == pytest.approx(brute(a[2], b[1]))
    own = clouds.chamfer_matrix(a)
    assert torch.equal(own, own.T) and own.diagonal().abs().max() == 0
    assert own[1, 3] == pytest.approx(brute(a[1], a[3]))


@pytest.mark.slow
def test_processes_give_the_same():
    a, done = made(25), []
    assert torch.equal(
        clouds.chamfer_matrix(a, a[:20], workers=2, progress=done.append), clouds.chamfer_matrix(a, a[:20])
    )
    assert done[-1] == 500
    assert torch.equal(clouds.nearest_matrix(a, a[:20], workers=2), clouds.nearest_matrix(a, a[:20]))


def stretched(n, seed, m=60):
    """Clouds of different proportions, some of them nearly the same."""
    generator = np.random.default_rng(seed)
    sizes = generator.uniform(0.3, 2, (n, 3))
    sizes[n // 2 :: 2] = sizes[: len(sizes[n // 2 :: 2])]
    return [clouds.standardised(generator.normal(size=(m, 3)) * size) for size in sizes]


@pytest.mark.parametrize("cell", [0.1, 0.2, 1.0])
def test_nearest_clouds_are_those_of_the_whole_matrix(cell, monkeypatch):
    monkeypatch.setattr(clouds, "CELL", cell)
    a, b, done = stretched(20, 0), stretched(16, 1), []
    b[3], b[4] = a[5], a[5].copy()  # twins, and a tie
    whole, found = clouds.chamfer_matrix(a, b), clouds.nearest_matrix(a, b, progress=done.append)
    assert done[-1] == 36 and bool((found <= whole + 1e-6).all())
    for axis in (0, 1):
        assert torch.equal(found.amin(axis), whole.amin(axis)) and torch.equal(found.argmin(axis), whole.argmin(axis))
    own, near = clouds.chamfer_matrix(b), clouds.nearest_matrix(b)
    assert torch.equal(near, near.T) and bool((near <= own + 1e-6).all())
    for matrix in (own, near):
        matrix.fill_diagonal_(torch.inf)
    assert torch.equal(own.amin(1), near.amin(1)) and torch.equal(own.argmin(1), near.argmin(1))
    distances, places = clouds.nearest_chamfer(a, b)
    assert np.array_equal(places, whole.argmin(1).numpy()) and np.allclose(distances, whole.amin(1).numpy())


def test_few_distances_suffice(monkeypatch):
    counted = []
    monkeypatch.setattr(clouds, "_chamfer", lambda *pair, real=clouds._chamfer: counted.append(1) or real(*pair))
    some = stretched(60, 2, 200)
    clouds.nearest_matrix(some)
    assert len(counted) < 60 * 59 / 3


def test_points_are_spread_by_area():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 3, 5]], float)
    points = clouds.on_surface(vertices, np.array([[0, 1, 2], [3, 4, 5]]), 4000)
    assert (points[:, 2] > 4).mean() == pytest.approx(0.9, abs=0.02)
    assert points[points[:, 2] < 1, :2].mean(0) == pytest.approx([1 / 3, 1 / 3], abs=0.05)
    with pytest.raises(ValueError, match="area"):
        clouds.on_surface(vertices * 0, np.array([[0, 1, 2]]))


def test_standardised_clouds():
    cloud = clouds.standardised(made(1)[0] * [1, 2, 3] + 5)
    assert cloud.mean(0) == pytest.approx([0, 0, 0], abs=1e-12) and cloud.std() == pytest.approx(1)
    assert cloud.std(0).min() < 0.8  # one number for all axes: proportions stay


def test_f_score():
    a = np.random.default_rng(0).normal(size=(50, 3))
    assert clouds.f_score(a, a, 0.01) == 1 and clouds.f_score(a, a + 100, 0.01) == 0
    assert clouds.f_score(a, np.concatenate([a, a + 100]), 0.01) == pytest.approx(2 / 3)
