"""Pictures of fields: the right way up, aligned at any size, refused when they cannot fit."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from fields.model import FieldConfig, values
from fields.runtime import resources
from fields.runtime.resources import free_memory
from fields.signals.images import grid
from fields.view import render as drawing
from fields.view.render import render, save_gif, save_png, sheet, to_uint8, weight_map

G = torch.Generator().manual_seed(0)


def first_coordinate(**options) -> tuple[FieldConfig, torch.Tensor]:
    """A field whose value is (u + 1) / 2, u its first coordinate."""
    config = FieldConfig(hidden=(2,), octaves=0, output="linear", **options)
    return config, torch.tensor([[1.0, 0, 0, 0, 1, 0, 0.5, 0, 0]])  # relu(u + 1) / 2


def blob() -> tuple[FieldConfig, torch.Tensor]:
    """A field with a bright spot at x = 0.3, y = -0.2."""
    config = FieldConfig(hidden=(4,), octaves=0)
    first = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    bias = torch.tensor([-0.3, 0.3, 0.2, -0.2])
    return config, torch.cat([first.flatten(), bias, torch.full((4,), -12.0), torch.tensor([3.0])])[None]


def centre(picture: torch.Tensor) -> tuple[float, float]:
    """Centre of mass (row, column) of (H, W), in pixels."""
    rows, columns = (torch.arange(n, dtype=torch.float32) for n in picture.shape)
    return tuple(float((p * at).sum() / picture.sum()) for p, at in ((picture.sum(1), rows), (picture.sum(0), columns)))


@pytest.mark.parametrize("coords", ["centres", "linspace"])
@pytest.mark.parametrize(("height", "width"), [(3, 9), (9, 3), (1, 7), (7, 1), (29, 31)])
def test_the_first_axis_runs_left_to_right(coords, height, width):
    config, weights = first_coordinate(coords=coords)
    picture = render(config, weights, height, width)
    assert picture.shape == (1, height, width, 1)
    assert (picture.diff(dim=2) > 0).all() and (picture.diff(dim=1) == 0).all()
    expected = grid(config, height, width).reshape(height, width, 2)[..., :1] / 2 + 0.5
    torch.testing.assert_close(picture[0], expected)
    turned, weights = first_coordinate(coords=coords, axes="yx")
    picture = render(turned, weights, height, width)
    assert (picture.diff(dim=1) > 0).all() and (picture.diff(dim=2) == 0).all()


@pytest.mark.parametrize(("height", "width"), [(28, 28), (14, 40), (31, 17)])
def test_twice_the_size_stays_in_place(height, width):
    config, weights = blob()
    y, x = centre(render(config, weights, height, width)[0, ..., 0])
    large = centre(render(config, weights, 2 * height, 2 * width)[0, ..., 0])
    assert abs((large[0] + 0.5) / 2 - 0.5 - y) < 0.25 and abs((large[1] + 0.5) / 2 - 0.5 - x) < 0.25
    assert x > width / 2 and y < height / 2  # right of the middle and above it


def test_strips_make_no_difference(monkeypatch):
    config = FieldConfig(out_dim=3)
    weights = torch.randn(4, config.size, generator=G)
    whole = values(config, weights, grid(config, 13, 11)).reshape(4, 13, 11, 3)
    torch.testing.assert_close(render(config, weights, 13, 11), whole, atol=1e-5, rtol=0)
    monkeypatch.setattr(drawing, "STRIP", 25)
    torch.testing.assert_close(render(config, weights, 13, 11), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(render(config, weights[1:2], 13, 11), whole[1:2], atol=1e-5, rtol=0)


def test_values_are_clamped_and_gradients_left_behind():
    config, weights = first_coordinate()
    weights = (weights * 4).requires_grad_()
    picture = render(config, weights, 4, 4)
    assert picture.min() >= 0 and picture.max() == 1 and not picture.requires_grad
    assert render(config, weights.detach().to(torch.float64), 4, 4).dtype == torch.float32
    assert render(config, weights[:0], 4, 5).shape == (0, 4, 5, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_field_is_nan_and_leaves_the_others_alone(bad):
    config = FieldConfig(hidden=(4,), octaves=1)
    weights = torch.randn(3, config.size, generator=G)
    good = render(config, weights, 5, 6)
    weights[1, -1] = bad
    picture = render(config, weights, 5, 6)
    assert picture[1].isnan().all() and torch.equal(picture[[0, 2]], good[[0, 2]])


def test_what_cannot_fit_is_refused(monkeypatch):
    config, weights = first_coordinate()
    with pytest.raises(ValueError, match=r"800000 x 800000 .* need about [\d.,]+ GiB.*free"):
        render(config, weights, 800_000, 800_000)
    monkeypatch.setattr(drawing, "free_memory", lambda: 100 << 20)
    with pytest.raises(ValueError, match="Render fewer at once, or smaller"):
        render(config, weights, 8192, 8192)
    for size in ((0, 4), (4, -2)):
        with pytest.raises(ValueError, match="at least 1 x 1"):
            render(config, weights, *size)
    with pytest.raises(ValueError, match="2 coordinates"):
        render(FieldConfig(in_dim=3), torch.zeros(1, FieldConfig(in_dim=3).size), 4, 4)
    with pytest.raises(ValueError, match="weights must have shape"):
        render(config, weights[:, 1:], 4, 4)


def test_a_limit_of_the_shell_is_seen():
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 40, before[1]))
        assert 0 < free_memory() < 1 << 40
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_bytes_are_rounded():
    assert to_uint8(torch.tensor([0.0, 0.5, 1.0, 2.0, -1.0, math.nan])).tolist() == [0, 128, 255, 255, 0, 0]
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(every / 255), every)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (3, 5, 3), (1, 1, 1)])
def test_png_holds_the_picture(tmp_path, shape):
    picture = torch.rand(shape, generator=G)
    save_png(tmp_path / "new" / "a.png", picture)
    read = np.asarray(Image.open(tmp_path / "new" / "a.png"))
    np.testing.assert_array_equal(read, to_uint8(picture).numpy().reshape(read.shape))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]
    with pytest.raises(ValueError, match="must have shape"):
        save_png(tmp_path / "b.png", torch.zeros(3, 5, 2))


def test_a_sheet_is_white_between_enlarged_pictures():
    images = torch.rand(5, 8, 8, 1, generator=G)
    page = sheet(images, 3, scale=4, pad=2)
    assert page.shape == (2 + 2 * 34, 2 + 3 * 34, 3)
    tile = page[2 : 2 + 32, 36 : 36 + 32]  # the second picture
    torch.testing.assert_close(tile, images[1].repeat_interleave(4, 0).repeat_interleave(4, 1).expand(-1, -1, 3))
    assert (page[:2] == 1).all() and (page[36:, 70:] == 1).all()  # no sixth picture
    assert sheet(images[:2], 10).shape[1] == 2 + 2 * 58  # no empty columns


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (7, 28, 3), (1, 1, 1), (600, 300, 3)])
def test_tiles_are_of_a_size_that_one_can_see(shape):
    page = sheet(torch.full((1, *shape), 0.5), 1, pad=0)
    assert 56 <= max(page.shape[:2]) <= 84


def test_neighbours_and_captions_have_their_place():
    images, other = torch.zeros(2, 8, 8, 1), torch.full((2, 8, 8, 1), 0.5)
    page = sheet(images, 1, scale=4, pad=3, neighbours=other, captions=["1.25", "a long caption that cannot fit é\n日"])
    frame = torch.tensor(drawing.ORANGE)
    left = 3 + 32 + drawing.FRAME
    torch.testing.assert_close(page[3, left], frame)
    torch.testing.assert_close(page[3 + drawing.FRAME, left + drawing.FRAME], torch.full((3,), 0.5))
    assert (page[3 + drawing.FRAME, 3] == 0).all()
    assert page.shape[0] == 3 + 2 * (32 + 2 * drawing.FRAME + drawing.CAPTION + 3)
    text = page[3 + 32 + 2 * drawing.FRAME : 3 + 32 + 2 * drawing.FRAME + drawing.CAPTION]
    assert text.min() < 0.6 and text[:, 0].min() == 1
    with pytest.raises(ValueError, match="captions must be as many"):
        sheet(images, 1, captions=["one"])
    with pytest.raises(ValueError, match="at least one picture"):
        sheet(images[:0], 1)


def test_a_picture_that_is_not_finite_is_a_crossed_box():
    images = torch.zeros(3, 8, 8, 1)
    images[1, 2, 3], images[2, 0, 0] = math.nan, math.inf
    page = sheet(images, 3, scale=4, pad=0)
    assert (page[:, :32] == 0).all()
    for left in (32, 64):
        box = page[:, left : left + 32]
        red = torch.tensor(drawing.RED) / 255
        for y, x in ((0, 0), (31, 31), (0, 31), (15, 15)):
            torch.testing.assert_close(box[y, x], red)
        assert box.isfinite().all() and box[8, 2].min() > 0.8


def test_a_sheet_too_large_is_refused():
    with pytest.raises(ValueError, match="Draw fewer or smaller"):
        sheet(torch.zeros(1, 1, 1, 1).expand(100_000, 8, 8, 1), 100, scale=20)


def test_gif_frames(tmp_path):
    frames = torch.linspace(0, 1, 5)[:, None, None, None].expand(5, 3, 6, 1).clone()
    frames[2] = math.nan
    save_gif(tmp_path / "a.gif", frames, fps=20, scale=2)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.size, image.info["duration"], image.info["loop"]) == (5, (12, 6), 50, 0)
        image.seek(4)
        assert np.asarray(image.convert("L")).min() == 255
    for bad, message in ((frames[:0], "at least one frame"), ([frames[0], frames[1, :2]], "one shape")):
        with pytest.raises(ValueError, match=message):
            save_gif(tmp_path / "b.gif", bad)


@pytest.mark.parametrize("kind", ["random", "zero", "nan"])
def test_weight_maps_of_any_row(kind):
    config = FieldConfig(hidden=(6, 5), octaves=1)
    row = torch.randn(config.size, generator=G)
    row = {"random": row, "zero": row * 0, "nan": row * math.nan}[kind]
    picture = weight_map(config, row)
    assert picture.ndim == 3 and picture.shape[2] == 3 and 0 <= picture.min() < picture.max() <= 1
    if kind == "random":
        spread = picture.amax(2) - picture.amin(2)
        assert (spread > 0.5).float().mean() > 0.02  # both colours of a diverging scale are strong


def test_a_limit_of_the_container_is_seen(monkeypatch):
    files = {"memory.max": ["5000"], "memory.current": ["4000"], "memory.stat": ["anon 3000", "inactive_file 700"]}
    monkeypatch.setattr(resources, "_lines", lambda path: files.get(path.removeprefix("/sys/fs/cgroup/"), []))
    assert free_memory() == 1700  # file pages can be given back
    files["memory.max"] = ["max"]
    assert free_memory() > 1 << 20  # what the system has


@pytest.mark.parametrize("fps", [1, 7, 10, 24, 34, 50])
def test_a_film_lasts_as_long_as_its_frames(fps):
    from fields.view.render import durations

    found = durations(3 * fps, fps)
    assert sum(found) == 3000 and min(found) >= 20 and max(found) - min(found) <= 10
