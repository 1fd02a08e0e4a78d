"""Where signals lie is noted by fit, used by every later command, and not part of the dataset."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fields.fitting.align import align_dataset
from fields.fitting.fit import fit
from fields.fitting.options import AlignConfig, FitConfig
from fields.signals.options import SignalsConfig
from fields.signals.origin import ORIGIN, locate, read_origin, remember
from fields.storage.dataset import WeightDataset
from gpt.evaluation.items import open_signals
from tokenizers.distortion import find_signals


def pictures(folder: Path, n: int = 12) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def fitted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "p")
    fit(FitConfig(signals="p", out=tmp_path / "f", steps=2, meta_steps=2, threads=1))
    return tmp_path / "f"


def test_no_command_need_be_told_again(fitted, tmp_path, monkeypatch):
    noted = {"signals": str(tmp_path / "p"), "data_root": None, "resize": None, "crop": False}
    assert read_origin(fitted) == {
        **noted,
        "image_column": None,
        "label_column": None,
        "split": None,
        "rows": None,
        "stream": False,
    }
    monkeypatch.chdir("/")  # the note does not depend on where a command is started
    for folder in (fitted, tmp_path / "aligned"):
        data = WeightDataset.load(folder)
        assert len(open_signals(data, None, None)[0]) == len(find_signals(data, None, None)[0]) == 12
        align_dataset(AlignConfig(str(fitted), tmp_path / "aligned"))  # derived datasets know it too


def test_a_flag_wins_and_a_folder_that_is_gone_is_named(fitted, tmp_path):
    data = WeightDataset.load(fitted)
    shutil.copytree(tmp_path / "p", tmp_path / "q")
    shutil.rmtree(tmp_path / "p")
    for look_up in (open_signals, find_signals):
        found, note = look_up(data, None, None)
        assert found is None and f"{tmp_path / 'p'}, which is gone; give --signals FOLDER" in note
    (tmp_path / "q").rename(tmp_path / "p2")
    assert locate(data.signals, data.origin, str(tmp_path / "p2"), None)[0].signals == str(tmp_path / "p2")


def test_data_sets_are_found_where_their_files_lay(tmp_path):
    remember(tmp_path, SignalsConfig("mnist", Path("~/files")))
    origin = read_origin(tmp_path)
    assert (origin["signals"], origin["data_root"]) == ("mnist", str(Path("~/files").expanduser()))
    config, missing = locate({"name": "mnist"}, origin, None, None)
    assert config is None and "files, which is gone; give --data-root DIR" in missing
    (tmp_path / "files").mkdir()
    remember(tmp_path, SignalsConfig("mnist", tmp_path / "files"))
    for flags in ((None, None), ("mnist", None)):
        assert locate({"name": "mnist"}, read_origin(tmp_path), *flags)[0].data_root == tmp_path / "files"
    assert locate({"name": "mnist"}, read_origin(tmp_path), None, tmp_path)[0].data_root == tmp_path
    assert locate({"name": "mnist"}, read_origin(tmp_path), "digits", None)[0].data_root is None


def test_pictures_are_found_at_the_size_they_were_fitted_at(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "p").mkdir()
    for i, shape in enumerate([(9, 12), (14, 8), (8, 8), (10, 9, 3)] * 3):
        Image.fromarray(random.integers(0, 255, shape, np.uint8)).save(tmp_path / "p" / f"{i}.png")
    how = {"signals": str(tmp_path / "p"), "steps": 2, "meta_steps": 2, "threads": 1}
    with pytest.raises(ValueError, match="folders of pictures"):
        fit(FitConfig(resize=6))
    data = fit(FitConfig(out=tmp_path / "f", resize=6, crop=True, **how))
    assert set(map(tuple, data.extent("train").tolist())) == {(6, 6)}
    found, note = open_signals(WeightDataset.load(tmp_path / "f"), None, None)
    assert not note and len(find_signals(data, None, None)[0]) == len(found) == 12
    with pytest.raises(ValueError, match="resize: 6 there"):
        fit(FitConfig(out=tmp_path / "f", crop=True, **how))


def test_it_is_not_part_of_the_dataset(fitted):
    before = WeightDataset.load(fitted).fingerprint
    (fitted / ORIGIN).unlink()
    data = WeightDataset.load(fitted)
    assert data.fingerprint == before and data.origin is None and "origin" not in data.describe()
    (fitted / ORIGIN).write_text(json.dumps({"signals": 3}))
    with pytest.raises(ValueError, match="signals.json"):
        WeightDataset.load(fitted)
