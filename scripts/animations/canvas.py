"""What all animations share: themes, a stage that redraws only what moves, and films as MP4 or GIF.

Positions are given in the units of a slide of 1280 x 720 from its top left, whatever the size in pixels. An animation is
a function from the number of a frame to a state of the stage, so any frame can be had without those before it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from fields.runtime.console import bar
from fields.runtime.runs import only_file
from scripts.animations.options import Film

WIDTH, HEIGHT = 1280, 720
README_WIDTH = 832
README_BYTES = 3_000_000
"""Most bytes that a picture in a README should have."""
COLOURS = 199
"""Colours of a GIF, the paper's not counted; one index of 256 must stay free for what does not change."""
SAMPLED = 9
"""Frames that a GIF's colours are taken from."""


@dataclass(frozen=True)
class Theme:
    """Colours. Those of data are Okabe and Ito's (told apart by colour-blind readers), brighter on dark paper."""

    paper: str
    ink: str
    faint: str
    line: str
    unknown: str
    """Of what is not known yet."""
    map: tuple[str, ...]
    """Colours of signed numbers from negative to positive: the middle is the paper's tone, blue against orange or red."""
    accents: tuple[str, ...]
    """Orange, blue, green, pink, yellow, sky, and more for many neurons."""

    @property
    def colours(self) -> dict[str, str]:
        """Of the ways of fitting; the same in all pictures."""
        orange, blue, green, pink = self.accents[:4]
        return {"unconditioned": orange, "conditioned": blue, "meta": green, "aligned": pink}

    @property
    def signed(self) -> Colormap:
        """The map of signed numbers; what is not a number is drawn in `unknown`."""
        return LinearSegmentedColormap.from_list("signed", self.map, 256).with_extremes(bad=self.unknown)


THEMES = {
    "light": Theme(
        "#ffffff", "#16191d", "#5b6470", "#c3c9d1", "#dfe3e8",
        ("#053061", "#2166ac", "#6aaed6", "#c6dcec", "#fbfbfb", "#fbd4bd", "#ee8a66", "#c23b33", "#67001f"),
        ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#B8860B", "#3B9BD9", "#7B4FA3", "#5b6470"),
    ),
    "dark": Theme(
        "#12161b", "#eef1f5", "#a3adba", "#414b57", "#2b333d",
        ("#c4e7ff", "#6cbcf5", "#2f80bd", "#1d4c74", "#181d24", "#783a16", "#c4622a", "#fa9a56", "#ffd9b3"),
        ("#FF9142", "#58B4F0", "#2FD0A0", "#EBA6CD", "#F0D24A", "#9AD5FF", "#C3A0F0", "#a3adba"),
    ),
}  # fmt: skip


class Stage:
    """A figure of which only the moving parts are drawn anew for each frame."""

    def __init__(self, film: Film):
        self.theme = THEMES[film.theme]
        width = README_WIDTH if film.readme else WIDTH
        self.figure = Figure(figsize=(12.8, 7.2), dpi=width / 12.8, facecolor=self.theme.paper)
        self.canvas = FigureCanvasAgg(self.figure)
        self.moving: list[Any] = []
        self._still = None

    # -- what is put on the stage ---------------------------------------------------------------------------------

    def move(self, artist: Any) -> Any:
        """Mark a part that changes; it lies above all that stands still."""
        artist.set_animated(True)
        self.moving.append(artist)
        return artist

    def text(self, x: float, y: float, text: str, size: float = 14, *, moving: bool = False, **options: Any) -> Any:
        """Text whose anchor (default: left end of the base line) lies at a point of the slide."""
        options = {"color": self.theme.ink, "fontsize": size, **options}
        made = self.figure.text(x / WIDTH, 1 - y / HEIGHT, text, **options)
        return self.move(made) if moving else made

    def title(self, text: str, said: str = "") -> None:
        """The headline, and a line under it."""
        self.text(40, 46, text, 22, weight="bold")
        self.text(40, 76, said, 14, color=self.theme.faint)

    def axes(self, x: float, y: float, width: float, height: float, *, frame: bool = False) -> Axes:
        """Axes without ticks whose top left corner lies at (x, y) of the slide."""
        place = (x / WIDTH, 1 - (y + height) / HEIGHT, width / WIDTH, height / HEIGHT)
        axes = self.figure.add_axes(place, facecolor="none")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(self.theme.line)
        axes.spines[:].set_visible(frame)
        return axes

    def board(self) -> Axes:
        """Axes over the whole slide, in its units, for free drawing."""
        axes = self.axes(0, 0, WIDTH, HEIGHT)
        axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        return axes

    def plot(self, x: float, y: float, width: float, height: float, xlabel: str = "", ylabel: str = "") -> Axes:
        """Axes with a scale at the left and at the bottom; ticks are to be set."""
        axes = self.axes(x, y, width, height)
        axes.spines[["left", "bottom"]].set_visible(True)
        axes.tick_params(colors=self.theme.faint, labelsize=12, length=3)
        axes.set_xlabel(xlabel, color=self.theme.faint, fontsize=13)
        axes.set_ylabel(ylabel, color=self.theme.faint, fontsize=13)
        return axes

    def picture(self, x: float, y: float, width: float, height: float, image: Any = None) -> Any:
        """A picture (H, W, 1 or 3) in a frame with hard pixels, as large as fits; moving if no image is given."""
        axes = self.axes(x, y, width, height, frame=True)
        shape = (1, 1) if image is None else np.shape(image)[:2]
        blank = np.zeros(shape)
        drawn = axes.imshow(blank, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        if image is None:
            return self.move(drawn)
        drawn.set_data(np.asarray(image).squeeze())
        return drawn

    def colour_bar(self, x: float, y: float, width: float, height: float, bound: float, label: str) -> Axes:
        """A horizontal scale of signed numbers, zero in the middle."""
        axes = self.axes(x, y, width, height, frame=True)
        ramp = np.linspace(-bound, bound, 256)[None]
        norm = Normalize(-bound, bound)
        axes.imshow(ramp, cmap=self.theme.signed, norm=norm, aspect="auto", extent=(-bound, bound, 0, 1))
        axes.set_xticks([-bound, 0, bound], [f"\N{MINUS SIGN}{bound:.2g}", "0", f"{bound:.2g}"])
        axes.tick_params(colors=self.theme.faint, labelsize=12, length=3)
        axes.set_xlabel(label, color=self.theme.faint, fontsize=12, labelpad=2)
        return axes

    # -- frames ---------------------------------------------------------------------------------------------------

    def frame(self) -> np.ndarray:
        """The stage as it is: (H, W, 3) uint8."""
        if self._still is None:
            self.canvas.draw()
            self._still = self.canvas.copy_from_bbox(self.figure.bbox)
        self.canvas.restore_region(self._still)
        for artist in sorted(self.moving, key=lambda a: a.get_zorder()):
            self.figure.draw_artist(artist)
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()


@dataclass(frozen=True)
class Animation:
    """A stage and what brings it to the state of a frame."""

    stage: Stage
    frames: int
    show: Callable[[int], None]

    def __getitem__(self, number: int) -> np.ndarray:
        """Frame `number` as (H, W, 3) uint8; negative numbers count from the end."""
        self.show(number % self.frames)
        return self.stage.frame()


def symmetric(*values: Any, share: float = 1.0) -> float:
    """A colour limit for signed numbers: the bound of `share` of their absolute values, never 0.

    Args:
        values: arrays or tensors of any shapes; what is not finite is left out.
        share: 1 = the largest.
    """
    flat = np.concatenate([np.abs(np.asarray(v, dtype=np.float64)).ravel() for v in values])
    flat = flat[np.isfinite(flat)]
    return max(float(np.quantile(flat, share)) if len(flat) else 0.0, 1e-12)


def ease(t: float) -> float:
    """0 .. 1 -> 0 .. 1 with a soft beginning and a soft end."""
    t = min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)


# -- files -------------------------------------------------------------------------------------------------------------


def save(animation: Animation, film: Film, name: str) -> Path:
    """Write the film, whole or not at all.

    Returns:
        Where it is.
    Raises:
        RuntimeError: if the encoder fails.
    """
    path = film.path(name)
    with only_file(path) as temporary:
        (_gif if film.gif else _mp4)(animation, film, temporary)
        size = temporary.stat().st_size
    shape = animation.stage.canvas.get_width_height()
    seconds = animation.frames / film.rate + film.hold
    print(f"wrote {path}: {shape[0]} x {shape[1]}, {seconds:.1f} s, {size / 1e6:.2f} MB")
    if film.readme and size > README_BYTES:
        print(f"it has more than {README_BYTES / 1e6:g} MB: make it shorter with --seconds or coarser with --fps")
    return path


def _pictures(animation: Animation) -> Iterator[np.ndarray]:
    """All frames, with a progress bar."""
    for i in bar(range(animation.frames), desc="frames", unit="frame", leave=False):
        yield animation[i]


def _mp4(animation: Animation, film: Film, path: Path) -> None:
    """H.264 as every player reads it: yuv420p, BT.709 colours, even sides; one thread, so that a film comes out twice."""
    import imageio.v2 as imageio

    marks = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    how = ["-crf", "17", "-preset", "medium", "-threads", "1", "-vf", "scale=out_color_matrix=bt709:out_range=tv"]
    writer = imageio.get_writer(
        str(path), format="FFMPEG", mode="I", fps=film.rate, codec="libx264", quality=None, pixelformat="yuv420p",
        macro_block_size=2, ffmpeg_log_level="error", output_params=[*how, *marks, "-movflags", "+faststart"],
    )  # fmt: skip
    try:
        for picture in _pictures(animation):
            writer.append_data(picture)
        for _ in range(round(film.hold * film.rate)):
            writer.append_data(picture)
    except OSError as error:
        raise RuntimeError(f"the film could not be encoded ({' '.join(str(error).split())[-300:]}).") from None
    finally:
        writer.close()


def _gif(animation: Animation, film: Film, path: Path) -> None:
    """One palette for all frames and no dithering: what stands still does not flicker and costs nothing."""
    sampled = sorted({round(i * (animation.frames - 1) / (SAMPLED - 1)) for i in range(SAMPLED)})
    table = palette(np.stack([animation[i] for i in sampled]))
    frames = (Image.fromarray(p).quantize(palette=table, dither=Image.Dither.NONE) for p in _pictures(animation))
    each = int(100 / film.rate) * 10  # a GIF counts hundredths of a second
    durations = [each] * (animation.frames - 1) + [each + round(film.hold * 1000)]
    first = next(frames)
    first.save(path, format="GIF", save_all=True, append_images=frames, duration=durations, loop=0, optimize=False)


def palette(pictures: np.ndarray) -> Image.Image:
    """A palette for (F, H, W, 3) uint8: every shade counts by the root of how often it occurs; the paper's is exact."""
    flat = pictures.reshape(-1, 3)
    codes, counts = np.unique(flat[:, 0].astype(np.int64) << 16 | flat[:, 1].astype(np.int64) << 8 | flat[:, 2],
                              return_counts=True)  # fmt: skip
    shades = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1).astype(np.uint8)
    weights = np.maximum(1, np.round(np.sqrt(counts / counts.min()))).astype(np.int64).clip(max=200)
    line = Image.fromarray(np.repeat(shades, weights, axis=0)[None])
    found = line.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=2)
    chosen = np.array(found.getpalette()[: 3 * COLOURS]).reshape(-1, 3)
    paper = shades[counts.argmax()]
    chosen[np.abs(chosen - paper.astype(int)).max(1) <= 7] = paper  # Pillow's search for the nearest colour is coarse
    table = Image.new("P", (1, 1))
    table.putpalette(np.concatenate([paper[None], chosen]).astype(np.uint8).tobytes())
    return table
