"""Animation of a walk between two fields in weight space: what lies half-way depends on where their fits began."""

import math

import torch
from torch import Tensor

from fields.fitting.fit import architecture_for
from fields.metrics.pairs import psnr
from fields.model import FieldConfig
from fields.signals.base import Signals
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.symmetry import align, balance
from fields.view.render import render
from scripts.animations.canvas import Animation, Stage
from scripts.animations.options import AnimateInterpolate
from scripts.animations.panels import Curves, choose, drawn, fitted, name_of, set_image, start_of

POINTS = 101
"""Of the curve."""
COLUMNS = (44, 450, 856)
WIDE = 380
BEST = 45.0
"""Most dB that a pair counts: at the ends of the way nothing differs."""
SAID = {
    "unconditioned": "two fits from random weights",
    "aligned": "the same, neurons matched",
    "conditioned": "both fits from one fitted field",
    "meta": "both fits from a learnt start",
}


def animate_interpolate(options: AnimateInterpolate) -> Animation:
    """Three columns, one walk each."""
    signals = load_signals(SignalsConfig(options.signals, options.data_root))
    config = architecture_for(signals)
    pair = choose(signals, (options.a, options.b), options.seed)
    chosen = pair + others(signals, pair, 2 * options.pairs - 2, options.seed)
    images = signals.images(chosen)  # (2 K, H, W, C)
    ends = fitted_ends(config, signals, chosen, options)
    walks = {way: between(rows[:2]) for way, rows in ends.items()}  # (POINTS, P)
    scores = {way: mean_psnr(config, rows, images) for way, rows in ends.items()}
    stage = Stage(options)
    stage.title(
        "Half-way between two fields",
        f"from {name_of(signals, pair[0])}, to {name_of(signals, pair[1])}: (1 \N{MINUS SIGN} t) a + t b of all "
        f"{config.size} weights",
    )
    counter = stage.text(1240, 46, "", 18, ha="right", moving=True)
    columns = {
        way: _column(stage, x, way, ends[way][:2], config, images) for way, x in zip(walks, COLUMNS, strict=True)
    }
    curves = [_curve(stage, x, way, scores) for way, x in zip(walks, COLUMNS, strict=True)]
    said = f"against the blend (1 \N{MINUS SIGN} t) picture a + t picture b, mean over {len(images) // 2} pairs"
    stage.text(COLUMNS[0] + 46, 704, f"PSNR {said}; the other columns' curves in pale", 13, color=stage.theme.faint)
    pictures = {way: drawn(config, walk, images[0]) for way, walk in walks.items()}

    def show(i: int) -> None:
        u = i / (options.frames - 1)
        k = round((u - 0.8 * math.sin(4 * math.pi * u) / (4 * math.pi)) * (POINTS - 1))  # slow at the ends and half-way
        counter.set_text(f"t = {k / (POINTS - 1):.2f}")
        for way, (picture, text) in columns.items():
            set_image(picture, pictures[way][k])
            text.set_text(f"{scores[way][k]:.1f} dB" if k < POINTS - 1 else f"lowest {scores[way].min():.1f} dB")
        for curve in curves:
            curve.show(k)

    return Animation(stage, options.frames, show)


def others(signals: Signals, pair: list[int], n: int, seed: int) -> list[int]:
    """At most n more training signals of the pair's size, an even number, drawn by seed."""
    train = signals.indices("train")
    train = train[(signals.extent[train] == signals.extent[pair[0]]).all(1)]
    order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed + 1))].tolist()
    found = [i for i in order if i not in pair][:n]
    return found[: len(found) // 2 * 2]


def fitted_ends(
    config: FieldConfig, signals: Signals, chosen: list[int], options: AnimateInterpolate
) -> dict[str, Tensor]:
    """Training signals fitted in three ways: (2 K, P) each, pairs side by side; each pair is matched to its first field."""
    free = fitted(signals, chosen, options, field=config, start="unconditioned").weights("train")
    matched = []
    for a, b in zip(free[::2], free[1::2], strict=True):
        first = balance(config, a[None])
        matched += [first, align(config, b[None], first[0])]
    common = start_of(config, signals, options, options.start)
    return {
        "unconditioned": free,
        "aligned": torch.cat(matched),
        options.start: fitted(signals, chosen, options, field=config, reference=common).weights("train"),
    }


def between(ends: Tensor) -> Tensor:
    """(POINTS, P) rows on the straight way from ends[0] to ends[1]."""
    t = torch.linspace(0, 1, POINTS)[:, None]
    return (1 - t) * ends[0] + t * ends[1]


def mean_psnr(config: FieldConfig, rows: Tensor, images: Tensor) -> Tensor:
    """(POINTS,) dB of the fields on the way against the blend of what the two ends render, the mean over pairs."""
    t, found = torch.linspace(0, 1, POINTS)[:, None, None, None], []
    for pair in rows.split(2):
        rendered = render(config, between(pair), *images.shape[1:3])
        found.append(psnr(rendered, (1 - t) * rendered[:1] + t * rendered[-1:]).clamp(max=BEST))
    return torch.stack(found).mean(0)


def _column(stage: Stage, x: float, way: str, ends: Tensor, config: FieldConfig, images: Tensor):
    """Names, the two ends, and the picture that changes between them."""
    colour = stage.theme.colours[way]
    stage.text(x + WIDE / 2, 122, way, 18, ha="center", weight="bold", color=colour)
    stage.text(x + WIDE / 2, 145, SAID[way], 13, ha="center", color=stage.theme.faint)
    ends_drawn = drawn(config, ends, images[0])
    for k, (left, name) in enumerate(((x, "a"), (x + WIDE - 64, "b"))):
        stage.picture(left, 232, 64, 64, ends_drawn[k])
        stage.text(left + 32, 316, name, 14, ha="center", color=stage.theme.faint)
    distance = float((ends[1] - ends[0]).norm())
    stage.text(x + WIDE / 2, 415, f"weights of a and b lie {distance:.1f} apart", 13, ha="center",
               color=stage.theme.faint)  # fmt: skip
    picture = stage.picture(x + 78, 164, WIDE - 156, WIDE - 156)
    text = stage.text(x + 46 + (WIDE - 46) / 2, 474, "", 16, moving=True, ha="center", weight="bold", color=colour)
    return picture, text


def _curve(stage: Stage, x: float, way: str, scores: dict[str, Tensor]) -> Curves:
    """PSNR against t; all columns have one scale, and show the other columns' curves faintly."""
    low = 5 * int(min(float(s.min()) for s in scores.values()) // 5)
    axes = stage.plot(x + 46, 448, WIDE - 46, 186, "t", "PSNR (dB)" if x == COLUMNS[0] else "")
    t = torch.linspace(0, 1, POINTS)
    for other, score in scores.items():
        if other != way:
            axes.plot(t, score.clamp(max=BEST), color=stage.theme.colours[other], alpha=0.3, linewidth=1.3)
    curve = Curves(stage, axes, t, {way: scores[way].clamp(max=BEST)}, stage.theme.colours)
    axes.set_ylim(low, BEST + 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks(range(low, int(BEST) + 1, 10))
    return curve
