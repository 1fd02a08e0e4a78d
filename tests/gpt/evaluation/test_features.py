"""The classifier behind FID: learning, caching, files of all kinds, channels and sizes."""

import pickle
from pathlib import Path

import pytest
import torch

from gpt.evaluation.features import (
    Classifier,
    ClassifierConfig,
    cached_classifier,
    load_classifier,
    match_channels,
    save_classifier,
    train_classifier,
)


def stripes(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Horizontal and vertical stripes, 8 x 8, with noise."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    wave = (torch.arange(8) % 2).float()
    both = torch.stack([wave[:, None].expand(8, 8), wave[None].expand(8, 8)])
    return (both[labels] * 0.8 + 0.2 * torch.rand(n, 8, 8, generator=g))[..., None], labels


def small(**changes) -> Classifier:
    torch.manual_seed(0)
    return Classifier(ClassifierConfig(**{"height": 8, "width": 8, "classes": 2, **changes})).eval()


def test_it_learns_and_reports_held_out_accuracy():
    images, labels = stripes(64)
    model = train_classifier(images, labels, name="stripes", held_out=stripes(40, seed=1), steps=25)
    assert model.config.held_out > 0.95 and model.config.held_out_n == 40
    again = train_classifier(images, labels, name="stripes", steps=25)
    assert model.fingerprint == again.fingerprint
    other = train_classifier(images, labels, name="stripes", steps=25, seed=1)
    assert model.fingerprint != other.fingerprint
    features, classes = model.read(images)
    assert features.shape == (64, 128) and features.min() == 0 and (classes == labels).float().mean() > 0.95


def test_unlabelled_rows_are_left_out_and_one_class_is_refused():
    images, labels = stripes(32)
    with pytest.raises(ValueError, match="at least two classes"):
        train_classifier(images, torch.zeros(32, dtype=torch.int64), name="one", steps=1)
    with pytest.raises(ValueError, match="at least two classes, got 0"):
        train_classifier(images, torch.full((32,), -1), name="none", steps=1)
    labels = labels.clone()
    labels[:4] = -1
    assert train_classifier(images, labels, name="some", steps=2).config.classes == 2


def test_cache_by_data_and_settings(tmp_path, monkeypatch):
    images, labels = stripes(16)
    settings = {"name": "a/b stripes", "steps": 2, "seed": 0}
    model, path = cached_classifier(tmp_path, images, labels, **settings)
    assert path.parent.parent == tmp_path and path.parent.name.startswith("a-b-stripes-")
    _, other = cached_classifier(tmp_path, images, labels, **{**settings, "seed": 1})
    assert other != path
    path.write_bytes(path.read_bytes()[:40])  # a truncated file is made anew
    assert cached_classifier(tmp_path, images, labels, **settings)[0].fingerprint == model.fingerprint
    monkeypatch.setattr("gpt.evaluation.features.train_classifier", None)
    again, _ = cached_classifier(tmp_path, images, labels, **settings)
    assert again.fingerprint == model.fingerprint and again.config == model.config


def test_files_come_back_with_their_config(tmp_path):
    model = small(channels=3, mean=0.4, std=0.2, label_names=["a", "b"])
    save_classifier(model, tmp_path / "c.safetensors")
    back = load_classifier(tmp_path / "c.safetensors")
    x = torch.rand(3, 8, 8, 3)
    assert back.config == model.config and torch.equal(back(x)[0], model(x)[0])
    torch.save(model.state_dict(), tmp_path / "c.pth")  # no config: MNIST's normalisation, sides from the shapes
    plain = load_classifier(tmp_path / "c.pth").config
    assert (plain.height, plain.width, plain.channels, plain.classes, plain.mean) == (8, 8, 3, 2, 0.1307)


class Bad:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_bad_files_are_refused_by_name_and_run_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="--classifier .*no.pth not found"):
        load_classifier(tmp_path / "no.pth")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Bad(tmp_path / "marker")))
    torch.save(Bad(tmp_path / "marker"), tmp_path / "zip.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"12345678")
    torch.save({"layers.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    state = small().state_dict()
    torch.save({**state, "classifier.2.bias": torch.zeros(5)}, tmp_path / "shape.pth")
    for name in ("evil.pth", "zip.pth", "cut.safetensors", "other.pth", "shape.pth"):
        with pytest.raises(ValueError, match=name):
            load_classifier(tmp_path / name)
    assert not (tmp_path / "marker").exists()


def test_channels_and_sizes():
    colour = torch.rand(2, 8, 8, 3)
    gray = match_channels(colour, 1)
    assert torch.allclose(gray[..., 0], 0.299 * colour[..., 0] + 0.587 * colour[..., 1] + 0.114 * colour[..., 2])
    assert match_channels(gray, 3).shape == (2, 8, 8, 3) and match_channels(gray, 1) is gray
    with pytest.raises(ValueError, match="1 or 3 channels, got 4"):
        match_channels(torch.rand(2, 8, 8, 4), 1)
    model = small()
    for shape in [(8, 8, 3), (28, 28, 1), (1, 13, 1), (5, 5, 3)]:
        assert model.read(torch.rand(3, *shape))[0].shape == (3, 128)
    assert Classifier(ClassifierConfig(height=1, width=13)).read(torch.rand(2, 1, 13, 1))[0].shape == (2, 128)
    assert model.read(torch.zeros(0, 8, 8, 1))[0].shape == (0, 128)


def test_fingerprint_is_of_what_the_features_depend_on():
    model = small()
    assert model.fingerprint == small(name="another name", held_out=0.5).fingerprint
    assert model.fingerprint != small(mean=0.2).fingerprint
