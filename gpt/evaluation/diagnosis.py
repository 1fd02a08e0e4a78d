"""The words of a diagnosis: which stage loses most, what to try next, one page of text and one picture."""

from pathlib import Path

import torch
from torch import Tensor

from fields.runtime.runs import write_atomic, write_json
from fields.runtime.text import escape_markdown, markdown_table
from fields.view.page import Page
from fields.view.render import sheet
from gpt.evaluation.items import SignalSet

STEPS = (
    ("fit", "training_images", "fields"),
    ("round trip", "fields", "round_trip"),
    ("GPT", "round_trip", "one_step"),
    ("sampling", "one_step", "samples"),
)
"""Stage, the row before it, the row after it."""
PREDICTED = 0.10
"""A GPT that saves a smaller share of the unigram's bits has learnt next to nothing: the codes cannot be predicted."""
KEPT = 0.75
"""Where samples keep a smaller share of their codes than this times the round trip's, the decoder does not say what they say."""
OVERFIT = 0.10
"""Held-out fields that cost this share of bits more than training fields: the GPT memorises."""
FALLING = 0.01
"""A loss that fell by this share of itself in the last quarter of the training still falls."""
CLOSE = 0.8
"""A stage that loses this share of what the first one loses is named, too."""
SHOWN = 12
"""Pictures of each row."""

NEXT = {
    "fit": "fit longer or with a larger network: scripts/fit_fields.py --steps, --hidden, --octaves",
    "round trip": "a vocabulary that keeps more of the picture: python -m tokenizers.compare shows which, at how many bits",
    "unigram": "a vocabulary whose tokens can be predicted from each other: python -m tokenizers.build regions",
    "sampling": "draws that err less: scripts/sample.py --temperature 0.9 or --top-p 0.95, and a GPT trained longer",
    "decode": "a decoder that forgives wrong codes: python -m tokenizers.build regions --swap 0.3, or fewer codes",
}
BY_KIND = {
    "regions": "more regions (--grid), codes (--vocab-size) or --steps of python -m tokenizers.build regions",
    "pca": "more --components or codes (--vocab-size) of python -m tokenizers.build pca",
    "vqvae": "more --latents or codes (--vocab-size) of python -m tokenizers.build vqvae",
    "graph": "more codes (--vocab-size) or --steps of python -m tokenizers.build graph",
}
"""What else helps the round trip of a kind of vocabulary."""


def explain_losses(result: dict) -> dict:
    """The stage that loses most, the losses of all, and what to try next; keys `measure`, `losses`, `stage`, `next`."""
    measure = "fid" if result["rows"]["samples"]["fid"]["value"] is not None else "1-nna"
    losses = {}
    for stage, before, after in STEPS:
        if before in result["rows"]:
            losses[stage] = max(0.0, value_of(result, after, measure) - value_of(result, before, measure))
    total = max(value_of(result, "samples", measure) - value_of(result, "round_trip", measure), 0.0)
    losses["GPT"] = min(losses["GPT"], total)  # one code a place, drawn apart, may fit the others worse than a sample's
    stage = max(losses, key=lambda name: losses[name])
    if losses[stage] == 0:
        return {"measure": measure, "losses": losses, "stage": "none", "next": ["nothing is lost that this N can show"]}
    others = [name for name in losses if name != stage and losses[name] >= CLOSE * losses[stage]]
    named = why_unlike(result, stage) if stage in ("GPT", "sampling") else stage
    follow = advice(result, named)
    for name in others:
        other = why_unlike(result, name) if name in ("GPT", "sampling") else name
        follow += [f"{other} loses nearly as much: {advice(result, other)[0]}"] if other != named else []
    return {"measure": measure, "losses": losses, "stage": named, "next": follow}


def value_of(result: dict, kind: str, measure: str) -> float:
    """A row's FID or 1-NNA under L2."""
    row = result["rows"][kind]
    return row["fid"]["value"] if measure == "fid" else row["l2"]["1-nna"]["value"]


def why_unlike(result: dict, stage: str) -> str:
    """Why codes drawn by the GPT do not look like held-out ones: they cannot be predicted, or not be decoded, or neither."""
    bits, kept = result["bits"], result["kept"]
    if bits["held_out"] > (1 - PREDICTED) * bits["unigram"]:
        return "unigram"
    if kept["samples"] < KEPT * kept["round_trip"]:
        return "decode"
    return stage


def advice(result: dict, stage: str) -> list[str]:
    """What to try next, the likeliest first."""
    bits, kind = result["bits"], result["tokenizer"]["kind"]
    if stage != "GPT":
        more = [BY_KIND[kind]] if stage == "round trip" and kind in BY_KIND else []
        return [*more, NEXT[stage]]
    if bits["held_out"] > (1 + OVERFIT) * bits["training"]:
        return [
            f"training fields cost {bits['training']:.0f} bits, held-out ones {bits['held_out']:.0f}: more fields (several "
            "fits of a signal: scripts/fit_fields.py --fits), more --model.dropout, fewer --steps"
        ]
    if falling(result["history"]):
        return ["validation bits were still falling at the end: a longer training (--minutes or --steps)"]
    return ["a larger GPT (--model.n-embd, --model.n-layer), another --lr, more fields"]


def falling(history: list) -> bool:
    """Whether validation bits fell by `FALLING` in the last quarter of the training."""
    if len(history) < 4:
        return False
    steps = history[-1][0]
    before = [bits for step, bits in history if step <= 0.75 * steps]
    return bool(before) and min(bits for _, bits in history) < (1 - FALLING) * min(before)


def markdown(result: dict) -> str:
    """The diagnosis as Markdown."""
    title, follow, first, second, last = parts(result)
    tables = [markdown_table(head, lines, rule) for head, rule, lines in (first, second)]
    notes = [f"- {escape_markdown(note)}" for note in result["notes"]]
    return "\n\n".join(
        [f"# Diagnosis: {escape_markdown(title)}", escape_markdown(follow), *tables, escape_markdown(last), *notes]
    )


def parts(result: dict) -> tuple:
    """Title, advice, two tables (heads, rules, lines) and what a reader must know."""
    measure = result["measure"]
    name = "FID" if measure == "fid" else "1-NNA"
    title = f"{result['stage']} loses most" if result["stage"] != "none" else "no stage loses measurably"
    first = (["stage", "its number", "reference", f"adds to {name}"], ["---", "---", "---", "---:"], stages(result))
    lines = [_row(row) for row in result["rows"].values()]
    second = (["row", "FID", "1-NNA L2"], ["---", "---:", "---:"], lines)
    last = (
        f"N = {result['n']} a row against as many held-out signals, seed {result['seed']}; "
        + ("no classifier, so losses are of 1-NNA. " if measure != "fid" else "")
        + "FID falls as N grows: compare rows of one table only. GPT and sampling lose by unigram where the GPT saves less "
        f"than {PREDICTED:.0%} of the unigram's bits, by decode where drawn codes come back less than {KEPT} times as often as "
        "true ones."
    )
    return title, "Try next: " + "; then ".join(result["next"]) + ".", first, second, last


def stages(result: dict) -> list[list[str]]:
    """One line of the first table for each stage."""
    bits, kept, rows, psnr, losses = (result[k] for k in ("bits", "kept", "rows", "psnr", "losses"))
    name = "FID" if result["measure"] == "fid" else "1-NNA"

    def seen(kind: str) -> str:
        value = value_of(result, kind, result["measure"])
        return f"{name} {value:.0f}" if name == "FID" else f"{name} {value:.3f}"

    def added(stage: str) -> str:
        if stage not in losses:
            return "not known" if stage == "fit" else ""
        return f"{losses[stage]:.0f}" if name == "FID" else f"{losses[stage]:.3f}"

    images = f"training pictures {seen('training_images')}" if "training_images" in rows else "signals not at hand"
    share = 1 - bits["held_out"] / bits["unigram"]
    lost = f", {result['unreadable']} unreadable" if result["unreadable"] else ""
    told = [
        ("fit", f"{_db(psnr['fit'])} to the signals, {seen('fields')}", images),
        ("round trip", f"{_db(psnr['round_trip'])} to the fields, {seen('round_trip')}", f"fields {seen('fields')}"),
        ("unigram", f"{bits['unigram']:.0f} bits a field, {seen('unigram')}", f"equally likely codes {bits['uniform']:.0f} bits"),
        (
            "GPT",
            f"{bits['held_out']:.0f} bits ({share:.0%} saved), training fields {bits['training']:.0f}; a drawn code is another "
            f"one in {result['errors']:.0%}: {seen('one_step')}",
            f"round trip {seen('round_trip')}; as many random codes {seen('replaced')}",
        ),
        (
            "sampling",
            f"samples {seen('samples')}, of {bits['samples']:.0f} bits{lost}",
            f"true codes before each {seen('one_step')}; second half drawn {seen('half')}",
        ),
        (
            "decode",
            f"{kept['samples']:.0%} of a sample's codes come back when it is encoded",
            f"{kept['round_trip']:.0%} of a held-out field's",
        ),
    ]  # fmt: skip
    return [[stage, number, reference, added(stage)] for stage, number, reference in told]


def _db(value: float | None) -> str:
    return "PSNR not known" if value is None else f"{value:.1f} dB"


def _row(row: dict) -> list[str]:
    fid, nna = row["fid"]["value"], row["l2"]["1-nna"]["value"]
    return [row["name"], "n/a" if fid is None else f"{fid:.0f}", "n/a" if nna is None else f"{nna:.3f}"]


def write_diagnosis(out: Path, result: dict, rows: list[SignalSet]) -> str:
    """Write diagnosis.json, diagnosis.md, diagnosis.png and report.html; returns the page."""
    text = markdown(result)
    with write_atomic(out / "diagnosis.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    draw_diagnosis(out / "diagnosis.png", result, rows)
    html(out, result).write(out / "report.html")
    write_json(out / "diagnosis.json", result)
    return text


def html(out: Path, result: dict) -> Page:
    """The same as one HTML file, with its words explained."""
    title, follow, first, second, last = parts(result)
    made = Page(f"Diagnosis: {title}", follow)
    made.table(first[0], first[2], main=[i for i, line in enumerate(first[2]) if line[0] == result["stage"]])
    made.picture(
        out / "diagnosis.png", "Every row's measure, and some of its pictures; held-out rows show the same fields"
    )
    made.table(second[0], second[2], main=[i for i, kind in enumerate(result["rows"]) if kind == "samples"])
    made.notes([last, *result["notes"]])
    made.made_by(out / "run.json")
    return made


def draw_diagnosis(path: Path, result: dict, rows: list[SignalSet]) -> None:
    """Bars of the measure, and beside each row some of its pictures; held-out rows show the same fields."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 0.9 * len(rows) + 1), layout="constrained")
    axes = figure.subplots(len(rows), 2, width_ratios=(1, 2.4), squeeze=False)
    name = "FID" if result["measure"] == "fid" else "1-NNA"
    values = [value_of(result, row.kind, result["measure"]) for row in rows]
    for (bar, shown), row, value in zip(axes, rows, values, strict=True):
        bar.barh(0, value, color="#c1440e" if row.kind == "samples" else "#1f6f8b")
        bar.set_xlim(0, 1.3 * max(values) or 1)
        bar.text(value, 0, f"  {value:.0f}" if name == "FID" else f"  {value:.3f}", va="center")
        bar.set_title(row.name, fontsize=9, loc="left")
        bar.set_axis_off()
        shown.imshow(strip(row.images).numpy())
        shown.set_axis_off()
    figure.suptitle(f"{name}, N = {result['n']}: {result['stage']} loses most" if result["stage"] != "none" else name)
    with write_atomic(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def strip(images: Tensor) -> Tensor:
    """Pictures spread over a row's order, side by side."""
    if not len(images):
        return torch.ones(1, 1, 3)
    return sheet(images[torch.linspace(0, len(images) - 1, min(SHOWN, len(images))).long()], SHOWN)
