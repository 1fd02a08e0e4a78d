"""What a comparison writes: comparison.json, comparison.md, report.html, comparison.png (samples of all rows) and bits.png."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.runtime import console
from fields.runtime.runs import write_atomic, write_json
from fields.runtime.text import escape_markdown, markdown_table
from fields.view.page import Cell, Page, cell_under, estimate_tip, number_under, value_under
from fields.view.render import caption, save_png, sheet
from gpt.evaluation.items import SignalSet, row_kind
from gpt.evaluation.report import classifier_note

PAD = 2
SHOWN = 16
"""Pictures in a row of the sheet."""
COLUMNS = (
    ("tokens", "tokens_per_field", "d"),
    ("codes", "codes", "d"),
    ("bits per field: GPT", "trained.model_bits_per_field", ",.1f"),
    ("unigram", "trained.unigram_bits_per_field", ",.1f"),
    ("steps", "trained.steps", ",d"),
    ("tokens/s", "trained.tokens_per_second", ",.0f"),
    ("N", "evaluated.n", "d"),
    ("1-NNA L2", "evaluated.l2.1-nna", ".3f"),
    ("1-NNA SSIM", "evaluated.ssim.1-nna", ".3f"),
    ("COV L2", "evaluated.l2.cov", ".3f"),
    ("MMD L2", "evaluated.l2.mmd", ".2f"),
    ("FID", "evaluated.fid", ".1f"),
    ("label accuracy", "evaluated.label_accuracy", ".3f"),
    ("FID of the round trip", "evaluated.round_trip_fid", ".1f"),
    ("FID of the unigram", "evaluated.unigram_fid", ".1f"),
    ("Z_U pixels", "evaluated.novelty.z_u_pixels", "+.1f"),
    ("near copies", "evaluated.novelty.near_copies", ".1%"),
    ("token copies", "evaluated.novelty.token_copies", ".1%"),
)
"""Heading, where it lies in a row, format."""


def write_report(out: Path, result: dict[str, Any], pictures: list[Tensor], references: SignalSet) -> str:
    """Write the files; returns what the screen shows."""
    write_json(out / "comparison.json", result)
    text = markdown(result)
    with write_atomic(out / "comparison.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    names = [f"{row['name']}: {_short(row)}" for row in result["rows"]]
    save_png(
        out / "comparison.png",
        picture_sheet([*pictures, references.images[:SHOWN]], [*names, f"held out: {references.name}"]),
    )
    draw_bits(out / "bits.png", result)
    page(out, result).write(out / "report.html")
    return screen(result)


SCREEN = (
    *("bits per field: GPT", "unigram", "steps", "N"),
    *("1-NNA L2", "FID", "label accuracy", "Z_U pixels", "near copies"),
)
"""Columns that fit a terminal."""


def table_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of all vocabularies, then the lines without one as such rows."""
    return [*result["rows"], *({"name": line["name"], "evaluated": line} for line in result["others"])]


def screen(result: dict[str, Any]) -> str:
    """The main columns, without intervals."""
    shown = [column for column in COLUMNS if column[0] in SCREEN]
    lines = []
    for row in table_rows(result):
        values = [(number_under(row, key), form) for _, key, form in shown]
        lines.append([row["name"], *("" if value is None else format(value, form) for value, form in values)])
    return console.text_table(["vocabulary", *(head for head, _, _ in shown)], lines)


def page(out: Path, result: dict[str, Any]) -> Page:
    """The comparison as one file to look at, with the pictures in its folder."""
    made = Page("Comparison of vocabularies", f"{result['protocol'].capitalize()}.")
    table = [[row["name"], *(_explained(row, key, form) for _, key, form in COLUMNS)] for row in table_rows(result)]
    made.table(["vocabulary", *(head for head, _, _ in COLUMNS)], table, main=range(len(result["rows"])))
    made.text("Point at a heading, a name or a number, or touch it, to see what stands behind it.")
    made.heading("Samples")
    made.picture(out / "comparison.png", "New fields of each GPT, and held-out signals", pixels=True)
    made.heading("Bits and what they buy")
    made.picture(
        out / "bits.png",
        "FID over validation bits per field: from the unigram (hollow) to the GPT (dot); the short line is the round trip's",
    )
    made.heading("Notes")
    made.notes(footnotes(result))
    made.made_by(out / "run.json")
    return made


def _explained(row: dict[str, Any], key: str, form: str) -> str | Cell:
    found = value_under(row, key)
    if found is None:
        return ""
    return (
        Cell(cell_under(row, key, form), estimate_tip(found)) if isinstance(found, dict) else cell_under(row, key, form)
    )


def markdown(result: dict[str, Any]) -> str:
    """comparison.md: vocabularies, lines without one, then what a reader must know."""
    lines = []
    for i, row in enumerate(table_rows(result)):
        told = i < len(result["rows"])  # the others lack the numbers of a GPT and of a vocabulary
        cells = ["" if not told and value_under(row, k) is None else cell_under(row, k, form) for _, k, form in COLUMNS]
        lines.append([row["name"], *cells])
    table = markdown_table(["vocabulary", *(head for head, _, _ in COLUMNS)], lines)
    notes = "\n".join(f"- {escape_markdown(note)}" for note in footnotes(result))
    return f"{table}\n\n{notes}\n"


def footnotes(result: dict[str, Any]) -> list[str]:
    """Training, references, classifier, meaning of the columns, and every note of a row."""
    asked, refs, classifier = result["settings"], result["references"], result["classifier"]
    length = [f"{asked['minutes']:g} minutes (in steps at the machine's best speed)"] if asked["minutes"] else []
    length += [f"at most {asked['steps']:,} steps"] if asked["steps"] else []
    sizes = ", ".join(f"{k} {v}" for k, v in asked["model"].items())
    lines = [
        f"Each GPT ({sizes}): {', '.join(length)}, {asked['batch']} fields a step, lr {asked['lr']:g}, seed {asked['seed']}; "
        f"the model of the best validation draws, temperature {asked['temperature']:g}.",
        f"References: {refs['name']}, {'; '.join(refs['notes'])}. {result['protocol'].capitalize()}.",
        "± is half of a 95 % interval: bootstrap of per-point scores (1,000 rounds); FID: jackknife of 20 groups.",
        "Bits are those of a vocabulary's own codes: one that drops more has fewer. FID of the round trip: held-out fields "
        "encoded and decoded, what a perfect GPT would reach; of the unigram: every token drawn on its own."
        + (" Each GPT was told the label, the unigram was not." if asked.get("labels") else ""),
        "Z_U: Mann-Whitney z of distances to the nearest training field against those of held-out fields; negative = "
        "copying. Near copies: nearer to one training signal, relative to the next, than 99 % of held-out fields.",
    ]
    lines += classifier_note(classifier)
    lines += [
        f"{row['name']}: its own fields, {row['source_fields']}."
        for row in result["rows"]
        if row["fields"] != result["fields"]["fingerprint"]
    ]
    for row in result["rows"]:
        lost = row["evaluated"]["unreadable"]
        if lost["count"]:
            lines.append(f"{row['name']}: {lost['count']} of {lost['of']} samples are unreadable.")
    return lines + [f"* {note}." for note in stars(result)] + [f"{note}." for note in result["notes"]]


def stars(result: dict[str, Any]) -> list[str]:
    """What the stars of the table mean, each once."""
    found = [value_under(row, key) for row in table_rows(result) for _, key, _ in COLUMNS]
    return sorted(
        {part["note"] for part in found if isinstance(part, dict) and part["value"] is not None and part["note"]}
    )


def row_line(name: str, row: dict[str, Any]) -> str:
    """A row in one line."""
    return f"{name}: {_short(row)}, 1-NNA {cell_under(row, 'evaluated.l2.1-nna', '.3f')}"


def _short(row: dict[str, Any]) -> str:
    bits = [cell_under(row, f"trained.{who}_bits_per_field", ",.0f") for who in ("model", "unigram")]
    return f"{bits[0]} bits per field (unigram {bits[1]}), FID {cell_under(row, 'evaluated.fid', '.0f')}"


# -- pictures ----------------------------------------------------------------------------------------------------------


def picture_sheet(rows: list[Tensor], captions: list[str]) -> Tensor:
    """Rows of pictures of one size, each under its caption.

    Args:
        rows: (n, H, W, C) each; a shorter row leaves its end white.
        captions: one line of text each.
    Returns:
        (H'', W'', 3) float32 in [0, 1].
    """
    columns = max(1, max(len(row) for row in rows))
    parts = []
    for row, text in zip(rows, captions, strict=True):
        blank = torch.ones(columns - len(row), *rows[-1].shape[1:])
        strip = sheet(torch.cat([row, blank]), columns, pad=PAD)
        parts += [torch.ones(4, strip.shape[1], 3), caption(text, strip.shape[1]), strip]
    return torch.cat(parts)


def draw_bits(path: Path, result: dict[str, Any]) -> None:
    """FID over bits per field: from the unigram (hollow) to the GPT (dot), and the round trip's FID as a short line."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes, drawn = figure.subplots(), 0
    for i, row in enumerate(result["rows"]):
        x, x0 = (number_under(row, f"trained.{who}_bits_per_field") for who in ("model", "unigram"))
        y, y0, least = (number_under(row, f"evaluated.{what}") for what in ("fid", "unigram_fid", "round_trip_fid"))
        if x is None or y is None:
            continue
        colour, drawn = f"C{i % 10}", drawn + 1
        if x0 is not None and y0 is not None:
            axes.plot([x0, x], [y0, y], "-", color=colour, linewidth=0.8)
            axes.plot(x0, y0, "o", color=colour, markerfacecolor="none")
        axes.plot(x, y, "o", color=colour, label=row["name"])
        if least is not None:
            axes.plot(x, least, "_", color=colour, markersize=14)
    if not drawn:
        path.unlink(missing_ok=True)
        return
    for style, text in (("o", "GPT"), ("_", "round trip of held-out fields")):
        axes.plot([], [], style, color="gray", label=text)
    axes.plot([], [], "o", color="gray", markerfacecolor="none", label="unigram")
    for line in result["others"]:
        if row_kind(line) == "training_fields" and line["fid"]["value"] is not None:
            axes.axhline(line["fid"]["value"], color="gray", linewidth=0.8, linestyle="--", label=line["name"])
    classifier = result["classifier"]["fingerprint"][:8]
    axes.set(xscale="log", yscale="log", xlabel="validation bits per field", ylabel=f"FID (classifier {classifier})")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(LogFormatter())
        axis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))  # plain numbers, no powers of ten
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    with write_atomic(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
