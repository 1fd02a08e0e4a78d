"""Turned fields: the values of the old ones at turned points."""

import pytest
import torch

from fields.model import FieldConfig, forward
from fields.turned import turned, turns


@pytest.mark.parametrize("raw, activation", [(True, "relu"), (False, "sine")])
def test_values_are_those_at_turned_points(raw, activation):
    config = FieldConfig(hidden=(6, 5), octaves=2, in_dim=3, raw_input=raw, activation=activation, w0=3.0)
    rows = 0.3 * torch.randn(4, config.size, generator=torch.Generator().manual_seed(0))
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for turn in turns(FieldConfig(in_dim=3), (0, 1)):
        expected = forward(config, rows, points @ turn.T)
        assert torch.allclose(forward(config, turned(config, rows, turn), points), expected, atol=1e-5)


def test_turns_are_a_group():
    found = turns(FieldConfig(in_dim=3), (0, 1))
    assert len(found) == 8 and torch.equal(found[0], torch.eye(3)) and bool((found[:, 2] == torch.eye(3)[2]).all())
    assert len(turns(FieldConfig(in_dim=3), (0, 1, 2))) == 48 and len(turns(FieldConfig(in_dim=2), ())) == 1
    known = {tuple(turn.flatten().tolist()) for turn in found}
    assert {tuple((a @ b).flatten().tolist()) for a in found for b in found} == known


def test_axes_that_are_not_there_are_refused():
    for axes in ((0, 0), (3,)):
        with pytest.raises(ValueError, match="between 0 and 2"):
            turns(FieldConfig(in_dim=3), axes)
