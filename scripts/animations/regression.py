"""Animation of generated fields: each picture is a field whose first t weights a regression transformer predicted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.ticker import LogLocator, NullLocator
from safetensors.torch import load_file
from torch import Tensor

from fields.metrics.pairs import psnr
from fields.runtime.runs import Run, read_json
from fields.storage.dataset import WeightDataset
from fields.view.render import render
from gpt.experiments.memorise import align_to_best
from scripts.animations.canvas import Animation, Stage
from scripts.animations.options import AnimateRegression
from scripts.animations.panels import Curves, drawn, set_image

HINT = "The experiment is made with: python scripts/train_regression.py --out DIR"
BLOCKS = (44, 672)
"""Left ends of the blocks."""
LABELS = 92
"""Width of the names of rows."""
TOP = 168
HEIGHT = 360
"""Of a block's rows of pictures together."""
WINDOW = 9
"""Errors of so many weights are averaged in the curves."""
LEAST = 1e-4


@dataclass(frozen=True)
class Generated:
    """What one start's models wrote down.

    Attributes:
        data: the fields.
        rows: N -> per seed (true (n, P), generated (n, P)).
    """

    data: WeightDataset
    rows: dict[int, list[tuple[Tensor, Tensor]]]


def animate_regression(options: AnimateRegression) -> Animation:
    """Two blocks of pictures, and the error along the roll-out below."""
    found = {start: read_experiment(options.experiment, start, options.n) for start in options.starts}
    config = next(iter(found.values())).data.config
    size = tuple(next(iter(found.values())).data.extent("train")[0].tolist())
    stage = Stage(options)
    rest = {"mean": "the mean field's", "zero": "zero"}[options.rest]
    stage.title(
        "Fields generated from memory",
        f"each weight predicted from those before it, the first given; weights to come: {rest}; dB against the field",
    )
    counter = stage.text(1240, 46, "", 18, ha="right", moving=True)
    steps = np.linspace(1, config.size, options.frames).round().astype(int)
    blocks = [
        Column(stage, x, start, found[start], options, size, steps) for start, x in zip(found, BLOCKS, strict=True)
    ]
    curves = _curves(stage, found, max(options.n), config)

    def show(i: int) -> None:
        counter.set_text(f"weight {steps[i]} of {config.size}")
        for block in blocks:
            block.show(i)
        curves.show(steps[i] - 1)

    return Animation(stage, options.frames, show)


def read_experiment(folder: Path, start: str, sizes: tuple[int, ...]) -> Generated:
    """The fields of a start and what the models generated, for every seed whose cell is finished.

    Raises:
        FileNotFoundError: if there is no experiment, or a row would be empty.
        ValueError: if fields and cells do not belong together.
    """
    c = read_json(Path(folder) / "run.json", HINT, Run)["config"]
    if "n" not in c or "between" not in c:
        raise ValueError(f"{folder} is not the folder of a regression experiment. {HINT}")
    most = max(*c["n"], *c["between"], 1)
    fitted = "unconditioned" if start == "aligned" else start
    data = WeightDataset.load(Path(folder) / "fields" / f"{fitted}-{c['seeds'] * most}")
    data = align_to_best(data) if start == "aligned" else data
    weights, rows = data.weights("train"), {}
    for n in sizes:
        rows[n] = []
        for seed in range(c["seeds"]):
            cell = Path(folder) / "cells" / f"{start}-n{n}-seed{seed}"
            if (cell / "cell.json").is_file():
                true = weights[seed * most : seed * most + n]
                generated = load_file(cell / "rows.safetensors")["rolled"]
                if generated.shape != true.shape or not torch.allclose(generated[:, 0], true[:, 0], atol=1e-4):
                    raise ValueError(
                        f"{cell} was not made from the fields in {folder}/fields. Run the experiment again."
                    )
                rows[n].append((true, generated))
        if not rows[n]:
            raise FileNotFoundError(f"{folder}/cells holds no finished cell {start}-n{n}-seed0. {HINT} --n {n}")
    return Generated(data, rows)


class Column:
    """One start: its fields, and under them what models of N fields have generated so far."""

    def __init__(self, stage: Stage, x: float, start: str, found: Generated, options, size, steps: np.ndarray):
        config, columns = found.data.config, options.columns
        blank = found.data.weights("train").mean(0) if options.rest == "mean" else torch.zeros(config.size)
        seeds = max(len(cells) for cells in found.rows.values())
        side = min(HEIGHT / (len(options.n) + 1) - 6, (568 - LABELS) / (seeds * columns) - 5)
        colour = stage.theme.colours.get(start, stage.theme.ink)
        stage.text(x, 126, start, 18, weight="bold", color=colour)
        self.places, self.frames, self.texts, self.scores = [], [], [], []
        largest = found.rows[max(options.n)]
        self._names(stage, x, TOP, side, "field")
        for s, (true, _) in enumerate(largest):
            left = x + LABELS + s * columns * (side + 5)
            stage.text(left, TOP - 8, f"seed {s}", 12, color=stage.theme.faint)
            for j, picture in enumerate(drawn(config, true[:columns], torch.zeros(*size, 1))):
                stage.picture(left + j * (side + 5), TOP, side, side, picture)
        for k, n in enumerate(options.n, 1):
            top = TOP + k * (side + 8)
            self.texts.append(self._names(stage, x, top, side, f"N = {n}", colour))
            errors = []
            for s, (true, generated) in enumerate(found.rows[n]):
                for j in range(min(columns, n)):
                    left = x + LABELS + (s * columns + j) * (side + 5)
                    self.places.append(stage.picture(left, top, side, side))
                    rows = prefixes(generated[j], blank, steps)
                    self.frames.append(drawn(config, rows, torch.zeros(*size, 1)))
                    rendered, own = render(config, rows, *size), render(config, true[j : j + 1], *size)
                    errors.append(psnr(rendered, own.expand_as(rendered)))
            self.scores.append(torch.stack(errors).mean(0))

    def _names(self, stage: Stage, x: float, top: float, side: float, name: str, colour: str | None = None):
        stage.text(x, top + side / 2 - 2, name, 14, weight="bold" if colour else "normal")
        if colour:
            return stage.text(x, top + side / 2 + 20, "", 13, color=colour, moving=True)
        return None

    def show(self, i: int) -> None:
        """Frame i."""
        for place, frames in zip(self.places, self.frames, strict=True):
            set_image(place, frames[i])
        for text, score in zip(self.texts, self.scores, strict=True):
            text.set_text(f"{float(score[i]):.1f} dB")


def prefixes(generated: Tensor, blank: Tensor, steps: np.ndarray) -> Tensor:
    """Rows (F, P) whose first steps[i] weights are generated and whose rest is blank."""
    known = torch.arange(len(generated)) < torch.from_numpy(steps)[:, None]
    return torch.where(known, generated, blank)


def _curves(stage: Stage, found: dict[str, Generated], n: int, config) -> Curves:
    """Mean error along the roll-out of N fields, growing with the weights that are predicted."""
    lines = {}
    for start, generated in found.items():
        error = torch.stack([(r - t).abs().mean(0) for t, r in generated.rows[n]]).mean(0)  # (P,)
        kernel = torch.ones(WINDOW)
        padded = torch.nn.functional.conv1d(error[None, None], kernel[None, None], padding=WINDOW // 2)[0, 0]
        count = torch.nn.functional.conv1d(torch.ones(1, 1, len(error)), kernel[None, None], padding=WINDOW // 2)[0, 0]
        lines[start] = (padded / count).clamp_min(LEAST)
    axes = stage.plot(128, 572, 1112, 92, "weight number", "")
    stage.text(44, 540, f"mean error of the weights, N = {n}", 13, color=stage.theme.faint)
    colours = {start: stage.theme.colours.get(start, stage.theme.ink) for start in lines}
    curves = Curves(stage, axes, np.arange(config.size) + 1, lines, colours)
    values = torch.stack(list(lines.values()))
    axes.set(yscale="log", ylim=(float(values.min()) / 1.5, float(values.max()) * 1.5))
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.yaxis.set_minor_locator(NullLocator())
    at = 0
    for i, (fan_in, fan_out) in enumerate(zip(config.widths, config.widths[1:], strict=False)):
        last = i == len(config.hidden)
        axes.text(config.size if last else at + 3, 1.02, f"layer {i}", transform=axes.get_xaxis_transform(), fontsize=12,
                  va="bottom", ha="right" if last else "left", color=stage.theme.faint)  # fmt: skip
        at += fan_out * (fan_in + 1)
        if at < config.size:
            axes.axvline(at, color=stage.theme.line, linewidth=1)
    return curves
