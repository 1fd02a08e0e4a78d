"""Pictures of fields, tokens, tokenizers, models, rows and reports, by what lies in a folder."""

import pytest
import torch
from PIL import Image
from toy import TINY, make_corpus

from fields.kinds.preview import contact_sheet, save_preview
from fields.storage.dataset import WeightDataset
from gpt.checkpoint import save_model
from gpt.model import GPT, GPTConfig
from gpt.sampling.options import ShowConfig
from gpt.sampling.show import show
from tokenizers.learned.options import RegionsConfig
from tokenizers.learned.regions import RegionsTokenizer
from tokenizers.registry import load_tokenizer
from tokenizers.tokens import TokenDataset


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = make_corpus(tmp_path_factory.mktemp("show"), n=12)
    tokenizer = load_tokenizer(root / "tokenizer")
    sizes = {"n_layer": TINY.n_layer, "n_head": TINY.n_head, "n_embd": TINY.n_embd}
    c = GPTConfig(tokenizer.codes, tokenizer.tokens_per_field, tuple(tokenizer.slot_sizes), 0, **sizes)
    info = {"tokenizer": tokenizer.fingerprint, "kind": "kmeans", "size": [8, 8], "signals": {"name": "toy"}}
    save_model(root / "gpt" / "best", GPT.create(c, tokenizer.slots, 0), tokenizer, info)
    return root


@pytest.mark.parametrize("part", ["fields", "tokenizer", "tokenizer/tokens", "gpt", "gpt/best/tokenizer"])
def test_every_folder_has_a_picture(corpus, tmp_path, part):
    file = show(ShowConfig(str(corpus / part), n=5, out=tmp_path / "a.png"))
    with Image.open(file) as picture:
        assert min(picture.size) > 50
        assert len(picture.getcolors(1 << 20)) > 2


def test_a_row_at_any_size(corpus, tmp_path):
    file = show(ShowConfig(str(corpus / "fields"), size=(40, 30), rows=(1,), out=tmp_path / "row.png"))
    with Image.open(file) as picture:
        assert picture.width == 34  # 30 and a margin of 2 on each side
    with pytest.raises(ValueError, match="--rows 99"):
        show(ShowConfig(str(corpus / "fields"), rows=(99,), out=tmp_path / "row.png"))
    for flags in ({"rows": (1,)}, {"split": "test"}):
        with pytest.raises(ValueError, match="chooses among fields or tokens"):
            show(ShowConfig(str(corpus / "gpt"), **flags, out=tmp_path / "model.png"))


def test_fields_of_several_sizes_keep_their_proportions(corpus, tmp_path, dataset):
    extent = torch.tensor([[4, 5], [10, 2]])
    page = contact_sheet(dataset.kind, dataset.config, dataset.weights("test")[:2], extent)
    assert page.shape == (2 * 84 + 6, 88, 3)
    assert bool((page[88:172, 2:20] == 1).all())  # a narrow picture has white at its sides


def test_a_preview_holds_fields_beside_others(tmp_path, dataset):
    rows, extent = dataset.weights("test"), dataset.extent("test")
    parts = dataset.kind, dataset.config, rows
    assert save_preview(tmp_path / "a.png", *parts, extent, neighbours=rows + 1)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 2 * 56
    assert not save_preview(tmp_path / "b.png", *parts, torch.zeros_like(extent))  # of unknown size


def test_pictures_of_a_report_one_under_the_other(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    for name, size in {"samples.png": (30, 10), "curves.png": (20, 15)}.items():
        Image.new("RGB", size, "red").save(tmp_path / name)
    with Image.open(show(ShowConfig(str(tmp_path), out=tmp_path / "out.png"))) as picture:
        assert picture.size == (30, 25)


def test_nothing_to_show(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no fields, tokens"):
        show(ShowConfig(str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="nothing is not there. Give a folder"):
        show(ShowConfig(str(tmp_path / "nothing")))
    with pytest.raises(ValueError, match="--size"):
        ShowConfig("x", size=(0, 5))
    with pytest.raises(ValueError, match=r"\.png"):
        ShowConfig("x", out=tmp_path / "a.gif")


def test_codes_of_regions_have_pictures(corpus, tmp_path):
    data = WeightDataset.load(corpus / "fields")
    config = RegionsConfig(field=data.config.to_dict(), grid=(2, 2), vocab_size=5, steps=0, hidden=0, encoder=0)
    tokenizer = RegionsTokenizer(config).fit(data.weights("train"))
    tokenizer.save_pretrained(tmp_path / "regions")
    with pytest.raises(FileNotFoundError, match="tokens"):
        show(ShowConfig(str(tmp_path / "regions"), codebook=True, out=tmp_path / "a.png"))
    parts = {"train": {"ids": tokenizer.encode(data.weights("train"))}}
    TokenDataset.from_ids(tokenizer, parts, data).save(tmp_path / "regions" / "tokens")
    assert show(ShowConfig(str(tmp_path / "regions"), codebook=True, out=tmp_path / "a.png")).is_file()
    with pytest.raises(ValueError, match="regions"):
        show(ShowConfig(str(corpus / "tokenizer"), codebook=True, out=tmp_path / "b.png"))


def test_rows_without_a_position_are_refused():
    with pytest.raises(ValueError, match="--rows needs at least one position"):
        ShowConfig("fields", rows=())
