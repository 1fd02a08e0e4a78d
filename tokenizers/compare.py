"""Several tokenizers on the same held-out fields, one table and one picture:  python -m tokenizers.compare A B C --fields DIR"""

from functools import partial

import tyro

from fields.runtime.launch import run_cli
from tokenizers.options import CompareConfig

if __name__ == "__main__":  # before what follows, which is imported by its name once the flags are read
    options = (tyro.conf.OmitArgPrefixes,)
    parse = partial(tyro.cli, CompareConfig, prog="python -m tokenizers.compare", config=options)
    run_cli("tokenizers.compare:compare", parse, alone="python -m tokenizers.compare")

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from fields.runtime.console import LONG, bar, duration, plural
from fields.runtime.launch import choose_device, cores
from fields.runtime.resources import check_memory
from fields.runtime.runs import claim, finish, is_finished, read_json, vacant, write_atomic, write_json
from fields.runtime.text import escape_markdown, markdown_table
from fields.signals.shapes import Shapes
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import beside
from fields.view.page import Page, value_under
from fields.view.render import save_png, sheet
from tokenizers.base import WeightTokenizer
from tokenizers.encode import check_field, divide
from tokenizers.options import CompareConfig
from tokenizers.refit import Refit
from tokenizers.registry import load_tokenizer
from tokenizers.report.codecs import WIDEST, rows_beside
from tokenizers.report.measures import HeldOutFields, held_out_split, make_bench, measure
from tokenizers.report.surfaces import POINTS, RADIUS, SIZE, compare_surfaces
from tokenizers.selection import draw
from tokenizers.vocab import Counts

NOT_ASKED = ("out", "threads", "device", "tokenizers", "fields")
"""Settings that do not change a folder's content, or that are recorded as fingerprints."""
TRIED = 16
"""Fields from which the time of all is estimated."""


def compare(config: CompareConfig) -> dict:
    """The command; returns the content of compare.json."""
    torch.set_num_threads(config.threads or cores())
    choose_device(config.device)  # refuses what is not there, before anything is read
    pairs = {text: divide(text, config.fields) for text in config.tokenizers}
    loaded = {config.fields: WeightDataset.load(config.fields, flag="--fields")}
    for text, (_, fields) in pairs.items():
        if fields not in loaded:
            loaded[fields] = WeightDataset.load(fields, flag=f"{text}:")
            check_signals(text, loaded[fields], loaded[config.fields])
    found = {text: load_tokenizer(path) for text, (path, _) in pairs.items()}
    for text, tokenizer in found.items():
        check_field(tokenizer, loaded[pairs[text][1]])
    names = _names(list(found))
    prints = {f"tokenizer {names[text]}": tokenizer.fingerprint for text, tokenizer in found.items()}
    others = {text: fields for text, (_, fields) in pairs.items() if fields != config.fields}
    prints |= {f"fields of {names[text]}": loaded[fields].fingerprint for text, fields in others.items()}
    asked = {k: v for k, v in asdict(config).items() if k not in NOT_ASKED}
    if loaded[config.fields].kind.name != "shapes":
        del asked["surfaces"]  # of shapes alone
    parents = {"fields": loaded[config.fields].fingerprint, **prints}
    check_memory(*_need(config, loaded, list(found.values())), "cpu", "a smaller --counted or --held-out")
    how: dict[str, Any] = {"parents": parents, "free": ("signals", "data_root"), "kind": "tokenizers.compare"}
    recorded = {"kind": "compare", **asked}
    out = config.out or vacant(beside(config.fields, "compare"), recorded, **how)
    claim(out, recorded, seed=config.seed, **how)
    main = loaded[config.fields]
    bench = _bench(main, config)
    if is_finished(out, bench.against):
        return read_json(out / "compare.json", schema=dict)
    benches = {config.fields: bench}
    for text, (_, fields) in pairs.items():
        if fields not in benches:
            benches[fields] = _bench(
                loaded[fields], replace(config, split=bench.split), same_signals(text, loaded[fields], main, bench)
            )
    rows = []
    seconds = sum(_seconds(one, loaded[pairs[text][1]], benches[pairs[text][1]], config) for text, one in found.items())
    if seconds >= LONG:
        print(f"{plural(len(found), 'tokenizer')}: about {duration(seconds)}", flush=True)
    for text, tokenizer in found.items():
        path, fields = pairs[text]
        row = compare_row(tokenizer, path, loaded[fields], benches[fields], config)
        own = {} if fields == config.fields else {"fields": fields}
        rows.append({"name": names[text], **own, **row})
        print(line(rows[-1]))
    pictures = rows_beside(bench, main, config.counted, config.seed, config.signals, config.data_root)
    print("\n".join(map(line, pictures)))
    result = {
        "split": bench.split,
        "fields": len(bench.weights),
        "seed": config.seed,
        "psnr_against": bench.against,
        "psnr_before": None
        if bench.shapes
        else float(bench.before.mean())
        if bench.before is not None
        else bench.fitted,
        "rows": rows,
        "pictures": pictures,
    }
    if bench.shapes and config.surfaces:
        result |= _surfaces(
            main, bench, {names[text]: found[text] for text in found if text not in others}, config, out
        )
    write_json(out / "compare.json", result)
    with write_atomic(out / "compare.md") as temporary:
        temporary.write_text(markdown(result), encoding="utf-8")
    if bench.targets:
        draw_picture(out / "compare.png", result)
    page(out, result).write(out / "report.html")
    finish(out, of=bench.against)
    print(f"report.html, compare.md, compare.json and a picture are in {out}")
    return result


def _need(
    config: CompareConfig, loaded: dict[str, WeightDataset], tokenizers: list[WeightTokenizer]
) -> tuple[int, str]:
    """Bytes that a comparison holds, about, and of what: counted fields with their codes, held-out ones and their pictures."""
    train, held, values = config.counted, config.held_out, 0
    for data in loaded.values():
        split = config.split or held_out_split(data)
        train, held = (min(a, len(data.splits.get(s, ()))) for a, s in ((train, "train"), (held, split)))
        if data.kind.name == "images" and held:
            values = max(values, int(data.extent(split).clamp_min(1).prod(1).max()) * data.config.out_dim)
    size, tokens = (
        max(found) for found in ([d.config.size for d in loaded.values()], [t.tokens_per_field for t in tokenizers])
    )
    klt = 16 * values * (train + values) if 0 < values <= WIDEST else 0
    bytes_ = train * (8 * size + 16 * tokens) + held * (12 * size + 16 * tokens + 8 * values) + klt
    return bytes_, f"codes of {train:,} training fields and pictures of {held:,} held-out ones"


def _seconds(tokenizer: WeightTokenizer, data: WeightDataset, bench: HeldOutFields, config: CompareConfig) -> float:
    """How long one tokenizer's row takes, about, from a few fields and a few steps of refit."""
    held, counted = len(bench.weights), min(config.counted, len(data.splits["train"]))
    few = bench.weights[:TRIED]
    began = time.perf_counter()
    ids = tokenizer.encode(few)
    middle = time.perf_counter()
    tokenizer.decode(ids)
    end = time.perf_counter()
    seconds = (2 * held + counted) / len(few) * (middle - began) + 2 * held / len(few) * (end - middle)
    if config.refitting.refit:
        settings = replace(config.refitting, refit_steps=min(config.refitting.refit_steps, 2))
        refit = Refit(tokenizer, settings)
        names, sizes = [""] * len(few), data.extent(bench.split)[bench.chosen[:TRIED]]
        began = time.perf_counter()
        refit(few, ids, names, sizes)
        seconds += (time.perf_counter() - began) * held / len(few) * config.refitting.refit_steps / settings.refit_steps
    return seconds


def check_signals(text: str, data: WeightDataset, main: WeightDataset) -> None:
    """Refuse fields of other signals: their pictures are not the ones compared."""
    theirs, ours = data.signals.get("name"), main.signals.get("name")
    if theirs != ours:
        raise ValueError(
            f"{text}: these are fields of {theirs!r}, but --fields has fields of {ours!r}. Compare fits of the same signals."
        )


def same_signals(text: str, data: WeightDataset, main: WeightDataset, bench: HeldOutFields) -> Tensor:
    """Where the signals of a bench stand in the same split of another dataset.

    Raises:
        ValueError: if one is not there, or is a training signal there.
    """
    names = main.ids(bench.split)
    wanted = [names[i] for i in bench.chosen.tolist()]
    known = set(data.ids("train")) if "train" in data.splits and bench.split != "train" else set()
    places: dict[str, int] = {}
    for i, name in enumerate(data.ids(bench.split) if bench.split in data.splits else []):
        places.setdefault(name, i)
    for name in wanted:
        if not name or name not in places or name in known:
            where = "a training signal" if name in known else f"not in split {bench.split}"
            raise ValueError(
                f"{text}: signal {name or '(without a name)'} of --fields is {where} in the other one. Fit both with the same --split-seed "
                "and --limit."
            )
    return torch.tensor([places[name] for name in wanted], dtype=torch.int64)


def _bench(data: WeightDataset, config: CompareConfig, chosen: Tensor | None = None) -> HeldOutFields:
    c = config
    return make_bench(data, c.held_out, c.seed, c.signals, c.data_root, split=c.split, chosen=chosen)


def _names(paths: list[str]) -> dict[str, str]:
    """The last part of each tokenizer's path, or all of it where that is not enough."""
    short = [Path(divide(p, "")[0]).name for p in paths]
    return {p: s if short.count(s) == 1 else p for p, s in zip(paths, short, strict=True)}


def compare_row(
    tokenizer: WeightTokenizer, path: str, data: WeightDataset, bench: HeldOutFields, config: CompareConfig
) -> dict[str, Any]:
    """One row: what `measure` gives, plain and refitted, sizes and speeds."""
    chosen = draw(len(data.splits["train"]), config.counted, config.seed)
    counts = Counts(tokenizer.tokens_per_field, tokenizer.codes)
    counts.add(tokenizer.encode(data.weights("train", chosen)))
    start = time.perf_counter()
    ids = tokenizer.encode(bench.weights)
    middle = time.perf_counter()
    tokenizer.decode(ids)
    end, stored = time.perf_counter(), Path(path) / "model.safetensors"
    row = {
        "kind": tokenizer.config.kind,
        **measure(tokenizer, data, bench, counts, ids),
        "encode_per_s": len(ids) / (middle - start),
        "decode_per_s": len(ids) / (end - middle),
        "tokenizer_bytes": stored.stat().st_size if stored.is_file() else None,
        "token_bytes_per_field": _token_bytes(Path(path) / "tokens", data),
    }
    row["bits_nominal"] = row["bits_per_weight_raw"] * data.config.size
    row["bits_pooled"] = row["bits_per_weight_marginal"] * data.config.size
    if config.refitting.refit:
        row["refit"] = _refitted(tokenizer, data, bench, counts, ids, config)
    return row


def _refitted(
    tokenizer: WeightTokenizer,
    data: WeightDataset,
    bench: HeldOutFields,
    counts: Counts,
    ids: Tensor,
    config: CompareConfig,
) -> dict[str, Any]:
    """The same fields after refit; bits under the counts of plain codes."""
    device = choose_device(config.device)
    refit = Refit.of(tokenizer, data, config.refitting, config.signals, config.data_root, device)
    names, start = data.ids(bench.split), time.perf_counter()
    chosen = [names[i] for i in bench.chosen.tolist()], data.extent(bench.split)[bench.chosen]
    with bar(total=len(ids), desc="refit", unit="field", leave=False) as shown:
        better = refit(bench.weights, ids, *chosen, shown.update)
    seconds = time.perf_counter() - start
    return {**measure(tokenizer, data, bench, counts, better), "fields_per_s": len(ids) / seconds}


def _surfaces(
    data: WeightDataset, bench: HeldOutFields, tokenizers: dict[str, WeightTokenizer], config: CompareConfig, out: Path
) -> dict[str, Any]:
    """Surfaces of shapes, fields and round trips, with `surfaces.png`; nothing where the shapes are not at hand."""
    if not isinstance(bench.source, Shapes):
        return {}
    rows = torch.arange(len(bench.weights))[: config.surfaces]
    known = data.ids(bench.split)
    places = bench.source.find([known[i] for i in bench.chosen[rows].tolist()])
    columns = {"fields": bench.weights[rows]}
    columns |= {name: one.decode(one.encode(bench.weights[rows])).cpu() for name, one in tokenizers.items()}
    sides, views = compare_surfaces(data, bench.source, places, columns, seed=config.seed)
    save_png(out / "surfaces.png", sheet(views, len(sides), captions=[s["name"] for s in sides] * len(rows)))
    print("\n".join(surface_line(side) for side in sides))
    return {"surfaces": {"shapes": len(rows), "size": SIZE, "points": POINTS, "radius": RADIUS, "rows": sides}}


def _token_bytes(folder: Path, data: WeightDataset) -> float | None:
    """Bytes on disk of a field's tokens, ids and labels with them; None without tokens of all fields."""
    files = list(folder.glob("*.parquet"))
    return sum(f.stat().st_size for f in files) / sum(len(rows) for rows in data.splits.values()) if files else None


# -- showing ---------------------------------------------------------------------------------------------------------

COLUMNS = (
    ("tokens", "tokens_per_field", "d"),
    ("codes", "codes_made", "d"),
    ("used", "codes_used", "d"),
    ("bits, nominal", "bits_nominal", ",.0f"),
    ("bits, per position", "bits_per_field", ",.0f"),
    ("PSNR", "psnr_after", ".2f"),
    ("IoU of shapes", "iou_after", ".3f"),
    ("refit: bits", "refit.bits_per_field", ",.0f"),
    ("refit: PSNR", "refit.psnr_after", ".2f"),
    ("refit: fields/s", "refit.fields_per_s", ",.0f"),
    ("encode: fields/s", "encode_per_s", ",.0f"),
    ("decode: fields/s", "decode_per_s", ",.0f"),
    ("bytes per field on disk", "token_bytes_per_field", ",.0f"),
    ("tokenizer, bytes", "tokenizer_bytes", ",d"),
)


def _cell(row: dict, key: str, form: str) -> str:
    found = value_under(row, key)
    return "-" if found is None else format(found, form)


CODECS = (
    "KLT of pixels and WebP code the pictures themselves, with no field in between: the best linear transform of training "
    "pictures, its coefficients rounded and charged by their counts, and a lossless file of each picture alone."
)


def every(result: dict) -> list[dict]:
    """Tokenizers, then codecs of the pictures."""
    return result["rows"] + result["pictures"]


def markdown(result: dict) -> str:
    """compare.md."""
    before = "" if result["psnr_before"] is None else f", {result['psnr_before']:.2f} dB before"
    head = ["tokenizer"] + [name for name, _, _ in COLUMNS]
    body = [[r["name"]] + [_cell(r, key, form) for _, key, form in COLUMNS] for r in every(result)]
    lines = [
        f"{result['fields']:,} fields of split {escape_markdown(result['split'])}, seed {result['seed']}{before}. PSNR (dB, mean over "
        f"fields) against {escape_markdown(result['psnr_against'])}. Bits of a field: nominal is tokens x log2 codes, per position is the "
        "cross-entropy under each position's training counts (plain codes) plus 1."
        + (f" {CODECS}" if result["pictures"] else ""),
        "",
        markdown_table(head, body),
    ]
    if "surfaces" in result:
        named = [surface_cells(side) for side in result["surfaces"]["rows"]]
        lines += ["", surface_note(result["surfaces"]), "", markdown_table(["", *(n for n, _, _ in SURFACE)], named)]
    return "\n".join(lines) + "\n"


SURFACE = (
    ("IoU", "iou", ".3f"),
    ("Chamfer x10^4", "chamfer", ".2f"),
    ("F-score", "f_score", ".3f"),
    ("closed", "closed", ".0%"),
    ("no surface", "without_surface", ".0%"),
    ("parts", "parts", ".1f"),
)


def surface_cells(side: dict) -> list[str]:
    """One row of the table of surfaces."""
    scaled = side | {"chamfer": None if side["chamfer"] is None else 1e4 * side["chamfer"]}
    return [side["name"], *(_cell(scaled, key, form) for _, key, form in SURFACE)]


def surface_line(side: dict) -> str:
    """One row of surfaces for the terminal."""
    name, *cells = surface_cells(side)
    return f"{name}: " + ", ".join(f"{what} {cell}" for (what, _, _), cell in zip(SURFACE, cells, strict=True))


def surface_note(found: dict) -> str:
    """What the table of surfaces says."""
    return (
        f"Surfaces of {found['shapes']} shapes on grids of {found['size']}^3 cells, {found['points']:,} points of each: sum of "
        f"the mean squared distances both ways, and F-score within {found['radius']} (the cube's edge is 2). The row of the "
        "shapes is of other points of the same surfaces; parts are connected ones."
    )


def page(out: Path, result: dict) -> Page:
    """The comparison as one file to look at, with the picture in its folder."""
    before = result["psnr_before"]
    known = "" if before is None else f" The fields themselves have {before:.2f} dB."
    measure = "IoU" if all(row.get("iou_after") is not None for row in result["rows"]) else "PSNR"
    made = Page(
        "Comparison of tokenizers",
        f"{result['fields']:,} fields of split {result['split']}, seed {result['seed']}; {measure} is a mean over fields, against "
        f"{result['psnr_against']}.{known}",
    )
    rows = [[_cell(r, key, form) for _, key, form in COLUMNS] for r in every(result)]
    told = [
        i for i in range(len(COLUMNS)) if any(row[i] != "-" for row in rows)
    ]  # without refit its columns say nothing
    named = [[r["name"], *(row[i] for i in told)] for r, row in zip(every(result), rows, strict=True)]
    made.table(["tokenizer", *(COLUMNS[i][0] for i in told)], named)
    made.notes([CODECS] if result["pictures"] else [])
    if (out / "compare.png").is_file():
        made.heading("Bits and what they buy")
        made.picture(
            out / "compare.png",
            "PSNR over bits of a field: dots as encoded, hollow ones nominal, crosses after refit",
        )
    if "surfaces" in result:
        made.heading("Surfaces")
        made.table(
            ["", *(name for name, _, _ in SURFACE)], [surface_cells(side) for side in result["surfaces"]["rows"]]
        )
        made.text(surface_note(result["surfaces"]))
        made.picture(out / "surfaces.png", "Each row a shape, its field, and what each tokenizer makes of the field")
    made.made_by(out / "run.json")
    return made


def line(row: dict) -> str:
    """One row for the terminal."""
    said = "as they are" if row.get("kind") == "lossless" else f"{_cell(row, 'psnr_after', '.2f')} dB"
    said = f"IoU {row['iou_after']:.3f}" if row.get("iou_after") is not None else said
    text = f"{row['name']}: {row['bits_per_field']:,.0f} bits, {said}"
    if "refit" in row:
        text += f"; refit {row['refit']['bits_per_field']:,.0f} bits, {_cell(row, 'refit.psnr_after', '.2f')} dB"
    return text


def draw_picture(path: Path, result: dict) -> None:
    """PSNR over bits of a field: dots as encoded, hollow ones nominal, crosses after refit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    kinds = list(dict.fromkeys(r["kind"] for r in result["rows"]))
    for r in result["rows"]:
        colour = f"C{kinds.index(r['kind'])}"
        axes.plot(r["bits_per_field"], r["psnr_after"], "o", color=colour)
        axes.plot(r["bits_nominal"], r["psnr_after"], "o", color=colour, markerfacecolor="none", markersize=4)
        if "refit" in r:
            x, y = r["refit"]["bits_per_field"], r["refit"]["psnr_after"]
            axes.plot([r["bits_per_field"], x], [r["psnr_after"], y], "-", color=colour, linewidth=0.7)
            axes.plot(x, y, "x", color=colour)
        axes.annotate(r["name"], (r["bits_per_field"], r["psnr_after"]), (5, -9), "data", "offset points", fontsize=7)
    for i, kind in enumerate(kinds):
        axes.plot([], [], "o", color=f"C{i}", label=kind)
    axes.plot([], [], "o", color="gray", markerfacecolor="none", markersize=4, label="nominal bits")
    if any("refit" in r for r in result["rows"]):
        axes.plot([], [], "x", color="gray", label="after refit")
    klt = [(r["bits_per_field"], r["psnr_after"]) for r in result["pictures"] if r["psnr_after"] is not None]
    if klt:
        axes.plot(*zip(*klt, strict=True), "k--", linewidth=0.8, label="KLT of pixels, no field")
    for r in result["pictures"]:
        if r["psnr_after"] is None:
            axes.axvline(
                r["bits_per_field"], color="gray", linewidth=0.8, linestyle=":", label=f"{r['name']}, no field"
            )
    if result["psnr_before"] is not None:
        axes.axhline(result["psnr_before"], color="gray", linewidth=0.8, linestyle="--", label="fields as fitted")
    axes.set(xscale="log", xlabel="bits per field", ylabel=f"PSNR (dB) against {result['psnr_against']}")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="both")
    with write_atomic(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
