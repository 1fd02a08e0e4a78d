"""Fitting in memory: what the command would write, points of each signal's own, any dimension and range."""

import numpy as np
import pytest
import torch

import fields
from fields.fitting.engine import Points, Schedule, fit_block, gradients
from fields.fitting.fit import fit_fields
from fields.fitting.options import FitConfig
from fields.fitting.starts import random_rows
from fields.model import FieldConfig, forward, to_values, values
from fields.runtime import launch
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals

FIELD = FieldConfig(hidden=(6,), octaves=1)
SPACE = FieldConfig(hidden=(8, 8), octaves=0, in_dim=3, output="linear")


def spheres(n: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (n, m, 3) and signed distances (n, m, 1) of balls."""
    points = torch.rand(n, m, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return points, points.norm(dim=2, keepdim=True) - torch.linspace(0.4, 0.7, n)[:, None, None]


def test_arrays_give_the_fields_of_the_command(tmp_path, on_cpu):
    signals = load_signals(SignalsConfig()).subset(range(12))
    config = FitConfig(fits=1, steps=10, start="unconditioned", threads=1)
    accelerator = launch.start(threads=1, precision="fp32")
    written = fit_fields(FIELD, signals, config, out=tmp_path / "fields", accelerator=accelerator)
    ours = fields.fit(signals, field=FIELD, steps=10, start="unconditioned", quiet=True)
    assert ours.fingerprint == written.fingerprint and "12" not in ours.splits
    for split in ours.splits:
        assert torch.equal(ours.quality(split), written.quality(split))


def test_pictures_as_arrays():
    pictures = load_signals(SignalsConfig()).images(range(6))[..., 0]
    data = fields.fit(pictures, labels=[0, 1] * 3, field=FIELD, steps=30, start="unconditioned", quiet=True)
    rows = data.rows("train")
    assert len(rows) == 6 and rows.labels.tolist() == [0, 1] * 3 and rows.extent.tolist() == [[8, 8]] * 6
    assert data.kind.name == "images" and data.render("train").shape == (6, 8, 8, 1)
    again = fields.fit(
        (pictures * 255).round().to(torch.uint8), field=FIELD, steps=1, start="unconditioned", quiet=True
    )
    assert again.rows("train").weights.shape == rows.weights.shape
    with pytest.raises(ValueError, match="floats in \\[0, 1\\]"):
        fields.fit(pictures + 1, field=FIELD, quiet=True)
    with pytest.raises(ValueError, match="shape \\(N, H, W\\)"):
        fields.fit(pictures[0], field=FIELD, quiet=True)


def test_each_signal_with_points_of_its_own():
    points, distances = spheres(4, 300)
    data = fields.fit(points, distances, kind="shapes", field=SPACE, steps=200, meta_steps=10, pixels=0.5, quiet=True)
    assert data.kind.measure.name == "IoU" and bool((data.quality("train") > 0.6).all())
    assert data.extent("train").tolist() == [[300]] * 4
    assert data.kind.thumbnail(SPACE, data.weights("train", [0]), [300], most=16).shape == (1, 16, 16, 3)


def test_any_dimension_and_range():
    line = torch.linspace(-1, 1, 50)[:, None]
    waves = 3 * torch.sin(line.T * torch.tensor([[1.0], [2.0]]))  # (2, 50)
    data = fields.fit(line, waves, steps=300, meta_steps=5, quiet=True)
    assert data.config.in_dim == 1 and data.config.output == "linear" and bool((data.quality("train") > 25).all())
    with pytest.raises(ValueError, match="coordinates"):
        fields.fit(line, waves, field=FIELD, quiet=True)


@pytest.mark.parametrize("output", ["logit", "linear"])
def test_gradients_at_own_points_are_those_of_autograd(output):
    config = FieldConfig(hidden=(6, 5), octaves=1, output=output)
    weights = random_rows(config, [0, 1, 2]).requires_grad_()
    coords, targets = torch.rand(3, 20, 2), torch.rand(3, 20, 1)
    out = forward(config, weights, coords)
    loss = torch.nn.functional.binary_cross_entropy_with_logits if output == "logit" else torch.nn.functional.mse_loss
    said = out if output == "logit" else to_values(config, out)
    loss(said, targets, reduction="none").mean((1, 2)).sum().backward()
    ours = gradients(config, weights.detach(), *Points(config, coords, 1.0, 0).part(0), targets.mT)
    torch.testing.assert_close(ours, weights.grad, rtol=1e-4, atol=1e-6)


def test_own_points_give_what_shared_ones_do():
    coords, targets = torch.rand(40, 2), torch.rand(3, 40, 1)
    start, schedule = random_rows(FIELD, [0, 1, 2]), Schedule(30, 1e-2, target=20.0)
    shared = fit_block(FIELD, start, targets, Points(FIELD, coords, 0.5, 0), schedule)
    own = fit_block(FIELD, start, targets, Points(FIELD, coords.expand(3, -1, -1), 0.5, 0), schedule)
    torch.testing.assert_close(values(FIELD, own, coords), values(FIELD, shared, coords), rtol=1e-3, atol=1e-3)


def test_the_front_door_names_what_there_is():
    for name in fields.__all__:
        assert getattr(fields, name) is not None
    assert callable(fields.fit) and fields.Rows.__name__ in dir(fields)
    with pytest.raises(AttributeError, match="offers"):
        fields.nothing  # noqa: B018


def test_labels_by_name_and_what_is_no_tensor():
    pictures = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0))
    how = {"field": FIELD, "steps": 4, "start": "unconditioned", "quiet": True}
    data = fields.fit(pictures.numpy(), labels=np.array(["cat", "ant", "cat", "bee"]), **how)
    assert data.label_names == ["ant", "bee", "cat"] and data.labels("train").tolist() == [2, 0, 2, 1]
    with pytest.raises(ValueError, match="Of Rows give their `weights`"):
        fields.render(FIELD, data.rows("train"), 8, 8)
    with pytest.raises(ValueError, match="got an empty array"):
        fields.fit(pictures[:0], **how)
