"""What has learnt from signals is not measured on them: starts, tokenizers, models and samples of another split are refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from toy import config as training

from fields.fitting.fit import fit
from fields.fitting.options import FitConfig
from fields.fitting.starts import make_reference
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.signals.seen import SAMPLE, refuse_held_out, sample_of, seen_by
from fields.storage.dataset import WeightDataset
from gpt.continuous.options import TrainFlowConfig
from gpt.continuous.train_flow import train_flow
from gpt.corpus import load_corpus
from gpt.evaluation.config import read_inputs
from gpt.options import EvaluateConfig
from gpt.sampling.options import SampleConfig
from gpt.sampling.sample import sample
from gpt.train_gpt import train
from tokenizers.build import build
from tokenizers.classic.options import KMeansConfig
from tokenizers.encode import main as encode
from tokenizers.options import EncodeConfig
from tokenizers.registry import BuildConfig, load_tokenizer

HELD = "was learnt from signals that are held out here: .* of split (validation|test)"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The same digits in two splits, a tokenizer of the first, and samples of a model of it."""
    root = tmp_path_factory.mktemp("home")
    for seed in (0, 7):
        digits = FitConfig(limit=60, fits=1, steps=2, meta_steps=2, threads=1, split_seed=seed)
        fit(replace(digits, out=root / f"fields{seed}"))
    kmeans = KMeansConfig(vocab_size=8)
    build(BuildConfig(kmeans, fields=root / "fields0", out=root / "tokenizer", threads=1))
    (root / "fields").symlink_to(root / "fields0")
    train(training(root, steps=2, eval_every=2))
    sample(SampleConfig(str(root / "gpt"), out=root / "samples", n=6, threads=1))
    return root


def refused(function, *args):
    with pytest.raises(ValueError, match=HELD):
        function(*args)


def test_a_start_of_another_split_is_refused(home, tmp_path):
    options = {
        "limit": 60,
        "fits": 1,
        "steps": 2,
        "threads": 1,
        "start": "conditioned",
        "reference": str(home / "fields0"),
    }
    refused(fit, FitConfig(out=tmp_path / "a", split_seed=7, **options))
    data = fit(FitConfig(out=tmp_path / "b", split_seed=0, **options))
    assert seen_by(data) == seen_by(WeightDataset.load(home / "fields0")) and not data.reference.seen
    fewer = fit(FitConfig(out=tmp_path / "c", split_seed=0, **{**options, "limit": 5}))
    assert fewer.reference.seen == seen_by(data) == seen_by(WeightDataset.load(tmp_path / "c"))
    # what took that start over remembers it, though its own training signals are others
    signals = load_signals(SignalsConfig(split_seed=7))
    few = signals.subset([i for i, name in enumerate(signals.ids) if name not in fewer.ids("train")])
    with pytest.raises(ValueError, match=HELD):
        make_reference(data.config, few, FitConfig(start="conditioned", reference=str(tmp_path / "c")))


def test_a_tokenizer_of_another_split_is_refused(home, tmp_path):
    tokenizer = str(home / "tokenizer")
    assert load_tokenizer(tokenizer).seen
    refused(encode, EncodeConfig(tokenizer, str(home / "fields7"), tmp_path / "t"))
    refused(train_flow, TrainFlowConfig(str(home / "fields7"), tokenizer=tokenizer, out=tmp_path / "w", threads=1))
    assert not (tmp_path / "w").exists()
    encode(EncodeConfig(tokenizer, str(home / "fields0"), tmp_path / "t"))
    load_corpus(home / "fields0", tokenizer, tmp_path / "t")
    with pytest.raises(ValueError, match="held out here|were made from weight dataset"):
        load_corpus(home / "fields7", tokenizer, tmp_path / "t")


def test_samples_and_tokenizers_of_another_split_are_not_evaluated(home):
    def read(fields, **more):
        return read_inputs(EvaluateConfig(str(home / fields), out=Path("unused"), **more))

    for more in ({"samples": str(home / "samples")}, {"tokenizer": str(home / "tokenizer")}):
        refused(lambda more=more: read("fields7", **more))
        read("fields0", **more)


def test_samples_of_a_model_of_other_signals_are_said(home, tmp_path, capsys):
    def read(fields):
        return read_inputs(EvaluateConfig(str(fields), samples=str(home / "samples"), out=Path("unused"))).notes

    assert read(home / "fields0") == []
    encode(EncodeConfig(str(home / "tokenizer"), str(home / "fields0"), tmp_path / "same"))
    assert not capsys.readouterr().err
    others = WeightDataset.load(home / "fields0")
    others.signals = {**others.signals, "name": "letters"}
    others.save(tmp_path / "others")
    assert "about 100% of the signals" in read(tmp_path / "others")[0]
    assert "copies of those are not found" in capsys.readouterr().err
    encode(EncodeConfig(str(home / "tokenizer"), str(tmp_path / "others"), tmp_path / "t"))
    assert "was learnt from other signals than the training fields here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "folder, said", [("gpt", "a model"), ("tokenizer", "a tokenizer"), ("tokenizer/tokens", "tokens")]
)
def test_sheets_of_other_folders_are_no_samples(home, folder, said):
    config = EvaluateConfig(str(home / "fields0"), samples=str(home / folder), out=Path("unused"))
    with pytest.raises(ValueError, match=f"--samples .* holds {said}, not fields or pictures"):
        read_inputs(config)


def test_tokenizers_of_before_recorded_nothing_and_pass(home, tmp_path):
    tokenizer = load_tokenizer(home / "tokenizer")
    tokenizer.seen = ""
    tokenizer.save_pretrained(tmp_path / "t")
    encode(EncodeConfig(str(tmp_path / "t"), str(home / "fields7"), tmp_path / "o"))


def test_a_sample_of_many_notices_a_twentieth_and_nothing_else():
    ids = [f"digits/{i}" for i in range(20_000)]
    seen = sample_of("digits", ids)
    assert len(seen.split()) == SAMPLE == len(set(seen.split()))
    with pytest.raises(ValueError, match=r"--model was learnt .* of the 256 compared"):
        refuse_held_out("--model", seen, "digits", ids[:1000], "test")
    refuse_held_out("--model", seen, "digits", [f"digits/{i}" for i in range(20_000, 40_000)], "test")
    refuse_held_out("--model", seen, "others", ids, "test")
    assert sample_of("digits", ids[:9_000], sample_of("digits", ids[9_000:])) == seen
