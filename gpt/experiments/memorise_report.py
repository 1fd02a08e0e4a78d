"""The experiment's table, its pictures of generated fields, and its curves."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from fields.runtime import console, runs
from fields.runtime.text import markdown_table
from fields.signals.base import Signals
from fields.storage.dataset import WeightDataset
from fields.view.render import render

COLOURS = {"unconditioned": "#D55E00", "conditioned": "#0072B2", "meta": "#009E73", "aligned": "#CC79A7"}
"""Okabe and Ito's, told apart by colour-blind readers."""
NUMBERS = {
    "psnr_fit": "fitted",
    "psnr_mean": "mean field",
    "psnr_signal": "roll-out",
    "psnr_own": "roll-out, field",
    "psnr_nearest": "nearest field",
    "psnr_prefixed": "from 16 weights",
    "psnr_teacher": "teacher-forced",
}
COLUMNS = ("start", "N", "seeds", *NUMBERS.values(), "L1", "explodes at")


def write_report(out: Path, cells: list, data: dict[str, WeightDataset], pool: Signals, config: Any) -> dict[str, Any]:
    """table.md, results.json, roll-outs.png and curves.png.

    Args:
        out: the experiment's folder, all cells finished.
        cells: of the experiment.
        data: fields by start.
        pool: their signals.
        config: the experiment's.
    """
    found = {cell: runs.read_json(out / "cells" / cell.name / "cell.json", schema=dict) for cell in cells}
    if runs.is_finished(out, list(found.values())):
        return runs.read_json(out / "results.json", schema=dict)
    rows = table(found, next(iter(data.values())).config.size)
    with runs.write_atomic(out / "table.md") as temporary:
        temporary.write_text(markdown_table(COLUMNS, rows) + "\n", encoding="utf-8")
    draw_roll_outs(out / "roll-outs.png", out, cells, data, pool, config)
    draw_curves(out / "curves.png", out, found, data, config)
    results = {"cells": [found[c] for c in cells]}
    runs.write_json(out / "results.json", results)
    print(console.text_table(list(COLUMNS), rows))
    runs.finish(out, of=list(found.values()))
    print(f"table.md, results.json, roll-outs.png and curves.png are in {out}")
    return results


def table(found: dict, weights: int) -> list[list[str]]:
    """Lines of a table: per start and N the mean over seeds, +- their standard deviation where there are several."""
    groups = defaultdict(list)
    for cell, numbers in found.items():
        groups[cell.start, cell.n].append(numbers)
    order = {start: i for i, start in enumerate(COLOURS)}
    lines = []
    for (start, n), rows in sorted(groups.items(), key=lambda item: (order[item[0][0]], item[0][1])):
        means = {k: [float(np.mean(r[k])) for r in rows] for k in rows[0] if k.startswith("psnr") or k == "l1"}
        ends = [float(np.median(r["exploded"])) for r in rows]
        end = f"{np.median(ends):.0f}" if np.median(ends) < weights else "never"
        shown = [mean_and_deviation(means[k], 1) for k in NUMBERS]
        lines.append([start, str(n), str(len(rows)), *shown, mean_and_deviation(means["l1"], 4), end])
    return lines


def mean_and_deviation(values: list[float], digits: int) -> str:
    """Mean, and +- the standard deviation of several."""
    text = f"{np.mean(values):.{digits}f}"
    return f"{text} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else text


def shown_cells(cells: list, start: str, n: int) -> list:
    """The cells of one row of pictures, one per seed."""
    return sorted((c for c in cells if c.start == start and c.n == n), key=lambda c: c.seed)


def generated(out: Path, cell: Any, key: str = "rolled") -> Tensor:
    """(N, P) rows that a cell's model wrote down."""
    return load_file(out / "cells" / cell.name / "rows.safetensors")[key]


def picture_sizes(cells: list) -> list[int]:
    """The numbers of fields that get a row of pictures: those with all seeds, above 1 if there are several."""
    seeds = defaultdict(set)
    for cell in cells:
        seeds[cell.n].add(cell.seed)
    most = max(map(len, seeds.values()))
    sizes = sorted(n for n, s in seeds.items() if len(s) == most)
    return [n for n in sizes if n > 1] or sizes


def draw_roll_outs(path: Path, out: Path, cells: list, data: dict, pool: Signals, config: Any, most: int = 4) -> None:
    """One block per start: the digits, and what models of N = 4, N = 32, ... generate; columns are digits, `most` a seed."""
    from matplotlib.figure import Figure

    sizes, starts = picture_sizes(cells), [s for s in COLOURS if s in data and any(c.start == s for c in cells)]
    per_seed = min(most, min(sizes))
    seeds = sorted({c.seed for c in cells if c.n in sizes})
    at = [seed * config.most + i for seed in seeds for i in range(per_seed)]
    images = pool.images(at)
    rows = 1 + len(sizes)
    height = len(starts) * rows
    figure = Figure(figsize=(0.95 + 0.62 * len(at), 0.3 + 0.66 * height), dpi=150)
    axes = figure.subplots(height, len(at), squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    figure.subplots_adjust(
        left=0.95 / figure.get_figwidth(), right=0.995, top=1 - 0.25 / figure.get_figheight(), bottom=0.005
    )
    for block, start in enumerate(starts):
        strips = [("signal", images)]
        for n in sizes:
            drawn = [
                render(data[start].config, generated(out, cell)[:per_seed], *images.shape[1:3])
                for cell in shown_cells(cells, start, n)
            ]
            strips.append((f"N = {n}", torch.cat(drawn)))
        for i, (label, strip) in enumerate(strips):
            for j, picture in enumerate(strip):
                place = axes[block * rows + i, j]
                place.imshow(picture.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            left = axes[block * rows + i, 0]
            left.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, labelpad=4)
        top, low = axes[block * rows, 0].get_position().y1, axes[block * rows + rows - 1, 0].get_position().y0
        figure.text(0.06 / figure.get_figwidth(), (top + low) / 2, start, rotation=90, va="center", ha="left",
                    fontsize=10, color=COLOURS[start], weight="bold")  # fmt: skip
    for place in axes.flat:
        place.set(xticks=[], yticks=[])
        place.spines[:].set_visible(False)
    for k, seed in enumerate(seeds):
        axes[0, k * per_seed].set_title(f"seed {seed}", fontsize=9, loc="left", pad=3)
    with runs.write_atomic(path) as temporary:
        figure.savefig(temporary)


def draw_curves(path: Path, out: Path, found: dict, data: dict, config: Any) -> None:
    """Quality against N, and how the error grows along a roll-out of the most fields."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    most = max(c.n for c in found)
    for start, colour in COLOURS.items():
        mine = [c for c in found if c.start == start]
        if not mine:
            continue
        sizes = sorted({c.n for c in mine})
        by_n = [[float(np.mean(found[c]["psnr_own"])) for c in mine if c.n == n] for n in sizes]
        left.plot(sizes, [np.mean(v) for v in by_n], color=colour, marker="o", markersize=4, label=start)
        prefixed = [np.mean([np.mean(found[c]["psnr_prefixed"]) for c in mine if c.n == n]) for n in sizes]
        left.plot(sizes, prefixed, color=colour, linestyle="--", linewidth=1)
        for n, values in zip(sizes, by_n, strict=True):
            left.plot([n] * len(values), values, ".", color=colour, markersize=3)
        errors = []
        for cell in (c for c in mine if c.n == most):
            first = cell.seed * config.most
            truth = data[start].weights("train")[first : first + cell.n]
            errors.append((generated(out, cell) - truth).abs().mean(0))
        if errors:
            mean = torch.stack(errors).mean(0)[1:]
            smooth = mean.unfold(0, min(9, len(mean)), 1).mean(1)
            right.plot(range(1, len(smooth) + 1), smooth, color=colour, linewidth=1.2, label=start)
    left.set(xscale="log", xlabel="fields memorised, N", ylabel="PSNR of the roll-out\nagainst the field itself (dB)")
    left.set_xticks(ticks := sorted({c.n for c in found}), [str(n) for n in ticks])
    left.minorticks_off()
    left.plot([], [], color="0.4", linestyle="--", linewidth=1, label="from 16 weights")
    left.legend(frameon=False, fontsize=8)
    right.set(yscale="log", xlabel="weight number along the roll-out", ylabel=f"mean absolute error, N = {most}")
    widths = next(iter(data.values())).config.widths
    bounds = np.cumsum([fan_out * (fan_in + 1) for fan_in, fan_out in zip(widths, widths[1:], strict=False)])
    for i, bound in enumerate(bounds[:-1]):
        right.axvline(bound, color="0.6", linewidth=0.8, linestyle=":")
        right.text(
            bound, 1.01, f"layer {i + 1}", transform=right.get_xaxis_transform(), fontsize=7, color="0.4", ha="center"
        )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    with runs.write_atomic(path) as temporary:
        figure.savefig(temporary)
