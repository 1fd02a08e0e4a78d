"""The diagnosis: what a GPT says of known codes, which stage is named, and the command as a whole."""

import json
import math

import pytest
import torch
from toy import config, make_corpus

from gpt.checkpoint import load_model
from gpt.evaluation import predictions
from gpt.evaluation.diagnose import diagnose, fields_of
from gpt.evaluation.diagnosis import explain_losses, falling
from gpt.model import GPT, GPTConfig
from gpt.options import DiagnoseConfig
from gpt.sampling.generate import sample_ids
from gpt.train_gpt import train


def model(labels: int = 0) -> GPT:
    sizes = {"codes": 5, "tokens_per_field": 7, "labels": labels, "n_layer": 1, "n_head": 1, "n_embd": 8}
    return GPT.create(GPTConfig(**sizes, dropout=0.0), torch.zeros(7, 0).long(), seed=1).eval()


def ids(n: int, codes: int = 5) -> torch.Tensor:
    return torch.randint(codes, (n, 7), generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("labels", (0, 3))
def test_bits_are_the_model_s_losses_up_to_ids_that_are_no_codes(labels):
    gpt, codes = model(labels), ids(140)
    classes = torch.arange(140) % 3 if labels else None
    found = predictions.predict(gpt, codes, classes)
    inputs, targets = predictions.sequences(gpt, codes, classes).batch(torch.arange(140))
    losses = gpt(inputs, targets)[:, gpt.config.first - 1 : -1].sum(1) / math.log(2)
    logits = gpt(inputs)[:, gpt.config.first - 1 : -1].softmax(2)
    others = logits[:, :, 5:].sum(2)  # probability of SOS, EOS, PAD and labels, which no code can be
    assert torch.allclose(found.bits.float(), losses + (1 - others).log2().sum(1), atol=1e-4)
    true = logits[:, :, :5].gather(2, codes[:, :, None])[:, :, 0] / (1 - others)
    assert torch.allclose(found.errors.float(), 1 - true, atol=1e-5)


def test_draws_keep_what_is_given_and_go_on_from_it():
    gpt, codes = model(), ids(150)
    assert torch.equal(predictions.draw_rest(gpt, codes, None, 7), codes)
    some = predictions.draw_rest(gpt, codes, None, 4)
    assert torch.equal(some[:, :4], codes[:, :4]) and 0.6 < float((some[:, 4:] != codes[:, 4:]).float().mean()) < 0.95
    drawn = predictions.predict(gpt, codes, None).drawn
    assert torch.equal(drawn[:, 6], predictions.draw_rest(gpt, codes, None, 6)[:, 6])  # the same numbers, the same draw
    whole = predictions.draw_rest(gpt, codes, None, 0)
    assert whole.min() >= 0 and whole.max() < 5 and len(set(map(tuple, whole.tolist()))) > 100
    assert sample_ids(gpt, 3).codes.shape == whole[:3].shape


def test_replaced_codes_are_others_of_that_place():
    codes, pool = torch.zeros(400, 7).long(), torch.arange(7).expand(3, 7) + 1
    assert torch.equal(predictions.replace(codes, pool, 0.0, 0), codes)
    assert torch.equal(predictions.replace(codes, pool, 1.0, 0), pool[:1].expand(400, 7))
    some = predictions.replace(codes, pool, 0.3, 0)
    assert 0.25 < float((some > 0).float().mean()) < 0.35 and bool(((some == 0) | (some == pool[0])).all())


def result(**fid) -> dict:
    """A diagnosis whose rows score as given."""
    scores = {"training_images": 10, "fields": 10, "round_trip": 10, "one_step": 10, "samples": 10, **fid}
    rows = {kind: {"fid": {"value": value}, "l2": {"1-nna": {"value": 0.5}}} for kind, value in scores.items()}
    return {
        "rows": rows,
        "bits": {"uniform": 100, "unigram": 80, "held_out": 40, "training": 40, "samples": 40},
        "kept": {"round_trip": 0.9, "samples": 0.9},
        "tokenizer": {"kind": "pca"},
        "history": [],
    }


def test_the_stage_that_loses_most_is_named():
    assert explain_losses(result())["stage"] == "none"
    assert explain_losses(result(fields=50, round_trip=60, one_step=60, samples=70))["stage"] == "fit"
    found = explain_losses(result(round_trip=60, one_step=60, samples=70))
    assert found["stage"] == "round trip" and "--components" in found["next"][0]
    assert explain_losses(result(one_step=60, samples=70))["stage"] == "GPT"
    assert explain_losses(result(one_step=30, samples=70))["stage"] == "sampling"
    close = explain_losses(result(round_trip=60, one_step=105, samples=106))
    assert close["stage"] == "round trip" and close["next"][-1].startswith("GPT loses nearly as much: ")
    assert explain_losses(result(one_step=90, samples=20))["losses"]["GPT"] == 10  # no more than the samples lose


def test_bits_and_codes_say_why():
    blind, deaf = result(one_step=60, samples=70), result(one_step=60, samples=70)
    blind["bits"]["held_out"] = 79
    deaf["kept"]["samples"] = 0.5
    assert explain_losses(blind)["stage"] == "unigram" and explain_losses(deaf)["stage"] == "decode"
    learnt = result(one_step=60, samples=70)
    learnt["bits"]["training"] = 20
    assert "--fits" in explain_losses(learnt)["next"][0]
    learnt["bits"]["training"] = 39
    learnt["history"] = [(100, 60.0), (200, 50.0), (300, 45.0), (400, 40.0)]
    assert "longer" in explain_losses(learnt)["next"][0]
    learnt["history"][-1] = (400, 44.9)
    assert "larger" in explain_losses(learnt)["next"][0] and not falling([])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = make_corpus(tmp_path_factory.mktemp("diagnose"), n=48)
    train(config(root, labels=True))
    return root


def test_one_page_and_one_picture(trained, monkeypatch, capsys):
    import gpt.evaluation.features as module

    quick = {**module.train_classifier.__kwdefaults__, "steps": 8}
    monkeypatch.setattr(module.train_classifier, "__kwdefaults__", quick)
    made = diagnose(DiagnoseConfig(str(trained / "gpt"), n=5, classifiers=trained / "c", threads=1))
    out = trained / "gpt-diagnosis"
    page = (out / "diagnosis.md").read_text()
    assert page.strip() in capsys.readouterr().out and (out / "diagnosis.png").stat().st_size > 0
    assert page.startswith("# Diagnosis: ") and "Try next: " in page and "signals not at hand" in page
    for stage in ("fit", "round trip", "unigram", "GPT", "sampling", "decode"):
        assert f"\n| {stage} | " in page
    assert page.count("\n| samples | ") == 1 and (out / "report.html").is_file()
    known = json.loads((out / "diagnosis.json").read_text())
    assert known["rows"].keys() == made["rows"].keys() and known["bits"]["held_out"] > 0 and known["measure"] == "fid"
    assert known["kept"] == {"round_trip": 1.0, "samples": 1.0}  # k-means of single weights: codes are what is decoded
    gpt, _, _ = load_model(trained / "gpt")
    assert known["labels"] == gpt.config.labels == 3


def test_what_cannot_be_diagnosed(trained):
    with pytest.raises(ValueError, match="at least 2"):
        DiagnoseConfig("m", n=1)
    with pytest.raises(ValueError, match="Lower --n"):
        diagnose(DiagnoseConfig(str(trained / "gpt"), trained / "o", n=50, threads=1))
    assert not (trained / "o" / "run.json").exists()  # nothing was made: the folder is free
    with pytest.raises(ValueError, match="Give it with --fields"):
        fields_of(trained / "gpt" / "best")
