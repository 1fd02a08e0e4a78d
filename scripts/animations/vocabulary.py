"""Animation of vocabularies: buckets of equal shares and k-means centroids as their number grows, and what they cost."""

from typing import Any

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from fields.fitting.fit import architecture_for
from fields.metrics.pairs import psnr
from fields.model import FieldConfig
from fields.runtime.console import bar
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.storage.dataset import WeightDataset
from fields.view.render import render
from scripts.animations.canvas import Animation, Stage
from scripts.animations.options import SHOWN, AnimateVocabulary
from scripts.animations.panels import Curves, drawn, fitted, set_image, start_of
from tokenizers.classic.kmeans import KMeansTokenizer
from tokenizers.classic.options import KMeansConfig, QuantileConfig
from tokenizers.classic.quantile import QuantileTokenizer

SIZES = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
KINDS = {"quantile": (QuantileConfig, QuantileTokenizer), "kmeans": (KMeansConfig, KMeansTokenizer)}
SAID = {"quantile": "quantile: buckets of equal shares", "kmeans": "k-means: centroids of least squared error"}
LEFT = {"quantile": 60, "kmeans": 680}
PICTURES = {"quantile": 100, "kmeans": 868}
WIDE = 560
REACH = 3.6
"""Standard deviations that are drawn."""
BINS = 180
TILE = 106


def animate_vocabulary(options: AnimateVocabulary) -> Animation:
    """Histograms above, pictures and PSNR below."""
    config, train, held_out, size, name = rows_of(options)
    z = standardised(config, train)
    books = {
        kind: [
            learn(kind, config, train, v, options.seed) for v in bar(SIZES, desc=kind, unit="vocabulary", leave=False)
        ]
        for kind in KINDS
    }
    own = render(config, held_out, *size)
    decoded = {kind: [t.decode(t.encode(held_out)) for t in made] for kind, made in books.items()}
    scores = {kind: [float(psnr(render(config, d, *size), own).mean()) for d in rows] for kind, rows in decoded.items()}
    pictures = {kind: [drawn(config, d[:SHOWN], own[0]) for d in rows] for kind, rows in decoded.items()}
    stage = Stage(options)
    stage.title(
        "A vocabulary for weights grows",
        f"{len(train):,} fields of {name}, {config.size} weights each, standardised by position",
    )
    counter = stage.text(1240, 46, "", 20, ha="right", weight="bold", moving=True)
    colours = {"quantile": stage.theme.accents[6], "kmeans": stage.theme.accents[1]}
    codes = {kind: Codes(stage, kind, z, books[kind], colours[kind]) for kind in KINDS}
    tiles = {kind: _tiles(stage, kind, drawn(config, held_out[:SHOWN], own[0]), colours[kind]) for kind in KINDS}
    curves = _curves(stage, scores, colours)

    def show(i: int) -> None:
        k = min(int(i / (options.frames - 1) * len(SIZES)), len(SIZES) - 1)
        counter.set_text(f"V = {SIZES[k]} codes")
        curves.show(k)
        for kind in KINDS:
            codes[kind].show(k)
            *images, text = tiles[kind]
            text.set_text(f"{scores[kind][k]:.1f} dB")
            for image, picture in zip(images, pictures[kind][k], strict=True):
                set_image(image, picture)

    return Animation(stage, options.frames, show)


# -- numbers -----------------------------------------------------------------------------------------------------------


def rows_of(options: AnimateVocabulary) -> tuple[FieldConfig, Tensor, Tensor, tuple[int, int], str]:
    """Architecture, training rows, held-out rows, height and width of their pictures, and the signals' name."""
    named = f"--fields {options.fields}" if options.fields else f"--signals {options.signals}"
    data = fitted_data(options) if options.fields is None else WeightDataset.load(options.fields, flag="--fields")
    split = next((s for s in ("validation", "test") if s in data.splits and len(data.splits[s]) >= SHOWN), None)
    if data.kind.name != "images" or split is None or "train" not in data.splits:
        raise ValueError(f"{named} needs fields of pictures in a training and a held-out split.")
    sizes = data.extent(split)
    if bool((sizes < 1).any()) or len(sizes.unique(dim=0)) > 1:
        raise ValueError(f"{named} needs pictures of one recorded size in split {split}.")
    train = data.weights("train", _some(len(data.splits["train"]), options.limit, options.seed))
    held_out = data.weights(split, _some(len(data.splits[split]), options.held_out, options.seed))
    return data.config, train, held_out, tuple(sizes[0].tolist()), data.signals.get("name") or "a dataset"


def fitted_data(options: AnimateVocabulary) -> WeightDataset:
    """As many fields as are shown, all fitted from a start learnt over the training signals."""
    signals = load_signals(SignalsConfig(options.signals, options.data_root))
    config, chosen = architecture_for(signals), []
    start = start_of(config, signals, options, "meta")
    for split, most in (("train", options.limit), ("validation", options.held_out)):
        places = signals.indices(split)
        chosen.append(places[_some(len(places), most, options.seed)])
    return fitted(signals, torch.cat(chosen), options, field=config, reference=start)


def _some(n: int, most: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most]


def learn(kind: str, config: FieldConfig, rows: Tensor, size: int, seed: int) -> Any:
    """A fitted tokenizer of `size` codes."""
    options, tokenizer = KINDS[kind]
    return tokenizer(options(vocab_size=size, seed=seed, field=config.to_dict())).fit(rows)


def standardised(config: FieldConfig, rows: Tensor) -> np.ndarray:
    """All weights of all rows in standard deviations of their positions; positions that never vary are left out."""
    standardizer = learn("quantile", config, rows, 2, 0).standardizer
    return standardizer(rows)[:, ~standardizer.constant].flatten().numpy()


def code_book(tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Centres and the edges between them, in standardised units."""
    n = int(tokenizer.counts[0])
    if isinstance(tokenizer, KMeansTokenizer):
        centres = tokenizer.centres[0, :n, 0].double().numpy()
        return centres, (centres[1:] + centres[:-1]) / 2
    return tokenizer.centres[0, :n].double().numpy(), tokenizer.edges[0, : n - 1].double().numpy()


# -- parts of the stage ------------------------------------------------------------------------------------------------


class Codes:
    """A histogram of the weights, a line at every edge between two codes, a dot at every code."""

    def __init__(self, stage: Stage, kind: str, z: np.ndarray, made: list, colour: str):
        left = LEFT[kind]
        stage.text(left, 122, SAID[kind], 16, weight="bold", color=colour)
        axes = stage.plot(left, 138, WIDE, 216, "weight in standard deviations")
        axes.spines["left"].set_visible(False)
        heights, edges = np.histogram(z, BINS, (-REACH, REACH))
        heights = heights / heights.max()
        axes.stairs(heights, edges, fill=True, color=stage.theme.line, alpha=0.75)
        axes.set(xlim=(-REACH, REACH), ylim=(-0.16, 1.06))
        axes.set_xticks(range(-3, 4), [str(t).replace("-", "\N{MINUS SIGN}") for t in range(-3, 4)])
        axes.axhline(0, color=stage.theme.line, linewidth=1)
        self.books = [code_book(tokenizer) for tokenizer in made]
        lines = LineCollection([], colors=stage.theme.ink, linewidths=0.9)
        self.lines = stage.move(axes.add_collection(lines))
        (dots,) = axes.plot([], [], "o", color=colour, markersize=6, markeredgewidth=0)
        self.dots = stage.move(dots)

    def show(self, k: int) -> None:
        """The k-th vocabulary."""
        centres, edges = self.books[k]
        self.lines.set_segments([[(e, 0), (e, 1.02)] for e in edges])
        self.dots.set_data(centres, np.full(len(centres), -0.08))


def _tiles(stage: Stage, kind: str, fields: np.ndarray, colour: str) -> list:
    """Decoded pictures (moving) above the fields themselves; and the text of the PSNR."""
    left = PICTURES[kind]
    images = []
    for j, field in enumerate(fields):
        x = left + j * (TILE + 10)
        images.append(stage.picture(x, 456, TILE, TILE))
        stage.picture(x, 578, TILE, TILE, field)
    names = (("decoded", 456), ("field", 578))
    for name, top in names:
        stage.text(left - 14, top + TILE / 2, name, 13, rotation=90, ha="center", va="center", color=stage.theme.faint)
    text = stage.text(left, 444, "", 17, weight="bold", color=colour, moving=True)
    return [*images, text]


def _curves(stage: Stage, scores: dict[str, list[float]], colours: dict[str, str]) -> Curves:
    """PSNR of decoded fields against the number of codes."""
    axes = stage.plot(556, 456, 236, 196, "codes V")
    stage.text(540, 444, "PSNR against the field (dB)", 13, color=stage.theme.faint)
    curves = Curves(stage, axes, np.log2(SIZES), scores, colours)
    axes.set_xticks(range(1, 7), [str(2**k) for k in range(1, 7)])
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y", color=stage.theme.line, linewidth=0.6, alpha=0.6)
    return curves
