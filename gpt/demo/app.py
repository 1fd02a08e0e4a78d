"""The page: Gradio widgets around a `Studio`. Each button calls one function of plain values, named below."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fields.runtime.text import one_line
from fields.view.render import to_uint8, weight_map
from gpt.demo import board
from gpt.demo.studio import Drawn, Studio

ANY = "any"
"""The label that leaves the choice to the model."""
STEPS = 25
"""Fields of a walk."""
STRIP = 9
"""Of these, shown side by side."""
PARTS = (("first half", "all", "none"), ("upper half", "left half", "all", "none"))
"""Of the tokens: without a grid of regions, with one."""
MESH_CELLS = 64
NIGHT = (0.16, 0.18, 0.23, 1.0)
"""Behind a mesh, which is light."""
VIEW = 512
"""Pixels of the picture of a shape."""
FILES = 200
"""Files to download that are kept at once, of all who look at the page."""
WHAT = (
    "Each picture here is drawn by a small neural network of its own, a *field*: it gives the value at every point. "
    "A GPT has written the weights of these networks as tokens.",
    "Each shape here is the surface of a small neural network of its own, a *field*: it says for every point whether "
    "it lies inside. A GPT has written the weights of these networks as tokens.",
)
"""What is seen here: pictures, shapes."""
TOKENS = (
    "Each cell is a token, in the order in which the GPT writes them; the number is its code.",
    "Each cell is a token, where its region lies; the number is its code in the vocabulary.",
)
"""What the board shows: without a grid of regions, with one."""
CSS = """
.gradio-container { max-width: 76rem !important; margin: auto; }
#kept img, #grid button { cursor: pointer; }
#picture, #tokens, #nearest, #kept, #place, #film { & .image-frame, & img { width: 100% !important; } }
#picture img, #tokens img, #nearest img, #kept img, #place img, #film img { max-height: 30rem; object-fit: contain; }
#picture img { image-rendering: pixelated; }
#heat { overflow-x: auto !important; max-width: calc(100vw - 4rem); }
#heat .image-container { min-width: 44rem; }
.grid-wrap, .gallery-container { height: auto !important; min-height: 0 !important; max-height: none !important; }
.grid-container { grid-template-columns: repeat(auto-fill, minmax(5.2rem, 1fr)) !important; height: auto !important; }
.named .grid-container { grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr)) !important; }
.caption-label { font-variant-numeric: tabular-nums; }
"""
ALT = {
    "picture": "The chosen field",
    "tokens": "The tokens of the chosen field",
    "nearest": "The nearest training field",
    "heat": "Heat maps of the weights, one per layer",
    "kept": "The tokens that are kept; the gray ones will be drawn",
    "place": "The field at the chosen place of the walk",
    "film": "Film of the walk, there and back",
}
"""What a reader of the screen says of the pictures, by their element; Gradio leaves it empty."""
SCRIPT = """() => {
  const names = NAMES;
  const name = () => {
    for (const [id, text] of Object.entries(names))
      for (const image of document.querySelectorAll(`#${id} img`)) if (image.alt !== text) image.alt = text;
    const pen = document.querySelector('#pad button[aria-label="Brush"]');
    if (pen && !pen.dataset.taken) {
      pen.dataset.taken = "yes";
      pen.click();
    }
  };
  new MutationObserver(name).observe(document.body, { subtree: true, childList: true });
  name();
}""".replace("NAMES", json.dumps(ALT))
"""Names the pictures, and takes the pen for the pad, which Gradio leaves to the user."""


class Handlers:
    """What the buttons of one page do; a session's fields live in the browser session's state, not here.

    Attributes:
        studio: the model.
        folder: where files to download are written.
        sizes: smallest and largest that can be asked for: pixels of a picture, cells along an edge of a mesh.
    """

    def __init__(self, studio: Studio, folder: Path):
        self.studio, self.folder = studio, folder
        self.folder.mkdir(exist_ok=True)
        self.sizes = board.CELLS if studio.shapes else board.SIZES

    def _file(self, suffix: str) -> Path:
        for old in sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)[: 1 - FILES]:
            shutil.rmtree(old, ignore_errors=True)  # the page has its own copy of what it still offers
        return Path(tempfile.mkdtemp(dir=self.folder)) / f"field{suffix}"

    # -- new fields ----------------------------------------------------------------------------------------------------

    def draw(
        self, label: str, temperature: float, top_p: float, seed: float, guidance: float, n: float
    ) -> tuple[Drawn, list, str]:
        """New fields, their pictures with captions, and what came of it."""
        seed = _whole(seed, "seed")
        drawn = self.studio.draw(int(n), None if label == ANY else label, temperature, top_p, seed, guidance)
        lost = int(n) - len(drawn)
        said = f"{len(drawn)} new fields, seed {seed}." + (f" {lost} could not be decoded." if lost else "")
        return drawn, self.gallery(drawn), said + " Choose one to look at it below."

    def gallery(self, drawn: Drawn) -> list[tuple[np.ndarray, str]]:
        """Pictures with captions."""
        s = self.studio
        shown = [board.grid_picture(s.kind, s.field, row, s.extent) for row in drawn.weights]
        return [
            (picture, self.caption(drawn, i) + (" (empty)" if s.shapes and np.ptp(picture) == 0 else ""))
            for i, picture in enumerate(shown)
        ]

    def caption(self, drawn: Drawn, i: int) -> str:
        """The number of a field and its label."""
        label, names = int(drawn.labels[i]), self.studio.label_names
        return f"#{i}: {one_line(names[label], 20)}" if 0 <= label < len(names) else f"#{i}"

    # -- one field -----------------------------------------------------------------------------------------------------

    def details(self, drawn: Drawn | None, i: int, size: float) -> tuple:
        """One field: picture, mesh, weights, tokens, files.

        Returns:
            picture (H, W, 3) or None for shapes, mesh file or None, heat maps, board, text, PNG, GLB or None, safetensors.
        """
        if drawn is None or not len(drawn):
            return (None,) * 4 + ("Draw some fields first.",) + (None,) * 3
        s, i = self.studio, min(int(i), len(drawn) - 1)
        row = drawn.weights[i]
        picture, mesh, png, glb = self.show(drawn, i, size)
        small = board.picture(s.kind, s.field, row, s.extent, board.BOARD)
        tokens = board.board(drawn.codes[i], s.grid, under=small)
        said = f"Field {self.caption(drawn, i)}, {s.field.size:,} weights from {len(drawn.codes[i])} tokens."
        if not s.shapes and 0 < max(s.extent) <= board.TINY:
            said += (
                f" Training pictures have {s.extent[0]} x {s.extent[1]} pixels; between them a field was never fitted."
            )
        weights = board.write_weights(self._file(".safetensors"), s.field, row)
        heat = to_uint8(weight_map(s.field, row)).numpy()
        return picture, mesh, heat, tokens, said, png, glb, str(weights)

    def nearest(
        self, drawn: Drawn | None, i: int, progress: Callable[[int, int], Any] | None = None
    ) -> tuple[np.ndarray | None, str]:
        """The training field that is nearest to a new one, and how near: the first time, all of them are evaluated."""
        if drawn is None or not len(drawn):
            return None, ""
        s = self.studio
        near = s.nearest(drawn.weights[min(int(i), len(drawn) - 1)], progress)
        if near is None:
            return None, "No training data at hand: start with --fields to see the nearest training field."
        said = f"Nearest training field: {one_line(near.signal, 60)}. Values differ by {near.distance:.3f} (r.m.s.)."
        return board.picture(s.kind, s.field, near.weights, s.extent, 256), said

    def show(self, drawn: Drawn | None, i: int, size: float) -> tuple:
        """One field at a size.

        Returns:
            picture (H, W, 3) or None for shapes, mesh file or None, PNG file, GLB file or None.
        """
        if drawn is None or not len(drawn):
            return (None,) * 4
        s, row = self.studio, drawn.weights[min(int(i), len(drawn) - 1)]
        size = min(max(size, self.sizes[0]), self.sizes[1])
        shown = board.picture(s.kind, s.field, row, s.extent, VIEW if s.shapes else int(size))
        png = board.save_picture(self._file(".png"), shown)
        path = board.write_glb(self._file(".glb"), s.kind, s.field, row, int(size)) if s.shapes else None
        mesh = None if path is None else str(path)
        return None if s.shapes else shown, mesh, str(png), mesh

    # -- completion ----------------------------------------------------------------------------------------------------

    def take_held_out(self, number: float, part: str) -> tuple:
        """A held-out field to complete: its tokens, which of them stay, its board, text."""
        name, given = self.studio.held_out(_whole(number, "number of the held-out field"))
        return self._given(given, part, f"Held-out field {one_line(name, 60)}")

    def take_first(self, given: Drawn | None, kept: torch.Tensor | None, drawn: Drawn | None, part: str) -> tuple:
        """What is shown when nothing has been taken yet: the first held-out field, without data the first new one."""
        if given is not None and kept is not None:
            return given, kept, self.given_board(given, kept), self._kept_text("Given field", kept)
        return self.take_held_out(0, part) if self.studio.data is not None else self.take_drawn(drawn, 0, part)

    def take_drawn(self, drawn: Drawn | None, i: int, part: str) -> tuple:
        """A new field to complete."""
        if drawn is None or not len(drawn):
            raise ValueError("draw some fields first.")
        i = min(int(i), len(drawn) - 1)
        given = Drawn(drawn.weights[i : i + 1], drawn.codes[i : i + 1], drawn.labels[i : i + 1])
        return self._given(given, part, f"New field {self.caption(drawn, i)}")

    def take_picture(self, drawing: Any, part: str) -> tuple:
        """A field fitted to a drawing on black."""
        ink = self.ink(drawing)
        if not ink.any():
            raise ValueError("draw something first: choose the pen at the left of the pad.")
        return self._given(self.studio.of_picture(ink), part, "Your drawing, fitted and turned into tokens")

    @staticmethod
    def ink(drawing: Any) -> np.ndarray:
        """(H, W) floats in [0, 1] of what Gradio's sketchpad gives: the layers' opacity is the ink."""
        layers = [np.asarray(layer) for layer in (drawing or {}).get("layers", []) if layer is not None]
        if not layers:
            return np.zeros((1, 1))
        return (
            np.max([layer[..., 3] if layer.ndim == 3 and layer.shape[2] == 4 else layer for layer in layers], 0) / 255
        )

    def _given(self, given: Drawn, part: str, said: str) -> tuple:
        kept = board.part(part, given.codes.shape[1], self.studio.grid)
        return given, kept, self.given_board(given, kept), self._kept_text(said, kept)

    @staticmethod
    def _kept_text(said: str, kept: torch.Tensor) -> str:
        return f"{said}: {int(kept.sum())} of {len(kept)} tokens kept; the gray ones will be drawn. Touch a cell to change it."

    def given_board(self, given: Drawn, kept: torch.Tensor) -> np.ndarray:
        """The tokens of a given field, those that do not stay in gray."""
        s = self.studio
        under = board.picture(s.kind, s.field, given.weights[0], s.extent, board.BOARD)
        return board.board(given.codes[0], s.grid, kept, under)

    def choose_part(self, given: Drawn | None, part: str) -> tuple:
        """Keep another part of the tokens."""
        if given is None:
            return None, None, "Take a field first."
        kept = board.part(part, given.codes.shape[1], self.studio.grid)
        return kept, self.given_board(given, kept), self._kept_text("Given field", kept)

    def touch(self, given: Drawn | None, kept: torch.Tensor | None, x: float, y: float) -> tuple:
        """Keep the token at a pixel of the board, or no longer."""
        if given is None or kept is None:
            return None, None, "Take a field first."
        t = board.cell_at(x, y, self.given_board(given, kept).shape, len(kept), self.studio.grid)
        return self._changed(given, kept, [] if t is None else [t])

    def change(self, given: Drawn | None, kept: torch.Tensor | None, text: str) -> tuple:
        """Keep the tokens that a text names, or no longer: what `touch` does, from the keyboard."""
        if given is None or kept is None:
            return None, None, "Take a field first."
        return self._changed(given, kept, board.named(text, len(kept), self.studio.grid))

    def _changed(self, given: Drawn, kept: torch.Tensor, places: list[int]) -> tuple:
        kept = kept.clone()
        kept[places] = ~kept[places]
        return kept, self.given_board(given, kept), self._kept_text("Given field", kept)

    def complete(
        self,
        given: Drawn | None,
        kept: torch.Tensor | None,
        label: str | None,
        temperature: float,
        top_p: float,
        seed: float,
        guidance: float,
    ) -> tuple[list, str]:
        """Eight completions, the given field first."""
        if given is None or kept is None:
            raise ValueError("choose a field to complete first.")
        s, known = self.studio, int(given.labels[0])
        if label == ANY:  # the given field's own, where it has one
            label = s.label_names[known] if 0 <= known < len(s.label_names) else None
        seed = _whole(seed, "seed")
        made = s.complete(given.codes[0], kept, 8, label, temperature, top_p, seed, guidance)
        first = (board.grid_picture(s.kind, s.field, given.weights[0], s.extent), "given")
        return [
            first,
            *self.gallery(made),
        ], f"{len(made)} completions, seed {seed}: all keep the same {int(kept.sum())} tokens."

    # -- walk ----------------------------------------------------------------------------------------------------------

    def walk(
        self, drawn: Drawn | None, a: float, b: float, size: float, progress: Callable[[int, int], Any] | None = None
    ) -> tuple:
        """A walk between two new fields: the fields on it, a strip of them, a GIF."""
        if drawn is None or len(drawn) < 2:
            raise ValueError("draw at least two fields first.")
        s, last = self.studio, len(drawn) - 1
        ends = [min(_whole(number, "number of a field"), last) for number in (a, b)]
        rows = board.walk(drawn.weights[ends[0]], drawn.weights[ends[1]], STEPS)
        chosen = torch.linspace(0, STEPS - 1, STRIP).round().long()
        strip = [
            (board.grid_picture(s.kind, s.field, rows[k], s.extent), f"{int(k) / (STEPS - 1):.2f}") for k in chosen
        ]
        frames, longest = (rows[::3], 256) if s.shapes else (rows, min(256, int(size)))
        gif = board.write_walk(self._file(".gif"), s.kind, s.field, frames, s.extent, longest, progress)
        return rows, strip, str(gif), str(gif)

    def on_walk(self, rows: torch.Tensor | None, t: float) -> np.ndarray | None:
        """The field at a place of the walk, 0 to 1."""
        if rows is None:
            return None
        s, at = self.studio, t * (len(rows) - 1)
        low = min(int(at), len(rows) - 2)
        row = (1 - (at - low)) * rows[low] + (at - low) * rows[low + 1]
        return board.picture(s.kind, s.field, row, s.extent, 384)


def _whole(number: float | None, what: str) -> int:
    """A whole number from a box of the page, which may be empty.

    Raises:
        ValueError: for no number, or one below 0.
    """
    if number is None or number < 0:
        raise ValueError(f"the {what} must be 0 or more, got {'nothing' if number is None else int(number)}.")
    return int(number)


def build_page(studio: Studio, title: str, folder: Path) -> Any:
    """The page as Gradio blocks, not yet served; files to download are written into the folder."""
    import gradio as gr

    page = Handlers(studio, folder)

    def said(work: Any) -> Any:
        """A mistake of the user becomes a message on the page."""

        def run(*values: Any) -> Any:
            try:
                return work(*values)
            except ValueError as error:
                raise gr.Error(str(error)[:1].upper() + str(error)[1:], print_exception=False) from None

        return run

    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as blocks:
        drawn, chosen, given, kept, path = gr.State(), gr.State(0), gr.State(), gr.State(), gr.State()
        gr.Markdown(f"# {title}\n{WHAT[studio.shapes]}")
        new = _new_fields(studio)
        with gr.Tab("Chosen field"):
            one = _one_field(studio)
        with gr.Tab("Complete") as completion_tab:
            part = _completion(studio)
        with gr.Tab("Walk") as walk_tab:
            way = _walk()

        def pick(event: gr.SelectData) -> int:
            return event.index

        def point(field: Any, marks: Any, event: gr.SelectData) -> tuple:
            return said(page.touch)(field, marks, *event.index)

        def near(fields: Any, i: int, progress: Any = gr.Progress()) -> tuple:  # noqa: B008 the way Gradio gives it
            return page.nearest(
                fields, i, lambda done, of: progress((done, of), desc="reading the training fields, once")
            )

        def go(fields: Any, a: float, b: float, size: float, progress: Any = gr.Progress()) -> tuple:  # noqa: B008
            return said(page.walk)(fields, a, b, size, lambda done, of: progress((done, of), desc="drawing the walk"))

        rules = [new.temperature, new.top_p, new.seed, new.guidance]

        def look(event: Any) -> None:
            done = event.then(said(page.details), [drawn, chosen, one.size], one.shown)
            done.then(near, [drawn, chosen], [one.nearest, one.how_near], show_progress_on=one.nearest)

        for listen in (new.draw.click, new.seed.submit, blocks.load):
            event = listen(said(page.draw), [new.label, *rules, new.n], [drawn, new.grid, new.status])
            look(
                event.then(lambda: (0, gr.Gallery(selected_index=0)), None, [chosen, new.grid], show_progress="hidden")
            )
        look(new.grid.select(pick, None, chosen, show_progress="hidden"))
        sized = [one.picture, one.mesh, one.png, one.glb]
        for listen in (one.size.release, one.size.input):
            listen(
                said(page.show),
                [drawn, chosen, one.size],
                sized,
                trigger_mode="always_last",
                show_progress_on=sized[:2],
            )
        taken, marked = [given, kept, part.board, part.what], [kept, part.board, part.what]
        part.held.click(said(page.take_held_out), [part.number, part.part], taken)
        part.mine.click(said(page.take_drawn), [drawn, chosen, part.part], taken)
        part.fitted.click(said(page.take_picture), [part.pad, part.part], taken)
        completion_tab.select(said(page.take_first), [given, kept, drawn, part.part], taken)
        part.part.input(said(page.choose_part), [given, part.part], marked)
        part.board.select(point, [given, kept], marked)
        part.named.submit(said(page.change), [given, kept, part.named], marked)
        part.go.click(said(page.complete), [given, kept, new.label, *rules], [part.completed, part.outcome])
        walked = [path, way.strip, way.film, way.gif]
        for event in (
            way.go.click(go, [drawn, way.a, way.b, one.size], walked, show_progress_on=[way.strip, way.film]),
            walk_tab.select(go, [drawn, way.a, way.b, one.size], walked, show_progress_on=[way.strip, way.film]),
        ):
            event.then(page.on_walk, [path, way.t], way.place)
        for listen in (way.t.release, way.t.input):
            listen(page.on_walk, [path, way.t], way.place, trigger_mode="always_last", show_progress="hidden")
    return blocks


def _gallery(**settings: Any) -> Any:
    """Pictures with captions, one of which can be chosen."""
    import gradio as gr

    return gr.Gallery(height="auto", show_label=False, allow_preview=False, buttons=[], **settings)


def _wide(studio: Studio) -> list[str]:
    """Wider pictures where names of classes stand under them."""
    return ["named"] if any(len(name) > 3 for name in studio.label_names) else []


def _new_fields(studio: Studio) -> SimpleNamespace:
    """Settings, the button, and the grid: above all tabs, which all use its fields."""
    import gradio as gr

    made = SimpleNamespace()
    with gr.Row(elem_id="settings"):
        made.label = gr.Dropdown(
            [ANY, *studio.label_names], value=ANY, label="Label", visible=bool(studio.label_names), min_width=130
        )
        made.temperature = gr.Slider(0, 1.5, 1.0, step=0.05, label="Temperature", min_width=130, buttons=[])
        made.top_p = gr.Slider(0.05, 1, 1.0, step=0.05, label="Top-p", min_width=130, buttons=[])
        made.guidance = gr.Slider(
            0, 5, 1.0, step=0.25, label="Guidance", visible=studio.guided, min_width=130, buttons=[]
        )
        made.seed = gr.Number(0, label="Seed", precision=0, min_width=130)
        made.n = gr.Slider(2, 32, 8 if studio.shapes else 16, step=1, label="Fields", min_width=130, buttons=[])
    made.draw = gr.Button("Draw new fields", variant="primary", elem_id="draw")
    made.status = gr.Markdown(elem_id="status")
    made.grid = _gallery(
        columns=8,
        label="New fields",
        elem_id="grid",
        object_fit="contain",
        selected_index=0,
        elem_classes=_wide(studio),
    )
    return made


def _one_field(studio: Studio) -> SimpleNamespace:
    """The chosen field: at any size, its tokens, its nearest training field, downloads, its weights."""
    import gradio as gr

    made, shapes = SimpleNamespace(), studio.shapes
    made.size = gr.Slider(
        *(board.CELLS if shapes else board.SIZES), MESH_CELLS if shapes else 256, step=8, elem_id="size",
        label="Cells along an edge of the mesh" if shapes else "Size in pixels (a field has no resolution of its own)",
    )  # fmt: skip
    with gr.Row():
        with gr.Column(min_width=260):
            made.picture = gr.Image(
                label="The field", visible=not shapes, format="png", elem_id="picture", buttons=["fullscreen"]
            )
            made.mesh = gr.Model3D(
                label="The field (drag to turn it)", visible=shapes, elem_id="mesh", height=360, clear_color=NIGHT
            )
            made.about = gr.Markdown(elem_id="about")
        with gr.Column(min_width=260):
            made.tokens = gr.Image(
                label="Its tokens", show_label=False,
                elem_id="tokens", buttons=["fullscreen"],
            )  # fmt: skip
            gr.Markdown(TOKENS[bool(studio.grid)])
        with gr.Column(min_width=260):
            made.nearest = gr.Image(label="Nearest training field", elem_id="nearest", buttons=["fullscreen"])
            made.how_near = gr.Markdown(elem_id="how-near")
    with gr.Row():
        made.png = gr.DownloadButton("Download PNG", elem_id="png")
        made.glb = gr.DownloadButton("Download GLB", visible=shapes, elem_id="glb")
        made.tensors = gr.DownloadButton("Download weights (safetensors)", elem_id="tensors")
    gr.Markdown(
        "Its weights, one matrix per layer: a row per neuron, a column per input, the bias last; red is positive, blue "
        "negative."
    )
    made.heat = gr.Image(label="Its weights", show_label=False, elem_id="heat", buttons=["fullscreen"])
    made.shown = [made.picture, made.mesh, made.heat, made.tokens, made.about, made.png, made.glb, made.tensors]
    return made


def _completion(studio: Studio) -> SimpleNamespace:
    """A field to complete, the tokens of it that are kept, and what the model makes of them."""
    import gradio as gr

    made, shapes, parts = SimpleNamespace(), studio.shapes, PARTS[studio.grid is not None]
    gr.Markdown(
        "Keep some tokens of a field; the GPT draws the others, from left to right and from top to bottom, with the "
        "settings above."
    )
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300):
            gr.Markdown("### 1. Take a field")
            with gr.Row(equal_height=True, visible=studio.data is not None):
                made.number = gr.Number(0, label="Number of the held-out field", precision=0, min_width=130)
                made.held = gr.Button("Take the held-out field", elem_id="held", min_width=130)
            made.mine = gr.Button("Take the chosen new field", elem_id="mine")
            made.pad = gr.Sketchpad(
                label="Draw here", visible=not shapes, canvas_size=(280, 280), layers=False, elem_id="pad", height=360,
                brush=gr.Brush(default_size=22, colors=["#000000"], default_color="#000000", color_mode="fixed"),
                transforms=(), buttons=[],
            )  # fmt: skip
            made.fitted = gr.Button("Take the drawing", visible=not shapes, elem_id="fitted")
        with gr.Column(min_width=300):
            gr.Markdown("### 2. Keep some of its tokens")
            made.part = gr.Radio(parts, value=parts[0], show_label=False, container=False, elem_id="part")
            made.board = gr.Image(
                label="Tokens kept", show_label=False, interactive=False, elem_id="kept", buttons=["fullscreen"]
            )
            made.what = gr.Markdown(elem_id="kept-text")
            made.named = gr.Textbox(
                label="From the keyboard: row:column, from 1, then Enter", placeholder="2:3 or 1-4:2-6", max_lines=1,
                elem_id="named",
            )  # fmt: skip
    gr.Markdown("### 3. Let the GPT draw the others")
    made.go = gr.Button("Complete", variant="primary", elem_id="complete")
    made.outcome = gr.Markdown(elem_id="completed")
    made.completed = _gallery(columns=9, label="Completions", elem_id="completions", elem_classes=_wide(studio))
    return made


def _walk() -> SimpleNamespace:
    """Two of the new fields, and the fields on the straight line between them."""
    import gradio as gr

    made = SimpleNamespace()
    gr.Markdown("A straight line through weight space from one of the new fields above to another, by their numbers.")
    with gr.Row(equal_height=True):
        made.a = gr.Number(0, label="From field", precision=0, min_width=100)
        made.b = gr.Number(1, label="To field", precision=0, min_width=100)
        made.go = gr.Button("Walk", variant="primary", elem_id="walk", min_width=100)
    made.strip = _gallery(columns=STRIP, label="On the way", elem_id="strip")
    made.t = gr.Slider(0, 1, 0.5, step=0.01, label="Place on the way (0 = first field, 1 = second)", elem_id="place-at")
    with gr.Row():
        made.place = gr.Image(label="The field there", format="png", elem_id="place", buttons=["fullscreen"])
        with gr.Column():
            made.film = gr.Image(label="There and back", elem_id="film", buttons=["fullscreen"])
            made.gif = gr.DownloadButton("Download GIF", elem_id="gif")
    return made
