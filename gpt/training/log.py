"""metrics.jsonl and training.png."""

import json
import math
from pathlib import Path
from typing import Any

from fields.runtime.records import add_line, read_lines
from fields.runtime.runs import plain, write_atomic


class MetricsLog:
    """One JSON object per line, appended as training goes on."""

    def __init__(self, path: Path):
        self.path = Path(path)

    def read(self) -> list[dict[str, Any]]:
        """All lines; a last one cut off by a crash is left out."""
        return [row for row in read_lines(self.path) if isinstance(row.get("step"), int)]

    def rewind(self, step: int) -> None:
        """Drop what was logged after `step`: a resumed run writes those lines again."""
        known = self.read()
        rows = [row for row in known if row["step"] <= step]
        if rows == known:
            return
        with write_atomic(self.path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def add(self, **values: Any) -> None:
        """Append a line."""
        add_line(self.path, json.dumps(plain(values)))


def draw_curves(path: Path, rows: list[dict[str, Any]], to_bits: float) -> None:
    """training.png: bits per field over steps, training and validation, with the unigram as a line.

    Args:
        path: of the picture.
        rows: of metrics.jsonl.
        to_bits: factor from nats per token to bits per field.
    """
    from matplotlib.figure import Figure  # no pyplot: it would choose a backend and keep global state

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    steps = [(r["step"], r["loss"] * to_bits) for r in rows if math.isfinite(r.get("loss", math.nan))]
    if steps:
        axes.plot(*zip(*steps, strict=True), color="0.7", linewidth=0.8, label="training batch (all targets)")
    held_out = [(r["step"], r["bits_per_field"]) for r in rows if "bits_per_field" in r]
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color="C0", marker=".", label="validation")
        unigram = next(r["unigram_bits_per_field"] for r in rows if "unigram_bits_per_field" in r)
        axes.axhline(unigram, color="C3", linestyle="--", label="per-position unigram")
    if steps or held_out:
        axes.legend(frameon=False)
    axes.set(xlabel="step", ylabel="bits per field")
    axes.spines[["top", "right"]].set_visible(False)
    with write_atomic(path) as temporary:
        figure.savefig(temporary)
