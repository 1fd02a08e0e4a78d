"""The page: Gradio widgets around a `Studio`. Each button calls one function of plain values, named below."""

import atexit
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
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
PARTS = ("upper half", "left half", "all", "none")
MESH_CELLS = 64
CSS = """
.gradio-container { max-width: 76rem !important; margin: auto; }
#kept img { cursor: pointer; }
.grid-wrap, .gallery-container { height: auto !important; min-height: 0 !important; max-height: none !important; }
.grid-container { grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)) !important; height: auto !important; }
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
NAMING = """() => {
  const names = NAMES;
  const name = () => {
    for (const [id, text] of Object.entries(names))
      for (const image of document.querySelectorAll(`#${id} img`)) if (image.alt !== text) image.alt = text;
  };
  new MutationObserver(name).observe(document.body, { subtree: true, childList: true });
  name();
}""".replace("NAMES", json.dumps(ALT))


class Handlers:
    """What the buttons of one page do; a session's fields live in the browser session's state, not here.

    Attributes:
        studio: the model.
        folder: where files to download are written.
    """

    def __init__(self, studio: Studio, folder: Path):
        self.studio, self.folder = studio, folder

    def _file(self, suffix: str) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder)) / f"field{suffix}"

    # -- new fields ----------------------------------------------------------------------------------------------------

    def draw(
        self, label: str, temperature: float, top_p: float, seed: float, guidance: float, n: float
    ) -> tuple[Drawn, list, str]:
        """New fields, their pictures with captions, and what came of it."""
        drawn = self.studio.draw(int(n), None if label == ANY else label, temperature, top_p, int(seed), guidance)
        lost = int(n) - len(drawn)
        said = f"{len(drawn)} new fields, seed {int(seed)}." + (f" {lost} could not be decoded." if lost else "")
        return drawn, self.gallery(drawn), said + " Choose one to see its weights and tokens."

    def gallery(self, drawn: Drawn) -> list[tuple[np.ndarray, str]]:
        """Pictures with captions."""
        s = self.studio
        return [
            (board.grid_picture(s.kind, s.field, row, s.extent), self.caption(drawn, i))
            for i, row in enumerate(drawn.weights)
        ]

    def caption(self, drawn: Drawn, i: int) -> str:
        """The number of a field and its label."""
        label, names = int(drawn.labels[i]), self.studio.label_names
        return f"{i}: {one_line(names[label], 20)}" if 0 <= label < len(names) else str(i)

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
        picture, mesh = self.show(drawn, i, size)
        small = board.picture(s.kind, s.field, row, s.extent, board.BOARD)
        tokens = board.board(drawn.codes[i], s.grid, under=small)
        where = ", each where its region lies" if s.grid else ""
        said = f"Field {self.caption(drawn, i)}; {s.field.size:,} weights, {len(drawn.codes[i])} tokens{where}."
        png = board.write_png(self._file(".png"), s.kind, s.field, row, s.extent, int(size))
        weights = board.write_weights(self._file(".safetensors"), s.field, row)
        heat = to_uint8(weight_map(s.field, row)).numpy()
        return picture, mesh, heat, tokens, said, str(png), mesh, str(weights)

    def nearest(self, drawn: Drawn | None, i: int) -> tuple[np.ndarray | None, str]:
        """The training field that is nearest to a new one, and how near: the first time, all of them are evaluated."""
        if drawn is None or not len(drawn):
            return None, ""
        s = self.studio
        near = s.nearest(drawn.weights[min(int(i), len(drawn) - 1)])
        if near is None:
            return None, "No training data at hand: start with --fields to see the nearest training field."
        said = f"Nearest training field: {one_line(near.signal, 60)}, values differ by {near.distance:.3f} (r.m.s.)."
        return board.picture(s.kind, s.field, near.weights, s.extent, 256), said

    def show(self, drawn: Drawn | None, i: int, size: float) -> tuple[np.ndarray | None, str | None]:
        """One field at a size: a picture, or the file of a mesh."""
        if drawn is None or not len(drawn):
            return None, None
        s, row = self.studio, drawn.weights[min(int(i), len(drawn) - 1)]
        if not s.shapes:
            return board.picture(s.kind, s.field, row, s.extent, int(size)), None
        path = board.write_glb(self._file(".glb"), s.kind, s.field, row, int(size))
        return None, None if path is None else str(path)

    # -- completion ----------------------------------------------------------------------------------------------------

    def take_held_out(self, number: float, part: str) -> tuple:
        """A held-out field to complete: its tokens, which of them stay, its board, text."""
        name, given = self.studio.held_out(int(number))
        return self._given(given, part, f"{one_line(name, 60)}, held out")

    def take_drawn(self, drawn: Drawn | None, i: int, part: str) -> tuple:
        """A new field to complete."""
        if drawn is None or not len(drawn):
            raise ValueError("draw some fields first.")
        i = min(int(i), len(drawn) - 1)
        given = Drawn(drawn.weights[i : i + 1], drawn.codes[i : i + 1], drawn.labels[i : i + 1])
        return self._given(given, part, f"new field {self.caption(drawn, i)}")

    def take_picture(self, drawing: Any, part: str) -> tuple:
        """A field fitted to a drawing on black."""
        ink = self.ink(drawing)
        if not ink.any():
            raise ValueError("draw something first, in white on black.")
        return self._given(self.studio.of_picture(ink), part, "your drawing, fitted and turned into tokens")

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
        return f"{said}: {int(kept.sum())} of {len(kept)} tokens kept, the gray ones will be drawn. Touch one to change it."

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
        return kept, self.given_board(given, kept), self._kept_text("given field", kept)

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
        return kept, self.given_board(given, kept), self._kept_text("given field", kept)

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
        made = s.complete(given.codes[0], kept, 8, label, temperature, top_p, int(seed), guidance)
        first = (board.grid_picture(s.kind, s.field, given.weights[0], s.extent), "given")
        return [first, *self.gallery(made)], f"{len(made)} completions of {int(kept.sum())} kept tokens."

    # -- walk ----------------------------------------------------------------------------------------------------------

    def walk(self, drawn: Drawn | None, a: float, b: float, size: float) -> tuple:
        """A walk between two new fields: the fields on it, a strip of them, a GIF."""
        if drawn is None or len(drawn) < 2:
            raise ValueError("draw at least two fields first.")
        s, last = self.studio, len(drawn) - 1
        rows = board.walk(drawn.weights[min(int(a), last)], drawn.weights[min(int(b), last)], STEPS)
        chosen = torch.linspace(0, STEPS - 1, STRIP).round().long()
        strip = [
            (board.grid_picture(s.kind, s.field, rows[k], s.extent), f"{int(k) / (STEPS - 1):.2f}") for k in chosen
        ]
        frames = rows if not s.shapes else rows[::3]
        gif = board.write_walk(self._file(".gif"), s.kind, s.field, frames, s.extent, min(256, int(size)))
        return rows, strip, str(gif), str(gif)

    def on_walk(self, rows: torch.Tensor | None, t: float) -> np.ndarray | None:
        """The field at a place of the walk, 0 to 1."""
        if rows is None:
            return None
        s, at = self.studio, t * (len(rows) - 1)
        low = min(int(at), len(rows) - 2)
        row = (1 - (at - low)) * rows[low] + (at - low) * rows[low + 1]
        return board.picture(s.kind, s.field, row, s.extent, 384)


def build_page(studio: Studio, title: str) -> Any:
    """The page as Gradio blocks, not yet served."""
    import gradio as gr

    folder = Path(tempfile.mkdtemp(prefix="fields-demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    page, shapes, longest = Handlers(studio, folder), studio.shapes, board.CELLS if studio.shapes else board.SIZES

    gallery = partial(gr.Gallery, height="auto", show_label=False, allow_preview=False)

    def said(work: Any) -> Any:
        """A mistake of the user becomes a message on the page."""

        def run(*values: Any) -> Any:
            try:
                return work(*values)
            except ValueError as error:
                raise gr.Error(str(error), print_exception=False) from None

        return run

    with gr.Blocks(title=title, analytics_enabled=False) as blocks:
        drawn, chosen, given, kept, path = gr.State(), gr.State(0), gr.State(), gr.State(), gr.State()
        gr.Markdown(f"# {title}\nEvery picture here is a small neural network whose weights a GPT wrote as tokens.")
        with gr.Row():
            label = gr.Dropdown([ANY, *studio.label_names], value=ANY, label="Label", visible=bool(studio.label_names))
            temperature = gr.Slider(0, 1.5, 1.0, step=0.05, label="Temperature")
            top_p = gr.Slider(0.05, 1, 1.0, step=0.05, label="Top-p")
            guidance = gr.Slider(0, 5, 1.0, step=0.25, label="Guidance", visible=studio.guided)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            n = gr.Slider(2, 32, 8 if shapes else 16, step=1, label="Fields")
        rules = [temperature, top_p, seed, guidance]
        with gr.Tab("New fields"):
            go = gr.Button("Draw", variant="primary", elem_id="draw")
            status = gr.Markdown(elem_id="status")
            grid = gallery(columns=8, label="New fields", elem_id="grid", object_fit="contain")
            size = gr.Slider(
                *longest, MESH_CELLS if shapes else 256, step=8, elem_id="size",
                label="Cells along an edge of the mesh" if shapes else "Size in pixels: a field has none of its own",
            )  # fmt: skip
            with gr.Row():
                with gr.Column():
                    picture = gr.Image(
                        label="The field", visible=not shapes, format="png", elem_id="picture", buttons=["fullscreen"]
                    )
                    mesh = gr.Model3D(label="The field, to be turned", visible=shapes, elem_id="mesh")
                with gr.Column():
                    tokens = gr.Image(
                        show_label=False,
                        label="Its tokens" + (" on the grid of regions" if studio.grid else ""),
                        elem_id="tokens",
                        buttons=["fullscreen"],
                    )
                    about = gr.Markdown(elem_id="about")
                with gr.Column():
                    near = gr.Image(label="Nearest training field", elem_id="nearest", buttons=["fullscreen"])
                    how_near = gr.Markdown(elem_id="how-near")
            gr.Markdown("Its weights: a matrix per layer, the bias last.")
            heat = gr.Image(
                show_label=False,
                label="Its weights: a matrix per layer, the bias last",
                elem_id="heat",
                buttons=["fullscreen"],
            )
            with gr.Row():
                png = gr.DownloadButton("PNG")
                glb = gr.DownloadButton("GLB", visible=shapes)
                tensors = gr.DownloadButton("safetensors")
        shown = [picture, mesh, heat, tokens, about, png, glb, tensors]
        with gr.Tab("Complete"):
            gr.Markdown(
                "Keep some tokens of a field; the GPT draws the others, from left to right and from top to bottom."
            )
            with gr.Row():
                number = gr.Number(0, label="Held-out field", precision=0, minimum=0)
                part = gr.Radio(PARTS, value=PARTS[0], label="Keep")
            with gr.Row():
                held = gr.Button("Take a held-out field", interactive=studio.data is not None, elem_id="held")
                mine = gr.Button("Take the chosen new field")
                fitted = gr.Button("Take the drawing", visible=not shapes)
            with gr.Row():
                pad = gr.Sketchpad(
                    label="Draw here, white on black", visible=not shapes, canvas_size=(280, 280), layers=False, elem_id="pad",
                    brush=gr.Brush(default_size=22, colors=["#ffffff"], color_mode="fixed"),
                )  # fmt: skip
                with gr.Column():
                    what = gr.Markdown(elem_id="kept-text")
                    tokens_kept = gr.Image(
                        show_label=False, label="Tokens kept", interactive=False, elem_id="kept", buttons=["fullscreen"]
                    )
                    named = gr.Textbox(
                        label="Or name tokens, row:column from 1, and press Enter",
                        placeholder="2:3 or 1-4:2-6",
                        max_lines=1,
                        elem_id="named",
                    )
            more = gr.Button("Complete", variant="primary", elem_id="complete")
            outcome = gr.Markdown(elem_id="completed")
            completed = gallery(columns=9, label="Completions", elem_id="completions")
        with gr.Tab("Walk"):
            gr.Markdown("A straight line through weight space from one new field to another.")
            with gr.Row():
                a = gr.Number(0, label="From field", precision=0, minimum=0)
                b = gr.Number(1, label="To field", precision=0, minimum=0)
            start = gr.Button("Walk", variant="primary", elem_id="walk")
            strip = gallery(columns=STRIP, label="On the way", elem_id="strip")
            t = gr.Slider(0, 1, 0.5, step=0.01, label="Place on the way")
            with gr.Row():
                place = gr.Image(label="The field there", format="png", elem_id="place", buttons=["fullscreen"])
                film = gr.Image(label="There and back", elem_id="film", buttons=["fullscreen"])
            gif = gr.DownloadButton("GIF")

        def pick(event: gr.SelectData) -> int:
            return event.index

        def point(field: Any, marks: Any, event: gr.SelectData) -> tuple:
            return said(page.touch)(field, marks, *event.index)

        draws = [go.click, blocks.load]

        def look(event: Any) -> None:
            done = event.then(said(page.details), [drawn, chosen, size], shown)
            done.then(said(page.nearest), [drawn, chosen], [near, how_near])

        for listen in draws:
            look(listen(said(page.draw), [label, *rules, n], [drawn, grid, status]).then(lambda: 0, None, chosen))
        look(grid.select(pick, None, chosen))
        size.release(said(page.show), [drawn, chosen, size], [picture, mesh])
        completing = [given, kept, tokens_kept, what]
        held.click(said(page.take_held_out), [number, part], completing)
        mine.click(said(page.take_drawn), [drawn, chosen, part], completing)
        fitted.click(said(page.take_picture), [pad, part], completing)
        part.input(said(page.choose_part), [given, part], [kept, tokens_kept, what])
        tokens_kept.select(point, [given, kept], [kept, tokens_kept, what])
        named.submit(said(page.change), [given, kept, named], [kept, tokens_kept, what])
        more.click(said(page.complete), [given, kept, label, *rules], [completed, outcome])
        start.click(said(page.walk), [drawn, a, b, size], [path, strip, film, gif]).then(page.on_walk, [path, t], place)
        t.release(page.on_walk, [path, t], place)
    return blocks
