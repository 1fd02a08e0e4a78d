"""The rectified flow: rows as vectors and back, what it learns, and the command."""

import pytest
import torch
from made import generator, rows

from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from gpt.continuous.flow import Flow, FlowConfig, neuron_vectors, to_rows, to_vectors
from gpt.continuous.options import FlowModelConfig, TrainFlowConfig
from gpt.continuous.train_flow import train_flow

TINY = FlowModelConfig(n_layer=1, n_head=2, n_embd=16)


@pytest.mark.parametrize(
    "field", [FieldConfig(hidden=(6,), octaves=1), FieldConfig(hidden=(5, 7), octaves=0, in_dim=3)]
)
def test_rows_are_vectors_of_neurons(field):
    weights = rows(field, 5)
    vectors = to_vectors(field, weights)
    assert vectors.shape == (5, sum(field.widths[1:]), max(field.widths[:-1]) + 1)
    assert torch.equal(to_rows(field, vectors), weights)
    places = neuron_vectors(field)
    assert sorted(places[places >= 0].tolist()) == list(range(field.size))


def test_a_straight_flow_samples_what_it_was_told():
    """With the exact velocity of one point the samples are that point, whatever the noise."""
    data = torch.randn(1, 3, 4, generator=generator(0))
    model = Flow(FlowConfig(tokens=3, numbers=4, n_layer=1, n_head=1, n_embd=8))
    model.forward = lambda x, times, labels=None: (data - x) / (1 - times[:, None, None]).clamp_min(1e-3)
    drawn = model.sample(torch.randn(6, 3, 4, generator=generator(1)), steps=200)
    assert torch.allclose(drawn, data.expand_as(drawn), atol=0.02)


def test_it_learns_two_classes():
    """Labels name the mean: after a few hundred steps samples of a class are near its rows."""
    labels = torch.arange(64) % 2
    data = torch.randn(64, 2, 3, generator=generator(0)) * 0.1 + labels[:, None, None] * 4
    model, torch_state = (
        Flow.create(FlowConfig(2, 3, labels=2, n_layer=1, n_head=2, n_embd=16), data),
        torch.Generator(),
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(200):
        torch_state.manual_seed(step)
        noise, times = torch.randn(data.shape, generator=torch_state), torch.rand(64, generator=torch_state)
        loss = model.loss(data, labels, noise, times).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    drawn = model.sample(torch.randn(20, 2, 3, generator=generator(3)), torch.arange(20) % 2, steps=20)
    means = [float(drawn[i::2].mean()) for i in (0, 1)]
    assert means[0] < 1 and means[1] > 3


def test_the_command_goes_on_and_writes_fields(dataset, tmp_path):
    dataset.save(tmp_path / "fields")
    settings = {
        "fields": str(tmp_path / "fields"),
        "labels": True,
        "batch": 8,
        "eval_every": 2,
        "samples": 0,
        "model": TINY,
    }
    straight = TrainFlowConfig(**settings, steps=4, n=6, integration=3, threads=1, precision="fp32", out=tmp_path / "a")
    result = train_flow(straight)
    assert result["step"] == 4 and result["best"]["loss"] > 0
    samples = WeightDataset.load(tmp_path / "a" / "samples")
    assert samples.weights("samples").shape == (6, dataset.config.size)
    assert samples.labels("samples").tolist() == [0, 1, 0, 1, 0, 1]
    for steps in (2, 4):  # interrupted after two steps, then prolonged
        train_flow(
            TrainFlowConfig(
                **settings, steps=steps, n=6, integration=3, threads=1, precision="fp32", out=tmp_path / "b"
            )
        )
    again = WeightDataset.load(tmp_path / "b" / "samples")
    assert again.weights("samples").shape == (6, dataset.config.size)


def test_nonsense_is_refused():
    for wrong in ({"guidance": 2.0}, {"unlabelled": 1.0}, {"steps": 0}, {"n": 0}):
        with pytest.raises(ValueError, match="--"):
            TrainFlowConfig("x", **wrong)
