"""An existing weight dataset with the neurons of all fields matched to one row:  python scripts/align_fields.py"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from fields import runs
from fields.dataset import Reference, WeightDataset, summary
from fields.metrics import psnr
from fields.render import render, save_png, sheet
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

    fields: str
    """A weight dataset: a folder, or user/name on the Hub."""
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
    data = WeightDataset.load(config.fields, flag="--fields")
    print(summary(data))
    at = _reference(data, config.reference)
    settings = {**asdict(config), "fields": None, "out": None}
    runs.claim(config.out, settings, parents={"fields": data.fingerprint}, free=("threads",))
    if (config.out / "align.json").is_file():
        print(f"{config.out} is complete")
        return runs.read_json(config.out / "align.json")
    made, report = save_aligned(data, at, config.out)
    print(f"wrote {config.out} (fingerprint {made.fingerprint})")
    return report


def save_aligned(data: WeightDataset, at: int | None, out: Path) -> tuple[WeightDataset, dict]:
    """Align, save to `out`, draw walks between fields before and after (interpolation.png), and, last, write align.json.

    Args:
        data: the fields.
        at: training field that all are matched to; None = the one with the highest PSNR.
        out: may be the folder that `data` was read from.
    Returns:
        The aligned dataset, and what align.json says.
    """
    began = time.perf_counter()
    at = _reference(data, None) if at is None else at
    made, row = aligned(data, at)
    report = {
        "reference": data.ids("train")[at] or f"row {at}",
        "before": measure(data, data.weights("train", [at])[0]),
        "after": measure(made, row),
    }
    made.save(out, keep=("run.json", "README.md", "failed.json"))
    draw_walks(out / "interpolation.png", data, made)
    runs.write_json(out / "align.json", report)
    fields = sum(len(rows) for rows in data.splits.values())
    seconds = time.perf_counter() - began
    print(f"{fields:,} fields aligned to {report['reference']} in {seconds:.1f} s, none changed its function")
    for key, text in (
        ("to_reference", "mean distance to the reference"),
        ("between", "mean distance between two fields"),
        ("halfway_psnr", "PSNR of a field half-way between two, against the mean of their pictures (dB)"),
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
    row = balance(data.config, data.weights("train", [at]))[0]
    name = data.ids("train")[at] or f"row {at}"
    splits = {split: _aligned(data, split, row) for split in data.splits}
    how = f"{data.reference.how}; neurons matched to training field {name} (weight matching, arXiv:2209.04836)"
    return WeightDataset.from_rows(data.config, splits, Reference("unknown", how, row), data.signals), row


def draw_walks(path: Path, before: WeightDataset, after: WeightDataset, pairs: int = 4, steps: int = 9) -> bool:
    """A picture of straight lines between training fields, by their weights: each pair before and after alignment.

    Returns:
        Whether there was something to draw: two training fields of pictures of one known size.
    """
    height, width = before.sizes("train")[0].tolist()
    pairs = min(pairs, len(before.splits["train"]) // 2)
    if before.config.in_dim != 2 or min(height, width) < 1 or not pairs:
        return False
    order = torch.randperm(len(before.splits["train"]), generator=torch.Generator().manual_seed(0))[: 2 * pairs]
    share, pictures, captions = torch.linspace(0, 1, steps)[:, None], [], []
    for a, b in order.view(-1, 2).tolist():
        for name, data in (("before", before), ("aligned", after)):
            ends = data.weights("train", [a, b])
            pictures.append(render(data.config, ends[:1].lerp(ends[1:], share), height, width))
            captions += [name] + [""] * (steps - 1)
    save_png(path, sheet(torch.cat(pictures), steps, captions=captions))
    return True


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
