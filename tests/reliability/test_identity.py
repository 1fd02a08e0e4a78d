"""Signals are known by their content: what was added, changed or exchanged is said, not taken for the same."""

import numpy as np
import pytest
import torch
from edited import edit
from PIL import Image

from fields.fitting.fit import fit
from fields.fitting.options import FitConfig
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals, refuse_others
from fields.storage.dataset import WeightDataset
from gpt.evaluation.items import open_signals
from tokenizers.distortion import find_signals

SHORT = {"steps": 3, "meta_steps": 2, "threads": 1}


def pictures(folder, n, seed=0):
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(folder / f"{i:02d}.png")
    return folder


def settings(folder, out):
    return FitConfig(signals=str(folder), out=out, **SHORT)


@pytest.mark.parametrize("change", ["added", "edited", "removed"])
def test_changed_pictures_are_said(tmp_path, change):
    folder, out = pictures(tmp_path / "p", 12), tmp_path / "o"
    fit(settings(folder, out))
    if change == "added":
        pictures(folder, 17)
    elif change == "edited":
        Image.fromarray(np.full((8, 8), 9, np.uint8)).save(folder / "03.png")
    else:
        (folder / "03.png").unlink()
    with pytest.raises(ValueError, match="12 signals, digest .* there, '1[127] signals, digest .* now"):
        fit(settings(folder, out))


def test_the_same_pictures_are_complete_and_folders_of_before_too(tmp_path, capsys):
    folder, out = pictures(tmp_path / "p", 12), tmp_path / "o"
    fit(settings(folder, out))
    fit(settings(folder, out))
    for name, key in (("run.json", "config"), ("field.json", "signals")):
        edit(
            out / name,
            lambda values, key=key: [values[key].pop(n, None) for n in ("content", "digest", "digest_of")] and None,
        )
    data = fit(settings(folder, out))
    assert capsys.readouterr().out.count("is complete") == 2
    assert open_signals(data, str(folder), None)[0] is not None


def test_a_folder_called_digits_is_not_the_embedded_digits(tmp_path):
    folder, out = pictures(tmp_path / "digits", 12), tmp_path / "o"
    data = fit(settings(folder, out))
    assert len(open_signals(data, None, None)[0]) == len(find_signals(data, None, None)[0]) == 12  # it is remembered
    data.origin = None  # as in a dataset of before
    found, note = open_signals(data, None, None)
    assert found is None and "signal" in note
    assert find_signals(data, None, None)[0] is None
    assert len(open_signals(data, str(folder), None)[0]) == len(find_signals(data, str(folder), None)[0]) == 12


def test_an_edited_picture_is_not_what_fields_are_compared_with(tmp_path):
    folder, out = pictures(tmp_path / "p", 12), tmp_path / "o"
    data = fit(settings(folder, out))
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(folder / "03.png")
    for look_up in (open_signals, find_signals):
        with pytest.raises(ValueError, match="not the ones the fields were fitted to"):
            look_up(data, str(folder), None)


def test_more_signals_than_were_fitted_do_not_disturb(tmp_path):
    digits = load_signals(SignalsConfig())
    data = fit(FitConfig(limit=4, fits=1, out=tmp_path / "o", **SHORT))
    refuse_others(data.signals, [i for split in data.splits for i in data.ids(split)], digits)
    assert WeightDataset.load(tmp_path / "o").signals["digest_of"] == 12


def test_the_digest_of_signals_is_of_content_not_of_order():
    digits = load_signals(SignalsConfig()).subset(range(10))
    turned = digits.subset(torch.arange(9, -1, -1))
    assert digits.digest() == turned.digest() != digits.subset(range(9)).digest()
    solids = load_signals(SignalsConfig("solids", count=5))
    assert solids.digest() != load_signals(SignalsConfig("solids", count=6)).digest()
