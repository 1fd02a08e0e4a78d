"""Hostile files and texts: nothing is run, nothing grows beyond what is stored, and what data says stays text."""

import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from toy import make_corpus

from fields.formats.exporter import safe, unique
from fields.formats.readers import read, torch_reason
from fields.hub.cards import block, code_line, fields_card
from fields.hub.publish import Variant
from fields.runtime import console
from fields.runtime.records import parse_json
from fields.storage.dataset import WeightDataset
from gpt.evaluation.features import load_classifier
from tokenizers import compare

EVIL = "x](http://evil) <img src=x onerror=y> `a` | b\n# head\n```\n"


class Bomb:
    def __reduce__(self):
        return (print, ("run",))


def test_views_of_few_numbers_do_not_fill_the_memory(tmp_path):
    torch.save({"0.weight": torch.zeros(1).expand(40_000, 40_000)}, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").stat().st_size < 4000
    for reader in (read, load_classifier):
        with pytest.raises(ValueError, match="1,600,000,000 numbers, of which fewer are stored"):
            reader(tmp_path / "a.pth")
    torch.save({"0.weight": torch.randn(6, 4).T}, tmp_path / "b.pth")  # another order of the same numbers is a copy
    assert read(tmp_path / "b.pth").tensors["0.weight"].shape == (4, 6)


@pytest.mark.parametrize("ending", [".pth", ".npz"])
def test_packed_archives_do_not_fill_the_memory(tmp_path, ending):
    with zipfile.ZipFile(tmp_path / f"a{ending}", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"archive/data/{i}", bytes(40 << 20))
    path = tmp_path / f"a{ending}"
    if ending == ".npz":  # deflate itself makes no more of a byte than 1,100
        path.write_bytes(path.read_bytes().replace((40 << 20).to_bytes(4, "little"), (3 << 30).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="not read"):
        read(path)


def test_arrays_that_were_never_written_do_not_fill_the_memory(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kernel", (1 << 15, 1 << 15), "f4", chunks=(64, 64))
    with pytest.raises(ValueError, match="claims to hold 4 GiB, so it was not read"):
        read(tmp_path / "a.h5")


def test_refusals_of_pickles_do_not_advise_to_run_them(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Bomb()))
    torch.save({"state": Bomb()}, tmp_path / "b.pth")
    for path in sorted(tmp_path.iterdir()):
        for reader in (read, load_classifier):
            with pytest.raises(ValueError) as caught:
                reader(path)
            assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
    assert "weights_only" not in torch_reason(
        pickle.UnpicklingError("do weights_only=False. Unsupported global: GLOBAL a.b")
    )


def test_what_data_says_is_text_in_cards(tmp_path):
    data = WeightDataset.load(make_corpus(tmp_path) / "fields")
    card = data.describe() | {
        "shards": {"train": 1},
        "columns": [{"name": "weights"}],
        "made": {"command": EVIL, "commit": EVIL},
    }
    card["signals"] = {**card["signals"], "name": EVIL}
    card["reference"] = {**card["reference"], "how": EVIL, "start": "else"}
    text = fields_card("user/name", {"meta": card}).split("\n---\n", 1)[1]
    assert text.count("\n```") % 2 == 0  # no block of code is ended early
    text = re.sub(r"\n```.*?\n```", "", text, flags=re.S)
    assert "<img" not in text and "](http" not in text and "\n# head" not in text
    assert "\n```" not in block(EVIL)[1] and "<img" not in code_line(EVIL, {EVIL: EVIL}, "f")


@pytest.mark.parametrize("text", ["[]", "3", '{"field": 3}', '{"variant": ["x"]}', "{", '{"shards": {"train": "x"}}'])
def test_cards_of_others_on_the_hub_are_checked(text):
    with pytest.raises(ValueError, match="user/name/field.json"):
        parse_json("user/name/field.json", text, "", Variant)


@pytest.mark.parametrize(
    "name", ["con", "NUL", "aux.txt", "com1", "-rf", "../../x", "a/../b", "", ".", "\u202egnp.exe", "a" * 300]
)
def test_ids_of_signals_become_harmless_file_names(name):
    made = unique(safe(name), set())
    assert made and "/" not in made and not made.startswith((".", "-")) and len(made) <= 124 and made.isascii()
    assert made.split(".")[0].lower() not in ("con", "nul", "aux", "com1")


def test_a_long_fit_does_not_go_on_from_damaged_state(tmp_path, capsys):
    from made import SMALL, rows
    from safetensors.torch import load_file, save_file

    from fields.model import FieldConfig
    from tokenizers.base import RESUME_FILE
    from tokenizers.learned.vqvae import VQVAETokenizer

    field = FieldConfig(hidden=(6,), octaves=0)

    def fitted(change=None):
        tokenizer = VQVAETokenizer.for_field(field, vocab_size=8, **SMALL["vqvae"])
        tokenizer.resume_dir = tmp_path
        path = tmp_path / RESUME_FILE
        if change is not None:
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                meta = file.metadata()
            state = load_file(path)
            save_file({**state, **change(state)}, path, metadata=meta)
        return tokenizer.fit(rows(field, 60)).fingerprint

    first = fitted()
    assert fitted() == first and "resuming from step" in capsys.readouterr().out
    name = next(k for k in load_file(tmp_path / RESUME_FILE) if k.startswith("net."))
    assert fitted(lambda state: {name: state[name] + np.float32(0.5)}) == first
    assert "training starts again" in capsys.readouterr().out


def test_names_in_tables_are_text(tmp_path):
    """Of a tokenizer's folder, a split, a note: no cell more, no link, no HTML, no control character."""
    evil = "a|b <script>x</script> [l](http://evil.example)\n# c \x1b[2J"
    numbers = dict.fromkeys([key.split(".")[0] for _, key, _ in compare.COLUMNS])
    result = {"fields": 3, "split": evil, "seed": 0, "psnr_before": None, "psnr_against": evil, "pictures": []}
    made = compare.markdown({**result, "rows": [{**numbers, "name": evil}]})
    lines = [line for line in made.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1 and len(lines) == 3
    shown = console.text_table(["name"], [[evil]])
    assert len(shown.splitlines()) == 2
    for text in (made, shown):
        assert "\x1b" not in text
    assert "<script" not in made and "](" not in made and "://" not in made and "\n#" not in made
