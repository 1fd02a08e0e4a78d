"""The report of a tokenizer: report.json, report.md, report.html and the rate-distortion picture."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fields.runtime.console import plural
from fields.runtime.records import check_values, read_json
from fields.runtime.runs import write_atomic, write_json
from fields.runtime.text import escape_markdown, markdown_table
from fields.storage.dataset import WeightDataset
from fields.view.page import Page
from tokenizers.base import WeightTokenizer
from tokenizers.options import ReportConfig
from tokenizers.registry import make_tokenizer
from tokenizers.report.measures import HeldOutFields, make_bench, measure
from tokenizers.report.probe import probe
from tokenizers.selection import draw
from tokenizers.tokens import TokenDataset
from tokenizers.vocab import Counts

USED = 0.5
"""Share of codes in use below which the report warns."""
POOR = 0.5
"""Squared error over variance from which a layer's codes are reported as unusable."""
LOSSLESS = 0.5
"""dB that decoded fields may lose and count as unharmed."""


def report(
    tokenizer: WeightTokenizer,
    data: WeightDataset,
    tokens: TokenDataset,
    config: ReportConfig,
    *,
    say: Callable[[str], Any] = print,
    refit: bool = False,
) -> dict:
    """Measure everything; nothing is written. With `refit` the tokens are refitted ones, and both are evaluated.

    Returns:
        The content of report.json.
    """
    seed = tokenizer.config.seed
    bench = make_bench(data, config.held_out, seed, config.signals, config.data_root)
    counts = Counts(tokenizer.tokens_per_field, tokenizer.codes)
    for batch in tokens.batches("train", 16_384):
        counts.add(batch)
    refitted: dict = {}
    if refit:
        ids = torch.cat([tokens.ids(bench.split, slice(i, i + 1)) for i in bench.chosen.tolist()])
        refitted = {"refit": measure(tokenizer, data, bench, counts, ids)}
        counts = Counts(tokenizer.tokens_per_field, tokenizer.codes)
        for weights in data.batches("train", 10_000):
            counts.add(tokenizer.encode(weights))
    row = measure(tokenizer, data, bench, counts)
    result = {
        "kind": tokenizer.config.kind,
        "field": str(data.config),
        "tokenizer": tokenizer.fingerprint,
        "dataset": data.fingerprint,
        "tokens": tokens.fingerprint,
        "training_fields": counts.fields,
        "evaluated_on": bench.split,
        "evaluated_fields": len(bench.weights),
        "psnr_against": bench.against,
        **row,
        **refitted,
        "probe": _probe(tokenizer, data, bench, config),
        "rate_distortion": _sweep(tokenizer, data, bench, config, say),
    }
    return result | {"warnings": warnings(result)}


def _probe(tokenizer: WeightTokenizer, data: WeightDataset, bench: HeldOutFields, config: ReportConfig) -> dict:
    if config.probe_rows == 0:
        return {"skipped": "--probe-rows 0"}
    return probe(tokenizer, data, bench.split, seed=tokenizer.config.seed, most=config.probe_rows)


def _sweep(
    tokenizer: WeightTokenizer, data: WeightDataset, bench: HeldOutFields, config: ReportConfig, say: Callable
) -> list:
    """The same kind at other sizes, fitted on a draw of the training fields."""
    if not config.sizes or tokenizer.slow_to_fit:
        return []
    seed = tokenizer.config.seed
    rows = data.weights("train", draw(len(data.splits["train"]), config.sweep_fields, seed))
    say(f"rate-distortion: {plural(len(config.sizes), 'size')} on {plural(len(rows), 'training field')}")
    out = []
    for size in config.sizes:
        other = make_tokenizer(replace(tokenizer.config, vocab_size=size)).set_reference(data.reference.row).fit(rows)
        counts = Counts(other.tokens_per_field, other.codes)
        counts.add(other.encode(rows))
        out.append(measure(other, data, bench, counts))
    return out


def warnings(result: dict) -> list[str]:
    """Warnings that a reader of the numbers needs."""
    found, lost = [], result["psnr_loss"]
    if result["codes_used"] == 1:
        of = plural(result.get("training_fields", 0), "training field")
        found.append(
            f"all fields get the same codes, so all are decoded as one: it was learnt from {of}. Fit more signals."
        )
    if result["codes_made"] < result["codes_asked"]:
        asked, made = result["codes_asked"], result["codes_made"]
        found.append(f"{plural(made, 'code')} of {asked} asked for: the training weights have no more distinct values.")
    if result["codes_used"] < USED * result["codes_made"]:
        # that the rest can be done without is true only where the decoded signals lose nothing
        fewer = " Ask for fewer." if lost is not None and lost < LOSSLESS else ""
        found.append(f"only {result['codes_used']} of {plural(result['codes_made'], 'code')} used.{fewer}")
    if result["evaluated_on"] == "train":
        found.append("evaluated on the training fields: there are no others.")
    poor = [i for i, error in enumerate(result["layer_error"]) if error > POOR]
    if poor and result["evaluated_fields"] > 1 and (lost is None or lost > LOSSLESS):  # a loss that the signal shows
        found.append(f"layers {poor} lose more than {POOR:.0%} of their variance. Ask for more codes.")
    return found


# -- writing ---------------------------------------------------------------------------------------------------------


@dataclass
class Reported:
    """`report.json`, as far as it is read again."""

    tokenizer: str | None
    psnr_before: float | None
    psnr_after: float | None
    codes_made: int
    tokens_per_field: int
    bits_per_field: float
    evaluated_fields: int
    evaluated_on: str
    psnr_against: str
    training_fields: int


def read_report(path: Path) -> dict[str, Any]:
    """What report.json holds; reports of before spoke of judged fields."""
    hint = "Delete it and build the tokenizer again."
    values = {key.replace("judged_", "evaluated_"): value for key, value in read_json(path, hint, dict).items()}
    return check_values(path, values, Reported, hint)


def write_report(out: Path, result: dict) -> None:
    """report.md, rate_distortion.png when there is a sweep, report.html, and, last, report.json: it says that the others are there."""
    with write_atomic(out / "report.md") as temporary:
        temporary.write_text(markdown(result), encoding="utf-8")
    if result["rate_distortion"] and result["psnr_after"] is not None:
        draw_rate_distortion(out / "rate_distortion.png", result)
    page(out, result).write(out / "report.html")
    write_json(out / "report.json", result)


def page(out: Path, result: dict) -> Page:
    """The report as one file to look at, with the picture in its folder."""
    made = Page(f"{result['kind']}, {result['codes_made']} codes", introduction(result))
    for text in result["warnings"]:
        made.text(f"Warning: {text}", warning=True)
    head = ["", *(name for name, _, _ in COLUMNS)]
    rows = [["as encoded", *cells([result])[0]]]
    if "refit" in result:
        rows.append(["after refit, in tokens/", *cells([result["refit"]])[0]])
    made.table(head, rows, main=[len(rows) - 1])
    made.picture(
        out / "preview.png", "held-out fields, each with what its codes decode to beside it, framed", pixels=True
    )
    made.notes([BITS, layer_line(result["layer_error"]), probe_line(result["probe"])])
    if result["rate_distortion"]:
        made.heading("Rate and distortion")
        made.picture(
            out / "rate_distortion.png", "PSNR of held-out fields over bits per weight, for other numbers of codes"
        )
        sizes = zip(result["rate_distortion"], cells(result["rate_distortion"]), strict=True)
        made.table(head, [[f"{row['codes_asked']} codes", *texts] for row, texts in sizes])
    made.made_by(out / "run.json")
    return made


BITS = (
    "Bits: raw is log2 of the number of codes; marginal is the entropy of the training tokens pooled over positions; "
    "per position is the cross-entropy of the evaluated fields' tokens under each position's training counts plus 1."
)
COLUMNS = (
    ("codes asked", "codes_asked", "d"),
    ("codes", "codes_made", "d"),
    ("used", "codes_used", "d"),
    ("perplexity", "perplexity", ".1f"),
    ("tokens", "tokens_per_field", "d"),
    ("bits/weight raw", "bits_per_weight_raw", ".2f"),
    ("marginal", "bits_per_weight_marginal", ".2f"),
    ("per position", "bits_per_weight_position", ".2f"),
    ("bits/field", "bits_per_field", ",.0f"),
    ("PSNR before", "psnr_before", ".2f"),
    ("after", "psnr_after", ".2f"),
    ("loss", "psnr_loss", ".2f"),
    ("worst loss", "psnr_loss_worst", ".2f"),
)


def table(rows: list[dict]) -> str:
    """Rows of the report as a Markdown table."""
    head = [name for name, _, _ in COLUMNS]
    return markdown_table(head, cells(rows), ["---:"] * len(head))


def cells(rows: list[dict]) -> list[list[str]]:
    """The texts of a table, a list per row."""
    return [["-" if r[key] is None else format(r[key], form) for _, key, form in COLUMNS] for r in rows]


def layer_line(errors: list[float]) -> str:
    """The error of each layer, as a sentence."""
    if not errors:
        return "It decodes to another row of the same function: weights are not compared."
    return "Squared error over variance per layer: " + ", ".join(f"{e:.2g}" for e in errors) + "."


def probe_line(values: dict) -> str:
    """The probe, as a sentence."""
    if "skipped" in values:
        return f"Class probe: skipped, {values['skipped']}."
    return (
        f"Class probe ({values['model']}, {values['rows']:,} training fields, {values['held_out']:,} held out): "
        f"{values['weights']:.1%} right from standardised weights, {values['tokens']:.1%} from tokens "
        f"(largest class {values['chance']:.1%})."
    )


def introduction(result: dict) -> str:
    """What was evaluated, on what, as sentences."""
    return (
        f"Field {result['field']}. {result['training_fields']:,} training fields; evaluated on "
        f"{result['evaluated_fields']:,} of split {result['evaluated_on']}. {_reached(result)}"
    )


def _reached(result: dict) -> str:
    """What the numbers say of decoded fields: PSNR, or the IoU itself of shapes."""
    against = f"against {result['psnr_against']}"
    if result.get("iou_after") is None:
        return f"PSNR (dB, mean over fields) {against}."
    fitted = "" if result["iou_before"] is None else f"{result['iou_before']:.3f} -> "
    return f"IoU {against}: {fitted}{result['iou_after']:.3f} (worst {result['iou_worst']:.3f})."


def markdown(result: dict) -> str:
    """report.md."""
    lines = [
        f"# {escape_markdown(result['kind'])}, {result['codes_made']} codes",
        "",
        escape_markdown(introduction(result)),
        "",
        table([result, result["refit"]] if "refit" in result else [result]),
        *(["", "The second row is after refit; it is what `tokens/` holds."] if "refit" in result else []),
        "",
        BITS,
        "",
        layer_line(result["layer_error"]),
        "",
        escape_markdown(probe_line(result["probe"])),
    ]
    lines += [f"\nWarning: {escape_markdown(said)}" for said in result["warnings"]]
    if result["rate_distortion"]:
        lines += ["", "## Other sizes", "", table(result["rate_distortion"])]
    return "\n".join(lines) + "\n"


def draw_rate_distortion(path: Path, result: dict) -> None:
    """PSNR over bits per weight, as stored (log2 of the number of codes) and as an entropy coder would need."""
    from matplotlib.figure import Figure

    rows = sorted(result["rate_distortion"], key=lambda r: r["codes_made"])
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for key, label in (("marginal", "entropy of the codes"), ("raw", "log2 of the codes")):
        bits = [r[f"bits_per_weight_{key}"] for r in rows]
        axes.plot(bits, [r["psnr_after"] for r in rows], "o-", markersize=4, label=label)
    for r in rows:
        axes.annotate(
            str(r["codes_made"]), (r["bits_per_weight_raw"], r["psnr_after"]), (4, -10), "data", "offset points"
        )
    axes.plot(result["bits_per_weight_marginal"], result["psnr_after"], "k*", label=f"this one, {result['codes_made']}")
    if result["psnr_loss"] is not None:
        axes.axhline(result["psnr_before"], color="gray", linewidth=0.8, linestyle="--", label="before")
    axes.set(xlabel="bits per weight", ylabel="PSNR (dB)", title=f"{result['kind']}: held-out fields after decoding")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    with write_atomic(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})


def summary(result: dict) -> str:
    """A few lines for the terminal."""
    fitted = "" if result["psnr_before"] is None else f"{result['psnr_before']:.2f} -> "
    after = "no pictures" if result["psnr_after"] is None else f"{fitted}{result['psnr_after']:.2f} dB"
    bits = f"{result['bits_per_weight_marginal']:.2f} marginal, {result['bits_per_weight_position']:.2f} per position"
    lines = [
        f"codes {result['codes_used']} used of {result['codes_made']} ({result['codes_asked']} asked for), "
        f"perplexity {result['perplexity']:.1f}",
        f"bits per weight {bits}; {result['bits_per_field']:,.0f} per field",
        f"PSNR against {result['psnr_against']}: {after}" if result.get("iou_after") is None else _reached(result),
        probe_line(result["probe"]),
    ]
    if (refit := result.get("refit")) and refit["psnr_after"] is not None:
        lines.insert(3, f"after refit: {refit['psnr_after']:.2f} dB at {refit['bits_per_field']:,.0f} bits per field")
    return "\n".join(lines + [f"warning: {text}" for text in result["warnings"]])
