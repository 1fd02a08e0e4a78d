"""An existing weight dataset with the neurons of all fields matched to one row, or sorted:  python scripts/align_fields.py"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.fitting.options import AlignConfig, How
from fields.model import values
from fields.runtime import runs
from fields.runtime.console import plural
from fields.signals.origin import ORIGIN
from fields.storage.dataset import KEPT, WeightDataset, summary
from fields.storage.fetch import beside
from fields.storage.reference import Reference
from fields.symmetry import align, balance, canonical
from fields.view.render import save_png, sheet

PAIRS = 500
"""Pairs of fields whose distances and means are reported."""


def align_dataset(config: AlignConfig) -> dict:
    """The command: every split aligned and saved, and what it changed, also in OUT/align.json.

    Returns:
        Mean distances to the reference and within pairs of training fields, and the quality of a pair's mean weights against
        the mean of its values; each before and after.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    data = WeightDataset.load(config.fields, flag="--fields")
    print(summary(data))
    data.check_training()
    at = _reference(data, config.reference) if config.how == "match" else None
    settings = {**asdict(config), "fields": None, "out": None}
    if config.how == "match":
        del settings["how"]  # folders made before there was a choice
    how: dict[str, Any] = {"parents": {"fields": data.fingerprint}, "kind": "align"}
    about, default = (
        settings | {"fields": config.fields},
        beside(config.fields, {"match": "aligned", "sort": "sorted"}[config.how]),
    )
    out = config.out or runs.vacant(default, about, free=("threads", "fields"), **how)
    runs.claim(out, settings, free=("threads",), **how)
    if all((out / name).is_file() for name in ("align.json", "field.json")):  # field.json comes last
        print(f"{out} is complete")
        return runs.read_json(out / "align.json", "Delete the folder and run the command again.", dict)
    made, report = save_aligned(data, at, out, config.how)
    print(f"wrote {out} (fingerprint {made.fingerprint})")
    return report


def save_aligned(data: WeightDataset, at: int | None, out: Path, how: How = "match") -> tuple[WeightDataset, dict]:
    """Align (or sort), save to `out`, with align.json and walks between fields before and after (interpolation.png).

    Args:
        data: the fields.
        at: training field that all are matched to; None = the one with the highest PSNR.
        out: may be the folder that `data` was read from.
        how: matched to that field, or sorted.
    Returns:
        The aligned dataset, and what align.json says.
    """
    began = time.perf_counter()
    if how == "sort":
        made = in_canonical_order(data)
        report: dict[str, Any] = {"reference": None, "how": how}
        report |= {"before": measure_closeness(data), "after": measure_closeness(made)}
    else:
        at = _reference(data, None) if at is None else at
        made, row = aligned(data, at)
        name, before = data.ids("train")[at] or f"row {at}", measure_closeness(data, data.weights("train", [at])[0])
        report = {"reference": name, "before": before, "after": measure_closeness(made, row)}
    draw_walks(out / "interpolation.png", data, made, "sorted" if how == "sort" else "aligned")
    kept = (*KEPT, "failed.json", "interpolation.png")
    also = {"align.json": report} | ({ORIGIN: data.origin} if data.origin else {})
    made.save(out, keep=kept, also=also)  # together: half of it would be aligned twice
    fields = sum(len(rows) for rows in data.splits.values())
    seconds = time.perf_counter() - began
    done = "sorted" if how == "sort" else f"aligned to {report['reference']}"
    print(f"{plural(fields, 'field')} {done} in {seconds:.1f} s, none changed its function")
    for key, text in (
        ("to_reference", "mean distance to the reference"),
        ("between", "mean distance between two fields"),
        (
            "halfway",
            f"{type(data.kind).measure.title} of a field half-way between two, against the mean of their values",
        ),
    ):
        before, after = report["before"][key], report["after"][key]
        if before is not None:
            print(f"{text}: {before:.2f} -> {after:.2f}")
    return made, report


def aligned(data: WeightDataset, at: int) -> tuple[WeightDataset, Tensor]:
    """Every field matched to one of them; each is checked to compute what it did before.

    Args:
        at: that one, a row of the training split.
    Returns:
        The aligned dataset and the balanced row, (P,), that its fields were matched to.
    """
    row, name = balance(data.config, data.weights("train", [at]))[0], data.ids("train")[at] or f"row {at}"
    how = f"{data.reference.how}; neurons matched to training field {name} (weight matching, arXiv:2209.04836)"
    start = Reference("unknown", how, row, seen=data.reference.seen)
    return _changed(data, lambda weights: align(data.config, weights, row, quiet=False), start), row


def in_canonical_order(data: WeightDataset) -> WeightDataset:
    """Every field with its neurons in canonical order; each is checked to compute what it did before."""
    how = f"{data.reference.how}; neurons sorted by their weights on the output"
    name = data.reference.start if data.reference.row is None else "unknown"  # rows left the common start
    start = Reference(name, how, seen=data.reference.seen)
    return _changed(data, lambda weights: canonical(data.config, weights, quiet=False), start)


def _changed(data: WeightDataset, change: Callable[[Tensor], Tensor], start: Reference) -> WeightDataset:
    """The same fields in other rows."""
    every = {split: data.rows(split) for split in data.splits}
    splits = {split: rows.with_weights(change(rows.weights)) for split, rows in every.items()}
    return WeightDataset.from_rows(data.config, splits, start, data.signals)


def draw_walks(path: Path, before: WeightDataset, after: WeightDataset, name: str) -> bool:
    """A picture of straight lines between training fields, by their weights: each pair before and after alignment.

    Returns:
        Whether there was something to draw: two training fields that their kind can draw.
    """
    extent, config = before.extent("train")[0].tolist(), before.config
    pairs, steps = min(4, len(before.splits["train"]) // 2), 9
    if not pairs or not before.kind.drawable(config, extent):
        return False
    order = torch.randperm(len(before.splits["train"]), generator=torch.Generator().manual_seed(0))[: 2 * pairs]
    share, pictures, captions = torch.linspace(0, 1, steps)[:, None], [], []
    for a, b in order.view(-1, 2).tolist():
        for which, data in (("before", before), (name, after)):
            ends = data.weights("train", [a, b])
            pictures.append(before.kind.thumbnail(config, ends[:1].lerp(ends[1:], share), extent))
            captions += [which] + [""] * (steps - 1)
    save_png(path, sheet(torch.cat(pictures), steps, captions=captions))
    return True


def _reference(data: WeightDataset, name: str | None) -> int:
    """Position of the reference in the training split."""
    data.check_training()
    if name is None:
        return data.kind.measure.best(data.quality("train"))
    ids = data.ids("train")
    if name not in ids:
        raise ValueError(f"--reference {name} is not a training signal of the dataset; their ids look like {ids[0]}.")
    return ids.index(name)


def measure_closeness(data: WeightDataset, row: Tensor | None = None) -> dict[str, float | None]:
    """How close the training fields lie to `row` (if there is one) and to each other, and whether mean weights give mean values."""
    weights = data.weights("train")
    order = torch.randperm(len(weights), generator=torch.Generator().manual_seed(0))[: 2 * PAIRS]
    a, b = weights[order[: len(order) // 2]], weights[order[len(order) // 2 :][: len(order) // 2]]
    found: dict[str, float | None] = {"to_reference": None, "between": None, "halfway": None}
    if row is not None:
        found["to_reference"] = float((weights - row).norm(dim=1).mean())
    if len(a):
        found["between"] = float((a - b).norm(dim=1).mean())
        extent = data.extent("train")[0].tolist()
        if data.kind.known(extent):
            points = data.kind.points(data.config, extent)
            ends, middle = (values(data.config, rows, points) for rows in (torch.cat([a, b]), (a + b) / 2))
            mean = (ends[: len(a)] + ends[len(a) :]) / 2
            found["halfway"] = float(data.kind.quality(data.config, middle, mean).mean())
    return found
