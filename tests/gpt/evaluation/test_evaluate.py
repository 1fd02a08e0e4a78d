"""The evaluation as a whole: samples of every kind, baselines, novelty, protocols, refusals."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from edited import MARKS, edit
from loopback_env import HUB
from made import generator, rows

from fields.model import FieldConfig
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference
from fields.view.render import render, save_png
from gpt.evaluation import novelty
from gpt.evaluation.baselines import Setup, baselines, draw_positions, first_fits
from gpt.evaluation.evaluate import EvaluateConfig, evaluate
from gpt.evaluation.items import SignalSet, local_or_fetched

CONFIG = FieldConfig(hidden=(6,), octaves=1)
SIZE = (8, 8)


def fields(n: int, seed: int = 0, names: tuple[str, ...] = ("2", "3")) -> dict[str, WeightDataset]:
    """Labelled fields whose signals cannot be loaded, so that references are renders."""
    base = rows(CONFIG, 1, seed=99)
    splits, at = {}, 0
    for split, count in (("train", n), ("validation", n // 2), ("test", n // 2)):
        labels = torch.arange(count) % len(names)
        weights = base + 0.3 * torch.randn(count, CONFIG.size, generator=generator(seed + at)) + labels[:, None] * 0.5
        ids = [f"made/{i}" for i in range(at, at + count)]
        splits[split] = {"weights": weights, "labels": labels, "signal_id": ids}
        at += count
    signals = {"name": "made", "label_names": list(names), "shape": list(SIZE), "channels": 1}
    return WeightDataset.from_rows(CONFIG, splits, Reference("conditioned", "made", base[0]), signals)


@pytest.fixture
def home(tmp_path) -> Path:
    fields(24).save(tmp_path / "fields")
    return tmp_path


def save_samples(path: Path, weights: torch.Tensor, labels: torch.Tensor | None = None, names=("2", "3")) -> None:
    signals = {"name": "made", "label_names": None if labels is None else list(names), "shape": list(SIZE)}
    WeightDataset.from_rows(CONFIG, {"samples": {"weights": weights, "labels": labels}}, None, signals).save(path)


def run(home: Path, out: str = "out", **settings) -> dict:
    config = EvaluateConfig(str(home / "fields"), home / out, classifiers=home / "classifiers", threads=1, **settings)
    return evaluate(config)


def line(result: dict, start: str) -> dict:
    return next(row for row in result["rows"] if row["name"].startswith(start))


@pytest.fixture(autouse=True)
def quick(monkeypatch, request):
    """A classifier of a few steps; curves are drawn in one test only."""
    import gpt.evaluation.features as module

    if "whole_table" not in request.node.name:
        monkeypatch.setattr("gpt.evaluation.report.save_curves", lambda *args: None)
    monkeypatch.setattr(
        module.train_classifier, "__kwdefaults__", {**module.train_classifier.__kwdefaults__, "steps": 8}
    )


def test_baselines_alone_make_a_whole_table(home, capsys):
    result = run(home)
    names = [row["name"] for row in result["rows"]]
    assert names == [
        "training fields (upper reference)",
        "held-out fields, no tokenizer given",
        "training weights + 0.3 sd noise",
        "mean of two training fields",
        "per-position unigram of weights",
        "Gaussian in PCA space",
    ]
    assert all(row["n"] == 12 for row in result["rows"]) and result["n"] == 12
    assert result["references"]["name"] == "test fields" and "made" in result["references"]["notes"][1]
    written = json.loads((home / "out" / "metrics.json").read_text())
    assert written["rows"] == result["rows"] and written["classifier"]["fingerprint"]
    text = (home / "out" / "table.md").read_text()
    assert "N = 12 < 128 features" in text and f"({written['classifier']['fingerprint'][:8]}, 12)" in text
    assert "seed 0" in text and (home / "out" / "curves.png").stat().st_size > 0
    report = (home / "out" / "report.html").read_text()
    assert "Baselines of" in report and report.count("<tr>") >= 7 and "data:image/png" in report
    shown = capsys.readouterr().out.splitlines()  # the main columns, as wide as a terminal
    at = next(i for i, line in enumerate(shown) if "near copies" in line)
    assert all(len(line) <= 100 for line in shown[at : at + 7]) and shown[at + 1].startswith("training fields (upp")


def test_copies_are_found_and_new_fields_are_not(home):
    data = WeightDataset.load(home / "fields")
    train = data.weights("train")
    save_samples(home / "copies", train[:10].repeat(2, 1))
    save_samples(home / "new", fields(40, seed=7).weights("train")[:12])
    copied, new = run(home, "a", samples=str(home / "copies")), run(home, "b", samples=str(home / "new"))
    z = line(copied, "SAMPLES")["novelty"]
    assert z["z_u_pixels"] < -3 and z["z_u_weights"] < -3 and z["near_copies"] == 1 and z["median_pixels"] == 0
    assert copied["novelty"]["duplicates"]["weights"] > 0.3 and new["novelty"]["duplicates"]["weights"] == 0
    z = line(new, "SAMPLES")["novelty"]
    assert abs(z["z_u_pixels"]) < 2.5 and z["near_copies"] < 0.5
    assert (home / "a" / "samples.png").is_file()
    assert line(new, "training weights + 0.3")["novelty"]["z_u_weights"] < -3


def test_training_fields_do_not_find_themselves(home):
    assert line(run(home), "training fields")["novelty"]["near_copies"] < 0.5


def test_held_out_and_baselines_leave_the_references_out():
    data = fields(24)
    setup = Setup(data, None, None, SIZE, 6, 0, set(data.ids("validation")))
    made = {row.name: row for row in baselines(setup)}
    held = made["held-out fields, no tokenizer given"]
    assert held.notes == ["test fields that are not references"]  # all validation fields are references here
    mean = made["mean of two training fields"].weights
    train = data.weights("train")
    assert not (mean[:, None] == train[None]).all(2).any()
    unigram = made["per-position unigram of weights"].weights
    assert (unigram[:, None] == train[None]).any(1).all()  # every weight is some training field's, at its position
    assert torch.equal(unigram, {row.name: row for row in baselines(setup)}["per-position unigram of weights"].weights)
    assert len(draw_positions(5, 9, generator())) == 5 and len(draw_positions(5, 9, generator(), True)) == 9


def test_gaussian_has_the_moments_of_the_pool():
    data = fields(400)
    row = baselines(Setup(data, None, None, SIZE, 400, 0, set()))[-1]
    train = data.weights("train")
    assert torch.allclose(row.weights.mean(0), train.mean(0), atol=0.15)
    assert torch.allclose(row.weights.var(0), train.var(0), rtol=0.5)


def test_tokens_round_trip_unigram_and_copies(home):
    from tokenizers.classic.options import QuantileConfig
    from tokenizers.registry import make_tokenizer

    data = WeightDataset.load(home / "fields")
    tokenizer = make_tokenizer(QuantileConfig(vocab_size=8, field=CONFIG.to_dict())).fit(data.weights("train"))
    tokenizer.save_pretrained(home / "tokenizer")
    mixed = torch.cat([data.weights("train")[:6], fields(24, seed=50).weights("train")[:6]])
    save_samples(home / "samples", mixed)
    result = run(home, samples=str(home / "samples"), tokenizer=str(home / "tokenizer"))
    assert result["tokenizer"] == tokenizer.fingerprint
    assert line(result, "SAMPLES")["novelty"]["token_copies"] == 0.5
    assert result["novelty"]["held_out"]["token_copies"] == 0
    assert line(result, "held-out fields after round trip") and line(result, "per-position unigram of tokens")


def spoil(folder: Path, bad: list[int]) -> None:
    """Put NaN into rows of a saved dataset."""
    file = next((folder / "data").glob("*.parquet"))
    table = pq.read_table(file)
    weights = table["weights"].combine_chunks().flatten().to_numpy(zero_copy_only=False).copy().reshape(len(table), -1)
    weights[bad, 0] = float("nan")
    column = pa.FixedSizeListArray.from_arrays(pa.array(weights.ravel()), weights.shape[1])
    index = table.column_names.index("weights")
    pq.write_table(table.set_column(index, table.schema.field("weights"), column.cast(table.schema.types[index])), file)
    edit(folder / "field.json", lambda card: None, MARKS)


def test_unreadable_samples_are_counted_as_failures(home):
    save_samples(home / "samples", fields(24, seed=7).weights("train")[:10], torch.arange(10) % 2)
    spoil(home / "samples", [0, 3, 9])
    result = run(home, samples=str(home / "samples"))
    row = line(result, "SAMPLES")
    assert row["unreadable"] == {"count": 3, "of": 10, "share": 0.3} and row["n"] == 7 and result["n"] == 7
    assert all(r["n"] == 7 for r in result["rows"])
    assert row["label_accuracy"]["n"] == 10 and row["label_accuracy"]["value"] <= 0.7
    assert "3 of 10" in (home / "out" / "table.md").read_text()


def test_digits_against_their_pictures_their_fields_and_another_dataset(tmp_path):
    """The real signals are loaded by the name the dataset carries."""
    signals = load_signals(SignalsConfig("digits"))
    splits = {}
    for split, n in (("train", 20), ("validation", 6), ("test", 6)):
        where = signals.indices(split)[:n]
        weights = rows(CONFIG, n, seed=n)
        splits[split] = {"weights": weights, "labels": signals.labels[where]}
        splits[split]["signal_id"] = [signals.ids[i] for i in where.tolist()]
    data = WeightDataset.from_rows(CONFIG, splits, None, signals.describe())
    data.save(tmp_path / "fields")
    images = run(tmp_path, "a", n=8)
    assert images["references"]["name"] == "test images" and "drawn from all 180" in images["references"]["notes"][0]
    assert images["rows"][0]["name"] == "training images" and images["rows"][0]["n"] == 8
    assert images["classifier"]["held_out_n"] == 180 and "digits training images" in images["classifier"]["name"]
    more = run(tmp_path, "a+", n=8, features_n=60)
    assert more["rows"] == images["rows"] and [row["n"] for row in more["features"]] == [60, 20, 6, 20]
    assert (
        "KID x 1000" in (tmp_path / "a+" / "table.md").read_text()
        and "KID" in (tmp_path / "a+" / "report.html").read_text()
    )
    with pytest.raises(ValueError, match="--features-n asks for FID"):
        run(tmp_path, "nef", protocol="nefgpt", features_n=60)
    (known,) = (tmp_path / "classifiers").rglob("*.safetensors")
    named = run(tmp_path, "named", n=8, classifier=known)
    assert named["rows"] == images["rows"] and named["classifier"]["held_out_n"] == 180
    own = run(tmp_path, "b", n=8, references="fields")
    assert own["references"]["name"] == "test fields" and own["n"] == 6
    again = run(tmp_path, "c", references=str(tmp_path / "fields"))
    assert again["references"]["name"] == "fields (fields)" and again["n"] == 6
    save_png(tmp_path / "pictures" / "a.png", torch.rand(9, 9, 1))
    save_png(tmp_path / "pictures" / "b.png", torch.rand(9, 9, 1))
    other = run(tmp_path, "d", references=str(tmp_path / "pictures"))
    assert other["rows"][0]["name"].startswith("training fields") and "no line of training images" in other["notes"][0]


def test_sequences_the_sampler_could_not_read_are_failures_too(home):
    save_samples(home / "samples", fields(24, seed=7).weights("train")[:6])
    (home / "samples" / "samples.json").write_text(json.dumps({"asked": 8, "saved": 6}))
    row = line(run(home, samples=str(home / "samples")), "SAMPLES")
    assert row["unreadable"] == {"count": 2, "of": 8, "share": 0.25} and row["n"] == 6


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_readable_samples(home, n):
    save_samples(home / "samples", fields(24, seed=7).weights("train")[:4])
    spoil(home / "samples", list(range(n, 4)))
    row = line(run(home, samples=str(home / "samples")), "SAMPLES")
    assert row["n"] == n and row["unreadable"]["count"] == 4 - n
    assert (row["l2"]["1-nna"]["value"] is None) == (n < 2) and (row["fid"]["value"] is None) == (n < 2)
    text = (home / "out" / "table.md").read_text()
    assert "nan" not in text.lower() and ("N < 2" in text or f"N = {n}" in text)


def test_constant_samples_are_evaluated(home):
    save_samples(home / "samples", torch.zeros(8, CONFIG.size))
    result = run(home, samples=str(home / "samples"))
    row = line(result, "SAMPLES")
    assert row["l2"]["cov"]["value"] == 1 / 8 and row["ssim"]["1-nna"]["value"] > 0.5
    assert result["novelty"]["duplicates"]["weights"] == 1


def test_settings_can_be_chosen_on_validation_references(home):
    result = run(home, "validation", n=4, reference_split="validation")
    assert result["references"]["name"] == "validation fields"
    assert run(home, "test", n=4)["references"]["name"] == "test fields"
    said = (home / "validation" / "table.md").read_text()
    assert "held-out validation fields" in said and "held-out test fields" not in said  # novelty, too
    for bad in ("train", "samples"):
        with pytest.raises(ValueError, match=f"must be a held-out split .test or validation., got {bad}"):
            run(home, "bad", reference_split=bad)
    with pytest.raises(ValueError, match="--protocol nefgpt has others"):
        run(home, "bad", reference_split="test", protocol="nefgpt")
    assert not (home / "bad").exists()


def test_a_folder_of_pictures_is_evaluated_and_may_be_the_reference(home):
    weights = fields(24, seed=7).weights("train")[:9]
    for i, image in enumerate(render(CONFIG, weights, *SIZE)):
        save_png(home / "pictures" / f"{i}.png", image)
    (home / "pictures" / "broken.png").write_bytes(b"not a picture")
    row = line(run(home, samples=str(home / "pictures")), "SAMPLES")
    assert row["n"] == 9 and row["unreadable"] == {"count": 1, "of": 10, "share": 0.1}
    assert row["novelty"]["z_u_weights"] is None and row["novelty"]["z_u_pixels"] is not None
    other = run(home, "other", references=str(home / "pictures"))
    assert other["n"] == 9 and "not known" in other["references"]["notes"][0]


def test_pictures_of_another_size_are_refused_naming_both(home):
    for i, image in enumerate(render(CONFIG, fields(24).weights("train")[:3], 9, 7)):
        save_png(home / "pictures" / f"{i}.png", image)
    with pytest.raises(ValueError, match="9 x 7 x 1.* 8 x 8 x 1"):
        run(home, samples=str(home / "pictures"))
    run(home)  # the folder is still free


def test_fields_of_another_layout_are_compared_by_their_pictures(home):
    other = FieldConfig(hidden=(5, 5), octaves=0)
    signals = {"name": "theirs", "label_names": None}
    rows_ = {"samples": {"weights": rows(other, 8)}}
    WeightDataset.from_rows(other, rows_, None, signals).save(home / "samples")
    row = line(run(home, samples=str(home / "samples")), "SAMPLES")
    assert row["n"] == 8 and row["novelty"]["z_u_weights"] is None and "another layout" in " ".join(row["notes"])


def test_predecessors_protocol_says_what_it_is(home):
    save_samples(home / "samples", fields(24, seed=7).weights("train")[:10], torch.arange(10) % 2)
    result = run(home, samples=str(home / "samples"), protocol="nefgpt")
    row = line(result, "SAMPLES")
    assert result["n"] == 256 and row["n"] == 256 and not result["without_replacement"] and "l2" not in row
    assert "digit 3 chosen by labels: 5 samples" in row["notes"]
    text = (home / "out" / "table.md").read_text()
    assert "nefgpt" in text.splitlines()[0] and "TRAINING" in text.splitlines()[0] and "WITH replacement" in text
    save_samples(home / "unlabelled", fields(24, seed=7).weights("train")[:10])
    row = line(run(home, "other", samples=str(home / "unlabelled"), protocol="nefgpt"), "SAMPLES")
    assert "digit 3 chosen by the classifier" in " ".join(row["notes"])


def test_same_seed_same_numbers_and_another_seed_others(home):
    a, b, c = (run(home, out, n=6, seed=s)["rows"] for out, s in (("a", 0), ("b", 0), ("c", 1)))
    assert a == b and a != c


def test_an_output_folder_of_another_evaluation_is_refused(home):
    run(home, n=6)
    with pytest.raises(ValueError, match="n: 6 there, 7 now"):
        run(home, n=7)


def test_model_bits_stand_in_the_table(home):
    data = WeightDataset.load(home / "fields")
    info = {
        "step": 5,
        "dataset": data.fingerprint,
        "validation": {"bits_per_field": 80.0, "unigram_bits_per_field": 99.0},
    }
    (home / "model" / "best").mkdir(parents=True)
    (home / "model" / "best" / "model.json").write_text(json.dumps(info))
    result = run(home, model=home / "model")
    assert result["validation"] == {
        "model_bits_per_field": 80.0,
        "unigram_bits_per_field": 99.0,
        "step": 5,
        "told_label": False,
    }
    assert "80.0 by the model, 99.0 by the per-position unigram" in (home / "out" / "table.md").read_text()
    for kind, why in (("flow", "--model is a flow"), ("gpt", "--model was trained without validation fields")):
        (home / "model" / "best" / "model.json").write_text(json.dumps({"dataset": data.fingerprint, "kind": kind}))
        result = run(home, kind, model=home / "model")
        assert result["validation"] is None and any(why in note for note in result["notes"])
    (home / "model" / "best" / "model.json").write_text(json.dumps({**info, "dataset": "0" * 16}))
    with pytest.raises(ValueError, match="trained on fields 0000"):
        run(home, "b", model=home / "model")


def test_without_held_out_data_or_with_bad_sources_it_says_so(home, monkeypatch):
    data = fields(24)
    del data.splits["test"], data.splits["validation"]
    data.save(home / "only" / "fields")
    with pytest.raises(ValueError, match="no held-out references"):
        run(home / "only")
    with pytest.raises(FileNotFoundError, match="--samples .*missing: not a folder"):
        run(home, samples=str(home / "missing"))
    with pytest.raises(ValueError, match="--n must be at least 1"):
        EvaluateConfig("x", n=0)


def test_hub_ids_are_fetched_only_where_no_folder_is(home):
    WeightDataset.load(home / "fields").push_to_hub("tester/evaluated", out=home / "hub")
    HUB.log.clear()
    assert local_or_fetched(str(home / "fields"), "--samples") == home / "fields" and not HUB.log
    found = local_or_fetched("tester/evaluated", "--samples")
    assert {p.name for p in found.iterdir()} == {"field.json", "data"} and HUB.log
    with pytest.raises(FileNotFoundError, match="not a folder"):
        local_or_fetched("tests/nothing", "--samples")
    with pytest.raises(
        FileNotFoundError, match="--samples user/name is not a local folder, and the Hub shows no dataset"
    ):
        local_or_fetched("user/name", "--samples")


def test_near_copies_are_recognised_by_how_crowded_their_place_is():
    held_out = novelty.Neighbours(torch.ones(200), torch.zeros(200), torch.linspace(0.8, 1, 200))
    ratios = torch.tensor([0.1, 0.79, 0.9, 1.0, 1.0])
    found = novelty.Neighbours(torch.tensor([3.0, 2.0, 1.0, 1.0, 0.0]), torch.zeros(5), ratios)
    assert found.copies(held_out).tolist() == [True, True, False, False, True]  # distance 0 is a copy in any crowd


def test_repeated_rows_by_hand():
    assert novelty.repeated(torch.zeros(0, 2)) is None
    assert novelty.repeated(torch.tensor([[1, 2], [1, 2], [3, 4]])) == pytest.approx(2 / 3)


def test_rows_drop_what_is_not_finite_and_count_it():
    images, weights = torch.rand(4, 2, 2, 1), torch.rand(4, 3)
    images[1, 0, 0], weights[2, 0] = float("nan"), float("inf")
    row = SignalSet("r", images, weights, labels=torch.arange(4), unreadable=1).readable()
    assert len(row) == 2 and row.unreadable == 3 and row.labels.tolist() == [0, 3]


def test_a_set_holds_one_fit_of_each_signal():
    assert first_fits(["a", "b", "a", "c", "b", "", ""]).tolist() == [0, 1, 3, 5, 6]
    assert first_fits([]).tolist() == []


def test_baselines_draw_one_fit_of_each_signal(dataset):
    rows = {"weights": dataset.weights("train"), "signal_id": [f"made/{i // 2}" for i in range(40)]}
    rows["labels"] = torch.arange(40) // 2 % 2
    data = WeightDataset.from_rows(dataset.config, {"train": rows}, Reference(), dataset.signals)
    setup = Setup(data, None, None, (4, 5), 40, 0, set())
    assert setup.candidates("train").tolist() == list(range(0, 40, 2))
    assert {len(row) for row in baselines(setup)} == {20}
    setup.label = 1
    assert setup.candidates("train").tolist() == list(range(2, 40, 4))
