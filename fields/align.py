"""An existing weight dataset with the neurons of all fields matched to one row:  python scripts/align_fields.py"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from fields import runs
from fields.dataset import Reference, WeightDataset, summary
from fields.metrics import psnr
from fields.render import render
from fields.symmetry import align, balance

PAIRS = 500
"""Pairs of fields whose distances and means are reported."""


@dataclass(frozen=True)
class AlignConfig:
    """Reorder (and rescale) the hidden neurons of every field to lie close to one field; no field computes another value.

    Fields fitted from random weights differ by permutations of their neurons and, with ReLU, by scales. What is left
    after alignment is closer in weight space: easier to interpolate, to quantise and to learn.

    For example:
        accelerate launch scripts/fit_fields.py --start unconditioned --out runs/digits/unconditioned
        python scripts/align_fields.py --fields runs/digits/unconditioned --out runs/digits/aligned
    """

    fields: Path
    """A weight dataset."""
    out: Path
    """Folder for the aligned one."""
    reference: str | None = None
    """Signal id of the training field that all are matched to; default: the training field with the highest PSNR."""
    threads: int | None = None
    """CPU threads; None = PyTorch's choice."""

    def __post_init__(self):
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {self.threads}.")


def align_dataset(config: AlignConfig) -> dict:
    """The command: every split aligned and saved, and what it changed, also in OUT/align.json.

    Returns:
        Mean distances to the reference and within pairs of training fields, and the PSNR of the pairs' renders against
        the mean of their pictures when their weights are averaged; each before and after.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    data = WeightDataset.load(config.fields)
    print(summary(data))
    at = _reference(data, config.reference)
    name = data.ids("train")[at] or f"row {at}"
    settings = {**asdict(config), "fields": None, "out": None}
    runs.claim(config.out, settings, parents={"fields": data.fingerprint}, free=("threads",))
    if (config.out / "align.json").is_file():
        print(f"{config.out} is complete")
        return runs.read_json(config.out / "align.json")
    row, began = balance(data.config, data.weights("train", [at]))[0], time.perf_counter()
    splits = {split: _aligned(data, split, row) for split in data.splits}
    how = f"{data.reference.how}; neurons matched to training field {name} (weight matching, arXiv:2209.04836)"
    made = WeightDataset.from_rows(data.config, splits, Reference("unknown", how, row), data.signals)
    made.save(config.out)
    report = {
        "reference": name,
        "before": measure(data, data.weights("train", [at])[0]),
        "after": measure(made, row),
    }
    runs.write_json(config.out / "align.json", report)
    fields = sum(len(rows) for rows in data.splits.values())
    print(f"{fields:,} fields aligned to {name} in {time.perf_counter() - began:.1f} s, none changed its function")
    for key, text in (
        ("to_reference", "mean distance to the reference"),
        ("between", "mean distance between two fields"),
        ("halfway_psnr", "PSNR of a field half-way between two, against the mean of their pictures (dB)"),
    ):
        before, after = report["before"][key], report["after"][key]
        if before is not None:
            print(f"{text}: {before:.2f} -> {after:.2f}")
    print(f"wrote {config.out} (fingerprint {made.fingerprint})")
    return report


def _reference(data: WeightDataset, name: str | None) -> int:
    """Position of the reference in the training split."""
    if "train" not in data.splits or not len(data.splits["train"]):
        raise ValueError(
            f"the dataset has no training fields to match to (splits: {', '.join(data.splits) or 'none'})."
        )
    if name is None:
        return int(data.psnr("train").nan_to_num(-1.0).argmax())
    ids = data.ids("train")
    if name not in ids:
        raise ValueError(
            f"--reference {name} is no training signal of the dataset; they are called {ids[0]} and so on."
        )
    return ids.index(name)


def _aligned(data: WeightDataset, split: str, row: Tensor) -> dict:
    return {
        "weights": align(data.config, data.weights(split), row, quiet=False),
        "psnr": data.psnr(split),
        "labels": data.labels(split),
        "signal_id": data.ids(split),
        "seed": data.seeds(split),
        "sizes": data.sizes(split),
    }


def measure(data: WeightDataset, row: Tensor, seed: int = 0) -> dict[str, float | None]:
    """How close the training fields lie to `row` and to each other, and whether means of weights are means of pictures."""
    weights = data.weights("train")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(weights), generator=generator)[: 2 * PAIRS]
    a, b = weights[order[: len(order) // 2]], weights[order[len(order) // 2 :][: len(order) // 2]]
    found = {"to_reference": float((weights - row).norm(dim=1).mean()), "between": None, "halfway_psnr": None}
    if len(a):
        found["between"] = float((a - b).norm(dim=1).mean())
        height, width = data.sizes("train")[0].tolist()
        if data.config.in_dim == 2 and min(height, width) > 0:
            mean = (render(data.config, a, height, width) + render(data.config, b, height, width)) / 2
            found["halfway_psnr"] = float(psnr(render(data.config, (a + b) / 2, height, width), mean).mean())
    return found
