"""Tokens of pictures: patches, codes, decoder, and the experiment in small."""

import pytest
import torch

from gpt.experiments.options import PictureTokensConfig
from gpt.experiments.picture_tokens import Patches, train_pictures
from gpt.options import ModelConfig


def settings(**values) -> PictureTokensConfig:
    return PictureTokensConfig(**{"grid": (2, 2), "vocab_size": 4, "hidden": 16, "decoder_steps": 60, **values})


def quadrants(n: int) -> torch.Tensor:
    """Pictures of four plain quadrants, black or white, as (N, 4, 6, 1)."""
    on = torch.randint(2, (n, 2, 2), generator=torch.Generator().manual_seed(0)).float()
    return on.repeat_interleave(2, 1).repeat_interleave(3, 2)[..., None]


def test_patches_are_cut_in_the_grid_s_order():
    words = Patches(quadrants(64), settings(vocab_size=2))
    picture = torch.arange(24.0).view(1, 4, 6, 1)
    parts = words.cut(picture)
    assert parts.shape == (1, 4, 6) and parts[0, 1].tolist() == [3, 4, 5, 9, 10, 11]
    assert words.slots.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_equal_patches_have_equal_codes_wherever_they_stand():
    pictures = quadrants(64)
    words = Patches(pictures, settings(vocab_size=2, decoder_steps=300, hidden=64))
    ids = words.encode(pictures)
    white = words.cut(pictures)[..., 0] > 0.5
    assert torch.equal(ids == ids[white][0], white)
    decoded = words.decode(ids)
    assert torch.equal(decoded.round(), pictures)
    again = Patches(pictures, settings(vocab_size=2, decoder_steps=300, hidden=64))
    assert torch.equal(again.decode(ids), decoded)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="must divide"):
        Patches(quadrants(8), settings(grid=(3, 2)))
    with pytest.raises(ValueError, match="2 patches that differ"):
        Patches(quadrants(2), settings(vocab_size=100))
    with pytest.raises(ValueError, match="--vocab-size must be"):
        settings(vocab_size=1)


def test_the_experiment_in_small(tmp_path, monkeypatch):
    import gpt.evaluation.features as module

    quick = {**module.train_classifier.__kwdefaults__, "steps": 8}
    monkeypatch.setattr(module.train_classifier, "__kwdefaults__", quick)
    size = ModelConfig(n_layer=1, n_head=1, n_embd=8)
    made = train_pictures(
        settings(out=tmp_path / "o", classifiers=tmp_path / "c", steps=10, n=20, threads=1, model=size, vocab_size=8)
    )
    assert made["bits"]["held_out"] > 0 and made["rows"]["samples"]["n"] == 20
    text = (tmp_path / "o" / "table.md").read_text()
    assert "| round trip | 20 |" in text and (tmp_path / "o" / "samples.png").is_file()
