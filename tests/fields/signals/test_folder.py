"""Folders of pictures of every awkward kind: right, or named."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fields.signals import folder
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 7)).astype(np.uint8)  # not square
COLOUR = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)


def load(path: Path, **options):
    """A folder through the public door."""
    return load_signals(SignalsConfig(str(path), **options))


def only(tmp_path: Path) -> torch.Tensor:
    """The one picture of a folder, (H, W, C)."""
    data = load(tmp_path)
    assert len(data) == 1 and not data.skipped, data.skipped
    return data.images([0])[0]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_eight_bit_gray_and_colour(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    Image.fromarray(COLOUR).save(tmp_path / "b.PNG")
    Image.fromarray(np.repeat(GRAY[..., None], 3, 2)).save(tmp_path / "c.bmp")
    data = load(tmp_path)
    assert data.channels == 3 and data.extent.tolist() == [[5, 7]] * 3
    images = data.images([0, 1, 2])
    for channel in range(3):
        np.testing.assert_array_equal(images[0, ..., channel].numpy(), GRAY.astype(np.float32) / 255)
    np.testing.assert_array_equal(images[1].numpy(), COLOUR.astype(np.float32) / 255)
    assert torch.equal(images[0], images[2])
    (tmp_path / "b.PNG").unlink()
    assert load(tmp_path).channels == 1  # colour files whose channels are equal count as gray


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_keep_their_scale(tmp_path, name):
    values = np.array([[0, 30000, 65535], [1, 255, 256]], np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    np.testing.assert_allclose(only(tmp_path)[..., 0].numpy(), values / 65535, atol=1e-7)


def test_sixteen_bit_big_endian(tmp_path):
    values = np.array([[0, 30000, 65535]], ">u2")
    Image.frombytes("I;16B", (3, 1), values.tobytes()).save(tmp_path / "a.tif")
    np.testing.assert_allclose(only(tmp_path)[..., 0].numpy(), values.astype(float) / 65535, atol=1e-7)


def test_thirty_two_bits(tmp_path):
    values = np.array([[0, 30000, 65535]], np.int32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_allclose(only(tmp_path)[..., 0].numpy(), values / 65535, atol=1e-7)
    Image.fromarray(values * 2).save(tmp_path / "b.tif")
    assert load(tmp_path).skipped == [("b.tif", "32-bit integers 0 .. 131070; expected 0 .. 65535")]


def test_floats_must_lie_in_the_unit_range(tmp_path):
    values = np.array([[0.0, 0.25, 1.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(only(tmp_path)[..., 0].numpy(), values)
    Image.fromarray(values * 3).save(tmp_path / "b.tif")
    Image.fromarray(values * np.nan).save(tmp_path / "c.tif")
    assert [name for name, reason in load(tmp_path).skipped if "expected 0 .. 1" in reason] == ["b.tif", "c.tif"]


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_are_the_colours_they_stand_for(tmp_path, transparent):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L").convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", **({"transparency": 1} if transparent else {}))
    expected = np.array([[[255, 0, 0], [0, 0 if transparent else 255, 0], [10, 20, 30]]]) / 255
    np.testing.assert_allclose(only(tmp_path).numpy(), expected, atol=1e-6)


def test_one_bit(tmp_path):
    Image.fromarray(GRAY > 100).save(tmp_path / "a.png")
    np.testing.assert_array_equal(only(tmp_path)[..., 0].numpy(), (GRAY > 100).astype(np.float32))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_over_black(tmp_path, mode):
    alpha = np.array([[0, 51, 255]], np.uint8)
    colour = np.full((1, 3, len(mode) - 1), 200, np.uint8)
    Image.fromarray(np.concatenate([colour, alpha[..., None]], 2), mode).save(tmp_path / "a.png")
    picture = only(tmp_path)
    assert picture.shape == (1, 3, 1)  # equal channels
    np.testing.assert_allclose(picture[..., 0].numpy(), alpha / 255 * 200 / 255, atol=0.5 / 255)


def test_cmyk(tmp_path):
    Image.new("CMYK", (4, 3), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red = only(tmp_path).mean((0, 1))
    assert red[0] > 0.95 and red[1] < 0.05 and red[2] < 0.05


TURNED = {  # EXIF orientation -> the picture as it should be seen
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[:, ::-1],
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a.T[::-1],
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("name", ["8.jpg", "8.png", "8.tif", "8.webp", "16.tif", "16.png"])
def test_exif_turns_pictures(tmp_path, name, orientation):
    arrow = np.zeros((16, 40), np.uint16)
    arrow[:8, :24], arrow[8:, :8] = 255, 100
    exif = Image.Exif()
    exif[0x0112] = orientation
    deep = name.startswith("16")
    image = Image.fromarray(arrow * 257 if deep else arrow.astype(np.uint8))
    image.save(tmp_path / name, exif=exif, **({} if name.endswith("tif") else {"quality": 100, "lossless": True}))
    picture, expected = only(tmp_path)[..., 0].numpy(), TURNED[orientation](arrow) / 255
    assert picture.shape == expected.shape
    np.testing.assert_allclose(picture, expected, atol=0.05 if name == "8.jpg" else 1e-6)


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("L", (4, 3), shade) for shade in (200, 50, 10)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(only(tmp_path).numpy(), 200 / 255, atol=1e-6)


@pytest.mark.parametrize("shade", [0, 77, 255])
def test_one_pixel_and_constant_pictures(tmp_path, shade):
    Image.new("L", (1, 1), shade).save(tmp_path / "a.png")
    Image.new("L", (9, 2), shade).save(tmp_path / "b.png")
    data = load(tmp_path)
    assert data.extent.tolist() == [[1, 1], [2, 9]]
    assert (data.images([1]) == np.float32(shade) / np.float32(255)).all()


def spoil(tmp_path: Path) -> set[str]:
    """Write bad files of many kinds; their names."""
    noise = RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for name in ("cut.png", "cut.jpg", "damaged.png", "cut.gif"):
        Image.fromarray(noise).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        half = data[: len(data) // 2]
        (tmp_path / name).write_bytes(half + b"\0" * 40 + data[len(half) + 40 :] if "damaged" in name else half)
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    (tmp_path / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    bomb = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    body = png_chunk(b"IHDR", bomb) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.png"
    Image.fromarray(GRAY).save(outside)
    (tmp_path / "outside.png").symlink_to(outside)
    (tmp_path / "folder.png").mkdir()  # a folder is not a file: silently walked
    return {p.name for p in tmp_path.iterdir() if p.is_symlink() or p.is_file()}


def test_bad_files_are_each_named_once_and_the_rest_kept(tmp_path):
    bad = spoil(tmp_path)
    Image.fromarray(GRAY).save(tmp_path / "good.png")
    (tmp_path / "notes.txt").write_text("not looked at")
    (tmp_path / ".hidden.png").write_text("not looked at")
    data = load(tmp_path)
    assert data.ids == [f"{tmp_path.name}/good.png"]
    assert sorted(name for name, _ in data.skipped) == sorted(bad)
    reasons = dict(data.skipped)
    assert "0 bytes" in reasons["zero.png"] and "pixels" in reasons["bomb.png"] and "truncated" in reasons["cut.jpg"]
    assert "outside" in reasons["outside.png"] and "broken link" in reasons["gone.png"]
    assert not any(str(tmp_path) in reason for reason in reasons.values())
    assert data.describe()["skipped"] == len(bad)
    with pytest.raises(ValueError, match=f"{len(bad)} of {len(bad) + 1} pictures are unreadable") as caught:
        load(tmp_path, strict=True)
    assert all(name in str(caught.value) for name in bad)


def test_no_picture_at_all(tmp_path):
    with pytest.raises(ValueError, match="holds no readable picture"):
        load(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="1 unreadable: a.png: empty file"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="a file, not a folder"):
        load(tmp_path / "a.png")


def test_subfolders_are_classes_only_if_all_lie_in_them(tmp_path):
    root = tmp_path / "photos"
    for name in ("dog/1.png", "cat/deep/2.png", "cat/1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GRAY).save(root / name)
    data = load(root)
    assert data.ids == ["photos/cat/1.png", "photos/cat/deep/2.png", "photos/dog/1.png"]
    assert data.label_names == ["cat", "dog"] and data.labels.tolist() == [0, 0, 1]
    Image.fromarray(GRAY).save(root / "top.png")
    assert load(root).labels is None and load(root).label_names is None


def test_a_linked_folder_is_named_and_not_followed(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir(), other.mkdir()
    Image.fromarray(GRAY).save(root / "a.png")
    Image.fromarray(GRAY).save(other / "b.png")
    (root / "link").symlink_to(other, target_is_directory=True)
    (root / "round").symlink_to(root, target_is_directory=True)
    data = load(root)
    assert len(data) == 1 and [name for name, _ in data.skipped] == ["link", "round"]


def test_the_split_is_seeded_and_small_folders_are_all_train(tmp_path):
    for i in range(9):
        Image.fromarray(GRAY ^ np.uint8(i)).save(tmp_path / f"{i:02}.png")
    assert load(tmp_path).split == ["train"] * 9
    for i in range(9, 30):
        Image.fromarray(GRAY ^ np.uint8(i)).save(tmp_path / f"{i:02}.png")
    split = load(tmp_path).split
    assert [split.count(s) for s in ("train", "validation", "test")] == [24, 3, 3]
    assert split == load(tmp_path).split != load(tmp_path, split_seed=1).split


def test_the_name_of_the_folder_one_stands_in(tmp_path, monkeypatch):
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    data = load(Path("."))
    assert data.name == tmp_path.name and str(tmp_path.parent) not in str(data.describe())


@pytest.mark.skipif(os.name != "posix", reason="such names exist on POSIX only")
def test_names_that_are_not_text(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "é ü.png")
    try:
        (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only text as a name")
    data = load(tmp_path)
    assert data.ids == [f"{tmp_path.name}/é ü.png"]
    assert len(data.skipped) == 1 and data.skipped[0][0].encode("utf-8") and "UTF-8" in data.skipped[0][1]


def test_pictures_stay_small_in_memory(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    assert folder.read_picture(tmp_path / "a.png").dtype == np.uint8


def _pictures(root, names, same=()):
    """Noise of 4 x 4 under these names; those in `same` are one picture."""
    for i, name in enumerate(names):
        noise = np.random.default_rng(0 if name in same else i + 1).integers(0, 255, (4, 4), np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(root / name)


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "testing")])
def test_folders_named_for_splits_are_the_splits(tmp_path, capsys, train, test):
    names = [f"{part}/{label}/{i}.png" for part in (train, test) for label in (3, 7) for i in range(10)]
    _pictures(tmp_path, names)
    signals = load_signals(SignalsConfig(str(tmp_path)))
    assert signals.label_names == ["3", "7"] and "splits are the folders" in capsys.readouterr().err
    for name, split, label in zip(signals.ids, signals.split, signals.labels.tolist(), strict=True):
        assert (split == "test") == (f"/{test}/" in name) and f"/{signals.label_names[label]}/" in name
    assert signals.split.count("validation") == 2  # a tenth of the training pictures


@pytest.mark.parametrize(("folders", "said"), [
    (("train2017/{}", "val2017/{}"), "the folders train2017, val2017 look like splits"),
    (("train_set/a", "test_set/b"), "the folders test_set, train_set look like splits"),
    (("train", "dev"), "the folders dev, train look like splits"), (("data/train/{}", "data/test/{}"), "test, train in data look"),
    (("bottle/train/good", "bottle/test/broken"), "test, train in bottle look like splits"),
    (("trains", "buses"), None), (("train", "bus"), None), (("cats", "test"), None), (("a/test", "b/train"), None),
])  # fmt: skip
def test_folders_that_look_like_splits_and_are_none(tmp_path, capsys, folders, said):
    _pictures(tmp_path, [f"{folder.format(c)}/{i}.png" for folder in folders for c in "01" for i in range(4)])
    load_signals(SignalsConfig(str(tmp_path)))
    shown = capsys.readouterr().err
    assert ("warning" in shown) == (said is not None) and (said or "") in shown


@pytest.mark.parametrize("validation", [False, True])
def test_equal_pictures_of_given_splits(tmp_path, capsys, validation):
    parts = ["train", "test", *["val"] * validation]
    names = [f"{part}/{i:02}.png" for part in parts for i in range(30)]
    same = {name for name in names if name.startswith("train") and name[-5] == "7"} | {"test/01.png"}
    _pictures(tmp_path, names, same)
    signals = load_signals(SignalsConfig(str(tmp_path)))
    found = {
        s for name, s in zip(signals.ids, signals.split, strict=True) if name.split("/", 1)[1] in same - {"test/01.png"}
    }
    shown = capsys.readouterr().err
    assert len(found) == 1 and "warning: 1 held-out picture of the folders equal" in shown
    assert ("equal an earlier one" in shown) == (not validation)


def test_a_class_called_test_is_a_class(tmp_path):
    """Folders are splits only where all of them are."""
    _pictures(tmp_path, [f"{label}/{i}.png" for label in ("cats", "test") for i in range(6)])
    assert load_signals(SignalsConfig(str(tmp_path))).label_names == ["cats", "test"]


def test_equal_pictures_share_a_split(tmp_path, capsys):
    names = [f"{i:02}.png" for i in range(60)]
    same = set(names[::7])
    _pictures(tmp_path, names, same)
    signals = load_signals(SignalsConfig(str(tmp_path)))
    found = {s for name, s in zip(signals.ids, signals.split, strict=True) if name.split("/")[-1] in same}
    assert len(found) == 1 and "equal an earlier one" in capsys.readouterr().err


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_pictures_are_cut_and_resized(dtype, white):
    """Constant pictures stay constant, ramps stay ramps, the shorter side is what was asked for."""
    flat = np.full((20, 30, 3), white, dtype)
    for resize, crop, shape in [
        (10, False, (10, 15, 3)),
        (10, True, (10, 10, 3)),
        (None, True, (20, 20, 3)),
        (40, False, (40, 60, 3)),
    ]:
        made = folder.fitted(flat, resize, crop)
        assert made.shape == shape and made.dtype == dtype and (made == white).all()
    ramp = np.linspace(0, white, 64).astype(dtype)[None, :, None].repeat(64, 0)
    made = folder.fitted(ramp, 16, False)[..., 0].astype(float)
    assert (np.diff(made, axis=1) > 0).all() and np.allclose(made.mean(), ramp.mean(), rtol=0.02)
    assert folder.fitted(ramp, None, False) is ramp or (folder.fitted(ramp, None, False) == ramp).all()
    inner = folder.fitted(np.arange(15, dtype=dtype).reshape(3, 5, 1), None, True)
    assert inner[..., 0].tolist() == [[1, 2, 3], [6, 7, 8], [11, 12, 13]]
