import dataclasses
import json
import math

import pytest
import torch
from accelerate import DistributedType
from toy import TINY, config, make_corpus, make_fields, make_tokens

import gpt.train_gpt
from fields.runtime.launch import start
from fields.runtime.processes import Interrupt
from gpt.checkpoint import load_model
from gpt.corpus import load_corpus
from gpt.data import Sequences
from gpt.model import GPT, GPTConfig
from gpt.options import ModelConfig
from gpt.token_task import CorpusTask
from gpt.train_gpt import make_trainer, train
from gpt.training.local import Local
from gpt.training.log import draw_curves
from gpt.training.schedule import learning_rate, warmup_steps
from gpt.training.trainer import Trainer, recompute_blocks


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("train"))


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# -- schedule ----------------------------------------------------------------------------------------------------------


def test_learning_rate_is_a_function_of_the_step():
    rate = [learning_rate(s, steps=50, warmup=10, top=1e-2, least=1e-3) for s in range(1, 51)]
    assert rate[0] == pytest.approx(1e-3) and rate[9] == 1e-2 and rate[49] == 1e-3
    assert rate[:10] == sorted(rate[:10]) and rate[9:] == sorted(rate[9:], reverse=True)
    assert rate[29] == pytest.approx(1e-3 + 9e-3 / 2)  # half way down at half time
    assert learning_rate(1, steps=1, warmup=0, top=1.0, least=0.1) == 0.1
    assert (warmup_steps(None, 10), warmup_steps(None, 2000), warmup_steps(None, 10**6), warmup_steps(7, 10)) == (
        0,
        100,
        200,
        7,
    )


# -- a step ------------------------------------------------------------------------------------------------------------


def one_step(root, micro: int) -> tuple[dict, dict]:
    """Weights and log after one step of SGD on sequences of 3 to 24 tokens."""
    settings = config(root, steps=1, warmup=0, batch=8, micro_batch=micro, optimizer="sgd", lr=0.5, weight_decay=0.0)
    corpus = load_corpus(settings.fields, settings.tokenizer)
    ids = torch.randint(corpus.vocab.codes, (8, 24), generator=torch.Generator().manual_seed(0))
    ragged = Sequences(ids, corpus.vocab, lengths=torch.tensor([3, 6, 9, 12, 15, 18, 21, 24]))
    corpus = dataclasses.replace(corpus, train=ragged, held_out=None)
    shape = GPTConfig(corpus.vocab.codes, 24, n_layer=2, n_head=2, n_embd=16, dropout=0.0)
    model = GPT.create(shape, torch.zeros(24, 0).long())
    trainer = Trainer(settings, CorpusTask(settings, corpus, model), start(threads=1, precision="fp32", quiet=True))
    values = trainer.step(1, 0.5, Interrupt())
    return {k: v.clone() for k, v in model.state_dict().items()}, values


@pytest.mark.parametrize("micro", [1, 2, 3, 16])
def test_accumulation_changes_nothing(root, micro):
    whole, whole_log = one_step(root, 8)
    cut, cut_log = one_step(root, micro)
    assert all(torch.allclose(whole[k], cut[k], rtol=0, atol=1e-6) for k in whole)
    assert cut_log["loss"] == pytest.approx(whole_log["loss"], abs=1e-6)
    assert cut_log["terms"] == whole_log["terms"] == sum(range(3, 25, 3)) + 8


def test_recomputed_blocks_give_the_same_gradients(root):
    """Also with dropout, which is drawn again alike."""
    corpus = load_corpus(root / "fields", root / "tokenizer")
    states = []
    for again in (False, True):
        settings = config(root, batch=8, recompute=again)
        trainer = make_trainer(settings, corpus, start(threads=1, precision="fp32", quiet=True))
        trainer.step(1, 0.5, Interrupt())
        states.append(trainer.model.state_dict())
        trainer.usable()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    with pytest.raises(ValueError, match="--recompute needs a model with blocks"):
        recompute_blocks(torch.nn.Linear(1, 1))


def test_a_model_in_pieces_is_refused(root):
    class Fsdp(Local):
        distributed_type = DistributedType.FSDP

    corpus = load_corpus(root / "fields", root / "tokenizer")
    with pytest.raises(ValueError, match="FSDP divides a model over processes"):
        make_trainer(config(root), corpus, Fsdp())


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_run_learns_and_writes_everything(root):
    settings = config(root, "whole", steps=60, eval_every=20, lr=1e-2, batch=16, samples=3, model=TINY)
    result = train(settings)
    assert result["step"] == 60
    rows = lines(settings.out)
    losses, bits = [r for r in rows if "loss" in r], [r for r in rows if "bits_per_weight" in r]
    assert [r["step"] for r in losses] == list(range(1, 61)) and [r["step"] for r in bits] == [20, 40, 60]
    assert losses[-1]["loss"] < 0.85 * losses[0]["loss"] and losses[-1]["lr"] == settings.least_lr
    assert bits[0]["bits_per_field"] == pytest.approx(25 * bits[0]["bits_per_weight"])
    names = ["training.png", "samples.png", "run.json", "samples/step-0000040.png", "best/config.json"]
    names += ["last/model.safetensors", "last/tokenizer/config.json", "checkpoints/step-0000060/trainer.json"]
    assert all((settings.out / name).is_file() for name in names)
    assert not list(settings.out.rglob(".*")) and not list(settings.out.rglob("*.pkl"))
    model, tokenizer, info = load_model(settings.out)
    assert info["step"] == result["best"]["step"] and info["tokenizer"] == tokenizer.fingerprint
    assert info["vocab"]["eos"] == model.config.vocab.eos and not any(
        k.startswith(("module", "_orig")) for k in model.state_dict()
    )


def test_validation_bits_against_the_definition(root):
    settings = config(root, "bits", labels=True)
    train(settings)
    corpus = load_corpus(settings.fields, settings.tokenizer, labels=True)
    model, _, info = load_model(settings.out / "last")
    inputs, targets = corpus.held_out.batch(torch.arange(len(corpus.held_out)))
    with torch.no_grad():
        log_p = model(inputs).log_softmax(-1).gather(2, targets[..., None])[..., 0]
    bits = -log_p[:, 1:-1].sum(1).mean().item() / math.log(2)  # neither the label nor EOS
    assert info["validation"]["bits_per_field"] == pytest.approx(bits, rel=1e-5)
    assert info["label_names"] == ["red", "green", "blue"]


def test_average_of_weights_and_early_stop(root):
    settings = config(root, "ema", steps=60, lr=1e-9, ema=0.5, patience=2, eval_every=1)
    settings = dataclasses.replace(settings, lr=0.05, min_lr=0.05, warmup=0, steps=200, batch=4)
    result = train(settings)
    assert result["stopped"] and result["step"] < 200 and result["best"]["step"] == result["step"] - 2
    assert train(settings) == result  # finished: returns at once


def test_minutes_are_measured_once(root):
    settings = config(root, "minutes", steps=None, minutes=0.001, warmup=0)
    steps = train(settings)["step"]
    assert json.loads((settings.out / "trainer.json").read_text())["steps"] == steps >= 1
    assert train(settings)["step"] == steps


def test_divergence_stops_the_run(root):
    settings = config(root, "diverged", lr=1e3, min_lr=1e3, warmup=0, steps=100, save_every=1)
    with pytest.raises(RuntimeError, match=r"diverged at step \d+: loss .*lr 1e\+03, gradient norm .*toy/train/"):
        train(settings)
    model, _, info = load_model(settings.out / "last")
    assert info["step"] < 30 and all(p.isfinite().all() for p in model.parameters())


def test_numbers_that_are_not_finite_name_their_fields(root, monkeypatch):
    settings = config(root, "nan", steps=3)

    def poisoned(model, *args):
        with torch.no_grad():
            model.tokens.weight[3] = float("nan")  # every field with code 3 has a NaN loss

    monkeypatch.setattr(gpt.train_gpt, "initialise_from_counts", poisoned)
    with pytest.raises(RuntimeError, match="diverged at step 1: loss nan.*not finite losses: toy/train/"):
        train(settings)
    assert not (settings.out / "last").exists()


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, message",
    [
        ({"steps": 0}, "--steps must be at least 1"),
        ({"batch": 0}, "--batch"),
        ({"micro_batch": -1}, "--micro-batch"),
        ({"lr": 0.0}, "--lr must be above 0"),
        ({"lr": float("nan")}, "--lr must be above 0"),
        ({"min_lr": 1.0}, "--min-lr in"),
        ({"warmup": 13}, "--warmup must be at most"),
        ({"ema": 1.0}, "--ema"),
        ({"clip": 0.0}, "--clip"),
        ({"minutes": 0.0}, "--minutes"),
        ({"patience": 0}, "--patience"),
        ({"seed": -1}, "--seed"),
        ({"optimizer": "adam"}, "--optimizer"),
        ({"model": ModelConfig(n_head=3)}, "multiple of n_head"),
    ],
)
def test_impossible_settings_are_refused(root, values, message):
    with pytest.raises(ValueError, match=message):
        train(config(root, "never", **values))
    assert not (root / "never" / "checkpoints").exists()


def test_what_does_not_belong_together_is_refused(root, tmp_path):
    data = make_fields(tmp_path, seed=1)
    tokenizer = make_tokens(tmp_path, data)
    mine, theirs = load_corpus(root / "fields", root / "tokenizer"), load_corpus(tmp_path / "fields", tokenizer)
    with pytest.raises(ValueError, match=f"{theirs.data.fingerprint}.*{mine.data.fingerprint}"):
        load_corpus(root / "fields", tokenizer)
    with pytest.raises(ValueError, match=f"{mine.tokenizer.fingerprint}.*{theirs.tokenizer.fingerprint}"):
        load_corpus(root / "fields", tokenizer, root / "tokenizer" / "tokens")
    train(config(root, "owned", steps=2, warmup=0))
    moved = dataclasses.replace(config(tmp_path, steps=2, warmup=0), out=root / "owned")
    with pytest.raises(ValueError, match="parent tokenizer"):
        train(moved)


def test_labels_need_labels(tmp_path):
    root = make_corpus(tmp_path, n=8, labelled=False)
    with pytest.raises(ValueError, match="has none. Leave the flag out"):
        train(config(root, labels=True))


@pytest.mark.parametrize("n", [1, 3])
def test_a_single_field_and_no_validation(tmp_path, n, capsys):
    root = make_corpus(tmp_path, n=n)
    train(config(root, steps=3, warmup=0))
    assert "no validation fields" in capsys.readouterr().out
    assert load_model(root / "gpt")[2]["step"] == 3  # last/, there being no best/


def test_curves_are_in_bits_per_field(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda axes, steps, values, **_: drawn.append(values))
    bits = {"bits_per_field": 50.0, "bits_per_weight": 2.0, "unigram_bits_per_field": 75.0}
    draw_curves(tmp_path / "training.png", [{"step": 1, "loss": 3.0}, {"step": 1, **bits}], to_bits=10.0)
    assert drawn == [(30.0,), (50.0,)] and (tmp_path / "training.png").is_file()
