"""Distances and set metrics against oracles, and on sets whose answer is known by hand."""

import math

import pytest
import scipy.linalg
import scipy.stats
import torch
from made import generator
from torchmetrics.functional.image import structural_similarity_index_measure

from fields.metrics.distances import blur_matrix, dssim, l2, nearest, window_sigma
from fields.metrics.pairs import psnr
from fields.metrics.sets import (
    bootstrap_mean,
    coverage_scores,
    fid,
    frechet,
    kid,
    mann_whitney,
    mmd_scores,
    one_nn_scores,
)

SIZES = [(28, 28, 1), (8, 8, 1), (12, 7, 3), (5, 9, 1), (1, 28, 1), (2, 2, 1)]


def pictures(n: int, shape: tuple = (8, 8, 1), seed: int = 0) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def from_points(samples: list[float], references: list[float]) -> tuple[torch.Tensor, ...]:
    """Distances of points on a line."""
    s, r = torch.tensor(samples)[:, None], torch.tensor(references)[:, None]
    return torch.cdist(s, s), torch.cdist(s, r), torch.cdist(r, r)


@pytest.mark.parametrize("shape", SIZES)
def test_ssim_is_that_of_torchmetrics(shape):
    a, b = pictures(5, shape), pictures(4, shape, seed=1)
    a[0], b[0], a[1] = 0.3, 0.3, 0  # constant pictures, equal and different
    b[1] = a[2]
    sigma = [window_sigma(shape[0]), window_sigma(shape[1])]
    x, y = (t.permute(0, 3, 1, 2).double() for t in (a, b))
    columns = [
        structural_similarity_index_measure(x, t[None].expand_as(x), data_range=1.0, reduction="none", sigma=sigma)
        for t in y
    ]
    expected = (1 - torch.stack(columns, 1)) / 2
    assert torch.allclose(dssim(a, b).double(), expected, atol=1e-5)
    assert torch.allclose(dssim(a), dssim(a, a), atol=1e-5)
    assert torch.equal(dssim(a), dssim(a).T)


def test_ssim_in_blocks_and_progress(monkeypatch):
    a, b, done = pictures(11), pictures(7, seed=1), []
    whole, among = dssim(a, b), dssim(a)
    monkeypatch.setattr("fields.metrics.distances.BLOCK", 4)
    assert torch.allclose(dssim(a, b, progress=done.append), whole, atol=1e-6) and sum(done) == 64
    assert torch.allclose(dssim(a), among, atol=1e-6)
    torch.set_num_threads(3)
    assert torch.allclose(dssim(a, b), whole, atol=1e-6) and torch.get_num_threads() == 3
    torch.set_num_threads(1)


def test_window_is_torchmetrics_own_from_six_pixels_on():
    assert window_sigma(6) == 1.5 and window_sigma(28) == 1.5 and window_sigma(5) < 1.5
    for side in (1, 2, 3, 6, 28):
        assert torch.allclose(blur_matrix(side).sum(1), torch.ones(side, dtype=torch.float64))


def test_constant_pictures_have_finite_distances():
    flat = torch.stack([torch.zeros(8, 8, 1), torch.ones(8, 8, 1), torch.full((8, 8, 1), 0.5)])
    assert dssim(flat).isfinite().all() and dssim(flat).diagonal().max() < 1e-5
    assert 0.49 < float(dssim(flat)[0, 1]) <= 0.51


def test_l2_is_euclidean_and_exact_for_twins():
    a, b = pictures(6), pictures(5, seed=1)
    assert torch.allclose(l2(a, b), torch.cdist(a.flatten(1), b.flatten(1)), atol=1e-5)
    assert l2(a, a.clone()).diagonal().max() < 1e-6
    assert float(l2(torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))) == pytest.approx(math.sqrt(3))


def test_other_sizes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"\(8, 8, 1\) and \(9, 8, 1\)"):
        l2(pictures(2), pictures(2, (9, 8, 1)))
    with pytest.raises(ValueError, match="the same size"):
        dssim(pictures(2), pictures(2, (8, 8, 3)))


def test_nearest_equals_brute_force_and_leaves_out_the_own_signal():
    queries, rows = pictures(9), pictures(50, seed=1)
    every = torch.cdist(queries.flatten(1), rows.flatten(1))
    found = nearest(queries, rows.split(7), second=True)
    lowest = every.sort(1).values
    assert torch.allclose(found.distance, lowest[:, 0], atol=1e-5) and torch.equal(found.where, every.argmin(1))
    assert torch.allclose(found.second, lowest[:, 1], atol=1e-5)
    owners = torch.arange(50) // 2
    found = nearest(rows[:10], rows.split(7), owners=owners, skip=owners[:10])
    assert not (owners[found.where] == owners[:10]).any() and (found.distance > 0).all()
    assert nearest(rows[:10], rows.split(7)).distance.max() == 0  # exactly 0, not the rounding of a matrix product
    found = nearest(queries, [], second=True)
    assert found.distance.isinf().all() and (found.where == -1).all() and found.second.isinf().all()


@pytest.mark.parametrize("chunk", [1, 3, 40])
def test_the_runner_up_is_of_another_signal(chunk):
    queries, rows = pictures(8), pictures(40, seed=1)
    owners = torch.randint(6, (40,), generator=torch.Generator().manual_seed(0))
    every = torch.cdist(queries.flatten(1), rows.flatten(1))
    first = owners[every.argmin(1)]
    expected = every.masked_fill(first[:, None] == owners[None], float("inf")).amin(1)
    assert torch.allclose(nearest(queries, rows.split(chunk), owners=owners, second=True).second, expected, atol=1e-5)
    alone = nearest(queries, rows.split(chunk), owners=torch.zeros(40, dtype=torch.int64), second=True)
    assert alone.second.isinf().all()


def test_mmd_and_coverage_by_hand():
    _, sr, _ = from_points([0.0, 0.1, 5.0], [0.0, 1.0, 5.5])
    assert mmd_scores(sr).tolist() == pytest.approx([0.0, 0.9, 0.5])
    assert coverage_scores(sr).tolist() == [1, 0, 1]  # 0 and .1 both choose the first reference


def test_one_nn_far_apart_is_one_and_interleaved_is_zero():
    assert one_nn_scores(*from_points([0.0, 0.1, 0.2], [9.0, 9.1, 9.2])).mean() == 1
    assert one_nn_scores(*from_points([0.0, 2.0, 4.0], [0.5, 2.5, 4.5])).mean() == 0


def test_one_nn_of_coincident_sets():
    points = [0.0, 1.0, 3.0, 7.0]
    assert one_nn_scores(*from_points(points, points)).mean() == 0  # every twin stands in the other set
    same = one_nn_scores(*from_points([1.0] * 5, [1.0] * 5))
    assert same.tolist() == pytest.approx([4 / 9] * 10)  # nothing to tell them apart: (N - 1) / (2N - 1)
    tied = one_nn_scores(*from_points([0.0, 1.0], [-1.0, 9.0]))
    assert float(tied[0]) == 0.5  # one neighbour of each set, equally far


def test_one_nn_of_coincident_pictures_under_both_distances():
    a = pictures(12)
    for measure in (l2, dssim):
        assert one_nn_scores(measure(a), measure(a, a.clone()), measure(a.clone())).mean() == 0


def test_one_distribution_scores_one_half():
    a, b = torch.randn(2, 300, 4, 1, 1, generator=torch.Generator().manual_seed(0))
    result = bootstrap_mean(one_nn_scores(l2(a), l2(a, b), l2(b)), seed=0, strata=300)
    assert result.low < 0.5 < result.high and 0.02 < result.high - result.low < 0.12


def test_bootstrap_covers_the_binomial_interval_and_is_seeded():
    scores = (torch.arange(400) % 4 == 0).float()
    a, b, c = (bootstrap_mean(scores, seed=s) for s in (0, 0, 1))
    assert a == b and a != c and a.value == 0.25
    assert (a.high - a.low) / 2 == pytest.approx(1.96 * math.sqrt(0.25 * 0.75 / 400), rel=0.2)
    assert bootstrap_mean(torch.zeros(0), seed=0).value is None


def test_frechet_is_the_textbook_formula():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 6, generator=g), torch.randn(150, 6, generator=g) * 1.5 + 1
    cx, cy = torch.cov(x.T.double()).numpy(), torch.cov(y.T.double()).numpy()
    mean = float((x.double().mean(0) - y.double().mean(0)).square().sum())
    expected = mean + (cx + cy - 2 * scipy.linalg.sqrtm(cx @ cy).real).trace()
    assert frechet(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [2, 20, 50, 300])
def test_frechet_of_identical_sets_is_zero_whatever_the_rank(n):
    x = torch.relu(torch.randn(n, 128, generator=torch.Generator().manual_seed(0))) * 20
    x[:, 100:] = 0  # dead features
    assert frechet(x, x.clone()) < 1e-3
    assert frechet(x, x + 1) == pytest.approx(128, rel=1e-6)


def test_fid_says_where_n_is_small():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(100, 128, generator=g), torch.randn(100, 128, generator=g)
    few = fid(x, y, seed=0)
    assert "N = 100 < 128 features" in few.note and few.low <= few.value <= few.high
    assert fid(x.repeat(2, 1), y.repeat(2, 1), seed=0).note == ""
    assert fid(x[:2], y[:2], seed=0).low is None
    for n in (0, 1):
        assert fid(x[:n], y[:n], seed=0).value is None
    with pytest.raises(ValueError, match="at least 2"):
        frechet(x[:1], y)
    with pytest.raises(ValueError, match="finite"):
        frechet(x * math.nan, y)


def test_mann_whitney_is_scipys_asymptotic_z():
    g = torch.Generator().manual_seed(0)
    for a, b in (
        (torch.rand(40, generator=g), torch.rand(60, generator=g) + 0.1),
        (torch.randint(5, (50,), generator=g), torch.randint(6, (30,), generator=g)),  # many ties
    ):
        x, y = a.double().numpy(), b.double().numpy()  # scipy ranks in the type it is given
        p = scipy.stats.mannwhitneyu(x, y, method="asymptotic", use_continuity=False).pvalue
        z = mann_whitney(a, b)
        assert 2 * scipy.stats.norm.sf(abs(z)) == pytest.approx(p, rel=1e-9)
        assert z < 0 and mann_whitney(b, a) == pytest.approx(-z)
    assert mann_whitney(torch.ones(5), torch.ones(7)) == 0
    assert mann_whitney(torch.ones(0), torch.ones(7)) is None
    assert mann_whitney(torch.full((3,), float("inf")), torch.ones(3)) > 0


def test_psnr_of_a_known_error_and_its_cap():
    a = torch.zeros(2, 4, 4, 1)
    b = a.clone()
    b[0] += 0.1
    assert psnr(a, b).tolist() == pytest.approx([20.0, 100.0], abs=1e-4)
    with pytest.raises(ValueError, match="equal shapes"):
        psnr(a, b[:1])


def test_kid_is_the_definition_and_settles_at_zero():
    """Squared MMD under (x y / D + 1)^3 by its double sum; of two halves of one set nothing is left."""
    x, y = torch.randn(40, 6, generator=generator(0)), torch.randn(40, 6, generator=generator(1)) + 0.5

    unit = y.double().square().mean()

    def kernel(a, b):
        return (a.double() @ b.double().T / unit / 6 + 1) ** 3

    n = len(x)
    within = [(kernel(z, z).sum() - kernel(z, z).trace()) / (n * (n - 1)) for z in (x, y)]
    assert kid(x, y, seed=0).value == pytest.approx(float(within[0] + within[1] - 2 * kernel(x, y).mean()))
    assert kid(x * 1000, y * 1000, seed=0).value == pytest.approx(kid(x, y, seed=0).value)
    many = torch.randn(4000, 6, generator=generator(2))
    found = kid(many[:2000], many[2000:], seed=0, subsets=20)
    assert abs(found.value) < 0.02 < kid(many[:2000], many[2000:] + 0.5, seed=0, subsets=20).low
    assert found.low < found.value < found.high and kid(x[:1], y, seed=0).value is None
