"""Pictures of codes: means of what decoded fields say in their regions."""

import pytest
import torch
from made import rows

from fields.model import FieldConfig
from fields.view.render import render
from tokenizers.learned.codebook import mean_patches
from tokenizers.learned.options import RegionsConfig
from tokenizers.learned.regions import RegionsTokenizer


def made(field: FieldConfig, **options) -> RegionsTokenizer:
    config = RegionsConfig(
        field=field.to_dict(), vocab_size=6, side=2, margin=1, steps=0, hidden=0, encoder=0, **options
    )
    return RegionsTokenizer(config).fit(rows(field, 60, seed=0, spread=0.3))


def test_a_code_is_the_mean_of_its_regions():
    field = FieldConfig(hidden=(6,), octaves=1)
    tokenizer = made(field, grid=(2, 3))
    ids = tokenizer.encode(rows(field, 40, seed=1, spread=0.3))
    patches, counts = mean_patches(tokenizer, ids)
    assert patches.shape == (6, 2, 2, 1) and int(counts.sum()) == ids.numel()
    cells = render(field, tokenizer.decode(ids), 4, 6).view(40, 2, 2, 3, 2, 1).permute(0, 1, 3, 2, 4, 5).flatten(0, 2)
    for code in ids.unique().tolist():
        assert torch.allclose(patches[code], cells[ids.flatten() == code].mean(0), atol=1e-5)
    assert bool((patches[counts == 0] == 0).all())


def test_volumes_have_no_picture():
    field = FieldConfig(in_dim=3, hidden=(4,), octaves=0, output="linear")
    with pytest.raises(ValueError, match="cannot be drawn"):
        mean_patches(made(field, grid=(2, 2, 2)), torch.zeros(1, 8).long())
