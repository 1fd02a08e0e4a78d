"""The hand-written inner loop against autograd and against its own promises."""

import pytest
import torch
import torch.nn.functional as F
from made import generator, rows

from fields.fitting.engine import Points, Schedule, fit_block, gradients, quality
from fields.model import FIELDS, FieldConfig, forward, fourier_encoding, to_values


@pytest.mark.parametrize("hidden", [(7,), (5, 6, 7)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("output", ["logit", "linear", "tanh", "offset"])
@pytest.mark.parametrize("activation", ["relu", "sine", "elu"])
def test_gradients_are_autograds(activation, output, channels, hidden):
    config = FieldConfig(
        hidden=hidden, octaves=2, out_dim=channels, activation=activation, output=output, w0=3.0,
        output_scale=0.3 if channels == 1 else (0.3, 0.2, 0.5), output_shift=0.5 if channels == 1 else (0.1, 0.5, 0.4),
    )  # fmt: skip
    weights = rows(config, 4).double().requires_grad_()
    coords = torch.rand(30, 2, generator=generator()).double() * 2 - 1
    targets = torch.rand(4, 30, channels, generator=generator()).double()
    y = forward(config, weights, coords)
    if output == "logit":
        loss = F.binary_cross_entropy_with_logits(y, targets, reduction="none")
    else:
        loss = (to_values(config, y) - targets).square()
    loss.mean((1, 2)).sum().backward()
    inputs = torch.cat([fourier_encoding(config, coords), torch.ones(30, 1).double()], 1)
    ours = gradients(config, weights.detach(), inputs, inputs.T, targets.transpose(1, 2))
    assert (ours - weights.grad).abs().max() < 1e-10


def block(n: int = 6, side: int = 8):
    """Fields of smooth pictures."""
    config = FIELDS["digits"]
    line = (2 * torch.arange(side) + 1) / side - 1
    coords = torch.cartesian_prod(line, line)
    slope = torch.randn(n, 2, 1, generator=generator(3))
    targets = torch.sigmoid(3 * coords @ slope)  # (n, M, 1)
    return config, coords, targets, rows(config, 1, spread=0).expand(n, -1)


def test_steps_are_torch_adam():
    config, coords, targets, start = block()
    points = Points(config, coords, 1.0, 0)
    ours = fit_block(config, start, targets, points, Schedule(5, 1e-2, (0.9, 0.99), constant=True))
    weights = start.clone().requires_grad_()
    adam = torch.optim.Adam([weights], lr=1e-2, betas=(0.9, 0.99))
    for _ in range(5):
        adam.zero_grad()
        loss = F.binary_cross_entropy_with_logits(forward(config, weights, coords), targets, reduction="none")
        loss.mean((1, 2)).sum().backward()
        adam.step()
    assert torch.allclose(ours, weights, atol=1e-5)


def test_fits_reach_the_signal():
    config, coords, targets, start = block()
    fitted = fit_block(config, start, targets, Points(config, coords, 1.0, 0), Schedule(300, 1e-2))
    assert quality(config, fitted, targets, coords).min() > 35


def test_pixel_shares_are_disjoint_and_cover_all():
    config, coords, *_ = block()
    parts = Points(config, coords, 0.25, 7).parts
    assert len(parts) == 4 and torch.equal(torch.cat(parts).sort().values, torch.arange(64))
    assert Points(config, coords[:1], 0.25, 7).parts == [None]  # a picture of one pixel


def test_target_stops_each_field_on_its_own():
    config, coords, targets, start = block()
    points = Points(config, coords, 1.0, 0)
    free = fit_block(config, start, targets, points, Schedule(200, 1e-2))
    stopped = fit_block(config, start, targets, points, Schedule(200, 1e-2, target=25.0))
    reached = quality(config, stopped, targets, coords)
    assert (reached >= 25).all() and reached.mean() < quality(config, free, targets, coords).mean()


def test_a_field_does_not_see_the_others():
    config, coords, targets, start = block()
    points, schedule = Points(config, coords, 0.5, 0), Schedule(40, 1e-2)
    together = fit_block(config, start, targets, points, schedule)
    alone = fit_block(config, start[2:3], targets[2:3], points, schedule)
    assert torch.allclose(together[2], alone[0], atol=1e-4)
