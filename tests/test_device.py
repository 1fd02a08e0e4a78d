"""On a GPU: what is learnt there is used on CPUs, and computes there what a CPU computes."""

from copy import deepcopy

import pytest
import torch
from made import SMALL, generator, rows

from fields.fitting.engine import Points, Schedule, fit_block, quality
from fields.fitting.options import FitConfig
from fields.fitting.starts import make_reference
from fields.model import FIELDS, FieldConfig
from fields.runtime.launch import choose_device
from fields.signals.images import grid
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from gpt.continuous.regression import RegressionConfig, RegressionTransformer
from gpt.model import GPT, GPTConfig
from gpt.sampling.generate import sample_ids
from tokenizers.learned import train
from tokenizers.learned.options import VQVAEConfig
from tokenizers.learned.vqvae import VQVAETokenizer
from tokenizers.options import RefitConfig
from tokenizers.refit import Refit
from tokenizers.registry import TOKENIZERS, load_tokenizer, make_tokenizer

FIELD = FieldConfig(hidden=(6,), octaves=1)  # 49 weights
QUANTIZERS = [
    {"quantizer": "fsq", "rate": 1e-5},
    {"quantizer": "vq", "width": 3},
    {"quantizer": "rvq", "width": 4, "latents": 10},
    {"quantizer": "lfq"},
    {"quantizer": "simvq", "width": 2},
]
KINDS = [(kind, {}) for kind in TOKENIZERS] + [("kmeans", {"group": 2})]


@pytest.fixture
def gpu() -> torch.device:
    """The GPU; without one the test is left out."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return torch.device("cuda")


def unfitted(**options) -> VQVAETokenizer:
    return VQVAETokenizer(VQVAEConfig(**{"field": FIELD.to_dict(), "vocab_size": 16, **SMALL["vqvae"], **options}))


def test_a_gpu_is_asked_for_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="--device cuda: PyTorch sees no GPU"):
        choose_device("cuda")


def test_auto_takes_a_gpu_for_what_takes_long(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == choose_device("cuda", long=False).type == "cuda"
    assert choose_device("auto", long=False).type == choose_device("cpu").type == "cpu"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert choose_device("auto").type == "cpu"


@pytest.mark.gpu
@pytest.mark.parametrize("options", QUANTIZERS, ids=lambda o: o["quantizer"])
def test_learnt_on_a_gpu_used_on_a_cpu(gpu, options, tmp_path):
    weights = rows(FIELD, 200, seed=1)
    tokenizer = unfitted(**options).to(gpu).fit(weights)
    there = tokenizer.encode(weights)
    assert there.device.type == "cuda" and tokenizer.history[-1]["step"] == 4
    tokenizer.save_pretrained(tmp_path)
    found = load_tokenizer(tmp_path)
    assert found.fingerprint == tokenizer.cpu().fingerprint
    ids = found.encode(weights)
    assert torch.equal(ids, tokenizer.encode(weights)) and torch.equal(found.decode(ids), tokenizer.decode(ids))
    assert float((ids == there.cpu()).double().mean()) > 0.999  # both in float64


@pytest.mark.gpu
def test_a_killed_fit_goes_on_on_the_gpu(gpu, tmp_path, monkeypatch, capsys):
    weights, options = rows(FIELD, 80, seed=1), {"quantizer": "vq", "rate": 0.0, "steps": 6, "noise": 0.1}
    before = torch.cuda.get_rng_state(gpu)
    whole = unfitted(**options).to(gpu).fit(weights)
    assert torch.equal(before, torch.cuda.get_rng_state(gpu))
    real, calls = train.VocabularyTrainer.advance, []

    def dies(self):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self)

    for advance in (dies, real):
        monkeypatch.setattr(train.VocabularyTrainer, "advance", advance)
        again = unfitted(**options).to(gpu)
        again.resume_dir = tmp_path
        if advance is dies:
            with pytest.raises(KeyboardInterrupt):
                again.fit(weights)
        else:
            again.fit(weights)
    assert "resuming from step 2" in capsys.readouterr().out
    looks = [[look["psnr"] for look in made.history] for made in (whole, again)]
    assert looks[0] == pytest.approx(looks[1], abs=0.05)  # sums on a GPU come in any order
    elsewhere = unfitted(**{**options, "steps": 8})
    elsewhere.resume_dir = tmp_path
    elsewhere.fit(weights)  # a state of another run is no obstacle


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=lambda x: x if isinstance(x, str) else "".join(x))
def test_every_kind_encodes_and_refits_there(gpu, kind, options):
    weights = rows(FIELD, 60, seed=2)
    config = TOKENIZERS[kind][0](**{"field": FIELD.to_dict(), "vocab_size": 8, **SMALL.get(kind, {}), **options})
    tokenizer = make_tokenizer(config).fit(weights)
    there = deepcopy(tokenizer).to(gpu)
    ids = tokenizer.encode(weights)
    assert float((there.encode(weights).cpu() == ids).double().mean()) > 0.999
    assert torch.allclose(there.decode(ids).cpu(), tokenizer.decode(ids), atol=1e-5)
    names, sizes = [""] * len(weights), torch.full((len(weights), 2), 8)
    lengths = torch.full((tokenizer.tokens_per_field, tokenizer.codes), 3.0, dtype=torch.float64)
    made = [Refit(t, RefitConfig(True, 10), lengths.to(t.n_codes.device)) for t in (tokenizer, there)]
    if not tokenizer.has_ordered_codes:
        made = [Refit(m.tokenizer, m.config) for m in made]
    better = [m(weights, ids, names, sizes) for m in made]
    assert better[1].device.type == "cpu" and float((better[0] == better[1]).double().mean()) > 0.9


@pytest.mark.gpu
def test_fits_there_are_as_good(gpu):
    config, signals = FIELDS["digits"], load_signals(SignalsConfig())
    targets = signals.images(torch.arange(32)).flatten(1, 2)
    coords, schedule = grid(config, 8, 8), Schedule(60, 1e-2)
    start = rows(config, 1, spread=0).expand(32, -1)
    found = []
    for device in ("cpu", gpu):
        points = Points(config, coords.to(device), 0.5, 0)
        fitted = fit_block(config, start.to(device), targets.to(device), points, schedule)
        found.append((fitted.cpu(), quality(config, fitted, targets.to(device), points.coords).cpu()))
    assert (found[0][1] - found[1][1]).abs().mean() < 0.1 and (found[0][0] - found[1][0]).abs().mean() < 5e-3
    stopped = fit_block(config, start.to(gpu), targets.to(gpu), points, Schedule(200, 1e-2, target=15.0))
    assert quality(config, stopped, targets.to(gpu), points.coords).min() >= 15
    few = FitConfig(start="meta", steps=60, meta_steps=5, pixels=1.0)
    starts = [make_reference(config, signals, few, device=device, quiet=True).row for device in ("cpu", gpu)]
    assert starts[1].device.type == "cpu" and torch.allclose(*starts, atol=1e-2)


@pytest.mark.gpu
def test_drawing_there(gpu):
    slots = torch.tensor([[i // 6, i % 6] for i in range(12)])
    config = GPTConfig(5, 12, (2, 6), labels=3, n_layer=2, n_head=2, n_embd=16, dropout=0.0)
    model = GPT.create(config, slots).eval()
    ways = [{}, {"cache": False}, {"grammar": False, "top_p": 0.9}, {"label": 1, "top_k": 2, "temperature": 0.5}]
    ways.append({"label": 1, "prompt": torch.tensor([0, 1, 2])})
    here = [sample_ids(model, 70, **way) for way in ways]
    model.to(gpu)
    for way, wanted in zip(ways, here, strict=True):
        draws = sample_ids(model, 70, **way)
        assert draws.codes.device.type == "cpu"
        assert float((draws.codes == wanted.codes).all(1).double().mean()) > 0.9  # a draw may lie on an edge


@pytest.mark.gpu
def test_reciting_there(gpu):
    weights = rows(FIELD, 5, seed=3)
    model = RegressionTransformer.create(RegressionConfig(49, n_embd=16), torch.zeros(()), torch.tensor(0.5)).eval()
    wanted = model.roll_out(weights[:, :1]), model.teacher_forced(weights), model.loss(weights)
    model.to(gpu)
    found = model.roll_out(weights[:, :1].to(gpu)), model.teacher_forced(weights.to(gpu)), model.loss(weights.to(gpu))
    assert all(torch.allclose(a, b.cpu(), atol=1e-3) for a, b in zip(wanted, found, strict=True))


@pytest.mark.gpu
def test_draws_do_not_depend_on_what_else_is_drawn(gpu):
    config = GPTConfig(5, 12, n_layer=1, n_head=2, n_embd=16)
    model = GPT.create(config, torch.zeros(12, 0, dtype=torch.int64), seed=1).to(gpu)
    many = sample_ids(model, 100, seed=4)
    assert torch.equal(sample_ids(model, 5, seed=4, first=70).codes, many.codes[70:75])
    assert generator(0).device.type == "cpu" and many.complete.all()
