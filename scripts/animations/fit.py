"""Animations of a fit: the weights as they move, beside the picture they render; as they are, or minus the reference."""

import torch
from matplotlib.ticker import MaxNLocator

from fields.fitting.engine import Schedule
from fields.fitting.fit import architecture_for
from fields.fitting.options import FitConfig
from fields.fitting.starts import make_reference, random_rows
from fields.metrics.pairs import psnr
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.view.render import render
from scripts.animations.canvas import Animation, Stage, symmetric
from scripts.animations.options import AnimateDelta, AnimateFit
from scripts.animations.panels import (
    Curves,
    WeightPanel,
    choose,
    drawn,
    name_of,
    set_image,
    trajectory,
)

ROWS = (142, 330, 518)
"""Tops of the three rows: unconditioned, conditioned, the conditioning field."""
TALL = 152
WAYS = ("unconditioned", "conditioned")


def animate_fit(options: AnimateFit) -> Animation:
    """Weights, or (for `AnimateDelta`) weights minus the reference."""
    signals = load_signals(SignalsConfig(options.signals, options.data_root))
    schedule = Schedule(options.steps, options.lr)
    config = architecture_for(signals)
    reference, target = choose(signals, (options.reference, options.target), options.seed)
    image = signals.images([target])[0]
    given = signals.ids[reference]
    start = make_reference(config, signals, FitConfig(start="conditioned", reference=given, seed=options.seed))
    starts = {"unconditioned": random_rows(config, [options.seed + 1])[0], "conditioned": start.row}
    paths = {way: trajectory(config, starts[way], image, schedule) for way in WAYS}
    delta = isinstance(options, AnimateDelta)
    shown = {way: path - start.row if delta else path for way, path in paths.items()}
    stage = Stage(options)
    said = f"{name_of(signals, target)}; {config.size} weights, {options.steps} steps of Adam"
    stage.title(
        "The same fits, as weights minus the conditioning field" if delta else "One picture, one network, two starts",
        said,
    )
    bound = symmetric(*shown.values(), start.row, share=0.998)
    panels = _rows(stage, config, bound, delta)
    pictures = {way: stage.picture(864, ROWS[k], TALL, TALL) for k, way in enumerate(WAYS)}
    _reference_row(
        stage, config, start.row, signals.images([reference])[0], panels.pop("reference"), signals, reference
    )
    _right_column(stage, image, bound, delta)
    curves, scores = _curves(stage, config, paths, shown, image, delta)
    texts = {
        way: stage.text(864 + TALL / 2, ROWS[k] + TALL + 18, "", 13, ha="center", moving=True, weight="bold",
                        color=stage.theme.colours[way])
        for k, way in enumerate(WAYS)
    }  # fmt: skip
    counter = stage.text(1240, 46, "", 18, ha="right", moving=True)
    frames = {way: drawn(config, path, image) for way, path in paths.items()}

    def show(i: int) -> None:
        step = round(options.steps * (i / (options.frames - 1)) ** 1.7)  # most happens at first
        for way in WAYS:
            panels[way].show(shown[way][step])
            set_image(pictures[way], frames[way][step])
            texts[way].set_text(f"{scores[way][step]:.1f} dB")
        counter.set_text(f"step {step} of {options.steps}")
        curves.show(step)

    return Animation(stage, options.frames, show)


def _rows(stage: Stage, config, bound: float, delta: bool) -> dict[str, WeightPanel]:
    """Three rows of heat maps with their names."""
    minus = "\N{MINUS SIGN} reference" if delta else ""
    said = {
        "unconditioned": ("unconditioned", f"from random\nweights\n{minus}"),
        "conditioned": ("conditioned", f"from the field\nbelow\n{minus}"),
        "reference": ("reference", "the conditioning\nfield: fitted to\nanother picture"),
    }
    panels = {}
    for k, (way, (name, text)) in enumerate(said.items()):
        colour = stage.theme.colours.get(way, stage.theme.ink)
        stage.text(40, ROWS[k] + 20, name, 14.5, color=colour, weight="bold")
        stage.text(40, ROWS[k] + 34, text.strip(), 12.5, va="top", color=stage.theme.faint, linespacing=1.35)
        last = way == "reference"
        panels[way] = WeightPanel(stage, config, (228, ROWS[k], 590, TALL), bound, header=k == 0, inputs=last)
    stage.text(218, ROWS[0] + 70, "neuron", 12, rotation=90, ha="center", va="center", color=stage.theme.faint)
    frequency = "inputs: raw x and y, then sin and cos of each frequency"
    if config.octaves:
        stage.text(228, panels["reference"].bottom + 36, frequency, 12, color=stage.theme.faint)
    return panels


def _reference_row(stage: Stage, config, row, image, panel: WeightPanel, signals, index: int) -> None:
    """The conditioning field: its weights, which do not move, and its picture."""
    for part in panel.images:  # stands still: part of the background
        part.set_animated(False)
        stage.moving.remove(part)
    panel.show(row)
    stage.picture(864, ROWS[2], TALL, TALL, drawn(config, row[None], image)[0])
    reached = float(psnr(render(config, row[None], *image.shape[:2]), image[None]))
    stage.text(864 + TALL / 2, ROWS[2] + TALL + 18, f"{reached:.1f} dB", 13, ha="center", color=stage.theme.faint)


def _right_column(stage: Stage, image, bound: float, delta: bool) -> None:
    """Target and scale of colours."""
    stage.text(864 + TALL / 2, ROWS[0] - 12, "rendered", 13, ha="center", color=stage.theme.faint)
    stage.text(1082 + TALL / 2, ROWS[0] - 12, "target", 13, ha="center", color=stage.theme.faint)
    stage.picture(1082, ROWS[0], TALL, TALL, image)
    label = "weight \N{MINUS SIGN} reference" if delta else "weight"
    stage.colour_bar(1066, ROWS[2] + 96, 180, 16, bound, label)


def _curves(stage: Stage, config, paths, shown, image, delta: bool):
    """PSNR (or the distance from the reference) against the step, and the PSNR of every step."""
    rows = {way: render(config, path, *image.shape[:2]) for way, path in paths.items()}
    scores = {way: psnr(pictures, image.expand_as(pictures)) for way, pictures in rows.items()}
    lines = {way: shown[way].norm(dim=1) for way in WAYS} if delta else scores
    label = "distance to reference" if delta else "PSNR (dB)"
    axes = stage.plot(1082, ROWS[1] + 20, TALL + 10, TALL + 48, "step")
    stage.text(1048, ROWS[1] + 4, label, 13, color=stage.theme.faint)
    curves = Curves(stage, axes, torch.arange(len(lines["conditioned"])), lines, stage.theme.colours)
    axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    return curves, scores
