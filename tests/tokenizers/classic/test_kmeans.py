"""k-means codes: scikit-learn's inertia, brute-force nearest codes, few distinct values, speed."""

import time
import warnings

import numpy as np
import pytest
import torch
from made import generator, rows

from fields.model import FieldConfig
from tokenizers.classic import kmeans_1d, kmeans_groups, scalar_codes
from tokenizers.classic.kmeans import KMeansTokenizer
from tokenizers.classic.options import KMeansConfig

FIELD = FieldConfig(hidden=(4,), octaves=1)  # 6 -> 4 -> 1, 33 weights


def fitted(weights: torch.Tensor, **options) -> KMeansTokenizer:
    return KMeansTokenizer(KMeansConfig(**{"vocab_size": 16, "field": FIELD.to_dict(), **options})).fit(weights)


def mixtures() -> dict[str, np.ndarray]:
    r = np.random.default_rng(0)
    return {
        "normal": r.normal(size=4000),
        "heavy tails": r.standard_t(2, size=4000),
        "far clusters": np.concatenate([r.normal(m, 0.1, 500) for m in (-50, -3, 0, 1, 7, 100)]),
        "mostly zero": np.concatenate([np.zeros(3600), r.normal(size=400)]),
        "uniform": r.uniform(size=4000),
        "rounded": r.normal(size=4000).round(1),
    }


@pytest.mark.parametrize("name", list(mixtures()))
@pytest.mark.parametrize("k", [4, 16, 64])
def test_inertia_is_scikit_learns(name, k):
    from sklearn.cluster import KMeans

    values = mixtures()[name].astype(np.float32)
    centres, error = kmeans_1d.kmeans(values.copy(), k)
    distance = np.abs(values[:, None].astype(np.float64) - centres).min(1)
    assert np.isclose((distance**2).sum(), error, rtol=1e-3, atol=1e-6) and (np.diff(centres) > 0).all()
    theirs = KMeans(min(k, len(np.unique(values))), n_init=3, random_state=0).fit(values[:, None].astype(np.float64))
    assert error <= 1.01 * theirs.inertia_ + 1e-6


def test_codes_are_the_nearest(monkeypatch):
    weights = rows(FIELD, 400, seed=1)
    tokenizer = fitted(weights, vocab_size=64)
    z = tokenizer.standardizer(weights).double()
    distance = (z[..., None] - tokenizer.centres[0, :, 0].double()).abs()
    ids = tokenizer.encode(weights)
    chosen = distance.gather(2, ids[..., None])[..., 0]
    assert float((chosen - distance.amin(2)).max()) < 1e-5
    monkeypatch.setattr(scalar_codes, "SMALL", 1)  # the grid finds the same ids as the search
    assert torch.equal(tokenizer.encode(weights), ids)


@pytest.mark.parametrize("size, codebook", [(2, "global"), (3, "layer"), (300, "global"), (4096, "layer")])
def test_grid_and_search_agree(size, codebook, monkeypatch):
    base = torch.randn(FIELD.size, generator=generator(1))
    spread = torch.logspace(-6, 1, FIELD.size)  # some positions are too narrow for the grid
    weights = base + spread * torch.randn(600, FIELD.size, generator=generator(2))
    weights[0], weights[1] = 1e20, -1e20
    tokenizer = fitted(weights[2:], vocab_size=size, codebook=codebook)
    ids = tokenizer.encode(weights)
    monkeypatch.setattr(scalar_codes, "SMALL", 1)
    assert torch.equal(tokenizer.encode(weights), ids)
    decoded = tokenizer.decode(ids)
    assert torch.equal(tokenizer.encode(decoded), ids)


@pytest.mark.parametrize("group", [2, 3, 5])
def test_groups_are_the_nearest_of_brute_force(group):
    weights = rows(FIELD, 200, seed=2)
    tokenizer = fitted(weights, vocab_size=20, group=group)
    z = torch.cat([tokenizer.standardizer(weights), torch.zeros(200, 1)], 1)[:, tokenizer.index]  # (N, T, g)
    real = (tokenizer.index < FIELD.size).double()
    difference = (z[:, :, None].double() - tokenizer.centres[0].double()) * real[:, None]
    assert torch.equal(tokenizer.encode(weights), difference.square().sum(-1).argmin(-1))


def test_groups_stay_in_their_layer():
    index, place = kmeans_groups.cut_groups(torch.tensor([0] * 5 + [1] * 4), 3)
    assert index.tolist() == [[0, 1, 2], [3, 4, 9], [5, 6, 7], [8, 9, 9]]
    assert torch.equal(index.flatten()[place], torch.arange(9))
    tokenizer = KMeansTokenizer(KMeansConfig(group=3, field=FIELD.to_dict()))
    assert tokenizer.tokens_per_field == 10 + 2 and tokenizer.slots[10].tolist() == [1, 0, 0]  # 28 and 5 weights


def test_grouped_inertia_is_near_scikit_learns():
    from sklearn.cluster import KMeans

    points = torch.randn(3000, 2, generator=generator(3))
    centres = kmeans_groups.fit_centroids(points, 30, seed=0)
    error = float(torch.cdist(points, centres).amin(1).square().sum())
    assert error <= 1.05 * KMeans(30, n_init=3, random_state=0).fit(points.numpy()).inertia_


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("codebook", ["global", "layer"])
def test_fewer_distinct_values_than_codes(group, codebook):
    values = torch.tensor([-1.0, 0.0, 2.0])
    weights = values[torch.randint(3, (50, FIELD.size), generator=generator(5))]
    options = {"vocab_size": 64, "group": group, "codebook": codebook, "standardize": "none"}
    tokenizer = fitted(weights, **options)
    ids = tokenizer.encode(weights)
    assert tokenizer.codes == 3**group and torch.equal(tokenizer.decode(ids), weights)
    if codebook == "global":
        assert sorted(ids.unique().tolist()) == list(range(tokenizer.codes))
    one = fitted(weights[:1], vocab_size=64, group=group, codebook=codebook)  # one field: all positions are constant
    assert one.codes == 1 and torch.equal(one.decode(one.encode(weights[:1])), weights[:1])
    same = fitted(weights[:1].expand(20, -1), vocab_size=64, group=group, codebook=codebook)
    assert same.codes == 1 and torch.equal(same.decode(same.encode(weights[:1])), weights[:1])
    ten = fitted(rows(FIELD, 10), **{**options, "vocab_size": 4096, "standardize": "position"})
    assert 1 < ten.codes <= 330


def test_codes_past_a_layers_own_count_decode():
    weights = rows(FIELD, 30)
    weights[:, 28:] = torch.tensor([1.0, 2.0])[torch.randint(2, (30, 5), generator=generator(6))]
    tokenizer = fitted(weights, codebook="layer", standardize="none")
    assert tokenizer.counts.tolist() == [16, 2] and tokenizer.codes == 16
    decoded = tokenizer.decode(torch.full((1, FIELD.size), 15))
    assert decoded[0, 28:].tolist() == [2.0] * 5


def test_encoding_is_twenty_times_faster_than_scikit_learn():
    from sklearn.cluster import KMeans

    field = FieldConfig()
    weights = rows(field, 2000, seed=7)
    tokenizer = KMeansTokenizer(KMeansConfig(field=field.to_dict())).fit(weights)
    tokenizer.encode(weights)
    ours = min(_seconds(lambda: tokenizer.encode(weights)) for _ in range(3)) / weights.numel()
    sample = tokenizer.standardizer(weights)[:100].reshape(-1, 1).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one step leaves some clusters empty; only the speed matters
        model = KMeans(512, init=tokenizer.centres[0].numpy(), n_init=1, max_iter=1).fit(sample)
    theirs = min(_seconds(lambda: model.predict(sample)) for _ in range(3)) / len(sample)
    assert ours * 20 < theirs, f"{ours * 1e9:.1f} against {theirs * 1e9:.1f} ns a weight"


def _seconds(call) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
