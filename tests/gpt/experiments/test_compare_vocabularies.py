"""Comparisons of vocabularies at tiny sizes: rows, resuming, own fields, refusals."""

import json
from pathlib import Path

import pytest
import torch
from made import generator
from toy import TINY, make_tokens

from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from gpt.experiments.compare_inputs import divide
from gpt.experiments.compare_report import picture_sheet
from gpt.experiments.compare_vocabularies import compare_vocabularies, steps_within
from gpt.experiments.options import CompareVocabulariesConfig
from tokenizers.classic.kmeans import KMeansTokenizer
from tokenizers.classic.options import KMeansConfig

FIELD = FieldConfig(hidden=(6,), octaves=0)


def make_fields(path: Path, seed: int = 0, name: str = "toy", field: FieldConfig = FIELD, swap: bool = False):
    """Labelled fields of 24 training, 8 validation and 8 test signals, which cannot be loaded."""
    splits, at = {}, 0
    centres = torch.randn(2, field.size, generator=generator(seed))
    for split, n in (("train", 24), ("validation", 8), ("test", 8)):
        labels = torch.arange(n) % 2
        weights = centres[labels] + 0.3 * torch.randn(n, field.size, generator=generator(seed + 1 + at))
        ids = [f"toy/{(39 - i) if swap else i}" for i in range(at, at + n)]
        splits[split] = {"weights": weights, "labels": labels, "signal_id": ids, "sizes": torch.full((n, 2), 8)}
        at += n
    signals = {"name": name, "label_names": ["a", "b"], "channels": 1, "shape": [8, 8]}
    data = WeightDataset.from_rows(field, splits, signals=signals)
    data.save(path)
    return data


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Fields and two tokenizers, one with its tokens and one without; a classifier of a few steps."""
    import gpt.evaluation.features as module

    monkeypatch.setattr(
        module.train_classifier, "__kwdefaults__", {**module.train_classifier.__kwdefaults__, "steps": 4}
    )
    data = make_fields(tmp_path / "fields")
    make_tokens(tmp_path, data, codes=8, name="eight")
    bare = KMeansTokenizer(KMeansConfig(vocab_size=4, field=FIELD.to_dict())).fit(data.weights("train"))
    bare.save_pretrained(tmp_path / "four")
    return tmp_path


def run(home: Path, *names: str, **settings) -> dict:
    values = {"steps": 4, "batch": 8, "eval_every": 2, "n": 8, "threads": 1, "precision": "fp32", "labels": True}
    values |= {"model": TINY, "out": home / "out", "classifiers": home / "classifiers", **settings}
    tokenizers = tuple("=".join(str(home / part) for part in name.split("=")) for name in names)
    return compare_vocabularies(CompareVocabulariesConfig(tokenizers, str(home / "fields"), **values))


def rows_of(result: dict) -> dict[str, dict]:
    return {row["name"]: row for row in result["rows"]}


def test_rows_are_evaluated_in_the_same_way_and_nothing_is_made_twice(home, capsys, monkeypatch):
    first = rows_of(run(home, "eight"))
    monkeypatch.setattr(
        "gpt.experiments.compare_scores.training_fields", lambda *a: pytest.fail("the common lines were made twice")
    )
    before = (home / "out" / "eight" / "gpt" / "metrics.jsonl").stat().st_mtime_ns
    result = run(home, "four", "eight")
    both = rows_of(result)
    assert list(both) == ["four", "eight"] and both["eight"] == first["eight"]
    assert (home / "out" / "eight" / "gpt" / "metrics.jsonl").stat().st_mtime_ns == before
    assert (home / "out" / "four" / "tokens").is_dir() and not (home / "out" / "eight" / "tokens").exists()
    for row, codes in zip(both.values(), (4, 8), strict=True):
        assert row["codes"] == codes and row["trained"]["steps"] == 4 and row["trained"]["tokens_per_second"] > 0
        assert row["trained"]["model_bits_per_field"] > 0 and row["trained"]["unigram_bits_per_field"] > 0
        evaluated = row["evaluated"]
        assert evaluated["n"] == 8 and evaluated["fid"]["classifier"] == result["classifier"]["fingerprint"]
        assert evaluated["round_trip_fid"]["value"] is not None and evaluated["label_accuracy"]["value"] is not None
    assert [line["name"] for line in result["others"]] == ["training fields (upper reference)", "Gaussian in PCA space"]
    text = (home / "out" / "comparison.md").read_text()
    assert "| four |" in text and "test fields" in text
    assert all((home / "out" / name).stat().st_size for name in ("comparison.png", "bits.png"))
    written = json.loads((home / "out" / "comparison.json").read_text())
    assert written["rows"] == result["rows"]
    monkeypatch.setattr("gpt.experiments.compare_vocabularies.train", lambda *a: pytest.fail("trained again"))
    assert run(home, "four", "eight")["rows"] == result["rows"]


def test_an_interrupted_comparison_goes_on(home, monkeypatch):
    whole = rows_of(run(home, "eight", out=home / "whole"))["eight"]

    def dies(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr("gpt.experiments.compare_vocabularies.sample", dies)
        with pytest.raises(KeyboardInterrupt):
            run(home, "eight")
    assert rows_of(run(home, "eight"))["eight"]["evaluated"] == whole["evaluated"]


def test_a_row_may_have_its_own_fields(home):
    wide = FieldConfig(hidden=(8,), octaves=1)  # even of another architecture
    make_tokens(home, make_fields(home / "wide-fields", seed=5, field=wide), name="wide")
    rows = rows_of(run(home, "eight", "wide=wide-fields"))
    assert rows["wide"]["fields"] != rows["eight"]["fields"] and rows["wide"]["evaluated"]["n"] == 8
    assert "wide: its own fields" in (home / "out" / "comparison.md").read_text()


def test_same_names_get_folders_of_their_own(home):
    make_tokens(home / "other", WeightDataset.load(home / "fields"), codes=6, name="eight")
    assert list(rows_of(run(home, "eight"))) == ["eight"]
    assert list(rows_of(run(home, "other/eight", "eight"))) == ["other-eight", "eight"]


def test_minutes_are_measured_side_by_side(home, capsys):
    rows = rows_of(run(home, "eight", "four", minutes=1.0, steps=3))
    assert all(row["steps"] == row["trained"]["steps"] == 3 for row in rows.values())
    assert "s per step at best" in capsys.readouterr().out
    assert steps_within(1, 0.5, None) == 120 and steps_within(1, 0.5, 7) == 7 and steps_within(1, 1e9, None) == 1


def test_refusals_name_what_is_wrong_before_anything_is_made(home):
    with pytest.raises(FileNotFoundError, match="nothing"):
        run(home, "nothing")
    with pytest.raises(ValueError, match="same tokenizer on the same fields"):
        run(home, "eight", "eight")
    make_fields(home / "wide-fields", field=FieldConfig(hidden=(8,), octaves=1))
    with pytest.raises(ValueError, match="eight=.*Build a tokenizer"):
        run(home, "eight=wide-fields")
    make_fields(home / "others", name="others")
    with pytest.raises(ValueError, match="'others', --fields of 'toy'"):
        run(home, "eight=others")
    make_fields(home / "leak", seed=3, swap=True)
    with pytest.raises(ValueError, match="8 of the 8 held-out signals"):
        run(home, "eight=leak")
    assert not (home / "out").exists()
    run(home, "eight")
    with pytest.raises(ValueError, match="batch: 8 there, 4 now"):
        run(home, "eight", batch=4)
    make_tokens(home, WeightDataset.load(home / "fields"), codes=5, name="eight")
    with pytest.raises(ValueError, match="Delete .*eight to make it again"):
        run(home, "eight")


def test_the_default_folder_is_beside_the_fields_and_another_comparison_gets_another_name(home, capsys):
    for seed in (0, 1, 1):
        run(home, "eight", out=None, steps=1, eval_every=1, seed=seed)
    assert {p.name for p in home.glob("comparison*")} == {"comparison", "comparison-seed-1"}
    assert "seed: 0 there, 1 now" in capsys.readouterr().out


def test_refused_settings():
    for settings, said in (({"n": 1}, "--n"), ({"minutes": 0.0}, "--minutes"), ({"batch": 0}, "--batch")):
        with pytest.raises(ValueError, match=said):
            CompareVocabulariesConfig(("a",), "f", **settings)
    with pytest.raises(ValueError, match="at least one"):
        CompareVocabulariesConfig((), "f")
    assert (
        CompareVocabulariesConfig(("a",), "f").limit == 5
        and CompareVocabulariesConfig(("a",), "f", steps=9).limit is None
    )


def test_tokenizer_and_fields_are_divided(tmp_path):
    assert divide("a", "f") == ("a", "f") and divide("user/a@v1=user/b:c@v2", "f") == ("user/a@v1", "user/b:c@v2")
    (tmp_path / "a=b").mkdir()
    assert divide(str(tmp_path / "a=b"), "f") == (str(tmp_path / "a=b"), "f")
    with pytest.raises(ValueError, match="TOKENIZER=FIELDS"):
        divide("a=", "f")


def test_rows_of_a_page_may_be_shorter():
    drawn = picture_sheet([torch.zeros(2, 8, 8, 1), torch.zeros(4, 8, 8, 1)], ["two", "four"])
    assert drawn.shape[2] == 3 and drawn[:, -10:].mean() > drawn[:, :10].mean()
