"""Parts of animations: the weights of a field as heat maps, curves that grow, and the signals animations are made of."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from fields import layout
from fields.fitting.engine import Points, Schedule, fit_block
from fields.fitting.memory import fit
from fields.fitting.options import FitConfig, Start
from fields.fitting.starts import make_reference
from fields.model import FieldConfig, input_names
from fields.signals.base import Signals
from fields.signals.images import grid
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference
from fields.view.render import render
from scripts.animations.canvas import Stage
from scripts.animations.options import PictureFits

GAP = 56
"""Between two layers, in units of the slide: room for their names."""
NARROW = 230
"""A layer with less room than this, in units of the slide, has a short name."""
SLIT = 0.4
"""Between a matrix and its bias, in cells."""


def choose(signals: Signals, named: tuple[str | None, ...], seed: int) -> list[int]:
    """Training signals by id, or drawn by seed where the id is None; those drawn differ in class and look alike in size.

    Raises:
        ValueError: for an id that is not there, or too few signals.
    """
    train = signals.indices("train")
    order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))].tolist()
    chosen = [None if name is None else int(signals.find([name])[0]) for name in named]
    for k, place in enumerate(chosen):
        if place is None:
            taken = [i for i in chosen if i is not None]
            chosen[k] = next((i for i in order if _fits(signals, i, taken)), None)
            if chosen[k] is None:
                raise ValueError(f"{signals.name} has too few training signals of one size to choose from.")
    return chosen


def _fits(signals: Signals, i: int, taken: list[int]) -> bool:
    """Another signal of the same size, and of another class if there are classes."""
    if i in taken or any(not torch.equal(signals.extent[i], signals.extent[k]) for k in taken):
        return False
    few = signals.labels is None or len(set(signals.labels.tolist())) <= len(taken)
    return few or all(int(signals.labels[i]) != int(signals.labels[k]) for k in taken)


def name_of(signals: Signals, i: int) -> str:
    """A signal in words: its id without the folders, and its class."""
    if signals.labels is None or signals.label_names is None:
        return signals.ids[i].split("/")[-1]
    return f"{signals.ids[i]}, class {signals.label_names[int(signals.labels[i])]}"


def how_fitted(options: PictureFits) -> dict[str, Any]:
    """What all fits of an animation have in common, for `FitConfig`."""
    return {"steps": options.steps, "lr": options.lr, "pixels": 1.0, "seed": options.seed}


def start_of(config: FieldConfig, signals: Signals, options: PictureFits, start: Start) -> Reference:
    """A start for fields of these signals, made from all that are for training."""
    return make_reference(config, signals, FitConfig(start=start, **how_fitted(options)))


def fitted(signals: Signals, chosen: Tensor | list[int], options: PictureFits, **how: Any) -> WeightDataset:
    """Fields of some of the signals; `how` goes to `fields.fit`."""
    data = fit(signals.subset(chosen), **how_fitted(options), **how)
    if sum(map(len, data.splits.values())) < len(chosen):
        raise RuntimeError(f"a fit diverged at --lr {options.lr:g}. Lower it.")
    return data


def trajectory(config: FieldConfig, start: Tensor, image: Tensor, schedule: Schedule) -> Tensor:
    """One field's rows before the first step and after each, as the engine alone shows them.

    Args:
        start: (P,).
        image: (H, W, C).
    Returns:
        (steps + 1, P).
    Raises:
        RuntimeError: if the fit diverged.
    """
    seen: list[Tensor] = []
    points = Points(config, grid(config, *image.shape[:2]), schedule.pixels, 0)
    fit_block(
        config, start[None], image[None].flatten(1, 2), points, schedule, lambda rows: seen.append(rows[0].clone())
    )
    if not bool(seen[-1].isfinite().all()):
        raise RuntimeError(f"a fit diverged at --lr {schedule.lr:g}. Lower it.")
    return torch.stack(seen)


def drawn(config: FieldConfig, rows: Tensor, image: Tensor) -> np.ndarray:
    """Rows (N, P) at the size of a picture (H, W, C), for `Stage.picture`: (N, H, W) or (N, H, W, 3)."""
    return render(config, rows, *image.shape[:2]).squeeze(-1).numpy()


# -- weights -----------------------------------------------------------------------------------------------------------


class WeightPanel:
    """A field's weights as heat maps, layer by layer; the output layer is turned, so that its rows are its inputs."""

    def __init__(
        self,
        stage: Stage,
        config: FieldConfig,
        box: tuple[float, float, float, float],
        bound: float,
        *,
        header: bool = True,
        inputs: bool = True,
    ):
        """Args:
        box: left, top, width, height of the slide.
        bound: the number that has the last colour of the map.
        header: names of the layers above.
        inputs: what enters the first layer, below.
        """
        self.stage, self.config, self.images = stage, config, []
        left, top, width, height = box
        depth = len(config.hidden)
        columns = sum(fan_in + SLIT + 1 for fan_in in config.widths[:depth]) + config.out_dim
        across = (width - depth * GAP) / columns
        down = height / (max(config.hidden) + SLIT + 1)
        across, down = min(across, 1.6 * down), min(down, 1.6 * across)
        x = left
        for i, (fan_in, fan_out) in enumerate(zip(config.widths, config.widths[1:], strict=False)):
            if i < depth:
                self._part(x, top, fan_in * across, fan_out * down, bound)
                self._part(x + (fan_in + SLIT) * across, top, across, fan_out * down, bound)
                wide = (fan_in + SLIT + 1) * across
            else:
                self._part(x, top, fan_out * across, fan_in * down, bound)
                self._part(x, top + (fan_in + SLIT) * down, fan_out * across, down, bound)
                wide = fan_out * across
            if header:
                self._name(i, x, top, wide, across)
            if i == 0 and inputs:
                self._inputs(x, top + fan_out * down, across)
            x += wide + GAP
        self.right, self.bottom = x - GAP, top + max(config.hidden) * down

    def _part(self, x: float, y: float, width: float, height: float, bound: float) -> None:
        axes = self.stage.axes(x, y, width, height, frame=True)
        blank = np.zeros((1, 1))
        image = axes.imshow(
            blank, cmap=self.stage.theme.signed, vmin=-bound, vmax=bound, interpolation="nearest", aspect="auto"
        )
        self.images.append(self.stage.move(image))

    def _name(self, i: int, x: float, top: float, wide: float, across: float) -> None:
        """`layer i`, and under it what its rows and columns are."""
        widths, middle = self.config.widths, x + wide / 2
        last = i == len(self.config.hidden)
        self.stage.text(middle, top - 26, f"layer {i}", 14, ha="center", weight="bold")
        said = "output" if last else f"{widths[i + 1]} neurons × {widths[i]} inputs, bias"
        if not last and wide + GAP < NARROW:  # names of neighbours would run into one another
            said = f"{widths[i + 1]} × {widths[i]}, bias"
        self.stage.text(middle, top - 8, said, 12, ha="center", color=self.stage.theme.faint)

    def _inputs(self, x: float, bottom: float, across: float) -> None:
        """Groups of inputs: the raw coordinates, then sine and cosine of each octave."""
        for name, inputs in input_names(self.config).items():
            middle = x + len(inputs) * across / 2
            self.stage.text(middle, bottom + 16, name, 11, ha="center", color=self.stage.theme.faint)
            x += len(inputs) * across

    def show(self, row: Tensor) -> None:
        """Draw a row (P,); numbers that are NaN are drawn as unknown."""
        layers = layout.split(self.config, row[None])
        parts = []
        for i, (weight, bias) in enumerate(layers):
            turned = i == len(layers) - 1
            parts += [weight[0].T, bias] if turned else [weight[0], bias.T]
        for image, part in zip(self.images, parts, strict=True):
            set_image(image, part.numpy())


def set_image(image: Any, values: np.ndarray) -> None:
    """New values for a drawn picture or matrix of any size; NaN becomes unknown."""
    image.set_data(np.ma.masked_invalid(values))
    height, width = values.shape[:2]
    image.set_extent((-0.5, width - 0.5, height - 0.5, -0.5))


# -- curves ------------------------------------------------------------------------------------------------------------


class Curves:
    """Lines that grow from left to right, each with a dot at its end."""

    def __init__(self, stage: Stage, axes: Axes, x: Any, lines: dict[str, Any], colours: dict[str, str]):
        """Args:
        x: (K,) shared by all lines.
        lines: name -> (K,) values.
        colours: name -> colour.
        """
        self.x, self.values = np.asarray(x), {name: np.asarray(v) for name, v in lines.items()}
        self.lines, self.dots = {}, {}
        for name in lines:
            (line,) = axes.plot([], [], color=colours[name], linewidth=2.2)
            (dot,) = axes.plot([], [], "o", color=colours[name], markersize=8, clip_on=False, zorder=5)
            self.lines[name], self.dots[name] = stage.move(line), stage.move(dot)
        axes.set_xlim(self.x[0], self.x[-1])
        low, high = limits(*self.values.values())
        axes.set_ylim(low, high)

    def show(self, last: int) -> None:
        """Draw the first last + 1 points."""
        for name, values in self.values.items():
            self.lines[name].set_data(self.x[: last + 1], values[: last + 1])
            self.dots[name].set_data(self.x[last : last + 1], values[last : last + 1])


def limits(*values: Any) -> tuple[float, float]:
    """Limits of an axis with a little air around all values."""
    flat = np.concatenate([np.asarray(v, dtype=np.float64).ravel() for v in values])
    low, high = float(flat.min()), float(flat.max())
    air = 0.06 * max(high - low, 1e-6)
    return low - air, high + air
