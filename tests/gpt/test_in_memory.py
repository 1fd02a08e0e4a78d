"""The front door: ids in, new fields out, without folders; registries of models and measures."""

import pytest
import torch
from made import rows as made_rows

import gpt
from gpt.checkpoint import MODELS, load_model, model_class
from gpt.evaluation.metrics import DISTANCES, SET_METRICS, estimates
from gpt.options import ModelConfig
from tokenizers import QuantileTokenizer

SMALL = ModelConfig(n_layer=1, n_head=1, n_embd=16)


def test_every_public_name_is_there_and_others_are_named():
    assert all(getattr(gpt, name) is not None for name in gpt.__all__)
    with pytest.raises(AttributeError, match="it offers"):
        _ = gpt.nothing


def test_ids_to_new_fields(tiny):
    weights = made_rows(tiny, 24)
    tokenizer = QuantileTokenizer.for_field(tiny, vocab_size=8).fit(weights)
    ids, labels = tokenizer.encode(weights), torch.arange(24) % 3
    settings = {"labels": labels, "model": SMALL, "steps": 6, "batch": 8, "progress": False, "seed": 1}
    models = [gpt.fit_gpt(ids, tokenizer, **settings) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))
    assert repr(models[0]).startswith(f"GPT(1 layers of width 16, {ids.shape[1]} tokens of 8 codes, 3 labels")
    drawn = gpt.sample(models[0], tokenizer, n=5, label=2)
    assert drawn.weights.shape == (5, tiny.size) and drawn.labels.tolist() == [2] * 5
    assert torch.equal(gpt.sample(models[0], tokenizer, n=2, label=2).weights, drawn.weights[:2])


def test_best_model_is_returned_where_there_is_held_out_data():
    ids = torch.randint(4, (16, 6), generator=torch.Generator().manual_seed(0))
    settings = {"codes": 4, "held_out": ids[:4], "model": SMALL, "steps": 4, "eval_every": 2, "progress": False}
    assert gpt.fit_gpt(ids, **settings).size() > 0
    with pytest.raises(ValueError, match="needs the tokenizer"):
        gpt.fit_gpt(ids)


def test_a_set_against_itself_and_against_noise():
    pictures = torch.rand(12, 8, 8, 1, generator=torch.Generator().manual_seed(0))
    same, other = gpt.evaluate(pictures, pictures.clone()), gpt.evaluate(1 - pictures / 9, pictures)
    assert same["l2"]["mmd"]["value"] < 1e-3 < other["l2"]["mmd"]["value"]
    assert other["ssim"]["1-nna"]["value"] == 1.0


def test_pictures_as_notebooks_have_them():
    pictures = torch.rand(8, 8, 8, 1, generator=torch.Generator().manual_seed(0))
    others = torch.rand(8, 8, 8, 1, generator=torch.Generator().manual_seed(1))
    wanted = gpt.evaluate(pictures, others)
    assert gpt.evaluate(pictures.numpy()[..., 0], others.double()) == wanted
    whole = [(p * 255).round().byte() for p in (pictures, others)]
    assert gpt.evaluate(*whole) == gpt.evaluate(*(p.float() / 255 for p in whole))
    broken = pictures.clone()
    broken[3, 0, 0, 0] = float("nan")
    assert gpt.evaluate(broken, others)["unreadable"]["count"] == 1
    for wrong, said in ((pictures * 255, r"got values 0\S* \.\. 25"), (pictures.permute(0, 3, 1, 2), "got .8, 1, 8, 8"),
                        (pictures[:, :5], "they must agree"), ("pictures", "got str")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            gpt.evaluate(wrong, others)


def test_ids_and_labels_as_notebooks_have_them():
    ids = torch.randint(4, (16, 6), generator=torch.Generator().manual_seed(0))
    how = {"codes": 4, "model": SMALL, "steps": 1, "progress": False}
    labels = torch.arange(16) % 3
    model = gpt.fit_gpt(ids, labels=labels, **how)
    again = gpt.fit_gpt(ids.int().numpy(), labels=labels.tolist(), **how)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    known = gpt.fit_gpt(ids, labels=labels, held_out=ids[:3], held_out_labels=[0, 1, 4], **how)
    assert known.config.labels == 5  # also a class that is only held out has its id
    for wrong, said in (
        ({"ids": ids.float()}, "must be integers"),
        ({"ids": ids[0]}, r"must have shape \(N, T\)"),
        ({"held_out": ids[:, :4]}, r"held_out must have shape \(N, 6\)"),
        ({"labels": list("abcabcabcabcabca")}, "labels must be numbers"),
        ({"labels": labels[:5]}, "one number for each of 16 fields"),
        ({"labels": labels, "held_out": ids}, "needed together"),
    ):
        with pytest.raises(ValueError, match=said):
            gpt.fit_gpt(**{"ids": ids, **how, **wrong})
    with pytest.raises(ValueError, match="got '3'"):
        gpt.sample_ids(model, 2, label="3")
    with pytest.raises(ValueError, match="takes a GPT and its tokenizer"):
        gpt.sample("model", model)


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_loads(kind, tmp_path):
    cls = model_class(kind)
    sizes = {"n_layer": 1, "n_head": 1, "n_embd": 8}
    needed = {
        "gpt": {"codes": 4, "tokens_per_field": 5},
        "regression": {"weights": 9},
        "flow": {"tokens": 3, "numbers": 5},
    }
    config = cls.Config(**needed.get(kind, {}), **sizes)
    assert config.kind == kind and "parameters" in repr(cls(config))
    if kind != "gpt":
        model = cls(config)
        model.save_pretrained(tmp_path)
        loaded, tokenizer, _ = load_model(tmp_path)
        assert type(loaded) is cls and tokenizer is None
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(ValueError, match="known kinds are gpt"):
        model_class("poem")


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("metric", SET_METRICS)
def test_every_measure_prefers_the_set_itself(distance, metric):
    shape = (12, 3) if "shapes" in DISTANCES[distance].kinds else (12, 12, 1)
    pictures = torch.rand(10, *shape, generator=torch.Generator().manual_seed(1))
    measure, entry = DISTANCES[distance].function, SET_METRICS[metric]
    values = []
    for samples in (pictures.clone(), torch.rand(1, *shape).expand(10, *shape)):
        found = estimates(measure(samples), measure(samples, pictures), measure(pictures), 0)[metric]
        values.append(found.value)
        assert found.low <= found.value <= found.high
    good, bad = values
    assert {"lower": good < bad, "higher": good > bad}.get(entry.direction, good < 1)


def apart(samples: list[float], references: list[float]) -> tuple[torch.Tensor, ...]:
    """Distances of points on a line."""
    s, r = torch.tensor(samples)[:, None], torch.tensor(references)[:, None]
    return torch.cdist(s, s), torch.cdist(s, r), torch.cdist(r, r)


def test_estimates_of_tiny_and_unequal_sets():
    empty = torch.zeros(0, 0)
    assert all(v.value is None and v.note == "N = 0" for v in estimates(empty, empty, empty, 0).values())
    one = estimates(*apart([0.0], [1.0]), 0)
    assert (
        one["mmd"].value == 1 and one["cov"].value == 1 and one["1-nna"].value is None and "N = 1" in one["1-nna"].note
    )
    two = estimates(*apart([0.0, 0.1], [5.0, 5.1]), 0)
    assert two["1-nna"].value == 1
    with pytest.raises(ValueError, match="got 2 and 3"):
        estimates(*apart([0.0, 1.0], [0.0, 1.0, 2.0]), 0)
