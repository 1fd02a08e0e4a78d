"""Rows of the same function: permutations, scales and signs, and the way back."""

import pytest
import torch
from made import generator, rows

from fields import layout
from fields.fitting.align import align_dataset
from fields.fitting.options import AlignConfig
from fields.model import FieldConfig, forward
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference
from fields.symmetry import align, balance, canonical, deviation, match, rescale, shift, sort_neurons

FIELDS = [
    FieldConfig(hidden=(6,), octaves=1),
    FieldConfig(hidden=(7, 5, 6), octaves=2),
    FieldConfig(hidden=(6, 6), octaves=0, activation="sine", w0=3.0, output="linear"),
    FieldConfig(hidden=(5, 4), octaves=1, activation="elu"),
]


def scrambled(config: FieldConfig, weights: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """The same functions in other rows."""
    g, n = generator(seed), len(weights)
    orders = [torch.stack([torch.randperm(w, generator=g) for _ in range(n)]) for w in config.hidden]
    weights = layout.permute(config, weights, orders)
    if config.activation == "relu":
        factors = [torch.exp(torch.randn(n, w, generator=g)) for w in config.hidden]
    elif config.activation == "sine":
        factors = [torch.randint(0, 2, (n, w), generator=g) * 2.0 - 1 for w in config.hidden]
    else:
        factors = [torch.ones(n, w) for w in config.hidden]
    return rescale(config, weights, factors)


@pytest.mark.parametrize("config", FIELDS, ids=str)
def test_the_function_stays(config):
    weights = rows(config, 20)
    other = scrambled(config, weights)
    assert not torch.allclose(weights, other, atol=1e-2)
    assert float(deviation(config, weights, other).max()) < 1e-5


@pytest.mark.parametrize("config", FIELDS, ids=str)
def test_scrambled_copies_of_the_reference_come_back(config):
    reference = rows(config, 1, seed=3)[0]
    copies = scrambled(config, reference.expand(12, -1), seed=4)
    found = align(config, copies, reference)
    expected = balance(config, reference[None])
    assert torch.allclose(found, expected.expand_as(found), atol=1e-3)


@pytest.mark.parametrize("config", FIELDS, ids=str)
def test_matching_brings_rows_closer_and_changes_no_value(config):
    weights, reference = scrambled(config, rows(config, 30, seed=5)), rows(config, 1, seed=6)[0]
    found = match(config, weights, reference)
    assert bool(((found - reference).norm(dim=1) <= (weights - reference).norm(dim=1) + 1e-5).all())
    assert torch.equal(match(config, found, reference), found)  # a fixed point
    assert float(deviation(config, weights, found).max()) < 1e-5


def test_balanced_neurons_are_as_long_before_as_after():
    config = FIELDS[1]
    weights = rows(config, 10)
    layers = layout.split(config, weights)
    layers[0][0][0, 2], layers[0][1][0, 2] = 0, 0  # a dead neuron
    found = balance(config, weights)
    parts = layout.split(config, found)
    for i in range(len(config.hidden)):
        before = torch.cat([parts[i][0], parts[i][1][..., None]], 2).norm(dim=2)
        after = parts[i + 1][0].norm(dim=1)
        alive = before > 0
        assert torch.allclose(before[alive], after[alive], rtol=1e-2)
    assert float(deviation(config, weights, found).max()) < 1e-5
    assert bool((found.norm(dim=1) <= weights.norm(dim=1) + 1e-5).all())


def reordered(config: FieldConfig, weights: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """The same neurons in other orders, sine's with other signs: no number is changed but by its sign."""
    g, n = generator(seed), len(weights)
    orders = [torch.stack([torch.randperm(w, generator=g) for _ in range(n)]) for w in config.hidden]
    weights = layout.permute(config, weights, orders)
    if config.activation == "sine":
        flips = [torch.randint(0, 2, (n, w), generator=g) * 2.0 - 1 for w in config.hidden]
        weights = rescale(config, weights, flips)
    return weights


@pytest.mark.parametrize("config", [*FIELDS, FieldConfig(hidden=(19, 33), octaves=1, out_dim=3)], ids=str)
def test_sorted_rows_do_not_depend_on_the_order(config):
    weights = rows(config, 30, seed=7)
    found = sort_neurons(config, weights)
    assert torch.equal(sort_neurons(config, reordered(config, weights)), found) and not torch.equal(found, weights)
    assert torch.equal(sort_neurons(config, found), found)
    assert float(deviation(config, weights, found).max()) < 1e-5
    assert torch.equal(canonical(config, reordered(config, weights)), canonical(config, weights))
    last = layout.split(config, found)[-1][0].double().sum(1)
    assert bool((last.diff(dim=1) >= -1e-6).all())
    if config.activation == "sine":
        assert all(bool((bias >= 0).all()) for _, bias in layout.split(config, found)[:-1])


@pytest.mark.parametrize("config", FIELDS, ids=str)
def test_scaled_copies_become_one_row(config):
    row = rows(config, 1, seed=3)
    found = canonical(config, scrambled(config, row.expand(12, -1), seed=4))
    assert torch.allclose(found, canonical(config, row).expand_as(found), atol=1e-3)


@pytest.mark.parametrize("activation", ["relu", "sine", "elu"])
def test_ties_and_dead_neurons_have_their_place(activation):
    config = FieldConfig(hidden=(7, 6), octaves=1, activation=activation, w0=3.0)
    weights = rows(config, 20, seed=8)
    (first, first_bias), (second, _), (last, _) = layout.split(config, weights)
    last[:, :, :3] = 0  # three neurons that nothing reads
    last[:, :, 4] = last[:, :, 5]  # two read alike
    first[:, 1], first_bias[:, 1] = 0, 0  # one that hears nothing
    second[:, :, 2] = 0
    first[:, 3], first_bias[:, 3], second[:, :, 3] = first[:, 4], first_bias[:, 4], second[:, :, 4]  # twins
    first_bias[:, 5] = 0  # a sine without a sign
    found = sort_neurons(config, weights)
    assert torch.equal(sort_neurons(config, reordered(config, weights)), found)
    assert torch.equal(sort_neurons(config, found), found)
    assert float(deviation(config, weights, found).max()) < 1e-5
    assert bool(canonical(config, weights).isfinite().all())


def test_no_fields_and_wrong_factors():
    config = FIELDS[0]
    assert align(config, rows(config, 0), rows(config, 1)[0]).shape == (0, config.size)
    assert canonical(config, rows(config, 0)).shape == sort_neurons(config, rows(config, 0)).shape == (0, config.size)
    with pytest.raises(ValueError, match="must be above 0"):
        rescale(config, rows(config, 2), [torch.tensor([1.0, 1, -1, 1, 1, 1])])
    with pytest.raises(ValueError, match="expected factors for 1 hidden layers, got 2"):
        rescale(config, rows(config, 2), [torch.ones(6), torch.ones(6)])


def test_a_changed_function_is_named(monkeypatch):
    import fields.symmetry

    config, original = FIELDS[0], fields.symmetry.match
    monkeypatch.setattr(fields.symmetry, "match", lambda c, w, r: original(c, w, r) + 0.1)
    with pytest.raises(RuntimeError, match="field [0-9]+ computes different values"):
        align(config, rows(config, 5), rows(config, 1)[0])
    monkeypatch.setattr(fields.symmetry, "sort_neurons", lambda c, w: w + 0.1)
    with pytest.raises(RuntimeError, match="field [0-9]+ computes different values"):
        canonical(config, rows(config, 5))


def test_a_dataset_aligned(dataset, tmp_path, capsys):
    config = dataset.config
    mixed = {}
    for split in dataset.splits:
        names = {"psnr": dataset.quality, "labels": dataset.labels, "signal_id": dataset.ids, "sizes": dataset.extent}
        mixed[split] = {"weights": scrambled(config, dataset.weights(split)), **{k: f(split) for k, f in names.items()}}
    WeightDataset.from_rows(config, mixed, Reference(), dataset.signals).save(tmp_path / "mixed")
    settings = AlignConfig(fields=tmp_path / "mixed", out=tmp_path / "aligned")
    report = align_dataset(settings)
    made = WeightDataset.load(tmp_path / "aligned")
    for split in made.splits:
        assert float(deviation(config, dataset.weights(split), made.weights(split)).max()) < 1e-5
        assert made.ids(split) == dataset.ids(split) and torch.equal(made.labels(split), dataset.labels(split))
    assert report["after"]["between"] < 0.5 * report["before"]["between"]
    assert report["after"]["to_reference"] < 0.5 * report["before"]["to_reference"]
    assert report["after"]["halfway"] > report["before"]["halfway"] + 5
    assert align_dataset(settings) == report and "is complete" in capsys.readouterr().out
    with pytest.raises(ValueError, match="not a training signal"):
        align_dataset(AlignConfig(fields=tmp_path / "mixed", out=tmp_path / "x", reference="nobody"))
    assert not (tmp_path / "x").exists()


def test_shapes_aligned(tmp_path, monkeypatch):
    """Measured and drawn by their kind, as pictures are."""
    monkeypatch.setattr("fields.kinds.shapes.GRID", 12)
    config = FieldConfig(hidden=(6,), octaves=0, in_dim=3, output="linear")
    shape = rows(config, 1, seed=3)
    mixed = {"weights": torch.cat([shape, scrambled(config, shape)]), "ids": ["a", "b"], "extent": [[1]] * 2}
    WeightDataset.from_rows(config, {"train": mixed}, Reference(), {"kind": "shapes"}).save(tmp_path / "mixed")
    report = align_dataset(AlignConfig(fields=tmp_path / "mixed", out=tmp_path / "aligned"))
    assert report["before"]["halfway"] <= report["after"]["halfway"] == 1.0
    assert (tmp_path / "aligned" / "interpolation.png").is_file()


def test_a_dataset_sorted(dataset, tmp_path, capsys):
    config = dataset.config
    mixed = {split: {"weights": scrambled(config, dataset.weights(split))} for split in dataset.splits}
    for split in mixed:
        mixed[split] |= {
            "labels": dataset.labels(split),
            "signal_id": dataset.ids(split),
            "sizes": dataset.extent(split),
        }
        mixed[split] |= {"psnr": dataset.quality(split)}
    WeightDataset.from_rows(config, mixed, Reference(), dataset.signals).save(tmp_path / "mixed")
    settings = AlignConfig(fields=tmp_path / "mixed", out=tmp_path / "sorted", how="sort")
    report = align_dataset(settings)
    made = WeightDataset.load(tmp_path / "sorted")
    for split in made.splits:
        assert float(deviation(config, dataset.weights(split), made.weights(split)).max()) < 1e-5
        assert made.ids(split) == dataset.ids(split) and torch.equal(made.quality(split), dataset.quality(split))
    assert made.reference.row is None and made.reference.start == "unconditioned" and "sorted" in made.reference.how
    assert report["after"]["between"] < report["before"]["between"] and report["after"]["to_reference"] is None
    assert align_dataset(settings) == report and "60 fields sorted in" in capsys.readouterr().out
    with pytest.raises(ValueError, match="how: 'sort' there, None now"):
        align_dataset(AlignConfig(fields=tmp_path / "mixed", out=tmp_path / "sorted"))
    with pytest.raises(ValueError, match="--reference is for --how match only"):
        AlignConfig(fields="a", out=tmp_path, how="sort", reference="made/0")


@pytest.mark.parametrize(
    "config",
    (
        FieldConfig(hidden=(5, 4)),
        FieldConfig(hidden=(6,), octaves=0, activation="sine"),
        FieldConfig(hidden=(5,), octaves=3, raw_input=False, use_pi=False, activation="elu"),
        FieldConfig(hidden=(4, 4), in_dim=3, out_dim=2),
    ),
)
def test_a_shifted_row_says_it_elsewhere(config):
    weights = torch.randn(6, config.size, dtype=torch.float64, generator=generator())
    by, points = (torch.rand(6, n, config.in_dim, dtype=torch.float64, generator=generator()) - 0.5 for n in (1, 9))
    moved = shift(config, weights, by[:, 0])
    torch.testing.assert_close(forward(config, moved, points), forward(config, weights, points + by))
    torch.testing.assert_close(shift(config, moved, -by[:, 0]), weights)
