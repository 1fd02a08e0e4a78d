"""Refit and comparison: better pictures from the same vocabulary, fewer bits where they do not show."""

import json

import pytest
import torch
from made import SMALL, generator, rows

from fields.metrics.pairs import psnr
from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from fields.view.render import render
from tokenizers import encode
from tokenizers.build import build
from tokenizers.classic.options import KMeansConfig, PCAConfig
from tokenizers.compare import compare
from tokenizers.distortion import errors_of
from tokenizers.options import CompareConfig, RefitConfig, ReportConfig
from tokenizers.refit import Refit
from tokenizers.registry import TOKENIZERS, BuildConfig, load_tokenizer, make_tokenizer, parse
from tokenizers.tokens import TokenDataset

FIELD = FieldConfig(hidden=(6,), octaves=1)
FINE = {"vqvae": {"vocab_size": 32}, "graph": {"vocab_size": 64}}
KINDS = [(kind, FINE.get(kind, {})) for kind in TOKENIZERS] + [
    ("kmeans", {"group": 2}),
    ("vqvae", {"vocab_size": 32, "hidden": 0, "steps": 0}),
    ("vqvae", {"quantizer": "rvq", "width": 4}),
]
DEFAULT = RefitConfig(refit=True, refit_steps=25, refit_lr=0.2, refit_rate=0.0)


@pytest.fixture(scope="module")
def data() -> WeightDataset:
    weights = rows(FIELD, 80, seed=1)
    sizes = torch.tensor([[6, 7]]).expand(80, 2)
    ids = [f"made/{i}" for i in range(80)]
    parts = {"train": slice(0, 60), "validation": slice(60, 80)}
    splits = {s: {"weights": weights[p], "sizes": sizes[p], "signal_id": ids[p]} for s, p in parts.items()}
    return WeightDataset.from_rows(FIELD, splits, signals={"name": "made", "channels": 1})


def fitted(kind: str, data: WeightDataset, **options):
    settings = {"vocab_size": 8, "field": FIELD.to_dict(), **SMALL.get(kind, {}), **options}
    return make_tokenizer(TOKENIZERS[kind][0](**settings)).fit(data.weights("train"))


@pytest.mark.parametrize("kind, options", KINDS)
def test_refit_serves_the_picture(kind, options, data):
    """Against the fields' own pictures, for every kind; ids stay ids."""
    tokenizer, weights = fitted(kind, data, **options), data.weights("validation")
    ids = tokenizer.encode(weights)
    refit = Refit.of(tokenizer, data, DEFAULT)
    better = refit(weights, ids, data.ids("validation"), data.extent("validation"))
    true = render(FIELD, weights, 6, 7)
    before, after = (psnr(render(FIELD, tokenizer.decode(i), 6, 7), true) for i in (ids, better))
    assert better.shape == ids.shape and float(after.mean()) > float(before.mean()) + 0.5
    assert bool((after >= before - 1e-3).all())  # the best codes of each field are kept, plain ones among them
    again = refit(weights, ids, data.ids("validation"), data.extent("validation"))
    assert torch.equal(better, again)


def test_a_rate_saves_bits(data):
    tokenizer, weights = fitted("kmeans", data, vocab_size=16), data.weights("validation")
    ids, bits, errors = tokenizer.encode(weights), [], []
    for rate in (0.0, 0.05):
        refit = Refit.of(tokenizer, data, RefitConfig(True, 25, 0.2, refit_rate=rate))
        lengths = Refit.of(tokenizer, data, RefitConfig(True, 25, refit_rate=0.1)).lengths
        better = refit(weights, ids, data.ids("validation"), data.extent("validation"))
        bits.append(float(lengths[torch.arange(ids.shape[1]), better].sum(1).mean()))
        true = render(FIELD, weights, 6, 7)
        errors.append(float(psnr(render(FIELD, tokenizer.decode(better), 6, 7), true).mean()))
    assert bits[1] < bits[0] and errors[1] < errors[0]


def test_quality_is_the_loss_above_its_floor():
    weights, coords = rows(FIELD, 3), torch.rand(50, 2, generator=generator(1)) * 2 - 1
    targets = torch.rand(3, 50, 1, generator=generator(2))
    error, excess = errors_of(FIELD, weights, targets, coords)
    from fields.model import forward, values

    said = forward(FIELD, weights, coords)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(said, targets, reduction="none").mean((1, 2))
    floor = torch.nn.functional.binary_cross_entropy(targets, targets, reduction="none").mean((1, 2))
    assert torch.allclose(excess, loss - floor, atol=1e-4)
    assert torch.allclose(error, (values(FIELD, weights, coords) - targets).square().mean((1, 2)), atol=1e-6)
    plain = FieldConfig(hidden=(6,), octaves=1, output="linear")
    assert torch.equal(*errors_of(plain, weights, targets, coords))


def test_build_and_encode_with_refit(data, tmp_path, capsys):
    data.save(tmp_path / "fields")
    refit = RefitConfig(True, 10)
    settings, report = KMeansConfig(vocab_size=8), ReportConfig(sizes=(), probe_rows=0)
    config = BuildConfig(settings, report, tmp_path / "fields", tmp_path / "k", refitting=refit)
    tokenizer = build(config)
    values = json.loads((tmp_path / "k" / "report.json").read_text())
    assert values["refit"]["psnr_after"] > values["psnr_after"]
    assert "after refit:" in capsys.readouterr().out and "after refit" in (tmp_path / "k" / "report.md").read_text()
    tokens = TokenDataset.load(tmp_path / "k")
    assert not torch.equal(tokens.ids("validation"), tokenizer.encode(data.weights("validation")))
    found = load_tokenizer(tmp_path / "k")
    encode.main(
        encode.EncodeConfig(
            str(tmp_path / "k"), str(tmp_path / "fields"), tmp_path / "t", refitting=RefitConfig(True, 10)
        )
    )
    assert torch.equal(TokenDataset.load(tmp_path / "t").ids("train"), tokens.ids("train"))
    assert found.fingerprint == tokens.tokenizer_fingerprint
    with pytest.raises(ValueError, match="refit"):
        build(BuildConfig(settings, report, config.fields, config.out))
    assert parse(["pca", "--refit", "--refit-steps", "5"]).refitting == RefitConfig(True, 5)
    with pytest.raises(ValueError, match="--refit-steps"):
        RefitConfig(refit_steps=0)


def test_compare(data, tmp_path, capsys):
    data.save(tmp_path / "fields")
    for name, settings in (("k", KMeansConfig(vocab_size=8)), ("p", PCAConfig(vocab_size=8))):
        build(
            BuildConfig(settings, ReportConfig(sizes=(), probe_rows=0), fields=tmp_path / "fields", out=tmp_path / name)
        )
    paths = (str(tmp_path / "k"), str(tmp_path / "p"))
    out = compare(CompareConfig(paths, str(tmp_path / "fields"), tmp_path / "c", RefitConfig(True, 10), held_out=15))
    assert [r["name"] for r in out["rows"]] == ["k", "p"] and out["fields"] == 15 and out["split"] == "validation"
    for row in out["rows"]:
        assert row["bits_nominal"] == pytest.approx(49 * 3) and row["bits_per_field"] > 0
        assert row["refit"]["psnr_after"] > row["psnr_after"] and row["token_bytes_per_field"] > 0
    text = (tmp_path / "c" / "compare.md").read_text()
    assert text.count("\n| ") == 4 and "15 fields of split validation" in text
    assert (tmp_path / "c" / "compare.png").read_bytes()[:4] == b"\x89PNG"
    report = (tmp_path / "c" / "report.html").read_text()
    assert "refit: PSNR" in report and "data:image/png" in report and (tmp_path / "k" / "report.html").is_file()
    with pytest.raises(ValueError, match="split 'nowhere' not found"):
        compare(CompareConfig(paths, str(tmp_path / "fields"), tmp_path / "d", split="nowhere"))
    with pytest.raises(ValueError, match="at least one tokenizer"):
        CompareConfig((), "a", tmp_path)


def test_compare_on_other_fits_of_the_same_signals(data, tmp_path):
    data.save(tmp_path / "fields")
    parts = {}
    for split in data.splits:
        own = {"signal_id": data.ids(split), "sizes": data.extent(split)}
        parts[split] = {"weights": data.weights(split) + 0.01, **own}
    other = WeightDataset.from_rows(FIELD, parts, signals=data.signals)
    other.save(tmp_path / "others")
    fitted("pca", data).save_pretrained(tmp_path / "p")
    fitted("pca", other).save_pretrained(tmp_path / "q")
    paths = (str(tmp_path / "p"), f"{tmp_path / 'q'}={tmp_path / 'others'}")
    out = compare(CompareConfig(paths, str(tmp_path / "fields"), tmp_path / "c", held_out=15))
    assert [r["name"] for r in out["rows"]] == ["p", "q"]
    assert "fields" not in out["rows"][0] and out["rows"][1]["fields"] == str(tmp_path / "others")
    alone = compare(CompareConfig((str(tmp_path / "q"),), str(tmp_path / "others"), tmp_path / "d", held_out=15))
    assert out["rows"][1]["psnr_after"] == alone["rows"][0]["psnr_after"]
    turned = {
        **parts,
        "validation": {k: (v.flip(0) if torch.is_tensor(v) else v[::-1]) for k, v in parts["validation"].items()},
    }
    WeightDataset.from_rows(FIELD, turned, signals=data.signals).save(tmp_path / "turned")
    there = (f"{tmp_path / 'q'}={tmp_path / 'turned'}",)
    again = compare(CompareConfig(there, str(tmp_path / "fields"), tmp_path / "f", held_out=15))
    assert again["rows"][0]["psnr_after"] == pytest.approx(alone["rows"][0]["psnr_after"])  # signals count, not places
    moved = {"train": parts["train"], "validation": {k: v[10:] for k, v in parts["validation"].items()}}
    WeightDataset.from_rows(FIELD, moved, signals=data.signals).save(tmp_path / "fewer")
    with pytest.raises(ValueError, match="of --fields is not in split validation in the other one"):
        paths = (f"{tmp_path / 'q'}={tmp_path / 'fewer'}",)
        compare(CompareConfig(paths, str(tmp_path / "fields"), tmp_path / "g", held_out=15))
    WeightDataset.from_rows(FIELD, parts, signals={"name": "else", "channels": 1}).save(tmp_path / "strangers")
    paths = (str(tmp_path / "p"), f"{tmp_path / 'q'}={tmp_path / 'strangers'}")
    with pytest.raises(ValueError, match="these are fields of 'else', but --fields has fields of 'made'"):
        compare(CompareConfig(paths, str(tmp_path / "fields"), tmp_path / "e", held_out=15))
