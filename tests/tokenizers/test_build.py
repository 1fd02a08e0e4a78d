"""The commands: build, encode, decode, and what the report says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made import SMALL, rows

from fields.metrics.pairs import iou
from fields.model import FieldConfig, forward
from fields.storage.dataset import WeightDataset
from tokenizers import decode, encode
from tokenizers.build import build
from tokenizers.classic.kmeans import KMeansTokenizer
from tokenizers.classic.options import KMeansConfig, QuantileConfig
from tokenizers.options import ReportConfig
from tokenizers.registry import TOKENIZERS, BuildConfig, load_tokenizer, make_tokenizer, parse
from tokenizers.report.measures import held_out_split
from tokenizers.report.probe import probe
from tokenizers.report.report import markdown, report, summary
from tokenizers.tokens import TokenDataset
from tokenizers.vocab import Counts


@pytest.fixture
def folder(dataset, tmp_path) -> Path:
    dataset.save(tmp_path / "fields")
    return tmp_path / "fields"


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_build_writes_it_all_and_finds_it_again(kind, folder, capsys):
    small = SMALL.get(kind, {})
    settings = BuildConfig(TOKENIZERS[kind][0](vocab_size=16, **small), ReportConfig(sizes=(4, 8)), folder, threads=1)
    tokenizer = build(settings)
    out = folder.parent / kind
    names = {
        "config.json",
        "model.safetensors",
        "run.json",
        "report.json",
        "report.md",
        "tokens",
    }
    assert names <= {p.name for p in out.iterdir()}
    assert load_tokenizer(out).fingerprint == tokenizer.fingerprint == TokenDataset.load(out).tokenizer_fingerprint
    data, run = WeightDataset.load(folder), json.loads((out / "run.json").read_text())
    assert run["parents"] == {"fields": data.fingerprint}
    values = json.loads((out / "report.json").read_text())
    assert (
        values["evaluated_on"] == "validation" and values["evaluated_fields"] == 10 and values["training_fields"] == 40
    )
    assert values["codes_made"] == values["codes_asked"] == 16
    assert values["codes_used"] == 16 or (tokenizer.slow_to_fit and values["codes_used"] >= 8)
    raw = 4 * tokenizer.tokens_per_field / tokenizer.field.size  # 16 codes are 4 bits a token
    assert 0 < values["bits_per_weight_marginal"] <= values["bits_per_weight_raw"] == pytest.approx(raw)
    assert values["bits_per_field"] == pytest.approx(49 * values["bits_per_weight_position"])
    assert values["psnr_against"].startswith("the fields' own render") and values["psnr_loss"] is None
    better = [r["psnr_after"] for r in values["rate_distortion"]] + [values["psnr_after"]]
    assert better == sorted(better) and values["probe"]["held_out"] == 10
    if tokenizer.slow_to_fit:
        assert values["rate_distortion"] == [] and not (out / "training.safetensors").exists()
    else:
        assert (out / "rate_distortion.png").read_bytes()[:4] == b"\x89PNG"
    assert f"| 16 | 16 | {values['codes_used']} |" in (out / "report.md").read_text()
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    capsys.readouterr()
    build(settings)
    assert "the tokenizer exists" in capsys.readouterr().out
    assert times == {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    with pytest.raises(ValueError, match="vocab_size: 16 there, 8 now"):
        build(replace(settings, out=out, tokenizer=TOKENIZERS[kind][0](vocab_size=8, **small)))


def test_only_training_fields_are_learnt_from(dataset, tmp_path):
    splits = {
        s: {"weights": dataset.weights(s), "labels": dataset.labels(s), "signal_id": dataset.ids(s)}
        for s in dataset.splits
    }
    made = []
    for i in range(2):
        splits["validation"]["weights"] = rows(dataset.config, 10, seed=40 + i, spread=5.0)
        other = WeightDataset.from_rows(dataset.config, splits, dataset.reference, dataset.signals)
        other.save(tmp_path / f"{i}")
        made.append(
            build(
                BuildConfig(KMeansConfig(vocab_size=8), ReportConfig(sizes=()), tmp_path / f"{i}", tmp_path / f"k{i}")
            )
        )
    assert made[0].fingerprint == made[1].fingerprint
    assert torch.equal(made[0].standardizer.mean, dataset.weights("train").double().mean(0).float())


def test_refusals(dataset, folder, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="fit_fields"):
        build(BuildConfig(fields=tmp_path / "none"))
    plain = WeightDataset.from_rows(dataset.config, {"train": {"weights": dataset.weights("train")}})
    plain.save(tmp_path / "plain")
    with pytest.raises(ValueError, match="--standardize delta needs the reference"):
        build(BuildConfig(KMeansConfig(standardize="delta"), fields=tmp_path / "plain", out=tmp_path / "delta"))
    assert not (tmp_path / "delta").exists()
    WeightDataset.from_rows(dataset.config, {"test": {"weights": dataset.weights("test")}}).save(tmp_path / "test")
    with pytest.raises(ValueError, match="no training fields"):
        build(BuildConfig(fields=tmp_path / "test"))


def test_report_without_held_out_fields_or_pictures(dataset, tmp_path):
    weights = dataset.weights("train")
    data = WeightDataset.from_rows(dataset.config, {"train": {"weights": weights}})
    tokenizer = make_tokenizer(KMeansConfig(vocab_size=400, field=data.config.to_dict())).fit(weights[:2])
    tokens = TokenDataset.from_ids(tokenizer, {"train": {"ids": tokenizer.encode(weights)}}, data)
    values = report(tokenizer, data, tokens, ReportConfig(sizes=()))
    said = " ".join(values["warnings"])
    assert "codes of 400 asked for" in said and "evaluated on the training fields" in said
    assert values["psnr_after"] is None and "records no sizes" in values["psnr_against"]
    assert values["probe"] == {"skipped": "the fields have no labels"}


def test_report_of_shapes_says_their_iou(tmp_path):
    config = FieldConfig(hidden=(6,), octaves=1, in_dim=3)
    columns = {"weights": rows(config, 30), "sizes": [[64]] * 30}
    data = WeightDataset.from_rows(config, {"train": columns, "validation": columns})
    tokenizer = make_tokenizer(KMeansConfig(vocab_size=64, field=config.to_dict())).fit(columns["weights"])
    tokens = TokenDataset.from_ids(tokenizer, {"train": {"ids": tokenizer.encode(columns["weights"])}}, data)
    values = report(tokenizer, data, tokens, ReportConfig(sizes=(), probe_rows=0))
    points = data.kind.points(config, ())
    decoded = tokenizer.decode(tokens.ids("train"))
    inside = [forward(config, w, points) > 0 for w in (columns["weights"], decoded)]
    assert values["iou_after"] == pytest.approx(float(iou(*inside).mean())) and 0.5 < values["iou_after"] < 1
    assert values["psnr_after"] is values["psnr_before"] is values["iou_before"] is None
    assert "IoU against the fields' own insides" in summary(values) and "IoU" in markdown(values)


def test_report_warns_of_unused_codes(dataset):
    weights = dataset.weights("train")
    tokenizer = make_tokenizer(QuantileConfig(vocab_size=64, field=dataset.config.to_dict())).fit(weights)
    tokens = TokenDataset.from_ids(tokenizer, {"train": {"ids": tokenizer.encode(weights[:1] * 0)}}, dataset)
    values = report(tokenizer, dataset, tokens, ReportConfig(sizes=(), probe_rows=0))
    assert any("codes used" in text for text in values["warnings"])
    assert values["probe"] == {"skipped": "--probe-rows 0"}


def test_psnr_against_the_signals(tmp_path):
    """Digits are found by name, so that losses are losses against the pictures."""
    from fields.signals.images import grid
    from fields.signals.options import SignalsConfig
    from fields.signals.registry import load_signals

    signals = load_signals(SignalsConfig())
    field = FieldConfig(hidden=(6,), octaves=1)
    splits = {}
    for split, n in (("train", 30), ("test", 6)):
        where = signals.indices(split)[:n]
        names = [signals.ids[i] for i in where.tolist()]
        splits[split] = {"weights": rows(field, n), "signal_id": names, "labels": signals.labels[where]}
        splits[split]["sizes"] = torch.tensor([[8, 8]]).expand(n, 2)
    data = WeightDataset.from_rows(field, splits, signals=signals.describe())
    assert held_out_split(data) == "test" and len(grid(field, 8, 8)) == 64
    tokenizer = make_tokenizer(KMeansConfig(vocab_size=4, field=field.to_dict())).fit(data.weights("train"))
    tokens = TokenDataset.from_ids(tokenizer, {"train": {"ids": tokenizer.encode(data.weights("train"))}}, data)
    values = report(tokenizer, data, tokens, ReportConfig(sizes=()))
    assert values["psnr_against"] == "the signals"
    assert values["psnr_loss"] == pytest.approx(values["psnr_before"] - values["psnr_after"], abs=1e-4)


def test_counts_are_entropies():
    counts = Counts(tokens=2, codes=4)
    counts.add(torch.tensor([[0, 3], [1, 3], [0, 3], [1, 3]]))
    assert counts.per_code().tolist() == [2, 2, 0, 4] and counts.marginal_bits() == pytest.approx(1.5)
    expected = -(torch.tensor([3 / 8, 5 / 8]).log2().mean())
    assert counts.position_bits(torch.tensor([[0, 3]])) == pytest.approx(float(expected))


def test_probe_sees_classes(dataset):
    weights = {s: dataset.weights(s).clone() for s in ("train", "validation")}
    splits = {}
    for split, w in weights.items():
        labels = torch.arange(len(w)) % 2
        w[:, :10] += 0.5 * labels[:, None]
        splits[split] = {"weights": w, "labels": labels}
    data = WeightDataset.from_rows(dataset.config, splits, signals={"label_names": ["a", "b"]})
    tokenizer = KMeansTokenizer(KMeansConfig(vocab_size=16, field=data.config.to_dict())).fit(data.weights("train"))
    values = probe(tokenizer, data, "validation")
    assert values["weights"] == values["tokens"] == 1.0 and values["chance"] == 0.5
    assert probe(tokenizer, data, "train") == {"skipped": "there are no held-out fields"}


def test_encode_and_decode_commands(folder, tmp_path, capsys):
    build(BuildConfig(KMeansConfig(vocab_size=16), ReportConfig(sizes=(), probe_rows=0), folder, tmp_path / "k"))
    encode.main(encode.EncodeConfig(tmp_path / "k", folder, tmp_path / "t"))
    tokens, same = TokenDataset.load(tmp_path / "t"), TokenDataset.load(tmp_path / "k")
    assert tokens.fingerprint == same.fingerprint and (tmp_path / "t" / "run.json").is_file()
    decode.main(decode.DecodeConfig(tmp_path / "t", tmp_path / "k", tmp_path / "d"))
    data = WeightDataset.load(tmp_path / "d")
    assert torch.equal(load_tokenizer(tmp_path / "k").encode(data.weights("test")), tokens.ids("test"))
    assert (tmp_path / "d" / "run.json").is_file()
    capsys.readouterr()
    encode.main(encode.EncodeConfig(tmp_path / "k", folder, tmp_path / "t"))
    decode.main(decode.DecodeConfig(tmp_path / "t", tmp_path / "k", tmp_path / "d"))
    assert capsys.readouterr().out.count("is complete") == 2
    other = FieldConfig(hidden=(6,), octaves=1, use_pi=False)
    WeightDataset.from_rows(other, {"train": {"weights": rows(other, 3)}}).save(tmp_path / "other")
    with pytest.raises(ValueError, match="use_pi: True against False"):
        encode.main(encode.EncodeConfig(tmp_path / "k", tmp_path / "other", tmp_path / "t2"))


def test_command_line():
    config = parse(["quantile", "--vocab-size", "64", "--fields", "a", "--sizes", "--out", "b"])
    assert config.tokenizer == QuantileConfig(vocab_size=64) and config.report.sizes == ()
    assert (config.fields, config.out) == ("a", Path("b"))
    assert parse([]) == BuildConfig() and parse(["--vocab-size", "16"]).tokenizer == KMeansConfig(vocab_size=16)
    assert parse(["--fields", "a", "kmeans", "--group", "2"]).tokenizer.group == 2


@pytest.mark.slow
@pytest.mark.parametrize("command", ["build", "encode", "decode"])
def test_help_and_errors(command, tmp_path, warm):
    call, log = ["-m", f"tokenizers.{command}"], tmp_path / "log.txt"
    assert warm.run([*call, "--help"], tmp_path, log) == 0 and f"python -m tokenizers.{command}" in log.read_text()
    where = {
        "build": ["kmeans", "--fields", "none"],
        "encode": ["--tokenizer", "none", "--fields", "none", "--out", str(tmp_path / "o")],
        "decode": ["--tokens", "none", "--tokenizer", "none", "--out", str(tmp_path / "o")],
    }[command]
    assert warm.run([*call, *where], tmp_path, log) == 1
    assert log.read_text().startswith("error: ") and len(log.read_text().strip().splitlines()) == 1
