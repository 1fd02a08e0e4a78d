"""Trackers: event files of TensorBoard are read back, other trackers are named in the error."""

from dataclasses import dataclass
from importlib.util import find_spec

import pytest
import torch
from made import SMALL
from toy import config, make_corpus, make_fields

from fields.runtime.flags import check_tracker
from fields.runtime.tracking import Tracking
from fields.view.render import save_png
from gpt.continuous.options import FlowModelConfig, TrainFlowConfig
from gpt.continuous.train_flow import train_flow
from gpt.train_gpt import train
from tokenizers.build import build
from tokenizers.options import ReportConfig
from tokenizers.registry import TOKENIZERS, BuildConfig

pytestmark = pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="no tensorboard: pip install -e '.[tensorboard]'"
)


@dataclass
class Settings:
    seed: int = 3


def events(folder):
    """What TensorBoard reads in a folder: scalars, as name -> steps, and images, as name -> steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    tags = found.Tags()
    scalars = {name: [e.step for e in found.Scalars(name)] for name in tags["scalars"]}
    return scalars, {name: [e.step for e in found.Images(name)] for name in tags["images"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_numbers_and_pictures_in_groups(tmp_path):
    save_png(tmp_path / "a.png", torch.rand(4, 6, 3))
    tracking = Tracking("tensorboard", tmp_path / "toy" / "run", config=Settings())
    tracking.log("train", {"step": 5, "loss": 0.5, "batch": "words"}, 5)
    tracking.log("validation", {"bits_per_weight": 2.0}, 5)
    tracking.picture("samples", tmp_path / "a.png", 5)
    tracking.close()
    scalars, images = events(tmp_path / "toy" / "run" / "tensorboard")
    assert scalars == {"train/loss": [5], "validation/bits_per_weight": [5]} and images == {"samples": [5]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_gpt_is_tracked(tmp_path):
    root = make_corpus(tmp_path, n=16)
    train(config(root, steps=4, eval_every=2, sample_every=1, samples=2, tracker="tensorboard"))
    scalars, images = events(root / "gpt" / "tensorboard")
    assert scalars["train/loss"] == [1, 2, 3, 4] and scalars["validation/bits_per_weight"] == [2, 4]
    assert images == {"samples": [2, 4]} and "train/batch" not in scalars


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["vqvae", "graph", "regions"])
def test_a_vocabulary_is_tracked(kind, tmp_path):
    make_fields(tmp_path, n=16)
    settings = SMALL[kind] | {"vocab_size": 4, "batch": 4}
    settings |= {"grid": (2, 2), "margin": 0, "width": 2} if kind == "regions" else {"latents": 3}
    words, report = TOKENIZERS[kind][0](**settings), ReportConfig(sizes=(), probe_rows=0)
    build(BuildConfig(words, report, tmp_path / "fields", tmp_path / "r", tracker="tensorboard"))
    scalars, images = events(tmp_path / "r" / "tensorboard")
    assert images == {"round trip": [2, 4]} and {name.split("/")[0] for name in scalars} == {"train", "validation"}
    assert scalars["train/loss"] == [2, 4] and scalars["validation/psnr"] == [2, 4]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_flow_is_tracked(tmp_path):
    make_fields(tmp_path, n=16)
    model = FlowModelConfig(n_layer=1, n_head=2, n_embd=16)
    settings = {"batch": 8, "steps": 4, "eval_every": 2, "log_every": 1, "sample_every": 1, "samples": 2, "n": 2}
    settings |= {"integration": 2, "threads": 1, "model": model, "tracker": "tensorboard"}
    train_flow(TrainFlowConfig(fields=str(tmp_path / "fields"), out=tmp_path / "flow", **settings))
    scalars, images = events(tmp_path / "flow" / "tensorboard")
    assert images == {"samples": [2, 4]} and {name.split("/")[0] for name in scalars} == {"train", "validation"}


def test_unknown_or_missing_trackers_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="--tracker takes tensorboard, wandb, trackio, got 'paper'"):
        check_tracker("paper")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install wandb"):
        check_tracker("wandb")
