"""The rectified flow: rows as vectors and back, what it learns, and the command."""

import pytest
import torch
from made import generator, rows

from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from gpt.checkpoint import load_gpt, load_model
from gpt.continuous.flow import Flow, FlowConfig
from gpt.continuous.options import FlowModelConfig, TrainFlowConfig
from gpt.continuous.train_flow import train_flow
from gpt.continuous.vectors import Vectors, neuron_vectors, to_rows, to_vectors
from gpt.sampling.show import recognise
from tokenizers.classic.options import PCAConfig
from tokenizers.learned.options import RegionsConfig
from tokenizers.registry import make_tokenizer

TINY = FlowModelConfig(n_layer=1, n_head=2, n_embd=16)


def fitted(kind, data):
    """A small tokenizer of the dataset's training fields."""
    made = {
        "pca": lambda: PCAConfig(field=data.config.to_dict(), components=3, vocab_size=4),
        "regions": lambda: RegionsConfig(
            field=data.config.to_dict(), grid=(2, 2), vocab_size=5, steps=0, hidden=0, encoder=0
        ),
    }
    return make_tokenizer(made[kind]()).fit(data.weights("train"))


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


@pytest.mark.parametrize("kind", ["pca", "regions"])
def test_latents_of_a_tokenizer_are_vectors(kind, dataset):
    """What is rounded and decoded from the vectors of a field is what its tokens decode to."""
    tokenizer = fitted(kind, dataset)
    vectors, weights = Vectors(dataset.config, tokenizer), dataset.weights("train")
    moved = vectors.of(weights)
    assert moved.shape[:2] == (len(weights), tokenizer.tokens_per_field)
    assert torch.equal(vectors.rows(moved), tokenizer.decode(tokenizer.encode(weights)))
    moved[1, 0, 0] = torch.nan
    assert vectors.rows(moved).isfinite().all(1).tolist() == [i != 1 for i in range(len(weights))]


def test_a_flow_over_latents_draws_fields_that_its_tokenizer_can_say(dataset, tmp_path):
    dataset.save(tmp_path / "fields")
    tokenizer = fitted("regions", dataset)
    tokenizer.save_pretrained(tmp_path / "words")
    settings = {"fields": str(tmp_path / "fields"), "tokenizer": str(tmp_path / "words"), "batch": 8, "samples": 2}
    train_flow(TrainFlowConfig(**settings, steps=3, n=5, integration=3, threads=1, model=TINY, out=tmp_path / "flow"))
    drawn = WeightDataset.load(tmp_path / "flow" / "samples").weights("samples")
    model, words, info = load_model(tmp_path / "flow")
    assert words.fingerprint == info["tokenizer"] == tokenizer.fingerprint and model.config.kind == "flow"
    with pytest.raises(ValueError, match="is a flow model, which writes no tokens"):
        load_gpt(tmp_path / "flow")
    assert len(drawn) == 5 and drawn.isfinite().all()
    for place in ("flow", "flow/best"):  # what it drew is shown
        if (tmp_path / place).is_dir():
            assert recognise(str(tmp_path / place)) == (tmp_path / "flow" / "samples", "fields")


def test_a_tokenizer_of_other_fields_is_refused(dataset):
    with pytest.raises(ValueError, match="the dataset holds"):
        Vectors(FieldConfig(hidden=(3,), octaves=0), fitted("pca", dataset))


def test_nonsense_is_refused():
    for wrong in ({"guidance": 2.0}, {"unlabelled": 1.0}, {"steps": 0}, {"n": 0}):
        with pytest.raises(ValueError, match="--"):
            TrainFlowConfig("x", **wrong)
