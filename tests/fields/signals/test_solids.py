"""Procedural solids: distances against marching cubes and against geometry, the same solids for the same seed."""

import numpy as np
import pytest
import torch

from fields.signals import solids
from fields.signals.options import ShapeOptions, SignalsConfig
from fields.signals.registry import load_signals


def config(**options):
    return SignalsConfig("solids", count=20, shape=ShapeOptions(near=64, uniform=64, **options))


@pytest.mark.parametrize(
    ("part", "volume"),
    [
        (solids.box((0.5, 0.4, 0.3)), 8 * 0.5 * 0.4 * 0.3),
        (solids.cylinder(0.5, 0.4), np.pi * 0.25 * 0.8),
        (solids.torus(0.5, 0.2), 2 * np.pi**2 * 0.5 * 0.04),
        (solids.superquadric((0.6, 0.5, 0.4), 1.0, 1.0), 4 / 3 * np.pi * 0.12),
        (solids.superquadric((0.5, 0.5, 0.5), 2.0, 2.0), 4 / 3 * 0.125),
    ],
)
def test_primitives_have_their_volume(part, volume):
    points = np.random.default_rng(0).uniform(-1, 1, (200_000, 3))
    assert 8 * (part.shape(points) < 0).mean() == pytest.approx(volume, rel=0.03)


@pytest.mark.parametrize("part", [solids.box((0.5, 0.4, 0.3), 0.1), solids.cylinder(0.5, 0.4), solids.torus(0.5, 0.2)])
def test_distances_are_exact(part):
    """A step of the distance along its gradient ends on the surface, and no two points disagree by more than their gap."""
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    d, h = part.shape(points), 1e-6
    slopes = np.stack([(part.shape(points + h * e) - part.shape(points - h * e)) / (2 * h) for e in np.eye(3)], 1)
    assert np.quantile(np.abs(part.shape(points - d[:, None] * slopes)), 0.99) < 1e-4
    assert (np.abs(np.diff(d)) <= np.linalg.norm(np.diff(points, axis=0), axis=1) + 1e-9).all()


@pytest.mark.parametrize("family", solids.FAMILIES)
def test_families_lie_in_the_cube_and_have_a_surface(family):
    g = np.random.default_rng(3)
    for _ in range(3):
        item = solids.Solid(family, solids.MAKERS[family](g), 0.7)
        on = item.surface(100, g)
        assert on.shape == (100, 3) and np.abs(on).max() <= solids.REACH + 0.01
        assert np.abs(item.distance(on)).max() < 1e-3
        assert (item.distance(g.uniform(-1, 1, (20_000, 3))) < 0).mean() > 0.005


def test_frames_have_holes():
    item = solids.Solid("frame", solids.MAKERS["frame"](np.random.default_rng(0)), 0.0)
    hole = next(p for p in item.parts if p.cut)
    middle = (np.array(hole.centre) - item._middle) * item._scale
    assert item.distance(middle[None])[0] > 0.05


def test_the_same_seed_makes_the_same_solids():
    one, other = load_signals(config()), load_signals(SignalsConfig("solids", count=25, shape=config().shape))
    field = one.architecture()
    assert torch.equal(one.points(field, [3, 7]), other.points(field, [3, 7]))
    assert torch.equal(one.labels, other.labels[:20]) and one.ids == other.ids[:20]
    assert not torch.equal(one.points(field, [3]), one.points(field, [4]))
    assert [len(one.indices(s)) for s in ("train", "validation", "test")] == [16, 2, 2]


def test_values_are_what_was_asked_for():
    inside, distance = load_signals(config()), load_signals(config(target="distance", clamp=0.2))
    d = inside.around(0)[:, 3:]
    assert torch.equal(inside.values([0])[0], (d < 0).float())
    assert torch.allclose(distance.values([0])[0], (d / 0.2).clamp(-1, 1))
    assert inside.architecture().output == "logit" and distance.architecture().output == "tanh"
    assert inside.describe()["inside"] == "above 0" and distance.describe()["inside"] == "below 0"
    assert inside.architecture().size == 3713
    assert torch.equal(inside.subset([5, 2]).values([1]), inside.values([2]))


def test_count_is_for_solids():
    with pytest.raises(ValueError, match="--count"):
        SignalsConfig("digits", count=3)
    with pytest.raises(ValueError, match="near and --shape.uniform"):
        ShapeOptions(near=0, uniform=0)
