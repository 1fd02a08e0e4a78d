"""The learned vocabulary: quantisers, what training may and may not change, going on, and what is refused."""

import pytest
import torch
from made import SMALL, generator, rows

from fields.model import FieldConfig, values
from tokenizers.learned import quantizers, train
from tokenizers.learned.options import VQVAEConfig
from tokenizers.learned.vqvae import VQVAETokenizer
from tokenizers.registry import load_tokenizer

FIELD = FieldConfig(hidden=(6,), octaves=1)  # 49 weights
QUANTIZERS = [
    {"quantizer": "fsq"},
    {"quantizer": "fsq", "width": 2, "levels": (5, 3)},
    {"quantizer": "fsq", "rate": 1e-5},
    {"quantizer": "vq", "width": 3},
    {"quantizer": "vq"},
    {"quantizer": "rvq", "width": 4, "latents": 10},
    {"quantizer": "lfq"},
    {"quantizer": "simvq", "width": 2},
]


def unfitted(**options) -> VQVAETokenizer:
    return VQVAETokenizer(VQVAEConfig(**{"field": FIELD.to_dict(), "vocab_size": 16, **SMALL["vqvae"], **options}))


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    return rows(FIELD, 80, seed=1)


@pytest.mark.parametrize("options", QUANTIZERS, ids=lambda o: "-".join(map(str, o.values())))
def test_every_quantizer(options, weights, tmp_path):
    """Ids of one row alone, in another order, after loading; decoding is what was evaluated; encoding changes nothing."""
    tokenizer = unfitted(**options).fit(weights)
    tokenizer.train()  # a caller's mistake that must not matter
    mark, ids = tokenizer.fingerprint, tokenizer.encode(weights)
    assert tokenizer.fingerprint == mark and not any(p.requires_grad for p in tokenizer.parameters())
    assert torch.equal(tokenizer.encode(weights[7:8]), ids[7:8])
    assert torch.equal(tokenizer.encode(weights.flip(0)), ids.flip(0))
    assert int(ids.max()) < tokenizer.codes <= 16
    tokenizer.save_pretrained(tmp_path)
    found = load_tokenizer(tmp_path)
    assert torch.equal(found.encode(weights), ids) and torch.equal(found.decode(ids), tokenizer.decode(ids))
    assert len(tokenizer.history) == 3 and tokenizer.history[0]["step"] == 0
    one = unfitted(**options).fit(weights[:1])
    assert torch.equal(one.decode(one.encode(weights[:1])), weights[:1])


@pytest.mark.parametrize("options", [o for o in QUANTIZERS if "rate" not in o], ids=lambda o: o["quantizer"])
def test_plain_codebooks_say_what_the_library_says(options, weights):
    tokenizer = unfitted(**options)
    latents = torch.randn(50, tokenizer.latents, tokenizer.config.numbers, generator=generator(3))
    c = tokenizer.config
    made = quantizers.make_quantizer(
        c.quantizer, tokenizer.latents, c.numbers, c.codes, levels=c.fsq_levels, residual=2, span=c.span, batch=50
    )
    made.start(latents)
    made.eval()
    books = quantizers.ordered(made.books())
    ids = quantizers.nearest_code(latents.double(), books, c.depth)
    assert torch.allclose(quantizers.look_up(ids, books, c.depth).float(), made(latents)[0], atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2])
@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
def test_codes_are_used_at_every_scale(scale, quantizer, weights):
    field = FieldConfig(hidden=(6,), octaves=1, activation="elu", output="linear")
    tokenizer = unfitted(field=field.to_dict(), quantizer=quantizer, steps=0).fit(scale * weights[:64])
    used = tokenizer.encode(scale * weights[:64]).unique()
    assert len(used) >= tokenizer.codes / 2


def test_training_lowers_the_error_of_the_function(weights):
    """From where pca ends, and on rows it did not see."""
    many = rows(FIELD, 1700, seed=2, spread=0.3)
    tokenizer = unfitted(vocab_size=8, span=3.0, steps=200, eval_every=100, hidden=16, batch=64, points=32, lr=5e-4)
    tokenizer.fit(many[:1500], held_out=many[1500:])
    reached = [look["psnr"] for look in tokenizer.history]
    assert max(reached) > reached[0] + 0.03 and tokenizer.history[-1]["loss"] > 0
    coords = torch.rand(200, 2, generator=generator(5)) * 2 - 1
    decoded = tokenizer.decode(tokenizer.encode(many[1500:]))
    error = (values(FIELD, decoded, coords) - values(FIELD, many[1500:], coords)).square().mean((1, 2))
    assert float(-10 * error.log10().mean()) == pytest.approx(max(reached), abs=1.0)  # other points, the same fields


def test_held_out_rows_are_watched_not_learnt(weights):
    """One look at the end: what is held out decides nothing before it."""
    made = [unfitted(eval_every=4).fit(weights, held_out=rows(FIELD, 10, seed=s, spread=2.0)) for s in (5, 6)]
    finals = [m.history[-1]["psnr"] for m in made]
    assert finals[0] != finals[1] and torch.equal(made[0].standardizer.mean, made[1].standardizer.mean)
    assert made[0].history[-1]["loss"] == made[1].history[-1]["loss"]


@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
def test_a_killed_fit_goes_on_with_the_same_result(quantizer, weights, tmp_path, monkeypatch, capsys):
    whole = unfitted(quantizer=quantizer, width=1, rate=0.0, steps=6).fit(weights)
    real, calls = train.VocabularyTrainer.advance, []

    def dies(self):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(train.VocabularyTrainer, "advance", dies)
    cut = unfitted(quantizer=quantizer, width=1, steps=6)
    cut.resume_dir = tmp_path
    with pytest.raises(KeyboardInterrupt):
        cut.fit(weights)
    monkeypatch.setattr(train.VocabularyTrainer, "advance", real)
    again = unfitted(quantizer=quantizer, width=1, steps=6)
    again.resume_dir = tmp_path
    again.fit(weights)
    assert "resuming from step 2" in capsys.readouterr().out and again.fingerprint == whole.fingerprint
    other = unfitted(quantizer=quantizer, width=1, steps=6, seed=1)
    other.resume_dir = tmp_path
    other.fit(weights)  # a state of another run is not taken
    assert "going on" not in capsys.readouterr().out
    (tmp_path / "training.safetensors").write_bytes(b"junk")
    assert other.fit(weights).is_fitted and "damaged" in capsys.readouterr().out


def test_nothing_outside_depends_on_a_fit(weights):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    unfitted(quantizer="vq").fit(weights)
    assert torch.equal(before, torch.get_rng_state()) and torch.is_grad_enabled()


def test_last_batches_of_one_and_early_stop(weights):
    tokenizer = unfitted(batch=79, steps=50, eval_every=1, patience=2, lr=10.0).fit(weights[:80])
    assert 26 < len(tokenizer.history) < 51  # far too high a rate: nothing gets better; patience counts from the middle
    best = max(tokenizer.history, key=lambda look: look["psnr"])
    assert best["step"] == 0 or best["psnr"] > tokenizer.history[0]["psnr"]


def test_nonsense_is_refused():
    for options, said in (
        ({"latents": 0}, "--latents"),
        ({"rate": -1.0}, "--rate"),
        ({"lr": 0.0}, "--lr"),
        ({"quantizer": "lfq", "vocab_size": 12}, "power of 2"),
        ({"quantizer": "simvq"}, "--width of at least 2"),
        ({"width": 2, "levels": (5, 5)}, "at most --vocab-size 16"),
        ({"quantizer": "vq", "rate": 0.1}, "--rate is for"),
    ):
        with pytest.raises(ValueError, match=said):
            unfitted(**options)
    with pytest.raises(ValueError, match="wider than the field"):
        unfitted(quantizer="vq", width=50)
