"""The order of a row, and what depends on it."""

import json

import numpy as np
import pytest
import torch
from made import generator, rows

from fields import layout, model
from fields.model import FIELDS, FieldConfig, forward, fourier_encoding, values
from fields.module import from_module, to_module

CONFIGS = {
    "digits": FIELDS["digits"],
    "default": FIELDS["default"],
    "siren": FieldConfig(hidden=(7, 5), octaves=0, activation="sine", output="offset", output_scale=0.3),
    "elu": FieldConfig(
        hidden=(5,), octaves=1, raw_input=False, use_pi=False, activation="elu", output="tanh", out_dim=3
    ),
}


def test_sizes_of_the_named_fields():
    assert FIELDS["digits"].size == 169 and FIELDS["default"].size == 593
    assert FIELDS["digits"].widths == (10, 8, 8, 1)


@pytest.mark.parametrize("name", CONFIGS)
def test_module_gives_the_same_values(name):
    config = CONFIGS[name]
    weights, coords = rows(config, 3), torch.rand(11, 2, generator=generator()) * 2 - 1
    module = to_module(config, weights[1])
    with torch.no_grad():
        assert torch.allclose(module(coords), values(config, weights, coords)[1], atol=1e-5)
    assert torch.equal(from_module(module), weights[1])


@pytest.mark.parametrize("name", CONFIGS)
def test_permuted_hidden_neurons_give_the_same_values(name):
    config = CONFIGS[name]
    weights, coords = rows(config, 4), torch.rand(9, 2, generator=generator()) * 2 - 1
    orders = [torch.randperm(width, generator=generator(width)) for width in config.hidden]
    moved = layout.permute(config, weights, orders)
    assert not torch.equal(moved, weights)
    assert torch.allclose(values(config, moved, coords), values(config, weights, coords), atol=1e-5)
    with pytest.raises(ValueError, match="not a permutation"):
        layout.permute(config, weights, [torch.zeros_like(order) for order in orders])


@pytest.mark.parametrize("name", CONFIGS)
def test_slots_name_every_weight_once(name):
    config = CONFIGS[name]
    slots = layout.slots(config)
    assert slots.shape == (config.size, 3)
    assert len(slots.unique(dim=0)) == config.size
    assert int((slots[:, 2] == layout.bias_slot(config)).sum()) == sum(config.widths[1:])


def test_numpy_reads_a_row_from_the_documented_order():
    """What field.json says is enough to evaluate a row."""
    config = FIELDS["default"]
    row = rows(config, 1)[0].numpy().astype(np.float64)
    xy = np.array([[0.3, -0.6], [-0.9, 0.1]])
    h = np.concatenate([xy] + [f(2.0**k * np.pi * xy) for k in range(4) for f in (np.sin, np.cos)], 1)
    at = 0
    for i, (fan_in, fan_out) in enumerate(((18, 16), (16, 16), (16, 1))):
        matrix = row[at : at + fan_in * fan_out].reshape(fan_out, fan_in)
        at += fan_in * fan_out
        h = h @ matrix.T + row[at : at + fan_out]
        at += fan_out
        h = np.maximum(h, 0) if i < 2 else 1 / (1 + np.exp(-h))
    assert at == len(row)
    ours = values(config, torch.tensor(row, dtype=torch.float32)[None], torch.tensor(xy, dtype=torch.float32))
    assert np.abs(ours[0].numpy() - h).max() < 1e-5


def test_values_in_small_chunks_are_the_same():
    config = FIELDS["digits"]
    weights, coords = rows(config, 5), torch.rand(50, 2, generator=generator())
    assert torch.allclose(values(config, weights, coords, memory=1 << 12), values(config, weights, coords), atol=1e-6)


def test_forward_is_differentiable_in_weights():
    config = FIELDS["digits"]
    weights = rows(config, 2).requires_grad_()
    forward(config, weights, torch.zeros(3, 2)).sum().backward()
    assert weights.grad.isfinite().all() and weights.grad.abs().sum() > 0


def test_wrong_rows_are_refused():
    config = FIELDS["digits"]
    with pytest.raises(ValueError, match=r"\(N, 169\), got \(2, 168\)"):
        layout.split(config, torch.zeros(2, 168))
    state = layout.to_state_dict(config, rows(config, 1)[0])
    with pytest.raises(ValueError, match="layers.1.bias is missing"):
        layout.from_state_dict(config, {k: v for k, v in state.items() if k != "layers.1.bias"})
    with pytest.raises(ValueError, match="must have shape"):
        layout.from_state_dict(config, {**state, "layers.0.bias": torch.zeros(9)})
    with pytest.raises(ValueError, match="unexpected keys"):
        layout.from_state_dict(config, {**state, "more": torch.zeros(1)})


def test_config_survives_json_and_refuses_nonsense():
    config = CONFIGS["elu"]
    assert FieldConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="unknown keys"):
        FieldConfig.from_dict({**config.to_dict(), "wings": 2})
    with pytest.raises(ValueError, match="hidden"):
        FieldConfig(hidden=())
    with pytest.raises(ValueError, match="octaves"):
        FieldConfig(octaves=0, raw_input=False)
    assert fourier_encoding(FieldConfig(), torch.zeros(1, 2)).shape == (1, 18)


def test_output_scale_per_channel():
    """One number per channel survives JSON, multiplies channels, and a number stays what it was."""
    config = FieldConfig(
        hidden=(4,), out_dim=3, output="offset", output_scale=(0.2, 0.3, 0.4), output_shift=(0.5, 0.4, 0.3)
    )
    assert FieldConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    y = torch.ones(2, 5, 3)
    assert torch.allclose(model.to_values(config, y)[0, 0], torch.tensor([0.7, 0.7, 0.7]))
    assert FieldConfig(output_scale=[0.3]).output_scale == 0.3
    assert FieldConfig().to_dict()["output_scale"] == 1.0
    with pytest.raises(ValueError, match="one for each of 3 channels, got 2"):
        FieldConfig(out_dim=3, output_scale=(1.0, 2.0))
