"""What an evaluation writes: metrics.json, table.md, samples.png (beside nearest training pictures), curves.png, report.html."""

from pathlib import Path

import torch
from torch import Tensor

from fields.runtime import console
from fields.runtime.runs import write_atomic, write_json
from fields.runtime.text import escape_markdown, markdown_table
from fields.view.glossary import explain
from fields.view.page import Cell, Page, cell_under, estimate_text, estimate_tip, number_under, value_under
from fields.view.render import save_png, sheet
from gpt.evaluation.metrics import DISTANCES, SET_METRICS

SHOWN = 64
"""Samples on the sheet."""
COLUMNS = 8
MORE = (
    ("FID (classifier, N)", "fid", ".1f"),
    ("label accuracy (classifier, N)", "label_accuracy", ".3f"),
    ("unreadable", "unreadable", ""),
    ("Z_U pixels", "novelty.z_u_pixels", "+.1f"),
    ("Z_U weights", "novelty.z_u_weights", "+.1f"),
    ("near copies", "novelty.near_copies", ".1%"),
    ("token copies", "novelty.token_copies", ".1%"),
)
"""Heading, place in a line, format: what follows the set metrics."""
COLOURS = {"samples": "#c1440e", "held-out": "#1f6f8b", "training": "#7a7a7a"}


def write_report(out: Path, result: dict, pictures: dict) -> str:
    """Write the files; returns what the screen shows."""
    write_json(out / "metrics.json", result)
    text = table(result)
    with write_atomic(out / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    if pictures["drawn"] is not None:
        save_png(out / "samples.png", samples_sheet(pictures))
    save_curves(out / "curves.png", result, pictures)
    page(out, result).write(out / "report.html")
    return screen(result)


def page(out: Path, result: dict) -> Page:
    """The evaluation as one file to look at, from its numbers and the pictures in its folder."""
    source = result["samples"]
    title = f"Evaluation of {source['name']}" if source else f"Baselines of {result['fields']['name']}"
    made = Page(title, f"Protocol {result['protocol']}. N = {result['n']}, seed {result['seed']}.")
    made.notes(in_short(result, next(d for d in DISTANCES if d in result["rows"][0])))
    shown = columns(result)
    head = ["", "N", *(heading.split(" (")[0] for heading, _, _ in shown)]  # brackets: each number's explanation here
    cells = [_explained(row, shown) for row in result["rows"]]
    made.table(head, cells, main=[i for i, row in enumerate(result["rows"]) if row["kind"] == "samples"])
    if result["features"]:
        made.heading("FID and KID with more signals")
        made.table(*many(result), main=[i for i, row in enumerate(result["features"]) if row["kind"] == "samples"])
    made.text("Point at a heading, a name or a number, or touch it, to see what stands behind it.")
    made.heading("Samples")
    made.picture(
        out / "samples.png",
        "Samples, the likeliest copies first, each beside its nearest training picture (framed), and their distance",
        pixels=True,
    )
    made.heading("Curves")
    made.picture(
        out / "curves.png",
        "Distances to the nearest training picture, sorted; 1-NNA and FID of every line of the table, with 95 % intervals",
    )
    made.heading("Notes")
    made.notes(footnotes(result))
    made.made_by(out / "run.json")
    return made


def in_short(result: dict, distance: str) -> list[str]:
    """What the row of samples says, in sentences for who reads such a table for the first time; none without samples.

    Args:
        result: of an evaluation, of pictures or of shapes.
        distance: whose 1-NNA is told, such as `l2`.
    """
    rows = {row["kind"]: row for row in reversed(result["rows"])}
    own, known = rows.get("samples"), rows.get("training_fields", {})
    if own is None:
        return []

    def told(key: str, form: str) -> str | None:
        """A number of the samples, and of the training fields in brackets."""
        ours, theirs = (number_under(row, key) for row in (own, known))
        if ours is None:
            return None
        return format(ours, form) + ("" if theirs is None else f" (training fields: {format(theirs, form)})")

    lines = [
        f"{result['samples']['name']}: {result['n']:,} new fields beside as many held-out signals ({result['references']['name']}). The "
        "other rows are baselines, compared with the same held-out signals."
    ]
    if (value := told(f"{distance}.1-nna", ".3f")) is not None:
        lines.append(
            f"Told from held-out signals with accuracy {value} by 1-NNA: 0.5 is ideal, 1 means that each is recognised as new."
        )
    if (value := told("fid", ".1f")) is not None:
        lines.append(f"FID {value}: how far both sets lie apart in a classifier's features; 0 is ideal.")
    if (value := told("label_accuracy", ".1%")) is not None:
        lines.append(f"Read as the class that was asked for: {value}.")
    if (new := own.get("novelty")) and new.get("near_copies") is not None:
        lines.append(
            f"Near copies of training signals: {new['near_copies']:.1%}; about 1% is usual for held-out fields."
        )
    return lines


def _explained(row: dict, shown: list[tuple[str, str, str]]) -> list[str | Cell]:
    """The cells of a line; what is an estimate with its interval, the name with its notes."""
    tip = " ".join([explain(row["name"]), *(f"{note}." for note in row["notes"])]).strip()
    cells: list[str | Cell] = [Cell(row["name"], tip) if tip else row["name"], str(row["n"])]
    for _, key, form in shown:
        found, text = value_under(row, key), _cell(row, key, form)
        tip = estimate_tip(found) if isinstance(found, dict) and key != "unreadable" else ""
        cells.append(Cell(text, tip) if tip else text)
    return cells


def table(result: dict) -> str:
    """The evaluation as Markdown: one line per row, then what a reader must know."""
    shown = columns(result)
    head = ["", "N", *(heading for heading, _, _ in shown)]
    rows = [
        [r["name"], r["n"], *(_cell(r, key, form, classifier=True) for _, key, form in shown)] for r in result["rows"]
    ]
    notes = "\n".join(f"- {escape_markdown(line)}" for line in footnotes(result))
    more = [markdown_table(*many(result))] if result["features"] else []
    return "\n\n".join([f"**{escape_markdown(result['protocol'])}**", markdown_table(head, rows), *more, notes])


def many(result: dict) -> tuple[list[str], list[list[str]]]:
    """The headings and lines of FID and KID at --features-n."""
    lines = []
    for row in result["features"]:
        thousand = {
            k: v * 1000 if k in ("value", "low", "high") and v is not None else v for k, v in row["kid"].items()
        }
        lines.append(
            [
                row["name"],
                str(row["n"]),
                *(estimate_text(part, ".1f", classifier=True) for part in (row["fid"], thousand)),
            ]
        )
    return ["", "N", "FID (classifier, N)", "KID x 1000 (classifier, N)"], lines


def columns(result: dict) -> list[tuple[str, str, str]]:
    """Heading, place in a line and format of all that the table says, behind name and N."""
    found = []
    for d in (d for d in DISTANCES if d in result["rows"][0]):
        for key, metric in SET_METRICS.items():
            form = f".{DISTANCES[d].digits if metric.in_distance else 3}f"
            found.append((f"{metric.heading} {DISTANCES[d].heading}", f"{d}.{key}", form))
    return [*found, *MORE]


def screen(result: dict) -> str:
    """The main columns, narrow enough for a terminal."""
    first = [(heading, key, form) for heading, key, form in columns(result)[: len(SET_METRICS)]]
    shown = [
        *first,
        ("FID", "fid", ".1f"),
        ("labels", "label_accuracy", ".3f"),
        ("unreadable", "unreadable.share", ".1%"),
    ]
    shown += [("Z_U", "novelty.z_u_pixels", "+.1f"), ("near copies", "novelty.near_copies", ".1%")]
    head = ["", "N", *(heading for heading, _, _ in shown)]
    lines = [
        [r["name"], r["n"], *(_number(number_under(r, key), form) for _, key, form in shown)] for r in result["rows"]
    ]
    said = [
        result["protocol"],
        console.text_table(head, lines),
        *([console.text_table(*many(result))] if result["features"] else []),
        f"references: {result['references']['name']}",
        *result["notes"],
    ]
    bits = result["validation"]
    if bits is not None:
        model, unigram = (_number(bits[f"{who}_bits_per_field"], ",.1f") for who in ("model", "unigram"))
        said.append(f"validation: {model} bits/field (unigram {unigram})")
    return "\n".join(said)


def _cell(row: dict, key: str, form: str, *, classifier: bool = False) -> str:
    if key != "unreadable":
        return cell_under(row, key, form, classifier=classifier)
    lost = row[key]
    return "n/a" if lost["share"] is None else f"{lost['count']} of {lost['of']}"


def _number(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


def footnotes(result: dict) -> list[str]:
    """References, classifier, seeds, novelty, bits and every note."""
    refs, new, classifier = result["references"], result["novelty"], result["classifier"]
    how = "without" if result["without_replacement"] else "WITH"
    drawn = f"{result['n']} a side at most, {how} replacement, seed {result['seed']}"
    lines = [f"References: {refs['name']}, {'; '.join(refs['notes'])}. N = {drawn}."]
    lines.append(
        "± is half of a 95 % interval: bootstrap of per-point scores (1,000 rounds); FID: jackknife of 20 groups."
    )
    lines += classifier_note(classifier)
    lines.append(
        f"Z_U: Mann-Whitney z of distances to the nearest of {new['of']} {new['against']} against those of held-out "
        "data; negative = copying. Near copies: their distance to the nearest training signal, divided by that to the "
        "next, is smaller than for 99 % of held-out data. The training fields' line compares each with the others. "
        "Rounding to codes alone moves Z_U in weights: compare samples of tokens with the round trip's line."
    )
    held = new["held_out"]
    if held is not None:
        lines.append(
            f"{held['name']} (N = {held['n']}): median distance {_number(held['median_pixels'], '.3f')} in pixels, "
            f"{_number(held['median_weights'], '.3f')} in standardised weights; "
            f"token copies {_number(held['token_copies'], '.1%')}."
        )
    if "duplicates" in new:
        kinds = {"weights": "weights", "tokens": "codes", "pixels_exact": "pixels", "pixels_near": "nearly, in pixels"}
        shares = ", ".join(f"{_number(new['duplicates'][k], '.1%')} {text}" for k, text in kinds.items())
        lines.append(f"Samples that repeat another sample: {shares}.")
    if result["validation"] is not None:
        bits = result["validation"]
        lines.append(
            f"Validation bits per field: {_number(bits['model_bits_per_field'], '.1f')} by the model"
            f"{', told the label' if bits.get('told_label') else ''}, {_number(bits['unigram_bits_per_field'], '.1f')} by the per-position unigram."
        )
    lines += [f"{row['name']}: {note}." for row in result["rows"] for note in row["notes"]]
    parts = [(row["name"], value_under(row, key)) for row in result["rows"] for _, key, _ in columns(result)]
    notes = {f"* {name}: {part['note']}" for name, part in parts if isinstance(part, dict) and _starred(part)}
    return lines + sorted(notes) + [f"{note}." for note in result["notes"]]


def classifier_note(classifier: dict | None) -> list[str]:
    """What is known of a classifier, if there is one."""
    if classifier is None:
        return []
    accuracy = classifier["held_out"]
    known = "not measured" if accuracy is None else f"{accuracy:.2%} (N = {classifier['held_out_n']})"
    return [f"Classifier {classifier['fingerprint']} ({classifier['name']}), held-out accuracy {known}."]


def _starred(part: dict) -> bool:
    return part.get("note", "") not in ("", "no labels", "no classifier", "not part of the protocol")


def samples_sheet(pictures: dict) -> Tensor:
    """Samples by how much they look like copies, the worst first, each beside its nearest training picture.

    Under each its distance, and `copy` for a near copy. Of many samples half are the worst, half spread over the rest.
    """
    found, held_out = pictures["found"], pictures["held_out"]
    order = found.ratio.argsort()
    if len(order) > SHOWN:
        rest = torch.linspace(SHOWN // 2, len(order) - 1, SHOWN - SHOWN // 2).round().long()
        order = torch.cat([order[: SHOWN // 2], order[rest]])
    known = held_out is not None and len(held_out.ratio)
    marks = found.copies(held_out)[order].tolist() if known else [False] * len(order)
    captions = [
        f"{found.pixels[i]:.2f}{' copy' if mark else ''}" for i, mark in zip(order.tolist(), marks, strict=True)
    ]
    samples, nearest = (draw(order) for draw in pictures["drawn"])
    return sheet(samples, COLUMNS, neighbours=nearest, captions=captions)


def save_curves(path: Path, result: dict, pictures: dict) -> None:
    """Sorted distances to the training set, 1-NNA of all lines, FID of all lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _distances(left, pictures)
    names = [_short(row["name"]) for row in result["rows"]]
    for i, d in enumerate(d for d in DISTANCES if d in result["rows"][0]):
        _bars(middle, [row[d]["1-nna"] for row in result["rows"]], i, DISTANCES[d].label)
    middle.axvline(0.5, color="black", linewidth=0.8)
    middle.set(xlim=(0, 1), xlabel=f"1-NNA, N = {result['n']} (1/2 is ideal)")
    middle.set_yticks(range(len(names)), names, fontsize=8)
    middle.invert_yaxis()
    if middle.get_legend_handles_labels()[0]:
        middle.legend(fontsize=8)
    fids = [row["fid"] for row in result["rows"]]
    if any(f["value"] is not None for f in fids):
        _bars(right, fids, 0.5, None)
        right.set_xscale("symlog", linthresh=10)
        right.set(xlabel=f"FID, N = {result['n']}, classifier {result['classifier']['fingerprint'][:8]}")
        right.set_yticks(range(len(names)), [""] * len(names))
        right.invert_yaxis()
    else:
        right.set_axis_off()
    with write_atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _distances(axes, pictures: dict) -> None:
    curves = {"samples": pictures["found"], "held-out": pictures["held_out"], "training": pictures["train_to_train"]}
    for name, found in curves.items():
        values = None if found is None else found.pixels[found.pixels.isfinite()]
        if values is not None and len(values):
            share = torch.linspace(0, 1, len(values))
            axes.plot(values.sort().values.numpy(), share.numpy(), label=name, color=COLOURS[name])
    axes.set(xlabel="distance to the nearest training picture", ylabel="share of pictures at most as far")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _bars(axes, estimates: list[dict], i: float, label: str | None) -> None:
    for y, estimate in enumerate(estimates):
        if estimate["value"] is None:
            continue
        low = estimate["value"] if estimate["low"] is None else estimate["low"]
        high = estimate["value"] if estimate["high"] is None else estimate["high"]
        error = [[max(0.0, estimate["value"] - low)], [max(0.0, high - estimate["value"])]]
        color = COLOURS["samples"] if i == 1 else COLOURS["held-out"]
        handle = None if any(e["value"] is not None for e in estimates[:y]) else label
        axes.barh(y + (i - 0.5) * 0.4, estimate["value"], 0.38, xerr=error, color=color, label=handle)


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:31]}..."
