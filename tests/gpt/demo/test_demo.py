"""The demo's functions, without a browser: drawing, completing, boards, walks, files."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from fields.storage.dataset import WeightDataset
from gpt.demo import app, board
from gpt.demo.app import ANY, Handlers
from gpt.demo.demo import demo
from gpt.demo.options import DemoConfig
from gpt.demo.studio import Studio, open_studio


@pytest.fixture(scope="module")
def studio(home) -> Studio:
    return open_studio(str(home / "gpt"))


@pytest.fixture
def page(studio, tmp_path) -> Handlers:
    return Handlers(studio, tmp_path)


def test_the_run_names_its_fields(home, studio):
    assert studio.data is not None and studio.grid == (2, 3) and studio.label_names == ["red", "green", "blue"]
    assert open_studio(str(home / "gpt" / "best"), str(home / "fields")).data is not None
    make_other(home)
    with pytest.raises(ValueError, match="--fields .* holds fields"):
        open_studio(str(home / "gpt"), str(home / "other"))


def make_other(home):
    from fields.model import FieldConfig

    field = FieldConfig(hidden=(5,), octaves=0)
    rows = {"weights": torch.zeros(2, field.size), "signal_id": ["a", "b"], "sizes": torch.full((2, 2), 8)}
    WeightDataset.from_rows(field, {"train": rows}, signals={"name": "other"}).save(home / "other")


def test_draws_are_those_of_their_seed_and_label(page):
    drawn, pictures, said = page.draw("green", 1.0, 0.9, 3, 1.0, 5)
    again, _, _ = page.draw("green", 1.0, 0.9, 3, 1.0, 5)
    assert (
        torch.equal(drawn.codes, again.codes) and len(pictures) == len(drawn) == 5 and said.startswith("5 new fields")
    )
    assert drawn.labels.tolist() == [1] * 5 and pictures[0][1] == "#0: green" and pictures[0][0].shape == (96, 96, 3)
    assert len(page.draw(ANY, 1.0, 1.0, 0, 1.0, 2)[0]) == 2
    with pytest.raises(ValueError, match="--label mauve"):
        page.draw("mauve", 1.0, 1.0, 0, 1.0, 2)
    for seed in (-1, None):
        with pytest.raises(ValueError, match="seed must be 0 or more"):
            page.draw(ANY, 1.0, 1.0, seed, 1.0, 2)


def test_details_of_one_field(page, studio):
    drawn, _, _ = page.draw("red", 1.0, 1.0, 0, 1.0, 3)
    picture, mesh, heat, tokens, said, png, glb, weights = page.details(drawn, 2, 200)
    near, how = page.nearest(drawn, 2)
    assert picture.shape == (200, 200, 3) and mesh is None and glb is None
    assert heat.dtype == np.uint8 and tokens.shape[1] > tokens.shape[0] > 100 and near.shape == (256, 256, 3)
    assert "25 weights from 6 tokens" in said and "Nearest training field: toy/train/" in how
    with Image.open(png) as image:
        assert image.size == (200, 200)
    with safe_open(weights, "pt") as file:
        assert sum(file.get_tensor(name).numel() for name in file.keys()) == 25  # noqa: SIM118 not a dict
        assert '"hidden": [6]' in file.metadata()["field"]
    assert page.details(None, 0, 64)[4] == "Draw some fields first."
    shown, _, larger, _ = page.show(drawn, 2, 5000)  # the downloads follow the size, which is at most 1,024
    with Image.open(larger) as image:
        assert shown.shape == (1024, 1024, 3) and image.size == (1024, 1024)


def test_the_nearest_training_field_of_one_is_itself(home, studio):
    row, told = studio.data.weights("train")[7], []
    found = open_studio(str(home / "gpt")).nearest(row, lambda done, of: told.append((done, of)))
    assert told == [(len(studio.data.ids("train")),) * 2]
    assert found.signal == studio.data.ids("train")[7] and torch.equal(found.weights, row) and found.distance < 1e-3


def test_completions_keep_what_they_are_told_to(page, studio):
    given, kept, shown, said = page.take_held_out(1, "upper half")
    assert kept.tolist() == [True] * 3 + [False] * 3 and "3 of 6 tokens kept" in said and "Held-out" in said
    assert page.take_first(given, kept, None, "all")[1] is kept
    assert page.take_first(None, None, None, "all")[3].startswith("Held-out field toy/")
    pictures, _ = page.complete(given, kept, "blue", 1.0, 1.0, 0, 1.0)
    assert len(pictures) == 9 and pictures[0][1] == "given"
    made = studio.complete(given.codes[0], kept, 4, None, 1.0, 1.0, 0)
    assert bool((made.codes[:, :3] == given.codes[0, :3]).all())
    changed, other, _ = page.touch(given, kept, shown.shape[1] - 2, shown.shape[0] - 2)
    assert changed.tolist() == [True] * 3 + [False, False, True] and not np.array_equal(other, shown)
    typed, same, _ = page.change(given, kept, "2:3")
    assert torch.equal(typed, changed) and np.array_equal(same, other) and page.change(None, None, "1:1")[0] is None
    assert page.choose_part(given, "none")[0].sum() == 0 and page.choose_part(None, "all")[0] is None
    with pytest.raises(ValueError, match="choose a field"):
        page.complete(None, None, ANY, 1.0, 1.0, 0, 1.0)


def test_a_drawing_becomes_a_field(page):
    layer = np.zeros((40, 40, 4), np.uint8)
    layer[10:30, 15:25] = 255
    given, kept, _, said = page.take_picture({"layers": [layer]}, "left half")
    assert given.weights.shape == (1, 25) and int(kept.sum()) == 4 and "Your drawing" in said
    with pytest.raises(ValueError, match="draw something"):
        page.take_picture({"layers": [np.zeros((4, 4, 4), np.uint8)]}, "all")


def test_a_walk_ends_at_its_fields(page, monkeypatch):
    monkeypatch.setattr(app, "FILES", 3)
    drawn, _, _ = page.draw(ANY, 1.0, 1.0, 0, 1.0, 2)
    rows, strip, film, _ = page.walk(drawn, 0, 1, 32)
    assert torch.equal(rows[0], drawn.weights[0]) and torch.allclose(rows[-1], drawn.weights[1]) and len(strip) == 9
    with Image.open(film) as animation:
        assert animation.n_frames > 10
    assert page.on_walk(rows, 1.0).shape == (384, 384, 3) and page.on_walk(None, 0.5) is None
    for _ in range(5):  # files to download do not pile up
        page.show(drawn, 0, 16)
    assert len(list(page.folder.iterdir())) == 3
    with pytest.raises(ValueError, match="at least two"):
        page.walk(None, 0, 1, 32)


@pytest.mark.parametrize(("tokens", "grid"), [(6, (2, 3)), (24, (2, 3, 4)), (7, None), (7, (2, 3))])
def test_every_token_has_one_cell_and_is_found_there(tokens, grid):
    cells, (rows, columns) = board.places(tokens, grid)
    assert len(set(cells)) == tokens and all(0 <= r < rows and 0 <= c < columns for r, c in cells)
    for t, (row, column) in enumerate(cells):
        shape = (rows * 20 + 1, columns * 20 + 1, 3)
        assert board.cell_at(column * 20 + 10, row * 20 + 10, shape, tokens, grid) == t
        assert board.named(f"{row + 1}:{column + 1}", tokens, grid) == [t]
    assert (
        board.named("1-9999:1-9999, 1:1", tokens, grid) == list(range(tokens)) and board.named(" ", tokens, grid) == []
    )
    for wrong in ("0:0", "1", "1:2:3", "a:b", "99:1"):
        with pytest.raises(ValueError, match="token"):
            board.named(wrong, tokens, grid)
    assert board.board(torch.arange(tokens), grid).dtype == np.uint8
    assert board.part("first half", 5, None).tolist() == [True] * 3 + [False] * 2
    assert board.part("all", tokens, grid).all() and not board.part("none", tokens, grid).any()


def test_shapes_are_meshes(tmp_path):
    from fields.kinds.registry import kind_of
    from fields.model import FieldConfig

    field = FieldConfig(hidden=(6,), octaves=0, in_dim=3, output="linear")
    row = torch.zeros(field.size)
    for i in range(6):  # |x| + |y| + |z| - 0.5
        row[3 * i + i // 2], row[24 + i] = (1.0 if i % 2 else -1.0), 1.0
    row[30] = -0.5
    kind = kind_of(field)
    assert board.write_glb(tmp_path / "a.glb", kind, field, row, 16).read_bytes()[:4] == b"glTF"
    row[30] = 1.0
    assert board.write_glb(tmp_path / "b.glb", kind, field, row, 16) is None
    assert board.picture(kind, field, row, [64], 48).shape == (48, 48, 3)


def test_without_gradio_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(RuntimeError, match=r"pip install -e '.\[demo\]'"):
        demo(DemoConfig("runs/digits/gpt"))
    with pytest.raises(ValueError, match="--port"):
        DemoConfig("a", port=70_000)
