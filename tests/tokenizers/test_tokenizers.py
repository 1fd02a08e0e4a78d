"""What every tokenizer of the registry must do."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made import SMALL, generator, rows
from torch import nn

from fields.metrics.pairs import psnr
from fields.model import FieldConfig
from fields.view.render import render
from tokenizers.registry import TOKENIZERS, class_of, load_tokenizer, make_tokenizer
from tokenizers.selection import gather
from tokenizers.standardizer import Moments, Standardizer
from tokenizers.vocab import Vocab

FIELD = FieldConfig(hidden=(8,), octaves=2)  # 10 -> 8 -> 1, 97 weights
KINDS = [pytest.param(kind, id=kind) for kind in TOKENIZERS]
VARIANTS = [
    ("kmeans", {}),
    ("kmeans", {"codebook": "layer"}),
    ("kmeans", {"group": 3}),
    ("kmeans", {"group": 4, "codebook": "layer"}),
    ("kmeans", {"standardize": "delta"}),
    ("quantile", {}),
    ("quantile", {"codebook": "layer"}),
    ("quantile", {"standardize": "none"}),
    ("uniform", {}),
    ("uniform", {"codebook": "layer", "span": 2.0}),
    ("uniform", {"standardize": "none"}),
    ("pca", {}),
    ("pca", {"metric": "weights", "components": 40}),
    ("pca", {"standardize": "none"}),
    ("vqvae", {}),
    ("vqvae", {"quantizer": "vq", "width": 3}),
    ("vqvae", {"quantizer": "rvq", "width": 4, "latents": 12}),
    ("graph", {}),
    ("graph", {"level": "neuron"}),
    ("regions", {}),
    ("regions", {"quantizer": "fsq", "levels": (4, 4)}),
    ("regions", {"steps": 0, "encoder": 0, "hidden": 0, "margin": 0}),
]
EXACT = [
    (kind, options) for kind, options in VARIANTS if kind not in ("vqvae", "graph", "regions")
]  # an encoder is no decoder's inverse


def unfitted(kind: str, **options):
    settings = {"vocab_size": 32, "field": FIELD.to_dict(), **SMALL.get(kind, {}), **options}
    return make_tokenizer(TOKENIZERS[kind][0](**settings))


def fitted(kind: str, weights: torch.Tensor, **options):
    return unfitted(kind, **options).set_reference(weights.mean(0)).fit(weights)


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    return rows(FIELD, 120, seed=1)


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_shapes_and_range(kind, options, weights):
    tokenizer = fitted(kind, weights, **options)
    ids = tokenizer.encode(weights)
    assert ids.shape == (120, tokenizer.tokens_per_field) and ids.dtype == torch.int64
    assert int(ids.min()) >= 0 and int(ids.max()) < tokenizer.codes <= 32
    decoded = tokenizer.decode(ids)
    assert decoded.shape == weights.shape and decoded.dtype == torch.float32 and bool(decoded.isfinite().all())
    assert tokenizer.slots.shape[0] == tokenizer.tokens_per_field
    assert bool((tokenizer.slots < torch.tensor(tokenizer.slot_sizes)).all())
    assert tokenizer.field == FIELD and tokenizer.encode(weights[:0]).shape == (0, tokenizer.tokens_per_field)


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_a_row_depends_on_itself_alone(kind, options, weights):
    tokenizer = fitted(kind, weights, **options)
    other = rows(FIELD, 50, seed=9)
    ids = tokenizer.encode(other)
    for i in (0, 7, 49):
        assert torch.equal(tokenizer.encode(other[i : i + 1]), ids[i : i + 1])
    assert torch.equal(tokenizer.encode(other.flip(0)), ids.flip(0))
    strided = other.T.contiguous().T  # the same values, laid out by columns
    assert torch.equal(tokenizer.encode(strided), ids)
    assert torch.equal(tokenizer.decode(ids.T.contiguous().T), tokenizer.decode(ids))


@pytest.mark.parametrize("kind", ["kmeans", "quantile", "uniform"])
def test_threads_share_the_work_and_agree(kind, weights):
    tokenizer, many = fitted(kind, weights), rows(FIELD, 15_000, seed=2)  # six blocks
    one = tokenizer.encode(many)
    torch.set_num_threads(2)
    assert torch.equal(tokenizer.encode(many), one) and torch.get_num_threads() == 2


@pytest.mark.parametrize("kind, options", EXACT)
def test_decoded_rows_encode_to_the_same_ids(kind, options, weights):
    tokenizer = fitted(kind, weights, **options)
    ids = tokenizer.encode(rows(FIELD, 60, seed=3, spread=0.2))
    assert torch.equal(tokenizer.encode(tokenizer.decode(ids)), ids)


@pytest.mark.parametrize(
    "kind", [k for k in TOKENIZERS if k != "graph"]
)  # it decodes to another row of the same function
def test_constant_positions_decode_exactly(kind, weights):
    weights = weights.clone()
    weights[:, 5], weights[:, 96] = 0.3, -1.7
    options = {"group": 4} if kind == "kmeans" else {}
    for extra in ({}, options):
        tokenizer = fitted(kind, weights, **extra)
        ids = tokenizer.encode(weights)
        decoded = tokenizer.decode(ids)
        assert torch.equal(decoded[:, 5], weights[:, 5]) and torch.equal(decoded[:, 96], weights[:, 96])
        assert kind in ("vqvae", "regions") or torch.equal(tokenizer.encode(decoded), ids)


@pytest.mark.parametrize(
    "kind", [k for k in TOKENIZERS if k not in ("pca", "vqvae", "graph", "regions")]
)  # a component mixes all positions
def test_far_means_do_not_break_the_round_trip(kind):
    """Spreads of a few float32 steps: codes that cannot be told apart become one."""
    base = 1000 * torch.randn(FIELD.size, generator=generator(4))
    weights = base + torch.logspace(-5, -1, FIELD.size) * torch.randn(200, FIELD.size, generator=generator(5))
    tokenizer = fitted(kind, weights, vocab_size=256)
    ids = tokenizer.encode(weights)
    assert torch.equal(tokenizer.encode(tokenizer.decode(ids)), ids)


@pytest.mark.parametrize("kind", KINDS)
def test_decoded_pictures_are_nearer_than_the_mean_field(kind, weights):
    tokenizer = fitted(kind, weights)
    true = render(FIELD, weights[:30], 8, 8)
    decoded = psnr(render(FIELD, tokenizer.decode(tokenizer.encode(weights[:30])), 8, 8), true)
    mean = psnr(render(FIELD, weights.mean(0, keepdim=True), 8, 8).expand_as(true), true)
    margin = {"graph": 3, "regions": 8}.get(kind, 10)  # four steps teach an encoder little
    assert float(decoded.mean()) > float(mean.mean()) + margin


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_saved_and_loaded(kind, options, weights, tmp_path):
    tokenizer = fitted(kind, weights, **options)
    tokenizer.save_pretrained(tmp_path)
    found = load_tokenizer(tmp_path)
    assert type(found) is type(tokenizer) and found.config == tokenizer.config and not found.training
    assert found.fingerprint == tokenizer.fingerprint and found.codes == tokenizer.codes
    assert torch.equal(found.encode(weights), tokenizer.encode(weights))
    card = json.loads((tmp_path / "config.json").read_text())
    assert card["kind"] == kind and card["field"] == FIELD.to_dict() and card["fingerprint"] == tokenizer.fingerprint


def test_same_ids_in_a_fresh_process(weights, tmp_path):
    from safetensors.torch import load_file, save_file

    save_file({"weights": weights}, tmp_path / "rows.safetensors")
    code = (
        "import sys, torch; from safetensors.torch import load_file, save_file;"
        "from tokenizers.registry import load_tokenizer; torch.set_num_threads(2); d = sys.argv[1];"
        "w = load_file(d + '/rows.safetensors')['weights'];"
        "save_file({k: load_tokenizer(f'{d}/{k}').encode(w) for k in sys.argv[2:]}, d + '/ids.safetensors')"
    )
    made = {kind: fitted(kind, weights) for kind in TOKENIZERS}
    for kind, tokenizer in made.items():
        tokenizer.save_pretrained(tmp_path / kind)
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *made], check=True, cwd=root, timeout=100)
    ids = load_file(tmp_path / "ids.safetensors")
    assert all(torch.equal(ids[kind], tokenizer.encode(weights)) for kind, tokenizer in made.items())


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_same_seed_same_codes_however_batched(kind, options, weights):
    first = fitted(kind, weights, **options)
    second = unfitted(kind, **options).set_reference(weights.mean(0)).fit(iter(weights.split(50)))
    for name, value in first.state_dict().items():
        assert torch.allclose(value.float(), second.state_dict()[name].float(), atol=1e-5), name
    assert first.fingerprint == fitted(kind, weights, **options).fingerprint
    assert first.fit(weights).fingerprint == fitted(kind, weights, **options).fingerprint  # a second fit is a new one


@pytest.mark.parametrize("kind", KINDS)
def test_not_fitted(kind, weights, tmp_path):
    tokenizer = unfitted(kind)
    calls = (
        lambda: tokenizer.encode(weights),
        lambda: tokenizer.decode(torch.zeros(1, tokenizer.tokens_per_field, dtype=torch.int64)),
        lambda: tokenizer.codes,
        lambda: tokenizer.save_pretrained(tmp_path),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match="is not fitted. Call fit"):
            call()


@pytest.mark.parametrize("kind", KINDS)
def test_bad_weights_are_refused(kind, weights):
    tokenizer = fitted(kind, weights)
    bad = weights.clone()
    bad[17, 3] = float("nan")
    for call in (tokenizer.encode, lambda w: unfitted(kind).fit(w), lambda w: unfitted(kind).fit(iter(w.split(10)))):
        with pytest.raises(ValueError, match="row 17 of the weights is not finite"):
            call(bad)
    with pytest.raises(ValueError, match=r"must have shape \(N, 97\), got \(120, 96\)"):
        tokenizer.encode(weights[:, :-1])
    with pytest.raises(ValueError, match="float tensor"):
        tokenizer.encode(weights.long())
    with pytest.raises(ValueError, match="no training fields"):
        unfitted(kind).fit(weights[:0])


@pytest.mark.parametrize("kind", KINDS)
def test_bad_ids_are_refused(kind, weights):
    tokenizer = fitted(kind, weights)
    ids = tokenizer.encode(weights[:2])
    for add, said in ((0, "SOS"), (1, "EOS"), (2, "PAD"), (3, r"got 35 at row 1, token 4")):
        wrong = ids.clone()
        wrong[1, 4] = tokenizer.codes + add
        with pytest.raises(ValueError, match=said):
            tokenizer.decode(wrong)
    with pytest.raises(ValueError, match=r"\[0, 32\), got -1"):
        tokenizer.decode(ids - ids.max() - 1 + ids.max() * 0 - ids + ids.max())
    with pytest.raises(ValueError, match="shape"):
        tokenizer.decode(ids[:, :-1])
    with pytest.raises(ValueError, match="integer"):
        tokenizer.decode(ids.float())


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_one_sentence(kind, weights, tmp_path):
    fitted(kind, weights).save_pretrained(tmp_path / "a")
    file = tmp_path / "a" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:40])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        load_tokenizer(tmp_path / "a")
    file.write_bytes(whole[:-4] + b"\0\0\x80\x3f")
    with pytest.raises(ValueError, match="do not belong together"):
        load_tokenizer(tmp_path / "a")
    file.unlink()
    with pytest.raises(FileNotFoundError, match="python -m tokenizers.build"):
        load_tokenizer(tmp_path / "a")


def test_missing_and_foreign_folders(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # whoever asks the network fails
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in (tmp_path / "none", "runs/none", "./none/x", str(tmp_path / "none")):
        with pytest.raises(FileNotFoundError, match="python -m tokenizers.build"):
            load_tokenizer(path)
    (tmp_path / "config.json").write_text('{"kind": "words", "field": {}}')
    with pytest.raises(ValueError, match="kind 'words'; this code knows kmeans"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": []}')
    with pytest.raises(ValueError, match="`kind` is missing. A tokenizer is made with"):
        load_tokenizer(tmp_path)
    fitted("kmeans", weights).save_pretrained(tmp_path / "k")
    with pytest.raises(ValueError, match="holds a kmeans tokenizer, not quantile"):
        class_of("quantile").from_pretrained(tmp_path / "k")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_module(kind, weights):
    tokenizer = fitted(kind, weights)
    assert isinstance(tokenizer, nn.Module) and tokenizer.config.kind == kind
    other = unfitted(kind)
    other.load_state_dict(tokenizer.state_dict())
    assert other.fingerprint == tokenizer.fingerprint != fitted(kind, weights, vocab_size=31).fingerprint


def test_vocab():
    vocab = Vocab(codes=16, labels=10)
    assert (vocab.sos, vocab.eos, vocab.pad, vocab.label(0), vocab.label(9), vocab.size) == (16, 17, 18, 19, 28, 29)
    assert [vocab.name(i) for i in (3, 16, 17, 18, 20, 29)] == ["code 3", "SOS", "EOS", "PAD", "label 1", "no id"]
    with pytest.raises(ValueError, match=r"\[0, 10\)"):
        vocab.label(10)


def test_standardizer_modes(weights):
    moments = Moments(FIELD.size)
    for part in weights.split(7):
        moments.add(part)
    assert torch.allclose(moments.mean, weights.double().mean(0))
    assert torch.allclose(moments.variance, weights.double().var(0, correction=0))
    z = Standardizer("position", FIELD.size).fit(moments)(weights)
    assert float(z.mean(0).abs().max()) < 1e-5 and torch.allclose(z.std(0, correction=0), torch.ones(FIELD.size))
    reference = weights[3]
    delta = Standardizer("delta", FIELD.size).set_reference(reference).fit(moments)
    assert torch.allclose(delta.std, (weights - reference).double().std(correction=0).float().expand(FIELD.size))
    assert torch.equal(delta(weights)[3], torch.zeros(FIELD.size))
    assert torch.equal(Standardizer("none", FIELD.size).fit(moments)(weights), weights)
    for mode in ("position", "delta", "none"):
        s = Standardizer(mode, FIELD.size).set_reference(reference).fit(moments)
        assert torch.allclose(s.invert(s(weights)), weights, atol=1e-6)
    with pytest.raises(ValueError, match="needs the reference row"):
        Standardizer("delta", FIELD.size).fit(moments)


def test_gather_is_bounded_and_does_not_depend_on_batches():
    weights = rows(FIELD, 500, seed=2)
    kept, moments = gather(weights.split(500), FIELD.size, 40 * FIELD.size, seed=3)
    again, _ = gather(weights.split(13), FIELD.size, 40 * FIELD.size, seed=3)
    assert kept.shape == (40, FIELD.size) and torch.equal(kept, again) and moments.n == 500
    assert not torch.equal(kept, gather(weights.split(13), FIELD.size, 40 * FIELD.size, seed=4)[0])


def test_configs_refuse_nonsense():
    config = TOKENIZERS["kmeans"][0](field=FIELD)
    assert config.field == FIELD.to_dict()
    for change, said in (({"vocab_size": 1}, "--vocab-size"), ({"group": 0}, "--group"), ({"fit_groups": 3}, "--fit-")):
        with pytest.raises(ValueError, match=said):
            replace(config, **change)
    with pytest.raises(ValueError, match="makes both"):
        make_tokenizer(TOKENIZERS["kmeans"][0]())
