"""Animations in few frames: what they show, the files they become, and wrong input."""

import subprocess

import numpy as np
import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe
from made import generator, rows
from PIL import Image
from safetensors.torch import save_file

from fields import layout
from fields.fitting.engine import Points, Schedule, fit_block
from fields.model import FieldConfig
from fields.runtime import runs
from fields.runtime.contents import work_of
from fields.runtime.launch import run_cli
from fields.signals.images import grid
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.storage.dataset import WeightDataset
from fields.symmetry import deviation
from gpt.checkpoint import save_model
from gpt.model import GPT, GPTConfig
from scripts.animations.autoregressive import animate_autoregressive, partial_rows, probabilities
from scripts.animations.canvas import THEMES, Animation, Stage, palette, save, symmetric
from scripts.animations.commands import ANIMATIONS, parse, run
from scripts.animations.fit import animate_fit
from scripts.animations.options import (
    AnimateAutoregressive,
    AnimateDelta,
    AnimateFit,
    AnimateInterpolate,
    AnimatePermutation,
    AnimateRegression,
    AnimateVocabulary,
    Film,
)
from scripts.animations.panels import choose, trajectory
from scripts.animations.permutation import moves
from scripts.animations.regression import prefixes, read_experiment
from tokenizers.classic.kmeans import KMeansTokenizer
from tokenizers.classic.options import KMeansConfig, PCAConfig
from tokenizers.classic.pca import PCATokenizer
from tokenizers.learned.options import VQVAEConfig
from tokenizers.learned.vqvae import VQVAETokenizer

SHORT = {"seconds": 0.4, "fps": 10.0, "hold": 0.2}  # 4 frames, and 2 held
SMALL = {
    "fit": AnimateFit(steps=5, **SHORT),
    "delta": AnimateDelta(steps=5, theme="dark", **SHORT),
    "permutation": AnimatePermutation(steps=5, hidden=4, octaves=1, **SHORT),
    "vocabulary": AnimateVocabulary(steps=2, limit=8, held_out=4, **SHORT),
    "interpolate": AnimateInterpolate(steps=3, pairs=2, start="conditioned", theme="dark", **SHORT),
}


@pytest.fixture(scope="module")
def tokenizers_made():
    """Tokenizers of made-up fields: k-means of one weight and of two, components, learnt latents."""
    field = FieldConfig(hidden=(6,), octaves=1)
    made = {
        "kmeans": KMeansTokenizer(KMeansConfig(vocab_size=8, field=field.to_dict())),
        "pairs": KMeansTokenizer(KMeansConfig(vocab_size=8, group=2, field=field.to_dict())),
        "pca": PCATokenizer(PCAConfig(vocab_size=8, components=10, field=field.to_dict())),
        "vqvae": VQVAETokenizer(VQVAEConfig(vocab_size=8, steps=2, field=field.to_dict())),
    }
    solid = FieldConfig(hidden=(6,), octaves=1, in_dim=3)
    made["solid"] = PCATokenizer(PCAConfig(vocab_size=8, components=10, field=solid.to_dict()))
    return {name: tokenizer.fit(rows(tokenizer.field, 60)) for name, tokenizer in made.items()}


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizers_made):
    """Folders of untrained GPTs, with labels."""
    folders = {}
    for name, tokenizer in tokenizers_made.items():
        sizes = GPTConfig(
            tokenizer.codes, tokenizer.tokens_per_field, tuple(tokenizer.slot_sizes), 2, n_layer=1, n_head=1, n_embd=16
        )
        folders[name] = tmp_path_factory.mktemp(name) / "gpt"
        info = {"tokenizer": tokenizer.fingerprint, "label_names": ["even", "odd"], "signals": {}}
        info["size"] = [4, 5] if name != "solid" else [64]
        save_model(folders[name], GPT.create(sizes, tokenizer.slots), tokenizer, info)
    return folders


@pytest.fixture
def experiment(tmp_path, tiny):
    """Two seeds of N = 1 and N = 3 generated fields."""
    config = {"n": [1, 3], "between": [], "seeds": 2}
    runs.write_json(tmp_path / "run.json", {"config": config})
    for k, start in enumerate(("unconditioned", "conditioned")):
        weights = rows(tiny, 6, seed=k)
        columns = {"weights": weights, "signal_id": [f"made/{i}" for i in range(6)], "sizes": torch.full((6, 2), 5)}
        WeightDataset.from_rows(tiny, {"train": columns}).save(tmp_path / "fields" / f"{start}-6")
        for n in (1, 3):
            for seed in range(2):
                rolled = weights[3 * seed : 3 * seed + n].clone()
                rolled[:, 1:] += 0.1 * torch.randn(rolled[:, 1:].shape, generator=generator(n))
                cell = tmp_path / "cells" / f"{start}-n{n}-seed{seed}"
                runs.write_json(cell / "cell.json", {})
                save_file({"rolled": rolled, "teacher": rolled.clone()}, cell / "rows.safetensors")
    return tmp_path


def made(options: Film) -> Animation:
    """The animation of a config."""
    return work_of(ANIMATIONS, options)[1](options)


def check(animation: Animation, options: Film) -> None:
    """Right number and size of frames, something moves, the paper has its colour, and frames do not depend on others."""
    assert animation.frames == options.frames == 4
    first, last = animation[0], animation[-1]
    assert first.shape == last.shape == (720, 1280, 3) and first.dtype == np.uint8
    assert (first != last).any()
    paper = THEMES[options.theme].paper
    for corner in (first[0, 0], first[-1, -1], last[0, -1]):
        assert "#" + bytes(corner.tolist()).hex() == paper
    assert np.array_equal(animation[0], first)


@pytest.mark.parametrize("name", SMALL)
def test_few_frames_of_the_digits(name):
    check(made(SMALL[name]), SMALL[name])


@pytest.mark.parametrize("kind", ["kmeans", "pairs", "pca", "vqvae", "solid"])
def test_tokens_one_by_one(kind, models):
    options = AnimateAutoregressive(model=str(models[kind]), label="odd", **SHORT)
    check(animate_autoregressive(options), options)


def test_generated_fields(experiment):
    options = AnimateRegression(experiment=experiment, n=(1, 3), **SHORT)
    check(made(options), options)
    found = read_experiment(experiment, "conditioned", (3,))
    true, generated = found.rows[3][1]
    assert torch.equal(true, found.data.weights("train")[3:6])
    part = prefixes(generated[0], torch.zeros(generated.shape[1]), np.array([1, 7]))
    assert torch.equal(part[1, :7], generated[0, :7]) and int((part[0] != 0).sum()) == 1


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_watching_a_fit_changes_nothing():
    config = FieldConfig(hidden=(4,), octaves=1)
    image = torch.rand(5, 4, 1, generator=generator())
    start, schedule = rows(config, 1)[0], Schedule(6, 1e-2)
    path = trajectory(config, start, image, schedule)
    points = Points(config, grid(config, 5, 4), 1.0, 0)
    assert path.shape == (7, config.size) and torch.equal(path[0], start)
    assert torch.equal(path[-1], fit_block(config, start[None], image[None].flatten(1, 2), points, schedule)[0])


def test_colours_of_signed_numbers_are_centred_and_constant():
    animation = animate_fit(SMALL["delta"])
    maps = [a for a in animation.stage.moving if hasattr(a, "get_clim") and a.get_clim() != (0, 1)]
    assert maps
    for number in (0, -1):
        animation.show(number % animation.frames)
        for low, high in {a.get_clim() for a in maps}:
            assert low == -high < 0
    middle = THEMES["dark"].signed(0.5)[:3]
    assert max(middle) - min(middle) < 0.06  # no hue at zero
    assert symmetric([-3.0, 1.0, np.nan], [2.0]) == 3 and symmetric([]) > 0


def test_the_conditioned_delta_begins_at_zero():
    animation = animate_fit(SMALL["delta"])
    animation.show(0)
    arrays = [np.abs(np.asarray(a.get_array())).max() for a in animation.stage.moving if hasattr(a, "get_clim")]
    parts = 2 * 3  # matrices and biases of a field
    assert all(a > 0 for a in arrays[:parts]) and all(a == 0 for a in arrays[parts : 2 * parts])


@pytest.mark.parametrize("n", [3, 8, 12])
def test_moves_are_permutations_that_keep_the_function(n):
    config = FieldConfig(hidden=(n,), octaves=1)
    row, orders = rows(config, 1), moves(n, 0)
    assert orders[0] == list(range(n)) and all(sorted(order) == orders[0] for order in orders)
    assert all(a != b for a, b in zip(orders, orders[1:], strict=False))
    for order in orders:
        assert float(deviation(config, row, layout.permute(config, row, [torch.tensor(order)]))) < 1e-5


@pytest.mark.parametrize("kind", ["kmeans", "pairs", "pca", "vqvae"])
def test_partial_rows_end_at_the_decoded_field(kind, tokenizers_made):
    tokenizer = tokenizers_made[kind]
    codes = tokenizer.encode(rows(tokenizer.field, 3))[1]
    found, known, _ = partial_rows(tokenizer, codes)
    assert found.shape == known.shape == (len(codes) + 1, tokenizer.field.size)
    assert torch.allclose(found[-1], tokenizer.decode(codes[None])[0], atol=1e-5)
    assert torch.allclose(found[0], tokenizer.standardizer.mean, atol=0.2) and bool(known[-1].all())


def test_odds_are_those_of_the_draw(models, tokenizers_made):
    from gpt.checkpoint import load_model

    model, tokenizer, _ = load_model(models["kmeans"])
    codes = tokenizer.encode(rows(tokenizer.field, 1))[0]
    odds = probabilities(model, codes, 1, 1.0)
    assert odds.shape == (len(codes), tokenizer.codes) and torch.allclose(odds.sum(1), torch.ones(len(codes)))
    c = model.config
    logits = model(torch.tensor([[c.vocab.sos, c.vocab.label(1), *codes[:2].tolist()]]))[0, -1, : c.codes]
    assert torch.allclose(odds[2], logits.softmax(0), atol=1e-5)


def test_drawn_signals_differ_in_class():
    signals = load_signals(SignalsConfig())
    a, b = choose(signals, (None, "digits/5"), 0)
    assert signals.ids[b] == "digits/5" and signals.labels[a] != signals.labels[b] and signals.split[a] == "train"
    assert choose(signals, (None, None), 1) == choose(signals, (None, None), 1)


# -- files -------------------------------------------------------------------------------------------------------------


def read_mp4(path) -> tuple[np.ndarray, str]:
    """(F, 720, 1280, 3) uint8, and what the decoder says about the file."""
    words = [get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(words, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, 720, 1280, 3), done.stderr.decode()


def test_mp4_plays_everywhere_and_comes_out_twice(tmp_path):
    options = AnimateFit(steps=3, out=tmp_path / "a.mp4", **SHORT)
    animation = made(options)
    save(animation, options, "fit")
    frames, about = read_mp4(tmp_path / "a.mp4")
    assert frames.shape == (6, 720, 1280, 3) and "10 fps" in about
    assert "h264" in about and "yuv420p(tv, bt709" in about
    assert np.abs(frames[-1].astype(int) - animation[-1]).mean() < 3
    before = (tmp_path / "a.mp4").read_bytes()
    save(made(options), options, "fit")
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("theme", THEMES)
def test_gif_for_a_readme(tmp_path, theme):
    options = AnimateFit(steps=3, readme=True, out=tmp_path / "a.gif", theme=theme, **SHORT)
    animation = made(options)
    save(animation, options, "fit")
    assert (tmp_path / "a.gif").stat().st_size < 3_000_000
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.size == (832, 468) and gif.info["loop"] == 0
        pictures, total = [], 0
        for i in range(gif.n_frames):
            gif.seek(i)
            pictures.append(np.array(gif.convert("RGB")))
            total += gif.info["duration"]
    assert total == 4 * 100 + 200
    assert all("#" + bytes(p[0, 0].tolist()).hex() == THEMES[theme].paper for p in pictures)
    assert np.abs(pictures[-1].astype(int) - animation[-1]).mean() < 3


def test_palette_has_the_paper_and_rare_colours():
    picture = np.full((1, 50, 50, 3), 255, np.uint8)
    picture[0, 0, :5] = [200, 30, 30]
    picture[0, 0, 5:9] = [253, 253, 253]
    table = palette(picture)
    for colour in ((255, 255, 255), (200, 30, 30)):
        found = Image.new("RGB", (1, 1), colour).quantize(palette=table, dither=Image.Dither.NONE).convert("RGB")
        assert np.abs(np.array(found.getpixel((0, 0))) - colour).max() <= 2


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_film_that_fails_leaves_nothing_and_keeps_the_old_one(tmp_path, suffix):
    film = Film(out=tmp_path / f"a{suffix}", **SHORT)
    film.out.write_bytes(b"old")

    def show(i: int) -> None:
        if i == 2:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        save(Animation(Stage(film), film.frames, show), film, "a")
    assert film.out.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ANIMATIONS)
def test_help_teaches(name, capsys):
    with pytest.raises(SystemExit):
        parse([name, "--help"])
    said = capsys.readouterr().out
    assert "For example:" in said and f"animate.py {name}" in said and "--theme" in said


def test_the_command_writes_a_film(tmp_path, capsys):
    words = ["fit", "--steps", "2", "--seconds", "0.2", "--fps", "10", "--hold", "0", "--out", str(tmp_path / "a.mp4")]
    run(parse(words))
    assert "1280 x 720" in capsys.readouterr().out and (tmp_path / "a.mp4").stat().st_size > 1000


@pytest.mark.parametrize(
    "words, said",
    [
        (["autoregressive", "--model", "NOWHERE"], "NOWHERE"),
        (["vocabulary", "--fields", "NOWHERE"], "NOWHERE"),
        (["regression", "--experiment", "NOWHERE"], "train_regression"),
        (["fit", "--signals", "NOWHERE"], "NOWHERE"),
        (["fit", "--target", "digits/99999"], "digits/99999"),
        (["permutation", "--signals", "mnist", "--data-root", "NOWHERE"], "NOWHERE"),
    ],
)
def test_wrong_input_is_one_sentence(words, said, tmp_path, capsys):
    words = [str(tmp_path / "nothing") if w == "NOWHERE" else w for w in words]
    with pytest.raises(SystemExit) as stop:
        run_cli(run, parse([*words, "--out", str(tmp_path / "a.mp4")]))
    error = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 1 and error[-1].startswith("error: ")
    assert said.replace("NOWHERE", "nothing") in error[-1]
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (["fit", "--out", "a.avi"], ".mp4 or .gif"),
        (["fit", "--readme", "--out", "a.mp4"], "--readme"),
        (["fit", "--seconds", "0"], "--seconds"),
        (["fit", "--steps", "0"], "--steps"),
        (["permutation", "--hidden", "40"], "--hidden"),
        (["interpolate", "--pairs", "0"], "--pairs"),
        (["vocabulary", "--held-out", "1"], "--held-out"),
        (["autoregressive", "--temperature", "-1"], "--temperature"),
    ],
)
def test_wrong_flags_are_named(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(words)
    assert stop.value.code == 2
    both = capsys.readouterr()
    assert said in both.err + both.out


def test_generated_rows_of_other_fields_are_refused(experiment):
    save_file({"rolled": torch.ones(3, 49)}, experiment / "cells" / "conditioned-n3-seed0" / "rows.safetensors")
    with pytest.raises(ValueError, match="was not made from the fields"):
        read_experiment(experiment, "conditioned", (3,))
    with pytest.raises(FileNotFoundError, match="no finished cell conditioned-n9"):
        read_experiment(experiment, "conditioned", (9,))


def test_frames_that_stand_for_minutes_are_refused():
    with pytest.raises(ValueError, match="--fps must lie in"):
        AnimateFit(fps=0.001)
