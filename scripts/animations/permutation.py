"""Animation of a symmetry: hidden neurons change places, rows and columns of the matrices with them, the output stays."""

import math
from itertools import chain, pairwise

import numpy as np
import torch
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize
from torch import Tensor

from fields import layout
from fields.fitting.fit import architecture_for
from fields.fitting.options import FieldOptions
from fields.metrics.pairs import psnr
from fields.model import FieldConfig, input_names
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from fields.symmetry import deviation
from fields.view.render import render
from scripts.animations.canvas import Animation, Stage, ease, symmetric
from scripts.animations.options import AnimatePermutation
from scripts.animations.panels import choose, drawn, fitted, name_of, set_image

INPUT, HIDDEN, OUTPUT = 150, 370, 570
"""Columns of nodes."""
TOP, BOTTOM = 128, 676
CELL, TALL = 25, 200
"""Largest side of a cell, and height of P W."""
LEFT, ROWS, COLUMNS = 724, 166, 468
"""Left end of both matrices; top of P W, top of W P^T."""
CORNER = (1080, ROWS)
"""Of the permutation matrix."""
RADIUS = 15
PAUSE = 0.3
"""Share of a move for which everything rests."""


def animate_permutation(options: AnimatePermutation) -> Animation:
    """The network at the left, its matrices and its output at the right."""
    signals = load_signals(SignalsConfig(options.signals, options.data_root))
    config = architecture_for(signals, FieldOptions(hidden=(options.hidden,), octaves=options.octaves))
    (target,) = choose(signals, (options.target,), options.seed)
    image = signals.images([target])
    row = fitted(signals, [target], options, field=config, start="unconditioned").weights("train")
    orders = moves(options.hidden, options.seed)
    states = [layout.permute(config, row, [torch.tensor(order)]) for order in orders]  # (1, P) each
    stage = Stage(options)
    reached = float(psnr(render(config, row, *image.shape[1:3]), image))
    stage.title(
        "Neurons change places, the function stays",
        f"{name_of(signals, target)}, fitted by {options.hidden} hidden neurons: {config.size} weights, {reached:.1f} dB",
    )
    scene = Scene(stage, config, row[0])
    picture = stage.picture(1080, 484, 160, 160)
    stage.text(1160, 664, "output, rendered anew", 13, ha="center", color=stage.theme.faint)
    numbers = _numbers(stage)
    pictures = [drawn(config, state, image[0])[0] for state in states]
    changes = [float(deviation(config, row, state)) for state in states]
    distances = [float((state - row).norm()) for state in states]

    def show(i: int) -> None:
        at = i / (options.frames - 1) * (len(orders) - 1)
        k = min(int(at), len(orders) - 2)
        t = ease((at - k - PAUSE / 2) / (1 - PAUSE))
        scene.show(np.argsort(orders[k]), np.argsort(orders[k + 1]), t)
        reached = k + 1 if t == 1 else k
        set_image(picture, pictures[reached])
        numbers[0].set_text(f"{changes[reached]:.1e}" if changes[reached] else "0")
        numbers[1].set_text(f"{distances[reached]:.2f}")

    return Animation(stage, options.frames, show)


def moves(n: int, seed: int) -> list[list[int]]:
    """Orders of n neurons, top to bottom, one after another: a swap, another one, a cycle of three, a shuffle."""
    generator = torch.Generator().manual_seed(seed)
    orders = [list(range(n))]
    for size in (2, 2, 3):
        order = list(orders[-1])
        chosen = _apart(n, size, generator)
        for a, b in pairwise(chosen):
            order[a], order[b] = order[b], order[a]
        orders.append(order)
    shuffles = [torch.randperm(n, generator=generator).tolist() for _ in range(64)]
    return [*orders, min(shuffles, key=lambda s: _same(s, orders[0]) + _same(s, orders[-1]))]


def _same(a: list[int], b: list[int]) -> int:
    """Places that have the same neuron in both."""
    return sum(x == y for x, y in zip(a, b, strict=True))


def _apart(n: int, size: int, generator: torch.Generator) -> list[int]:
    """Places that do not lie side by side where there is room: their motion is easier to follow."""
    for _ in range(100):
        chosen = sorted(torch.randperm(n, generator=generator)[:size].tolist())
        if n < 2 * size or all(b - a > 1 for a, b in pairwise(chosen)):
            break
    return chosen


def _numbers(stage: Stage) -> list:
    """What is printed beside the picture: the change of the output, and how far the weights moved."""
    faint = stage.theme.faint
    stage.text(LEFT, 588, "largest |difference| of the output", 14, color=faint)
    stage.text(LEFT, 646, "distance moved in weight space", 14, color=faint)
    options = {"moving": True, "weight": "bold"}
    return [stage.text(LEFT, 616, "", 17, **options), stage.text(LEFT, 674, "", 17, **options)]


class Scene:
    """Nodes, edges and matrix cells, drawn for any moment between two orders of the neurons."""

    def __init__(self, stage: Stage, config: FieldConfig, row: Tensor):
        (weight, bias), (after, after_bias) = layout.split(config, row[None])
        self.stage, self.n, self.inputs = stage, config.hidden[0], config.encoded_dim
        self.outputs, self.board = config.out_dim, stage.board()
        self.cell = min(CELL, TALL / self.n)
        bound = symmetric(row, share=0.99)
        paint = lambda w: stage.theme.signed(Normalize(-bound, bound)(np.asarray(w)))  # noqa: E731
        self.into = torch.cat([weight[0], bias[0][:, None]], 1)  # (H, E + 1)
        self.out = after[0]  # (C, H)
        self.cells = paint(self.into), paint(self.out)
        self.width = [5.5 * np.minimum(np.abs(np.asarray(w)) / bound, 1) for w in (weight[0], after[0])]
        accents = stage.theme.accents
        self.colours = [accents[i % len(accents)] for i in range(self.n)]
        self._still(config, paint(after_bias[0]), bound)
        self.edges = stage.move(self.board.add_collection(LineCollection([], capstyle="round")))
        self.patches = stage.move(self.board.add_collection(PolyCollection([], linewidths=0.6)))
        self.patches.set_edgecolor(stage.theme.paper)
        self.nodes = [self._disc(self.colours[j], RADIUS) for j in range(self.n)]
        self.marks = [[self._disc(self.colours[j], min(10, 0.42 * self.cell)) for j in range(self.n)] for _ in range(2)]

    def _disc(self, colour: str, radius: float):
        """A neuron's mark: a coloured disc with a number, at a place to be set."""
        text = self.board.text(
            0, 0, str(len(self.stage.moving)), ha="center", va="center_baseline", color=self.stage.theme.paper,
            fontsize=0.8 * radius, weight="bold", zorder=6,
            bbox={"boxstyle": f"circle,pad={0.25 if radius > 12 else 0.18}", "facecolor": colour, "edgecolor": "none"},
        )  # fmt: skip
        return self.stage.move(text)

    def _still(self, config: FieldConfig, last_bias: np.ndarray, bound: float) -> None:
        """Names, inputs, outputs and the bias of the output, which do not move."""
        stage, ink, faint = self.stage, self.stage.theme.ink, self.stage.theme.faint
        for name, x in (("inputs", INPUT - 30), ("hidden neurons", HIDDEN), ("output", OUTPUT)):
            stage.text(x, TOP - 14, name, 14, ha="center", color=faint)
        for y, name in zip(spread(self.inputs), chain(*input_names(config).values()), strict=True):
            stage.text(INPUT - 18, y + 5, name, 13, ha="right", color=ink)
            self.board.plot(INPUT, y, "o", color=faint, markersize=7)
        for y in spread(self.outputs):
            self.board.plot(OUTPUT, y, "o", color=ink, markersize=13)
        wide = (self.inputs + 0.4 + 1) * self.cell
        stage.text(LEFT + self.inputs * self.cell / 2, ROWS - 14, "$P\\,W_0$", 19, ha="center")
        stage.text(LEFT + wide - self.cell / 2, ROWS - 14, "$P\\,b_0$", 19, ha="center")
        stage.text(LEFT + self.n * self.cell / 2, COLUMNS - 40, "$W_1 P^{\\,T}$", 19, ha="center")
        self.bias_at = LEFT + (self.n + 0.4) * self.cell
        stage.text(self.bias_at + self.cell / 2, COLUMNS - 40, "$b_1$", 19, ha="center")
        size = CORNER[0] + self.n * self.unit / 2
        stage.text(size, CORNER[1] - 14, "$P$", 19, ha="center")
        squares = [square(self.bias_at, COLUMNS + k * self.cell, self.cell, self.cell) for k in range(self.outputs)]
        self.board.add_collection(PolyCollection(squares, facecolors=last_bias, edgecolors=stage.theme.line))
        stage.colour_bar(1080, 398, 160, 14, bound, "weight")

    @property
    def unit(self) -> float:
        """Side of a cell of P."""
        return 160 / self.n

    def show(self, before: np.ndarray, after: np.ndarray, t: float) -> None:
        """Draw the moment t in [0, 1] of a move.

        Args:
            before: (H,) place of each neuron at t = 0, counted from the top.
            after: (H,) at t = 1.
        """
        places = before + (after - before) * t  # (H,)
        moved = (after != before) & (0 < t < 1)
        bulge = np.sin(math.pi * t) * np.sign(after - before) * np.minimum(1, np.abs(after - before) / 3)
        ys = np.interp(places, np.arange(self.n), spread(self.n))
        xs = HIDDEN + 52 * bulge
        order = np.argsort(moved, kind="stable")  # what moves lies on top
        self._edges(xs, ys, moved, order)
        self._cells(places, bulge, order)
        for j in range(self.n):
            _put(self.nodes[j], xs[j], ys[j], str(j), 6 + moved[j])
            _put(self.marks[0][j], LEFT - 20 + 8 * bulge[j], ROWS + (places[j] + 0.5) * self.cell, str(j), 6 + moved[j])
            _put(self.marks[1][j], LEFT + (places[j] + 0.5) * self.cell, COLUMNS - 18, str(j), 6 + moved[j])

    def _edges(self, xs: np.ndarray, ys: np.ndarray, moved: np.ndarray, order: np.ndarray) -> None:
        """Lines from inputs to neurons and on to the output; those of neurons at rest step back while others move."""
        segments, colours, widths = [], [], []
        ins, outs = spread(self.inputs), spread(self.outputs)
        for j in order:
            strength = 0.95 if moved[j] or not moved.any() else 0.3
            for i, y in enumerate(ins):
                segments.append([(INPUT, y), (xs[j], ys[j])])
                colours.append((*self.cells[0][j, i, :3], strength))
                widths.append(self.width[0][j, i])
            for c, y in enumerate(outs):
                segments.append([(xs[j], ys[j]), (OUTPUT, y)])
                colours.append((*self.cells[1][c, j, :3], strength))
                widths.append(self.width[1][c, j])
        if not moved.any():  # strong ones lie on top; while some move, theirs do
            rank = np.argsort(widths, kind="stable")
            segments, colours, widths = ([v[k] for k in rank] for v in (segments, colours, widths))
        self.edges.set(segments=segments, color=colours, linewidths=widths)

    def _cells(self, places: np.ndarray, bulge: np.ndarray, order: np.ndarray) -> None:
        """The cells of P W, W P^T and P."""
        squares, faces = [], []
        blank = self.stage.theme.unknown
        for j in order:
            top = ROWS + places[j] * self.cell
            for i in range(self.inputs + 1):
                x = LEFT + (i + 0.4 * (i == self.inputs)) * self.cell + 8 * bulge[j]
                squares.append(square(x, top, self.cell, self.cell))
                faces.append(self.cells[0][j, i])
            for c in range(self.outputs):
                squares.append(
                    square(LEFT + places[j] * self.cell, COLUMNS + c * self.cell + 8 * bulge[j], self.cell, self.cell)
                )
                faces.append(self.cells[1][c, j])
            for i in range(self.n):
                x, y = CORNER[0] + i * self.unit, CORNER[1] + places[j] * self.unit
                squares.append(square(x, y, self.unit, self.unit))
                faces.append(self.colours[j] if i == j else blank)
        self.patches.set_verts(squares)
        self.patches.set_facecolor(faces)


def _put(text, x: float, y: float, said: str, above: float) -> None:
    text.set_position((x, y))
    text.set_text(said)
    text.set_zorder(above)


def square(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    """Corners of a cell."""
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def spread(n: int) -> np.ndarray:
    """(n,) heights of n nodes, evenly between TOP and BOTTOM."""
    return TOP + (np.arange(n) + 0.5) * (BOTTOM - TOP) / n
