"""Every activation and output: derivative against autograd, symmetry, and the numpy text of cards."""

import numpy as np
import pytest
import torch
from made import rows

from fields.activations import ACTIVATIONS, OUTPUTS
from fields.model import FieldConfig, to_values, values
from fields.signals.images import grid
from fields.symmetry import rescale
from fields.view.numpy_render import numpy_source


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_derivative(name):
    z = torch.linspace(-2, 2, 41, requires_grad=True)
    out = ACTIVATIONS[name].function(z, 3.0)
    (slope,) = torch.autograd.grad(out.sum(), z)
    ours, derivative = ACTIVATIONS[name].with_slope(z.detach().clone(), 3.0)
    torch.testing.assert_close(ours, out.detach())
    torch.testing.assert_close(ACTIVATIONS[name].back(torch.ones(41), derivative), slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_and_its_derivative(name):
    config = FieldConfig(output=name, output_scale=0.5, output_shift=0.1)
    y = torch.linspace(-2, 2, 41)[:, None].requires_grad_()
    value = to_values(config, y)
    if OUTPUTS[name].slope is not None:
        (slope,) = torch.autograd.grad(value.sum(), y)
        torch.testing.assert_close(torch.as_tensor(OUTPUTS[name].slope(value.detach(), 0.5)).expand_as(y), slope)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_symmetry_keeps_the_function_and_numpy_says_the_same(name):
    config = FieldConfig(hidden=(5,), octaves=1, activation=name, w0=3.0)
    weights, coords = rows(config, 2), grid(config, 4, 5)
    factor = {"scale": torch.full((5,), 2.0), "sign": -torch.ones(5), "none": torch.ones(5)}[ACTIVATIONS[name].symmetry]
    torch.testing.assert_close(
        values(config, rescale(config, weights, [factor]), coords), values(config, weights, coords)
    )
    assert_numpy_says_the_same(config, weights[0], coords)


@pytest.mark.parametrize("name", OUTPUTS)
def test_numpy_says_the_same_of_outputs(name):
    placed = {"output_scale": (0.2, 0.3), "output_shift": (0.4, 0.5)}
    config = FieldConfig(hidden=(5,), octaves=0, out_dim=2, output=name, **placed)
    assert_numpy_says_the_same(config, rows(config, 1)[0], grid(config, 4, 5))


def assert_numpy_says_the_same(config, row, coords):
    """The lines of cards, run where there is nothing else."""
    names = {}
    exec(numpy_source(config), names)
    card = {"field": config.to_dict(), "widths": list(config.widths)}
    theirs = names["render"](row.numpy(), card, 4, 5)
    ours = values(config, row[None], coords)[0].clamp(0, 1)
    np.testing.assert_allclose(theirs.reshape(20, -1), ours.numpy(), atol=1e-5)
