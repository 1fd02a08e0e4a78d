"""Image datasets of the Hub as signals: splits, columns, sizes, what cannot be read."""

import io
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from loopback_env import CACHE, HUB
from PIL import Image

from fields.fitting.fit import fit
from fields.fitting.options import FitConfig
from fields.signals.hub import is_hub_name
from fields.signals.options import SignalsConfig
from fields.signals.origin import locate, read_origin
from fields.signals.registry import load_signals

CLASSES = datasets.ClassLabel(names=["cat", "dog"])


def picture(seed, size=(6, 8), coloured=True):
    """Bytes of a PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels if coloured else pixels[..., 0]).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(n, seed=0, label=CLASSES, **more):
    features = datasets.Features(
        {"img": datasets.Image(), "class": label, **{k: datasets.Value("string") for k in more}}
    )
    rows = {"img": [picture(seed + i) for i in range(n)], "class": [i % 2 for i in range(n)], **more}
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A data set like CIFAR-10 on the loopback Hub: two official splits, a column of classes."""
    HUB.reset()
    monkeypatch.chdir(tmp_path)
    datasets.DatasetDict({"train": table(20), "test": table(5, 100)}).push_to_hub("tester/pictures")
    return tmp_path


def test_official_splits_columns_and_sizes(hub):
    found = load_signals(SignalsConfig("tester/pictures", resize=4, crop=True))
    counts = {split: found.split.count(split) for split in ("train", "validation", "test")}
    assert counts == {"train": 18, "validation": 2, "test": 5} and found.channels == 3
    assert found.label_names == ["cat", "dog"] and found.labels[:3].tolist() == [0, 1, 0]
    assert found.extent.unique(dim=0).tolist() == [[4, 4]] and found.ids[0] == "tester/pictures/train/0"
    whole = load_signals(SignalsConfig("tester/pictures"))
    with Image.open(io.BytesIO(picture(0)["bytes"])) as image:
        assert np.array_equal((whole.images([0])[0] * 255).round().byte().numpy(), np.asarray(image))


@pytest.mark.parametrize("options", [{}, {"split": "train"}, {"rows": 12}])
def test_a_stream_gives_the_same_pictures_and_keeps_no_file(hub, options):
    options |= {"resize": 4, "crop": True}
    kept = load_signals(SignalsConfig("tester/pictures", **options))
    datasets.DatasetDict({"train": table(20), "test": table(5, 100)}).push_to_hub("tester/streamed")
    found = load_signals(SignalsConfig("tester/streamed", stream=True, **options))
    assert torch.equal(found.images(range(len(found))), kept.images(range(len(kept)))) and found.split == kept.split
    assert torch.equal(found.labels, kept.labels) and found.label_names == kept.label_names
    assert not list(Path(CACHE).rglob("*streamed*/**/*.arrow"))
    assert len(found) == {"train": 20}.get(options.get("split"), 12 + 5 if "rows" in options else 25)


def test_a_stream_of_picture_files(hub):
    """A repository of files in folders of classes, as CIFAR-10 laid by hand: their paths are read, not followed."""
    for split, n in (("train", 10), ("test", 2)):
        for i in range(n):
            path = hub / "laid" / split / ("cat" if i % 2 else "dog") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(i)["bytes"])
    HfApi().create_repo("tester/laid", repo_type="dataset")
    HfApi().upload_folder(repo_id="tester/laid", repo_type="dataset", folder_path=hub / "laid")
    found = load_signals(SignalsConfig("tester/laid", stream=True, resize=4))
    laid = load_signals(SignalsConfig(str(hub / "laid"), resize=4))
    assert (found.label_names, found.split.count("test")) == (laid.label_names, 2) == (["cat", "dog"], 2)
    assert len(found) == len(laid) == 12 and not found.skipped and found.channels == 3


def test_a_stream_that_breaks_off_is_told_in_one_sentence(hub, monkeypatch):
    def broken(self):
        yield {"img": picture(0), "class": 0}
        raise OSError("the Hub went away")

    monkeypatch.setattr(datasets.IterableDataset, "__iter__", broken)
    with pytest.raises(RuntimeError, match="reading stopped after 1 rows of train .the Hub went away"):
        load_signals(SignalsConfig("tester/pictures", stream=True))


def test_one_split_is_divided_at_random(hub):
    found = load_signals(SignalsConfig("tester/pictures", split="train"))
    counts = {split: found.split.count(split) for split in ("train", "validation", "test")}
    assert counts == {"train": 16, "validation": 2, "test": 2}
    assert load_signals(SignalsConfig("tester/pictures", split="train", split_seed=1)).split != found.split


def test_fields_of_a_hub_dataset_know_where_their_signals_are(hub):
    options = {"image_column": "img", "label_column": "class", "resize": 4, "crop": True}
    data = fit(FitConfig("tester/pictures", steps=2, meta_steps=1, threads=1, **options))
    assert data.label_names == ["cat", "dog"] and data.config.out_dim == 3
    where, _ = locate(data.signals, read_origin(hub / "runs" / "pictures" / "fields"), None, None)
    assert (where.signals, where.image_column, where.resize) == ("tester/pictures", "img", 4)
    assert load_signals(where).digest() == data.signals["digest"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_column": "picture"}, "--image-column picture: the columns of tester/pictures are img, class"),
        ({"image_column": "class"}, "is not a column of pictures"),
        ({"label_column": "kind"}, "--label-column kind"),
        ({"split": "nowhere"}, "neither a local folder nor"),
    ],
)
def test_what_is_not_there_is_named(hub, options, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        load_signals(SignalsConfig("tester/pictures", **options))


def test_bad_rows_are_left_out_and_outside_paths_are_not_followed(hub):
    (hub / "outside.png").write_bytes(picture(3)["bytes"])
    rows = {"img": [picture(0), {"bytes": b"no picture", "path": None}, picture(1)], "text": ["b", "a", "b"]}
    features = datasets.Features({"img": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).push_to_hub("tester/bad")
    found = load_signals(SignalsConfig("tester/bad", label_column="text"))
    assert len(found) == 2 and found.skipped == [("train/1", "not a picture in a format known here")]
    assert found.label_names == ["b"] and set(found.split) == {"train"}
    with pytest.raises(ValueError, match="row train/1"):
        load_signals(SignalsConfig("tester/bad", strict=True))
    from fields.signals.hub import _read

    for path in (str(hub / "outside.png"), "hf://datasets/other/pictures@main/a.png"):
        with pytest.raises(ValueError, match="outside the cache"):
            _read({"bytes": None, "path": path}, "tester/bad")


def test_what_is_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    assert is_hub_name("user/name") and is_hub_name("user/name:config@v1")
    assert not any(
        is_hub_name(text) for text in ("photos/cats", "photos/dogs", "digits", "/a/b", "../a", "a/b/c", "./a")
    )
    with pytest.raises(FileNotFoundError, match="neither a local folder nor an image dataset"):
        load_signals(SignalsConfig("nobody/nothing"))
    with pytest.raises(ValueError, match="--split: for image datasets of the Hub"):
        load_signals(SignalsConfig("photos/cats", split="train"))
    with pytest.raises(ValueError, match="--split is for image datasets"):
        SignalsConfig("mnist", split="train")
