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


def test_the_nearest_of_a_pool():
    generator = np.random.default_rng(0)
    pool = [generator.normal(size=(200, 3)) * generator.uniform(0.5, 2, 3) for _ in range(30)]
    some = [pool[i] + generator.normal(size=(200, 3)) * 0.01 for i in (3, 17)]
    distances, places = clouds.nearest_chamfer(some, pool, coarse=60, shortlist=5)
    assert places.tolist() == [3, 17]
    assert np.allclose(distances, [clouds.chamfer(a, pool[i]) for a, i in zip(some, (3, 17), strict=True)])


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
