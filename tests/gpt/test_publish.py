"""What is published: cards, files, and that all of it comes back by name."""

import json
import re
import subprocess
import sys

import datasets
import pytest
import torch
from loopback_env import HUB
from made import rows
from toy import TINY, make_corpus

from fields.hub.options import PublishFields
from fields.hub.publish import publish_fields
from fields.hub.push import Push
from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference
from fields.view.mesh import Mesh, mesh_field
from fields.view.render import render
from gpt.checkpoint import load_model, save_model
from gpt.corpus import load_corpus
from gpt.hub import evaluation_section, publish_model
from gpt.model import GPT, GPTConfig
from gpt.publishing import PublishModel, parse
from tokenizers.hub import publish_tokenizer, publish_tokens
from tokenizers.options import PublishTokenizer, PublishTokens
from tokenizers.registry import load_tokenizer
from tokenizers.tokens import TokenDataset


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty hub, and a folder of one's own to lay repositories out in."""
    HUB.reset()
    monkeypatch.chdir(tmp_path)


def start_of(data: WeightDataset, start: str) -> WeightDataset:
    """The same fields, said to have begun otherwise."""
    row = None if start == "unconditioned" else data.reference.row
    return WeightDataset(data.config, data.splits, Reference(start, start, row), data.signals)


def blocks(card: str) -> list[str]:
    """The Python blocks of a card."""
    return re.findall(r"```python\n(.*?)```", card, re.S)


def test_the_lines_of_the_card_render_a_row(dataset, tmp_path):
    """Load by name and render in a process that knows numpy and `datasets` alone."""
    dataset.push_to_hub("tester/fields")
    card = HUB.files("dataset", "tester/fields")["README.md"].decode()
    lines = "\n".join(blocks(card)[:2])
    body = lines[lines.index("def activate") : lines.index("\n\n\npicture")]
    assert sum(bool(line.strip()) for line in body.splitlines()) <= 30
    (tmp_path / "card.py").write_text(lines + "\nnp.save('picture.npy', picture)\n")
    done = subprocess.run([sys.executable, "-P", "card.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    import numpy as np

    picture = torch.from_numpy(np.load(tmp_path / "picture.npy"))
    assert (picture - dataset.render("train", [0])[0]).abs().max() < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hidden": (8, 5), "octaves": 2, "use_pi": False, "raw_input": False, "out_dim": 3},
        {"activation": "sine", "octaves": 0, "coords": "linspace", "output": "offset", "axes": "yx"},
        {"activation": "elu", "coords": "corner", "output": "tanh"},
        {"output": "linear", "hidden": (4,)},
        {"out_dim": 3, "output": "offset", "output_scale": (0.2, 0.3, 0.4), "output_shift": (0.5, 0.4, 0.3)},
    ],
)
def test_numpy_agrees_for_every_convention(changes, tmp_path):
    config = FieldConfig(**{"hidden": (16, 16), **changes})
    weights = rows(config, 2) * (0.1 if config.activation == "sine" else 1)  # w0 = 30 makes float32 noise of large ones
    data = WeightDataset.from_rows(config, {"train": {"weights": weights, "sizes": [[5, 7]] * 2}})
    publish_fields(PublishFields(tmp_path, "me/fields", dry_run=True), data)
    lines = blocks((tmp_path / "runs/hub/me/fields/README.md").read_text())[1]
    names: dict = {}
    exec(lines[: lines.index("\n\n\npicture")], names)
    card = json.loads((tmp_path / "runs/hub/me/fields/field.json").read_text())
    picture = names["render"](data.weights("train")[1].tolist(), card, 5, 7)
    assert (torch.from_numpy(picture) - render(config, data.weights("train")[1:], 5, 7)[0]).abs().max() < 1e-5


@pytest.mark.parametrize("output", ["logit", "tanh"])
def test_the_surface_of_a_row_in_numpy(output, tmp_path):
    config = FieldConfig(hidden=(6,), octaves=1, in_dim=3, output=output)
    weights = rows(config, 2)
    data = WeightDataset.from_rows(config, {"train": {"weights": weights, "sizes": [[64]] * 2}})
    publish_fields(PublishFields(tmp_path, "me/shapes", dry_run=True), data)
    lines = blocks((tmp_path / "runs/hub/me/shapes/README.md").read_text())[1]
    card = json.loads((tmp_path / "runs/hub/me/shapes/field.json").read_text())
    for row in weights:
        ours = mesh_field(config, row, 96, below=data.kind.below(config))
        names = {"rows": [{"weights": row.tolist()}], "about": card}
        if ours.outcome == "surface":
            exec(lines, names)
            theirs = Mesh("surface", names["vertices"], names["faces"].astype(int), 0, 0)
            assert theirs.closed and theirs.volume() == pytest.approx(ours.volume(), rel=0.01)
    assert "theirs" in locals()


def test_a_dry_run_is_the_whole_repository_without_token_or_network(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    dataset.save(tmp_path / "d")
    run = {"command": ["/home/me/x/scripts/fit_fields.py", "--data-root", "/home/me/mnist", "hf_abcdefghij"]}
    (tmp_path / "d" / "run.json").write_text(json.dumps(run))
    for _ in range(2):
        publish_fields(PublishFields(tmp_path / "d", "me/fields", dry_run=True))
    out = tmp_path / "runs/hub/me/fields"
    assert not HUB.log and "nothing was sent" in capsys.readouterr().out
    assert WeightDataset.load(out).fingerprint == dataset.fingerprint
    card = (out / "README.md").read_text()
    assert "python scripts/fit_fields.py --data-root mnist" in card and "/home/me" not in card
    assert "hf_abc" not in card + (out / "run.json").read_text() and "/home/me" not in (out / "run.json").read_text()
    assert "| conditioned (default) | train | 40 | 49 | 30.00 (30.00) | conditioned |" in card
    assert "n<1K" in card and (out / "assets" / "conditioned.png").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="holds other files"):
        publish_fields(PublishFields(tmp_path / "d", "me/fields", dry_run=True, out=tmp_path / "mine"))
    assert (tmp_path / "mine" / "thesis.tex").is_file()


def test_variants_lie_side_by_side_and_are_replaced_whole(dataset, tmp_path):
    dataset.push_to_hub("tester/fields")
    start_of(dataset, "meta").push_to_hub("tester/fields", preview=False)
    plain = datasets.load_dataset("tester/fields", cache_dir=str(tmp_path / "c"))
    assert {name: len(part) for name, part in plain.items()} == {"train": 40, "validation": 10, "test": 10}
    assert plain["train"][0]["preview"].size == (5, 4)
    named = datasets.load_dataset("tester/fields", "meta", split="test", cache_dir=str(tmp_path / "c"))
    assert "preview" not in named.features and named.features["label"].names == ["even", "odd"]
    assert WeightDataset.load("tester/fields").reference.start == "conditioned"
    assert WeightDataset.load("tester/fields:meta").fingerprint == start_of(dataset, "meta").fingerprint
    with pytest.raises(ValueError, match="has the variants conditioned, meta"):
        WeightDataset.load("tester/fields:unconditioned")
    # another architecture and fewer splits under the same name: nothing of the old one stays
    wide = FieldConfig(hidden=(8,), octaves=1)
    data = WeightDataset.from_rows(
        wide, {"train": {"weights": rows(wide, 3)}}, Reference("conditioned", "x", rows(wide, 1)[0])
    )
    data.push_to_hub("tester/fields")
    plain = datasets.load_dataset("tester/fields", cache_dir=str(tmp_path / "c"))
    assert {name: len(part) for name, part in plain.items()} == {"train": 3}
    assert len(plain["train"][0]["weights"]) == wide.size and "label" not in plain["train"].features
    assert WeightDataset.load("tester/fields").fingerprint == data.fingerprint
    assert len(datasets.load_dataset("tester/fields", "meta", split="test", cache_dir=str(tmp_path / "c"))) == 10
    files = HUB.files("dataset", "tester/fields")
    assert [f for f in files if f.startswith("data/")] == ["data/train-00000-of-00001.parquet"]
    assert "assets/conditioned.png" not in files  # of pictures without a known size there is no sheet


def test_two_first_pushes_at_once_do_not_take_each_others_place(dataset, tmp_path, monkeypatch):
    """A repository that was empty when it was looked at holds another variant when the commit comes."""
    other, real = start_of(dataset, "meta"), Push._commit

    def late(self, *args):
        monkeypatch.setattr(Push, "_commit", real)
        other.push_to_hub("tester/fields", out=tmp_path / "other")
        return real(self, *args)

    monkeypatch.setattr(Push, "_commit", late)
    with pytest.raises(ValueError, match="default is now meta. Run the same command again"):
        dataset.push_to_hub("tester/fields")
    assert WeightDataset.load("tester/fields").fingerprint == other.fingerprint
    dataset.push_to_hub("tester/fields")
    assert WeightDataset.load("tester/fields:meta").fingerprint == other.fingerprint
    assert WeightDataset.load("tester/fields:conditioned").fingerprint == dataset.fingerprint


def test_the_card_of_shapes_speaks_of_no_pixels(tmp_path):
    config = FieldConfig(hidden=(4,), octaves=0, in_dim=3, output="tanh")
    signals = {"name": "shapes", "quantity": "signed distance", "inside": "below 0"}
    data = WeightDataset.from_rows(config, {"train": {"weights": rows(config, 2)}}, signals=signals)
    publish_fields(PublishFields(tmp_path, "me/shapes", dry_run=True), data)
    card = (tmp_path / "runs/hub/me/shapes/README.md").read_text(encoding="utf-8")
    assert "the coordinates of a point in [-1, 1] to its signed distance (inside below 0)" in card
    assert "pixel" not in card
    assert (
        card.split("---")[1].replace("dtype: image", "").count("image") == 0
    )  # only the viewer's column of views is one


def test_few_rows(tiny, tmp_path):
    none = WeightDataset.from_rows(tiny, {"train": {"weights": rows(tiny, 0)}})
    with pytest.raises(ValueError, match="there are no fields to publish"):
        none.push_to_hub("tester/none")
    assert not HUB.repos
    one = WeightDataset.from_rows(tiny, {"train": {"weights": rows(tiny, 1)}, "test": {"weights": rows(tiny, 0)}})
    one.push_to_hub("tester/one")
    assert WeightDataset.load("tester/one").fingerprint == one.fingerprint
    plain = datasets.load_dataset("tester/one", cache_dir=str(tmp_path / "c"))
    assert list(plain) == ["train"] and plain["train"].features["quality"].dtype == "float32"


def make_model(root):
    """A toy model with its folders."""
    corpus = load_corpus(root / "fields", root / "tokenizer", labels=True)
    t = corpus.tokenizer
    sizes = {"codes": t.codes, "tokens_per_field": t.tokens_per_field, "slot_sizes": tuple(t.slot_sizes), "labels": 3}
    shape = {"n_layer": TINY.n_layer, "n_head": TINY.n_head, "n_embd": TINY.n_embd}
    model = GPT.create(GPTConfig(**sizes, **shape), t.slots)
    bits = {"bits_per_field": 80.0, "unigram_bits_per_field": 99.0}
    save_model(root / "gpt" / "best", model, t, {**corpus.info(), "step": 5, "validation": bits})
    return corpus


def evaluation(corpus, step: int = 5) -> dict:
    """What an evaluation writes, in short."""
    number = {"value": 0.75, "low": 0.7, "high": 0.8}
    row = {"name": "SAMPLES", "n": 9, "l2": {"1-nna": number}, "fid": {"value": None}, "label_accuracy": number}
    return {
        "validation": {"model_bits_per_field": 80.0, "unigram_bits_per_field": 99.0, "step": step},
        "tokenizer": corpus.tokenizer.fingerprint, "fields": {"fingerprint": corpus.data.fingerprint},
        "rows": [row], "protocol": "standard", "n": 9, "seed": 0, "references": {"name": "test images"},
    }  # fmt: skip


def test_tokens_tokenizer_and_model_come_back_by_name(tmp_path, capsys):
    root = make_corpus(tmp_path / "toy")
    corpus = make_model(root)
    (root / "evaluation").mkdir()
    (root / "evaluation" / "metrics.json").write_text(json.dumps(evaluation(corpus)))
    corpus.data.push_to_hub("tester/fields")
    publish_tokenizer(PublishTokenizer(root / "tokenizer", "tester/tokenizer", fields="tester/fields"))
    publish_tokens(PublishTokens(root / "tokenizer", "tester/tokens", tokenizer="tester/tokenizer"))
    publish_model(PublishModel(root / "gpt", "tester/gpt", private=True))
    assert load_tokenizer("tester/tokenizer").fingerprint == corpus.tokenizer.fingerprint
    assert TokenDataset.load("tester/tokens").fingerprint == corpus.tokens.fingerprint
    again = load_corpus("tester/fields", "tester/tokenizer", "tester/tokens")
    assert again.parents == corpus.parents
    model, words, info = load_model("tester/gpt")
    assert words.fingerprint == corpus.tokenizer.fingerprint and info["step"] == 5
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in load_model(root / "gpt")[0].state_dict().items())
    card = HUB.files("model", "tester/gpt")["README.md"].decode()
    assert "| SAMPLES | 9 | 0.750 ±0.050 |" in card and "80.0 bits per field by the model, told the label, 99.0" in card
    assert HUB.repos[("model", "tester/gpt")].private and "samples.png" in HUB.files("model", "tester/gpt")
    assert not any("checkpoint" in p or p.endswith((".pkl", ".bin")) for p in HUB.files("model", "tester/gpt"))
    rows = datasets.load_dataset("tester/tokens", split="train", cache_dir=str(tmp_path / "c"))
    assert rows.features["ids"].length == 25 and rows[0]["ids"] == corpus.tokens.ids("train")[0].tolist()
    with pytest.raises(ValueError, match="where tokens have a repository of their own: give --tokens"):
        load_corpus("tester/fields", "tester/tokenizer")


def test_the_methods_publish_what_is_in_memory(tmp_path):
    root = make_corpus(tmp_path / "toy")
    make_model(root)
    model, tokenizer, info = load_model(root / "gpt")
    tokenizer.push_to_hub("tester/tokenizer")
    model.push_to_hub("tester/gpt", tokenizer=tokenizer, info=info)
    TokenDataset.load(root / "tokenizer").push_to_hub("tester/tokens")
    assert load_model("tester/gpt")[2]["fingerprint"] == info["fingerprint"]
    assert load_tokenizer("tester/tokenizer").fingerprint == tokenizer.fingerprint
    assert type(tokenizer).from_pretrained("tester/tokenizer").fingerprint == tokenizer.fingerprint
    assert "not recorded" in HUB.files("model", "tester/gpt")["README.md"].decode()


def test_numbers_of_another_model_are_not_taken(tmp_path):
    root = make_corpus(tmp_path / "toy")
    corpus = make_model(root)
    (root / "evaluation").mkdir()
    (root / "evaluation" / "metrics.json").write_text(json.dumps(evaluation(corpus, step=7)))
    publish_model(PublishModel(root / "gpt", "tester/gpt"))
    assert "metrics.json" not in HUB.files("model", "tester/gpt")
    with pytest.raises(ValueError, match="is not of this model"):
        publish_model(PublishModel(root / "gpt", "tester/gpt", evaluation=root / "evaluation"))
    with pytest.raises(FileNotFoundError, match="scripts/evaluate.py"):
        publish_model(PublishModel(root / "gpt", "tester/gpt", evaluation=root / "nothing"))


def test_kinds_do_not_take_each_others_place(dataset, tmp_path):
    root = make_corpus(tmp_path / "toy")
    dataset.push_to_hub("tester/fields")
    before = HUB.files("dataset", "tester/fields")
    with pytest.raises(ValueError, match="tester/fields holds other files"):
        publish_tokens(PublishTokens(root / "tokenizer", "tester/fields"))
    assert HUB.files("dataset", "tester/fields") == before
    make_model(root)
    publish_model(PublishModel(root / "gpt", "tester/gpt"))
    with pytest.raises(ValueError, match="tester/gpt holds a model that is not a tokenizer"):
        publish_tokenizer(PublishTokenizer(root / "tokenizer", "tester/gpt"))
    publish_tokenizer(PublishTokenizer(root / "tokenizer", "tester/tokenizer"))
    with pytest.raises(ValueError, match="tester/tokenizer holds other files"):
        publish_model(PublishModel(root / "gpt", "tester/tokenizer"))


def test_command_line():
    options = parse(["model", "a", "user/b", "--evaluation", "c", "--private"])
    assert options == PublishModel(*map(type(options.path), "a"), "user/b", private=True, evaluation=options.evaluation)
    assert parse(["fields", "a", "user/b", "--dry-run", "--no-preview"]).preview is False


def test_the_numbers_of_a_model_of_shapes():
    part = {"value": 0.25, "low": 0.2, "high": 0.3, "note": ""}
    samples = {"name": "samples", "n": 9, "chamfer": {"mmd": part, "cov": part, "1-nna": part}}
    samples |= {"novelty": {"z_u": 0.1, "near_copies": 0.5}}
    metrics = {
        "rows": [samples],
        "references": {"name": "test fields"},
        "n": 9,
        "seed": 0,
        "protocol": "Chamfer distance",
    }
    bits = {"model_bits_per_field": None, "unigram_bits_per_field": None, "step": None}
    text = "\n".join(evaluation_section(metrics, bits))
    assert "| set | N | 1-NNA Chamfer (.5 is ideal) | COV Chamfer | MMD Chamfer | FID |" in text
    assert "| samples | 9 | 0.250 ±0.050 | 0.250 ±0.050 | 0.2500 ±0.0500 | n/a | n/a | 50.0% |" in text
