"""Digits, MNIST files laid by hand or downloaded, coordinates of pixels."""

import gzip
import hashlib
import http.server
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from fields.model import FieldConfig
from fields.signals import base, mnist
from fields.signals.images import Images, grid
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals

SHARED = Path(__file__).parents[4] / "shared" / "data" / "mnist"
SMALL = {"train": 30, "test": 12}


def idx(array: np.ndarray) -> bytes:
    """An idx file's bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def small_files() -> dict[str, bytes]:
    """The four files of a made-up data set of MNIST's form."""
    rng = np.random.default_rng(0)
    made = {}
    for part, (images, labels) in mnist.FILES.items():
        made[images] = idx(rng.integers(0, 256, (SMALL[part], 28, 28)))
        made[labels] = idx(np.arange(SMALL[part]) % 10)
    return made


@pytest.fixture
def files(monkeypatch) -> dict[str, bytes]:
    """Small files, and a reader that expects them; any use of the network is an error."""
    monkeypatch.setattr(mnist, "COUNTS", SMALL)
    monkeypatch.setattr(mnist, "_fetch_missing", lambda *_: pytest.fail("the network was asked"))
    return small_files()


def lay(root: Path, files: dict[str, bytes], *, zipped: bool = False) -> Path:
    """Write the files into a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (root / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(data) if zipped else data)
    return root


def test_digits_are_split_once_and_for_all():
    first, again = load_signals(SignalsConfig()), load_signals(SignalsConfig())
    parts = [set(first.indices(s).tolist()) for s in ("train", "validation", "test")]
    assert [len(p) for p in parts] == [1437, 180, 180]
    assert len(set.union(*parts)) == len(first) == 1797
    assert first.split == again.split != load_signals(SignalsConfig(split_seed=1)).split
    assert first.ids[17] == "digits/17" and first.label_names == list("0123456789")


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    data = load_signals(SignalsConfig())
    images = data.images(range(len(data)))
    assert images.dtype == torch.float32 and images.shape == (1797, 8, 8, 1)
    np.testing.assert_array_equal(images[..., 0].numpy(), load_digits().images.astype(np.float32) / 16)
    assert data.labels.tolist() == load_digits().target.tolist()


def test_describe_is_json_and_subset_and_find_agree():
    data = load_signals(SignalsConfig())
    part = data.subset([30, 4, 17])
    assert part.ids == ["digits/30", "digits/4", "digits/17"] and part.extent.tolist() == [[8, 8]] * 3
    assert torch.equal(part.images([2]), data.images([17]))
    assert part.find(["digits/17", "digits/30"]).tolist() == [2, 0]
    with pytest.raises(ValueError, match="digits/5.*not among"):
        part.find(["digits/17", "digits/5"])
    card = json.loads(json.dumps(data.describe()))
    assert card["shape"] == [8, 8] and card["counts"] == {"train": 1437, "validation": 180, "test": 180}


def test_images_take_masks_and_refuse_what_lies_outside():
    data = load_signals(SignalsConfig()).subset(range(5))
    mask = torch.tensor([True, False, False, True, False])
    assert torch.equal(data.images(mask), data.images([0, 3]))
    assert data.images([]).shape == (0, 8, 8, 1)
    for bad in ([5], [-1]):
        with pytest.raises(ValueError, match="0 .. 4"):
            data.images(bad)
    with pytest.raises(ValueError, match="split must be one of"):
        data.indices("val")


def test_pictures_of_all_depths_and_sizes():
    pictures = [
        np.full((2, 3, 1), 255, np.uint8),
        np.full((2, 3, 1), 65535, np.uint16),
        np.full((2, 3, 3), 0.5, np.float32),
        np.zeros((3, 2, 1), np.uint8),
    ]
    data = Images("made", list("abcd"), ["train"] * 4, pictures, channels=3)
    assert data.images([0, 1, 2]).amax((1, 2, 3)).tolist() == [1.0, 1.0, 0.5]
    assert data.images([0]).shape == (1, 2, 3, 3) and data.extent.tolist()[3] == [3, 2]
    assert data.describe()["shape"] is None
    with pytest.raises(ValueError, match="2 x 3, 3 x 2"):
        data.images([0, 3])


def test_config_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="--data-root is for mnist"):
        SignalsConfig("digits", Path("somewhere"))
    with pytest.raises(ValueError, match="--split-seed"):
        SignalsConfig(split_seed=-1)
    with pytest.raises(FileNotFoundError, match="Did you mean mnist"):
        load_signals(SignalsConfig("mnsit"))


@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw", "mnist"])
@pytest.mark.parametrize("zipped", [False, True])
def test_files_laid_by_hand(tmp_path, files, below, zipped):
    lay(tmp_path / below, files, zipped=zipped)
    data = load_signals(SignalsConfig("mnist", tmp_path))
    assert data.describe()["counts"] == {"train": 27, "validation": 3, "test": 12}
    assert data.ids[0] == "mnist/train/0" and data.ids[-1] == "mnist/test/11"
    raw = np.frombuffer(files["t10k-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 28, 28)
    assert torch.equal(data.images([30 + 11])[0, ..., 0], torch.from_numpy(raw[11].copy()) / 255)


@pytest.mark.parametrize("first", [0, 1])
def test_a_file_in_parts(tmp_path, files, first):
    lay(tmp_path, files, zipped=True)
    name = "train-images-idx3-ubyte"
    whole = mnist.read_idx(tmp_path / f"{name}.gz", 3)
    (tmp_path / f"{name}.gz").unlink()
    for i, part in enumerate(np.split(whole, [7, 19])):
        (tmp_path / f"{name}.part{i + first}of3.gz").write_bytes(gzip.compress(idx(part)))
    (images, _), _ = mnist.read_mnist("mnist", tmp_path)
    np.testing.assert_array_equal(images.numpy(), whole)
    (tmp_path / f"{name}.part1of3.gz").unlink()
    with pytest.raises(ValueError, match="expected 3 parts"):
        mnist.read_mnist("mnist", tmp_path)


BAD = {
    "empty": (lambda data: b"", "is empty"),
    "html": (lambda data: b"\n<!DOCTYPE html><html>503</html>", "HTML page"),
    "truncated gzip": (lambda data: gzip.compress(data)[:-20], "truncated or corrupt gzip"),
    "damaged gzip": (lambda data: gzip.compress(data)[:12] + b"??" + gzip.compress(data)[14:], "corrupt gzip"),
    "other magic": (lambda data: b"\0\0\x0d\x03" + data[4:], "not an idx file"),
    "three bytes": (lambda data: data[:3], "not an idx file"),
    "cut": (lambda data: data[:-1], "it is truncated"),
    "other count": (lambda data: idx(np.zeros((29, 28, 28))), "expected values of shape"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_named(tmp_path, files, kind):
    spoil, message = BAD[kind]
    files["train-images-idx3-ubyte"] = spoil(files["train-images-idx3-ubyte"])
    lay(tmp_path, files)
    with pytest.raises(ValueError, match=message) as caught:
        load_signals(SignalsConfig("mnist", tmp_path))
    assert "train-images-idx3-ubyte" in str(caught.value) and "Remove this file" in str(caught.value)


def test_missing_and_mistaken_files_are_named(tmp_path, files):
    del files["t10k-labels-idx1-ubyte"]
    lay(tmp_path, files)
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte not found.*raw or as .gz.*--data-root"):
        load_signals(SignalsConfig("mnist", tmp_path))
    files["t10k-labels-idx1-ubyte"] = idx(np.zeros(SMALL["test"]))
    files["train-labels-idx1-ubyte"] = idx(np.resize(mnist.FIRST_LABELS["fashion-mnist"], SMALL["train"]))
    lay(tmp_path, files)
    with pytest.raises(ValueError, match="belongs to fashion-mnist"):
        load_signals(SignalsConfig("mnist", tmp_path))
    assert load_signals(SignalsConfig("fashion-mnist", tmp_path)).label_names[9] == "Ankle boot"


class Mirrors:
    """Local servers' answers per mirror, and the addresses that were asked for."""

    def __init__(self, answers: dict[str, dict[str, bytes]]):
        self.answers, self.asked = answers, []

    def reply(self, path: str) -> bytes | None:
        """A mirror's answer; None = 404."""
        self.asked.append(path)
        _, mirror, name = path.split("/")
        return self.answers[mirror].get(name)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Start a local server with mirrors; downloads then come from it alone."""
    servers = []

    def start(answers: dict[str, dict[str, bytes]], checksums: dict[str, str]) -> Mirrors:
        mirrors = Mirrors(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = mirrors.reply(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        urls = [f"http://127.0.0.1:{server.server_port}/{name}/" for name in answers]
        monkeypatch.setattr(mnist, "_sources", lambda name: (list(urls), checksums))
        return mirrors

    monkeypatch.setattr(mnist, "COUNTS", SMALL)
    monkeypatch.setattr(mnist, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def zipped_files() -> tuple[dict[str, bytes], dict[str, str]]:
    """The .gz files and their MD5."""
    zipped = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in small_files().items()}
    return zipped, {name: hashlib.md5(data).hexdigest() for name, data in zipped.items()}


def test_the_next_mirror_is_asked_after_any_failure(serve, tmp_path, capsys):
    zipped, checksums = zipped_files()
    page = dict.fromkeys(zipped, b"<html>blocked</html>")
    mirrors = serve({"gone": {}, "page": page, "good": zipped}, checksums)
    folder = tmp_path / "downloads" / "mnist"
    lay(folder, {"train-labels-idx1-ubyte": b""})  # what an earlier failure left behind
    data = load_signals(SignalsConfig("mnist"))
    assert len(data) == 42 and "downloading" in capsys.readouterr().err
    names = {"train-images-idx3-ubyte.gz", *zipped}
    assert {p.name for p in folder.iterdir()} - {".lock"} == names  # nothing temporary, and the empty file is gone
    assert len(mirrors.asked) == 2 + 4  # a mirror that failed is not asked first again
    load_signals(SignalsConfig("mnist"))
    assert len(mirrors.asked) == 6


def test_no_mirror_works(serve, tmp_path):
    zipped, checksums = zipped_files()
    serve(
        {"gone": {}, "page": dict.fromkeys(zipped, b" <html>"), "cut": {n: d[:9] for n, d in zipped.items()}}, checksums
    )
    with pytest.raises(RuntimeError, match="404.*HTML page.*9 bytes with another MD5.*--data-root"):
        load_signals(SignalsConfig("mnist"))
    assert not list((tmp_path / "downloads").rglob("*.gz"))


def test_a_silent_mirror_is_left(serve, monkeypatch):
    import socket

    zipped, checksums = zipped_files()
    serve({"good": zipped}, checksums)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        urls = [f"http://127.0.0.1:{silent.getsockname()[1]}/", *mnist._sources("mnist")[0]]
        monkeypatch.setattr(mnist, "_sources", lambda name: (list(urls), checksums))
        monkeypatch.setattr(mnist, "TIMEOUT", 0.2)
        assert len(load_signals(SignalsConfig("mnist"))) == 42


def test_only_one_downloads(serve):
    zipped, checksums = zipped_files()
    mirrors = serve({"good": zipped}, checksums)
    sizes: list[int] = []
    threads = [threading.Thread(target=lambda: sizes.append(len(load_signals(SignalsConfig("mnist"))))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [42, 42] and len(mirrors.asked) == 4


@pytest.mark.parametrize("name", mnist.TORCHVISION)
def test_torchvision_lists_the_files(name):
    urls, checksums = mnist._sources(name)
    assert set(checksums) == {f"{file}.gz" for file in mnist.NAMES}
    assert len(urls) >= 2 and all(url.startswith("http") and url.endswith("/") for url in urls)


def test_torchvision_names_the_classes_alike():
    from torchvision.datasets import FashionMNIST

    assert tuple(FashionMNIST.classes) == mnist.LABEL_NAMES["fashion-mnist"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="real MNIST files are not here")
def test_real_mnist():
    data = load_signals(SignalsConfig("mnist", SHARED))
    assert data.describe()["counts"] == {"train": 55_000, "validation": 5_000, "test": 10_000}
    known = np.load(SHARED / "mnist_train_first1000.npz")
    np.testing.assert_array_equal((data.images(range(1000))[..., 0] * 255).numpy(), known["images"])
    assert data.labels[:1000].tolist() == known["labels"].tolist()
    assert data.ids[58828] == "mnist/train/58828" and data.ids[60_000] == "mnist/test/0"


@pytest.mark.parametrize(
    ("coords", "expected"),
    [("centres", [-0.75, -0.25, 0.25, 0.75]), ("linspace", [-1, -1 / 3, 1 / 3, 1]), ("corner", [0, 0.25, 0.5, 0.75])],
)
def test_grid_conventions(coords, expected):
    points = grid(FieldConfig(coords=coords), 2, 4)
    assert points.shape == (8, 2) and points.dtype == torch.float32
    torch.testing.assert_close(points[:4, 0], torch.tensor(expected, dtype=torch.float32))
    assert (points[:4, 1] == points[0, 1]).all() and points[4, 1] > points[0, 1]  # the row is the outer index
    turned = grid(FieldConfig(coords=coords, axes="yx"), 2, 4)
    assert torch.equal(turned, points.flip(1))
    assert torch.equal(grid(FieldConfig(coords=coords), 2, 4, rows=(1, 2)), points[4:])


def test_grid_of_one_pixel_and_of_none():
    assert grid(FieldConfig(coords="linspace"), 1, 1).tolist() == [[0, 0]]
    assert grid(FieldConfig(coords="centres"), 1, 1).tolist() == [[0, 0]]
    for bad, message in (((0, 4), "at least 1 x 1"), ((4, -1), "at least 1 x 1")):
        with pytest.raises(ValueError, match=message):
            grid(FieldConfig(), *bad)
    with pytest.raises(ValueError, match="from 2 coordinates, but this one is 3 -> "):
        grid(FieldConfig(in_dim=3), 4, 4)


def test_splits_do_not_depend_on_global_randomness():
    torch.manual_seed(1)
    first = base.held_out(50, 3, 5, 5)
    torch.manual_seed(2)
    assert first == base.held_out(50, 3, 5, 5) and first.count("validation") == first.count("test") == 5
