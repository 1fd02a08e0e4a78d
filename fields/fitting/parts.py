"""How a fit is cut into blocks and parts, and how the parts become a weight dataset."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fields.model import FieldConfig
from fields.runtime import runs
from fields.signals.base import Signals
from fields.storage.dataset import Reference, WeightDataset

CACHE = 800_000
"""Numbers in one hidden layer's activations of a block. Measured on two cores: a quarter of it leaves the threads waiting for
the interpreter (495 fields/s against 566), twice as much falls out of the cache (289)."""
MEMORY = 1 << 26
"""The same on a GPU: a quarter GiB for each of the few that are held at once."""
WIDE = 4096
"""Most fields in a block on a GPU."""
PART = 1024
"""Fields in one saved part: what an interruption costs at most, per process."""


@dataclass(frozen=True)
class Block:
    """Fits done together: signals of one size, one fit number."""

    indices: tuple[int, ...]
    number: int
    size: tuple[int, int]


def cut(architecture: FieldConfig, signals: Signals, fits: int, device: torch.device) -> list[list[Block]]:
    """All jobs, as parts of blocks, in an order that depends on nothing but the signals."""
    blocks = []
    for number in range(fits):
        for size in sorted(map(tuple, signals.sizes.unique(dim=0).tolist())):
            same = (signals.sizes == torch.tensor(size)).all(1).nonzero().flatten().tolist()
            points = size[0] * size[1]
            width = max(architecture.hidden) * points
            most, room = (256, CACHE) if device.type == "cpu" else (WIDE, MEMORY)
            step = max(1, min(most, room // width))
            blocks += [Block(tuple(same[i : i + step]), number, size) for i in range(0, len(same), step)]
    parts, count = [[]], 0
    for block in blocks:
        if count >= PART:
            parts.append([])
            count = 0
        parts[-1].append(block)
        count += len(block.indices)
    return parts


def part_file(out: Path, i: int) -> Path:
    return out / "parts" / f"part-{i:06d}.npz"


def read_part(out: Path, i: int, rows: int, size: int) -> dict[str, np.ndarray] | None:
    """A finished part, or None if it is missing or damaged (then it is fitted again)."""
    try:
        with part_file(out, i).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            part = {name: file[name] for name in ("weights", "psnr")}
    except Exception:  # whatever a damaged file raises: zip, header, CRC or missing keys
        return None
    return part if part["weights"].shape == (rows, size) and part["psnr"].shape == (rows,) else None


def assemble(
    architecture: FieldConfig,
    signals: Signals,
    reference: Reference,
    parts: list[list[Block]],
    out: Path,
    seed_of: Callable[[str, int], int],
) -> None:
    """Parts -> dataset; fields that never became finite are left out and listed in failed.json."""
    order = [(i, block.number) for part in parts for block in part for i in block.indices]
    weights, decibels = np.empty((len(order), architecture.size), np.float32), np.empty(len(order), np.float32)
    at = 0
    for i, part in enumerate(parts):
        count = sum(len(b.indices) for b in part)
        rows = read_part(out, i, count, architecture.size)
        if rows is None:
            raise RuntimeError(
                f"{part_file(out, i)} is missing or damaged. Run the same command again: it goes on there."
            )
        weights[at : at + count], decibels[at : at + count] = rows["weights"], rows["psnr"]
        at += count
    good = np.isfinite(decibels)
    if not good.any():
        raise RuntimeError("every field diverged; nothing is stored. Lower --lr.")
    splits = {}
    for split in ("train", "validation", "test"):
        rows = [r for r, (i, _) in enumerate(order) if good[r] and signals.split[i] == split]
        if rows:
            splits[split] = _rows(signals, [order[r] for r in rows], weights[rows], decibels[rows], seed_of)
    failed = [signals.ids[order[r][0]] for r in np.flatnonzero(~good)] + [name for name, _ in signals.skipped]
    if failed:
        runs.write_json(out / "failed.json", failed)
    data = WeightDataset.from_rows(architecture, splits, reference, signals.describe())
    data.save(out)
    shutil.rmtree(out / "parts")


def _rows(
    signals: Signals, jobs: list[tuple[int, int]], weights: np.ndarray, decibels: np.ndarray, seed_of: Callable
) -> dict:
    indices = torch.tensor([i for i, _ in jobs])
    return {
        "weights": torch.from_numpy(weights),
        "psnr": torch.from_numpy(decibels),
        "signal_id": [signals.ids[i] for i, _ in jobs],
        "labels": None if signals.labels is None else signals.labels[indices],
        "sizes": signals.sizes[indices],
        "seed": torch.tensor([seed_of(signals.ids[i], n) for i, n in jobs]),
    }
