"""Every kind of signals answers, and only the kinds ask how many coordinates a field has."""

import pytest
import torch

from fields.fitting.starts import random_rows
from fields.kinds.registry import KINDS, kind_of
from fields.model import FieldConfig, values

FIELDS = {
    "images": (FieldConfig(hidden=(6,), octaves=1), [4, 5]),
    "shapes": (FieldConfig(hidden=(6,), octaves=1, in_dim=3), [64]),
    "points": (FieldConfig(hidden=(6,), octaves=1, in_dim=1), [30]),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_answers(name):
    config, extent = FIELDS[name]
    kind, weights = kind_of(config), random_rows(config, [0, 1])
    assert kind.name == name == kind_of(config, {"kind": name}).name
    points = kind.points(config, extent)
    assert points.shape[1] == config.in_dim
    said = values(config, weights, points)
    own = kind.quality(config, said, said)
    assert own.shape == (2,) and torch.equal(own, kind.quality(config, said, said))
    if name != "shapes":  # random fields may have no inside
        other = kind.quality(config, said, said.flip(0))
        assert bool((kind.measure.order(own) > kind.measure.order(other)).all())
    assert not kind.quality(config, said * torch.nan, said).isfinite().any()
    if kind.drawable(config, extent):
        pictures = kind.thumbnail(config, weights, extent, most=16)
        assert pictures.ndim == 4 and len(pictures) == 2 and pictures.shape[3] in (1, 3)
        assert max(pictures.shape[1:3]) <= 16
    else:
        with pytest.raises(ValueError, match="cannot be drawn"):
            kind.thumbnail(config, weights, extent)


def test_only_shapes_without_any_inside_in_common_have_failed():
    quality = torch.tensor([0.0, 0.01, torch.nan])
    for name, (config, _) in FIELDS.items():
        assert kind_of(config, {"kind": name}).failed(quality).tolist() == [name == "shapes", False, False]


def test_a_kind_that_does_not_suit_is_refused():
    with pytest.raises(ValueError, match="do not suit"):
        kind_of(FIELDS["shapes"][0], {"kind": "images"})
    with pytest.raises(ValueError, match="are unknown"):
        kind_of(FIELDS["shapes"][0], {"kind": "smells"})
