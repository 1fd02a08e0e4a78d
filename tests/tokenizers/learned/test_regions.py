"""Tokens of regions: what they see, what they do not, and the decoder behind them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made import SMALL, generator, rows
from torch import Tensor

from fields import layout
from fields.metrics.pairs import psnr
from fields.model import FieldConfig, values
from fields.signals.images import grid
from fields.symmetry import rescale
from fields.turned import turned
from fields.view.render import render
from tokenizers.learned.critic import Critic
from tokenizers.learned.options import RegionsConfig
from tokenizers.learned.regions import RegionsTokenizer, firsts, region_points, windows
from tokenizers.learned.regions_train import RegionsTrainer
from tokenizers.learned.representatives import scattered
from tokenizers.registry import load_tokenizer

FIELD = FieldConfig(hidden=(8,), octaves=2)  # 97 weights


def make(field: FieldConfig = FIELD, **options) -> RegionsTokenizer:
    return RegionsTokenizer(RegionsConfig(field=field.to_dict(), **{"vocab_size": 32, **SMALL["regions"], **options}))


@pytest.fixture(scope="module")
def fields() -> Tensor:
    return rows(FIELD, 400, seed=1, spread=0.3)


@pytest.fixture(scope="module")
def fitted(fields) -> RegionsTokenizer:
    return make(steps=200, batch=64, points=64, eval_every=50, hidden=64, encoder=32, vocab_size=64).fit(fields)


def test_the_lattice_of_a_picture_is_its_pixels():
    for field in (FIELD, replace(FIELD, axes="yx"), replace(FIELD, coords="corner")):
        assert torch.equal(region_points(field, (3, 4), 2), grid(field, 6, 8))


def test_windows_are_the_regions_with_a_margin():
    places = torch.arange(6 * 8).view(6, 8)
    padded = torch.from_numpy(np.pad(places.numpy(), 1, mode="edge"))
    found = windows((3, 4), 2, 1)
    for i, (row, column) in enumerate(make().slots.tolist()):
        patch = padded[2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
        assert torch.equal(found[i].view(4, 4), patch)
    cubes = windows((2, 3, 4), 2, 0)
    assert cubes.shape == (24, 8) and torch.equal(cubes.flatten().sort().values, torch.arange(24 * 8))
    lines = torch.arange(24 * 8).view(4, 6, 8)
    assert torch.equal(cubes[0], lines[:2, :2, :2].flatten())
    assert torch.equal(cubes[23], lines[2:, 4:, 6:].flatten())


def test_a_change_in_one_place_changes_the_tokens_that_see_it(fitted):
    """Of the values at the lattice, those of one region are replaced: only it and its neighbours may have other codes."""
    seen = torch.rand(1, len(fitted.lattice), 1, generator=generator(3), dtype=torch.float64)
    slots = fitted.slots
    for i in range(len(slots)):
        other = seen.clone()
        inside = windows(fitted.grid, fitted.config.side, 0)[i]
        other[:, inside] = torch.rand(1, len(inside), 1, generator=generator(i), dtype=torch.float64)
        ids = [fitted.nearest(fitted.latents_of(x[:, fitted.windows].flatten(2))) for x in (seen, other)]
        far = (slots - slots[i]).abs().amax(1) > 1
        assert torch.equal(ids[0][:, far], ids[1][:, far])
    alone = make(margin=0).windows
    assert len(alone.flatten().unique()) == alone.numel()  # without a margin, a point belongs to one region


def test_ids_do_not_depend_on_the_order_of_neurons(fitted, fields):
    orders = [torch.randperm(8, generator=generator(0)).expand(len(fields), -1)]
    turned = layout.permute(FIELD, fields, orders)
    assert not torch.equal(turned, fields)
    same = fitted.encode(turned) == fitted.encode(fields)
    assert float(same.float().mean()) > 0.999  # sums in another order may round a tie the other way


def test_codes_mean_the_same_in_all_regions(fitted):
    """One codebook and one encoder: a field that says the same everywhere has one code."""
    flat = torch.zeros(1, FIELD.size)
    assert fitted.encode(flat).unique().numel() == 1
    assert fitted.code_vectors.shape == (64, 4)


def test_training_improves_the_start(fitted, fields):
    start = make(steps=0, vocab_size=64).fit(fields)
    true = render(FIELD, fields, 8, 8)
    before, after = (float(psnr(render(FIELD, t.decode(t.encode(fields)), 8, 8), true).mean()) for t in (start, fitted))
    assert after > before + 0.3 and fitted.history[0]["step"] == 0
    assert max(h["psnr"] for h in fitted.history) > fitted.history[0]["psnr"]


def test_an_interrupted_fit_ends_as_an_uninterrupted_one(fields, tmp_path, monkeypatch):
    from tokenizers.learned import train

    whole = make(steps=8).fit(fields)
    broken, save, calls = make(steps=8), train._save, []

    def stop(*args):
        save(*args)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    broken.resume_dir = tmp_path
    monkeypatch.setattr(train, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(fields)
    monkeypatch.setattr(train, "_save", save)
    again = make(steps=8)
    again.resume_dir = tmp_path
    again.fit(fields)
    assert again.fingerprint == whole.fingerprint and again.history == whole.history


def test_colours_and_volumes(tmp_path):
    colour = FieldConfig(hidden=(8,), octaves=1, out_dim=3)
    volume = FieldConfig(in_dim=3, hidden=(8,), octaves=1, output="linear")
    for field, cells in ((colour, (3, 4)), (volume, (2, 3, 2))):
        weights = rows(field, 60, seed=2)
        tokenizer = make(field, grid=cells).fit(weights)
        ids = tokenizer.encode(weights)
        assert ids.shape == (60, 12) and tokenizer.slot_sizes == list(cells)
        coords = torch.rand(50, field.in_dim, generator=generator(1)) * 2 - 1
        true, said = (values(field, x, coords) for x in (weights, tokenizer.decode(ids)))
        mean = values(field, weights.mean(0, keepdim=True), coords)
        assert float((said - true).square().mean()) < float((mean - true).square().mean())
        tokenizer.save_pretrained(tmp_path / str(field.in_dim))
        found = load_tokenizer(tmp_path / str(field.in_dim))
        assert found.grid == cells and torch.equal(found.encode(weights), ids)


def test_training_on_mirrored_volumes_near_their_surface():
    volume = FieldConfig(in_dim=3, hidden=(6,), octaves=1, output="logit")
    weights = rows(volume, 60, seed=2)
    options = {"grid": (2, 2, 2), "side": 2, "margin": 1, "near": 0.5, "symmetric": (0, 1)}
    tokenizer = make(volume, **options).fit(weights)
    trainer = RegionsTrainer(tokenizer, weights, False)
    turn, place = trainer.turns[3], trainer.places[3]
    expected = values(volume, turned(volume, weights, turn), tokenizer.lattice)
    assert torch.allclose(trainer.said[:, place], expected, atol=1e-5)
    points = trainer.coords(trainer.said[:5])
    assert points.shape == (5, trainer.config.points, 3) and float(points.abs().max()) <= 1
    uneven = make(volume, **{**options, "grid": (2, 3, 2)}).fit(
        weights
    )  # no permutation of the lattice: evaluated anew
    assert uneven.encode(weights).shape == (60, 12)


def test_fields_that_do_not_differ():
    weights = rows(FIELD, 1, seed=4).expand(20, -1).contiguous()
    tokenizer = make().fit(weights)
    assert torch.allclose(tokenizer.decode(tokenizer.encode(weights)), weights, atol=1e-5)


def test_bad_settings_are_refused():
    for options, said in (
        ({"grid": (3,)}, "--grid needs 2 numbers, one per coordinate of the field, got 3"),
        ({"grid": (0, 3)}, "--grid must be at least 1"),
        ({"grid": (100, 100)}, "--grid may have at most 4096 regions, got 10000"),
        ({"side": 0}, "--side must be at least 1, got 0"),
        ({"margin": -1}, "--margin must be at least 0, got -1"),
        ({"swap": 1.5}, "--swap must lie between 0 and 1, got 1.5"),
        ({"lr": 0.0}, "--lr must be above 0"),
        ({"quantizer": "fsq", "levels": (8, 8)}, "product is at most --vocab-size 32"),
        ({"quantizer": "simvq", "width": 1}, "--width of at least 2"),
    ):
        with pytest.raises(ValueError, match=said):
            make(**options)
    with pytest.raises(ValueError, match="has no default grid"):
        make(replace(FIELD, in_dim=4), grid=())
    wide = FieldConfig(hidden=(256, 256))
    with pytest.raises(ValueError, match="regions decodes fields of at most"):
        make(wide)


def test_tuning_changes_the_decoder_and_no_code(fields):
    settings = {"steps": 60, "batch": 32, "points": 64, "eval_every": 30, "hidden": 32, "encoder": 16, "vocab_size": 32}
    plain, tuned = (make(**settings, tune=tune).fit(fields) for tune in (0, 40))
    assert torch.equal(plain.books, tuned.books) and torch.equal(plain.encode(fields), tuned.encode(fields))
    assert not torch.equal(plain.synthesis, tuned.synthesis)
    assert [row["step"] for row in tuned.history] == [0, 30, 60, 0, 30, 40]


def test_merged_codes_are_one(fields):
    settings = dict(steps=60, batch=64, points=32, eval_every=30, hidden=16, encoder=0, vocab_size=32)
    plain, some, all_ = (make(**settings, merge=share).fit(fields) for share in (0.0, 1.5, 1e6))
    ids, before = some.encode(fields), plain.encode(fields)
    assert 1 < len(ids.unique()) < len(before.unique()) and len(all_.encode(fields).unique()) == 1
    book, spread = some.books[0], 1.5 * plain.books.std()
    apart = torch.cdist(book.unique(dim=0), book.unique(dim=0)).fill_diagonal_(torch.inf)
    assert (apart >= spread).all()  # what was near became one
    assert torch.equal(firsts(book)[ids], ids) and some.decode(ids).shape == fields.shape
    kept = (plain.books[0] == book).all(1)
    assert torch.equal(plain.synthesis, some.synthesis) and kept.any()


def test_a_critic_learns_to_tell_blurred_from_sharp_and_its_features_vanish_between_equals(fields):
    fitted = values(FIELD, fields[:64], region_points(FIELD, (4, 6), 2))
    blurred = (fitted + fitted.roll(1, 1) + fitted.roll(-1, 1)) / 3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = Critic((8, 12), 1, float(fitted.mean()), float(fitted.std()))
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        critic.own_loss(blurred, fitted).backward()
        optimizer.step()
    with torch.no_grad():
        scores = [float(critic(pictures)[1].mean()) for pictures in (fitted, blurred)]
        same, far = (float(critic.distance(pictures, fitted)[0]) for pictures in (fitted, blurred))
    assert scores[0] > scores[1] + 0.5
    assert same == 0 < far


def test_a_critic_needs_a_lattice_of_one_to_three_dimensions(fields):
    with pytest.raises(ValueError, match="Give --adversarial 0"):
        make(grid=(1, 1), side=2, margin=0, steps=1, tune=1).fit(fields)
    make(grid=(1, 1), side=2, margin=0, steps=1, tune=1, adversarial=0.0).fit(fields)


def test_settings_added_later_do_not_change_what_was_saved_before(fitted):
    plain, tuned = (replace(fitted.config, tune=tune) for tune in (0, 5))
    prints = []
    for config in (plain, tuned):
        other = RegionsTokenizer(config)
        other.load_state_dict(fitted.state_dict())
        prints.append(other.fingerprint)
    assert prints[0] == fitted.fingerprint != prints[1]
    without = {k: v for k, v in vars(plain).items() if k not in RegionsConfig.later}
    assert RegionsConfig(**without) == plain


def test_fields_without_a_common_start_are_told_and_decoded(fields):
    """Neurons in random orders change neither ids nor, beyond a decibel, what is decoded; the rows themselves have no mean."""
    assert not scattered(fields, 0)
    mixed = torch.cat([shuffled(row[None], i) for i, row in enumerate(fields)])
    assert scattered(mixed, 0)
    found = []
    for data in (fields, mixed):
        tokenizer = make(steps=0, vocab_size=64).fit(data[:300])
        decoded = tokenizer.decode(tokenizer.encode(data[300:]))
        found.append(float(psnr(render(FIELD, decoded, 8, 8), render(FIELD, data[300:], 8, 8)).mean()))
    assert found[1] > found[0] - 1


def test_weights_are_read_where_asked(fields):
    """A field's tokens then come from its row: equal after reloading, the same alone and in a batch, refused without a common start."""
    options = {"read": "weights", "steps": 150, "batch": 64, "points": 64, "hidden": 64, "vocab_size": 64}
    tokenizer = make(**options).fit(fields[:300])
    ids = tokenizer.encode(fields[300:])
    assert torch.equal(torch.cat([tokenizer.encode(row[None]) for row in fields[300:]]), ids)
    decoded, mean = tokenizer.decode(ids), fields[:300].mean(0).expand(100, -1)
    truth = render(FIELD, fields[300:], 8, 8)
    assert psnr(render(FIELD, decoded, 8, 8), truth).mean() > psnr(render(FIELD, mean, 8, 8), truth).mean() + 1
    mixed = torch.cat([shuffled(row[None], i) for i, row in enumerate(fields)])
    with pytest.raises(ValueError, match="common start"):
        make(**options).fit(mixed)
    assert not torch.equal(tokenizer.encode(mixed[300:]), ids)


def shuffled(row: Tensor, seed: int) -> Tensor:
    """A row with its hidden neurons in another order and, ReLU permits it, other scales."""
    g = generator(seed)
    return rescale(
        FIELD, layout.permute(FIELD, row, [torch.randperm(8, generator=g)]), [torch.rand(8, generator=g) + 0.5]
    )
