"""Codecs of pictures: what they decode to, what they charge, and where their lines stand."""

import io

import pytest
import torch
from PIL import Image

from fields.model import FieldConfig
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.storage.dataset import WeightDataset
from fields.view.render import to_pil
from tokenizers.report.codecs import Transform, codec_rows, rows_beside, webp_bits
from tokenizers.report.measures import make_bench


def pictures(n: int, seed: int) -> torch.Tensor:
    """Smooth random pictures: three numbers each, and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.rand(3, 6, 6, 1, generator=torch.Generator().manual_seed(0))
    mixed = (torch.rand(n, 3, generator=generator) @ shapes.flatten(1)).view(n, 6, 6, 1) / 3
    return (mixed + 0.01 * torch.rand(n, 6, 6, 1, generator=generator)).clamp(0, 1)


def test_finer_steps_cost_more_and_lose_less():
    transform, held_out = Transform(pictures(300, 1)), pictures(50, 2)
    found = [transform.at_step(held_out, step) for step in (0.3, 0.1, 0.03, 0.01)]
    assert [b for b, _ in found] == sorted(b for b, _ in found) and [p for _, p in found] == sorted(p for _, p in found)
    assert found[-1][1] > 45
    three = transform.at_step(held_out, 0.1)[0]
    assert three < 20  # three numbers a picture carry nearly everything


def test_a_rate_is_kept():
    transform, held_out = Transform(pictures(300, 1)), pictures(50, 2)
    for rate in (20, 60):
        bits, _ = transform.at_rate(held_out, rate)
        assert 0.8 * rate < bits <= rate


def test_bits_of_one_coefficient_are_the_code_length_of_its_counts():
    train = torch.tensor([0.0, 0.0, 0.0, 1.0]).view(4, 1, 1, 1)
    bits, decibels = Transform(train).at_step(train[-1:], 0.5)
    # coefficients -.25 (three times) and .75, rounded to -0 or -1 and 2 steps of .5: counts plus 1 over 3 codes
    assert bits == pytest.approx(-torch.tensor(2 / 7).log2().item(), abs=1e-6) and decibels > 10


def test_webp_is_lossless_and_counted():
    picture = pictures(1, 3)[0]
    file = io.BytesIO()
    to_pil(picture).save(file, "WEBP", lossless=True, quality=100, method=6)
    assert webp_bits(picture) == 8 * len(file.getvalue())
    assert Image.open(file).convert("L").tobytes() == to_pil(picture).tobytes()


def test_lines_stand_beside_fields_whose_pictures_are_at_hand():
    signals = load_signals(SignalsConfig(signals="digits"))
    field = FieldConfig(hidden=(4,), octaves=0)
    splits = {}
    for split in ("train", "validation"):
        where = signals.indices(split)[:60]
        splits[split] = {"weights": torch.randn(60, field.size), "signal_id": [signals.ids[i] for i in where.tolist()]}
        splits[split]["sizes"] = torch.full((60, 2), 8)
    data = WeightDataset.from_rows(field, splits, signals=signals.describe())
    rows = rows_beside(make_bench(data, 20, 0, None, None), data, 50, 0, None, None)
    assert [r["kind"] for r in rows] == ["pixels"] * (len(rows) - 1) + ["lossless"]
    assert [r["bits_per_field"] for r in rows[:-1]] == sorted(r["bits_per_field"] for r in rows[:-1])
    other = WeightDataset.from_rows(field, splits, signals={"name": "unknown"})
    assert rows_beside(make_bench(other, 20, 0, None, None), other, 50, 0, None, None) == []


def test_wide_pictures_have_no_transform():
    rows = codec_rows(torch.rand(2, 65, 64, 1), torch.rand(1, 65, 64, 1))
    assert [r["kind"] for r in rows] == ["lossless"]
