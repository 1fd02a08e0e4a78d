"""Animation of a GPT at work: tokens drawn one by one, the weights they stand for, and the picture that forms."""

import math
from typing import Any

import numpy as np
import torch
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize, to_rgba
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from fields import layout
from fields.kinds.registry import kind_of
from fields.kinds.shapes import GRID, ShapeKind
from fields.model import FieldConfig
from fields.runtime.console import bar
from fields.view.mesh import field_volume
from fields.view.shading import AZIMUTH, view
from gpt.checkpoint import load_gpt
from gpt.model import GPT
from gpt.sampling.generate import sample_ids
from gpt.sampling.sample import find_label
from scripts.animations.canvas import Animation, Stage, symmetric
from scripts.animations.options import AnimateAutoregressive
from scripts.animations.panels import WeightPanel, drawn, set_image
from scripts.animations.permutation import square
from tokenizers.base import WeightTokenizer

BOXES = 20
"""Tokens of the sequence that are shown as boxes."""
FIRST = 50
"""The film begins as if it drew so many tokens in its length, and goes faster and faster."""
FEW = 12
"""The same for shapes, whose first tokens say most."""
STRIP = (40, 124, 60, 44)
"""Left, top, pitch and height of the boxes."""
VIEW = 144
"""Pixels along an edge of a view of a shape."""
SCALAR = ("kmeans", "quantile", "uniform")
"""Kinds of one weight a token (k-means unless it groups)."""


def animate_autoregressive(options: AnimateAutoregressive) -> Animation:
    """Sequence above; token values and weights at the left; picture and odds at the right."""
    model, tokenizer, info = load_gpt(options.model)
    kind_, size = kind_of(tokenizer.field, info.get("signals")), tuple(info["size"])
    solid = isinstance(kind_, ShapeKind)
    if not solid and (kind_.name != "images" or min(size) < 1):
        raise ValueError(
            f"--model {options.model} makes fields {tokenizer.field}, which are neither images nor shapes."
        )
    codes, label = draw(model, options, info["label_names"])
    rows, known, said = partial_rows(tokenizer, codes)
    values = token_values(tokenizer, codes)
    odds = probabilities(model, codes, label, options.temperature)
    stage, total = Stage(options), len(codes)
    name = "" if label < 0 else f"label {info['label_names'][label]}; "
    kind = tokenizer.config.kind
    stage.title(
        f"A GPT draws a {'shape' if solid else 'field'}, token by token",
        f"{name}tokenizer {kind}: {total} tokens of {tokenizer.codes} codes; {tokenizer.field.size} weights",
    )
    counter = stage.text(1240, 46, "", 18, ha="right", moving=True)
    specials = ["SOS"] + ([] if label < 0 else [f"[{info['label_names'][label]}]"])
    strip = Strip(stage, specials, codes, values)
    bars = Bars(stage, values, kind)
    box = (110, 452, 690, 180)
    dense = bool(known.all())  # every token says something about every weight
    shown = rows - rows[0] if dense else torch.where(known, rows, torch.nan)
    bound = symmetric(shown, share=0.998)
    panel = WeightPanel(stage, tokenizer.field, box, bound, inputs=False)
    stage.text(98, 539, "neuron", 12, rotation=90, ha="center", va="center", color=stage.theme.faint)
    label = "weight \N{MINUS SIGN} mean field" if dense else "weight"
    stage.colour_bar(500, 654, 180, 12, bound, label)
    if not dense:
        swatch = square(110, 662, 16, 16)
        stage.board().add_collection(PolyCollection([swatch], facecolors=stage.theme.unknown))
        stage.text(134, 676, "not drawn yet", 13, color=stage.theme.faint)
    place = stage.text(110, 203, "", 15, moving=True)
    picture = stage.picture(900, 198, 290, 290)
    count = [_tokens(i / max(options.frames - 1, 1), total, FEW if solid else FIRST) for i in range(options.frames)]
    stage.text(1045, 510, f"tokens not drawn yet: {said}", 13, ha="center", color=stage.theme.faint)
    chart = Odds(stage, odds, codes)
    if isinstance(kind_, ShapeKind):  # it turns once round while it forms
        pictures = turning(kind_, tokenizer.field, rows[count])
    else:
        pictures = drawn(tokenizer.field, rows, torch.zeros(*size, 1))[count]

    def show(i: int) -> None:
        k = count[i]
        counter.set_text(f"token {k} of {total}")
        place.set_text("" if k == 0 else describe(tokenizer, codes, values, rows, k - 1))
        panel.show(shown[k])
        set_image(picture, pictures[i])
        for part in (strip, bars, chart):
            part.show(k)

    return Animation(stage, options.frames, show)


def _tokens(u: float, total: int, first: int) -> int:
    """Tokens drawn after a share u of the film that begins as if it drew `first`."""
    first = min(total, first)
    return round(first * u + (total - first) * u**3)


# -- what is drawn ---------------------------------------------------------------------------------------------------


def draw(model: GPT, options: AnimateAutoregressive, names: list[str] | None) -> tuple[Tensor, int]:
    """(T,) codes and the class, -1 for none."""
    drawn_ = sample_ids(
        model, 1, seed=options.seed, label=find_label(options.label, names), temperature=options.temperature,
        top_p=options.top_p, first=options.number, block=1,
    )  # fmt: skip
    return drawn_.codes[0], int(drawn_.labels[0])


@torch.no_grad()
def probabilities(model: GPT, codes: Tensor, label: int, temperature: float) -> Tensor:
    """(T, V) odds of each code given those before it, as they were when it was drawn."""
    c = model.config
    ids = torch.tensor([c.vocab.sos] + ([] if label < 0 else [c.vocab.label(label)]) + codes[:-1].tolist())
    logits = model(ids[None])[0, c.first - 1 :, : c.codes].float()  # (T, V)
    return (logits / max(temperature, 1e-3)).softmax(1)


def partial_rows(tokenizer: WeightTokenizer, codes: Tensor) -> tuple[Tensor, Tensor, str]:
    """The rows that the first 0 .. T tokens stand for.

    Args:
        codes: (T,).
    Returns:
        (T + 1, P) rows; (T + 1, P) bool: weights already said by a token; and what the others are taken as, in words.
    """
    total, s = len(codes), tokenizer.standardizer
    drawn_ = torch.arange(total) < torch.arange(total + 1)[:, None]  # (T + 1, T)
    kind = tokenizer.config.kind
    if kind == "pca":
        parts = tokenizer.centres[codes][:, None] * tokenizer.synthesis  # (T, P)
        rows = s.invert((drawn_.double() @ parts).float())
        return rows, torch.ones_like(rows, dtype=torch.bool), "0, the mean field"
    if kind in SCALAR and total == tokenizer.field.size:
        mean = s.invert(torch.zeros(1, total))
        return torch.where(drawn_, tokenizer.decode(codes[None]), mean), drawn_, "the mean weight"
    mean = tokenizer.encode(s.invert(torch.zeros(1, tokenizer.field.size)))  # any other: the codes of the mean field
    rows = tokenizer.decode(torch.where(drawn_, codes, mean))
    return rows, torch.ones_like(rows, dtype=torch.bool), "those of the mean field"


def turning(kind: ShapeKind, field: FieldConfig, rows: Tensor) -> np.ndarray:
    """(N, S, S, 3) shaded views of (N, P) rows, one for each frame of one turn."""
    views = []
    for i, row in enumerate(bar(rows, desc="views", unit="frame", leave=False)):
        volume = field_volume(field, row, GRID, below=kind.below(field))
        views.append(view(volume, VIEW, azimuth=AZIMUTH + 2 * math.pi * i / len(rows), smooth=1))
    return torch.stack(views).numpy()


def token_values(tokenizer: WeightTokenizer, codes: Tensor) -> Tensor:
    """(T,) the number each code stands for, in standardised units; for codes of several numbers their rank in [-1, 1]."""
    kind = tokenizer.config.kind
    if kind == "pca":
        return tokenizer.centres[codes].float()
    if kind in SCALAR and len(codes) == tokenizer.field.size:
        centres = tokenizer.centres[..., 0] if kind == "kmeans" else tokenizer.centres
        return centres[tokenizer.book, codes]
    return 2 * codes / max(tokenizer.codes - 1, 1) - 1


def describe(tokenizer: WeightTokenizer, codes: Tensor, values: Tensor, rows: Tensor, t: int) -> str:
    """Token t in words."""
    slot, code = tokenizer.slots[t].tolist(), f"code {int(codes[t])} \N{RIGHTWARDS ARROW}"
    if tokenizer.config.kind == "pca":
        sign = f"{float(values[t]):+.3f}".replace("-", "\N{MINUS SIGN}")
        return f"{code} component {slot[0]} is {sign}"
    if len(slot) < 3:
        return f"{code} latent {slot[0]}" + (f", level {slot[1]}" if len(slot) > 1 else "")
    layer, neuron, source = slot
    source = "bias" if source == layout.bias_slot(tokenizer.field) else f"input {source}"
    where = f"{code} layer {layer}, neuron {neuron}, {source}"
    if rows.shape[1] != len(codes):
        return where + " and what follows"
    return f"{where}: {float(rows[-1, t]):+.2f}".replace("-", "\N{MINUS SIGN}")


# -- parts of the stage ------------------------------------------------------------------------------------------------


class Strip:
    """The end of the sequence as boxes with ids; full, it moves on to the left."""

    def __init__(self, stage: Stage, specials: list[str], codes: Tensor, values: Tensor):
        self.names = specials + [str(c) for c in codes.tolist()]
        self.before, bound = len(specials), symmetric(values)
        faces = stage.theme.signed(Normalize(-bound, bound)(values.numpy()))
        self.faces = np.concatenate([np.tile(to_rgba(stage.theme.unknown), (self.before, 1)), faces])
        self.theme, board = stage.theme, stage.board()
        left, top, pitch, height = STRIP
        self.squares = [square(left + k * pitch, top, pitch - 4, height) for k in range(BOXES)]
        self.boxes = stage.move(board.add_collection(PolyCollection([], linewidths=2.5)))
        centres = [(left + k * pitch + (pitch - 4) / 2, top + height / 2) for k in range(BOXES)]
        self.texts = [
            stage.move(board.text(x, y, "", ha="center", va="center_baseline", fontsize=14)) for x, y in centres
        ]
        stage.text(left, top - 10, "the sequence", 13, color=stage.theme.faint)

    def show(self, k: int) -> None:
        """After k tokens."""
        end = self.before + k
        begin = max(0, end - BOXES)
        n = end - begin
        self.boxes.set_verts(self.squares[:n])
        self.boxes.set_facecolor(self.faces[begin:end])
        newest = self.theme.accents[0] if k else self.theme.line
        self.boxes.set_edgecolor([self.theme.line] * (n - 1) + [newest])
        for j, text in enumerate(self.texts):
            name = self.names[begin + j] if j < n else ""
            text.set_text(name)
            text.set_fontsize(14 if len(name) <= 4 else 8)
            if j < n:
                light = self.faces[begin + j][:3] @ np.array([0.3, 0.59, 0.11]) > 0.5
                text.set_color("#111417" if light else "#f5f7fa")


class Bars:
    """The numbers the tokens stand for, along the sequence."""

    def __init__(self, stage: Stage, values: Tensor, kind: str):
        total, bound = len(values), symmetric(values) * 1.08
        names = {"pca": ("component", "coefficient"), **dict.fromkeys(SCALAR, ("token", "value"))}
        axes = stage.plot(110, 222, 690, 122, *names.get(kind, ("token", "code, scaled")))
        axes.set(xlim=(-1, total), ylim=(-bound, bound))
        axes.axhline(0, color=stage.theme.line, linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        self.segments = [[(t, 0), (t, v)] for t, v in enumerate(values.tolist())]
        width = max(1.0, 0.7 * 690 * 0.72 / total)  # points
        lines = LineCollection([], colors=stage.theme.accents[1], linewidths=width)
        self.lines = stage.move(axes.add_collection(lines))

    def show(self, k: int) -> None:
        """After k tokens."""
        self.lines.set_segments(self.segments[:k])


class Odds:
    """The model's odds for the newest token, the code drawn in another colour."""

    def __init__(self, stage: Stage, odds: Tensor, codes: Tensor):
        self.odds, self.codes = odds.numpy(), codes.tolist()
        self.size = odds.shape[1]
        axes = stage.plot(900, 562, 290, 92, "code", "")
        stage.text(900, 548, "odds of each code", 13, color=stage.theme.faint)
        stage.text(1190, 548, "drawn", 13, ha="right", color=stage.theme.accents[0], weight="bold")
        axes.set(xlim=(-1, self.size), ylim=(0, min(1.0, 1.1 * float(self.odds.max()))))
        axes.yaxis.set_major_locator(MaxNLocator(2))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        self.colours = [to_rgba(stage.theme.accents[5]), to_rgba(stage.theme.accents[0])]
        width = max(1.0, 0.7 * 290 * 0.72 / self.size)
        self.lines = stage.move(axes.add_collection(LineCollection([], linewidths=width)))

    def show(self, k: int) -> None:
        """Of token k - 1; nothing before the first."""
        if k == 0:
            self.lines.set_segments([])
            return
        p: Any = self.odds[k - 1]
        self.lines.set_segments([[(v, 0), (v, p[v])] for v in range(self.size)])
        self.lines.set_color([self.colours[v == self.codes[k - 1]] for v in range(self.size)])
