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
from fields.storage.rows import Rows

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
    extent: tuple[int, ...]


def cut(
    architecture: FieldConfig, signals: Signals, fits: int, device: torch.device, share: float = 1.0
) -> list[list[Block]]:
    """All jobs, as parts of blocks, in an order that depends on nothing but the signals.

    Args:
        share: of the points that a step sees; where all signals share them it counts below a half.
    """
    blocks = []
    for number in range(fits):
        for size in sorted(map(tuple, signals.extent.unique(dim=0).tolist())):
            same = (signals.extent == torch.tensor(size)).all(1).nonzero().flatten().tolist()
            part = min(1.0, 2 * share) if signals.shared else share  # sized for half of the shared points, as measured
            points = max(1, round(signals.count(size) * part))
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
            named = "quality" if "quality" in file.files else "psnr"  # parts of a fit that began with an older version
            part = {"weights": file["weights"], "quality": file[named]}
    except Exception:  # whatever a damaged file raises: zip, header, CRC or missing keys
        return None
    return part if part["weights"].shape == (rows, size) and part["quality"].shape == (rows,) else None


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
    weights, quality = np.empty((len(order), architecture.size), np.float32), np.empty(len(order), np.float32)
    at = 0
    for i, part in enumerate(parts):
        count = sum(len(b.indices) for b in part)
        rows = read_part(out, i, count, architecture.size)
        if rows is None:
            raise RuntimeError(
                f"{part_file(out, i)} is missing or damaged. Run the same command again: it goes on there."
            )
        weights[at : at + count], quality[at : at + count] = rows["weights"], rows["quality"]
        at += count
    good = np.isfinite(quality)
    if not good.any():
        raise RuntimeError("every field diverged; nothing is stored. Lower --lr.")
    splits = {}
    for split in ("train", "validation", "test"):
        rows = [r for r, (i, _) in enumerate(order) if good[r] and signals.split[i] == split]
        if rows:
            splits[split] = rows_of(signals, [order[r] for r in rows], weights[rows], quality[rows], seed_of)
    failed = [signals.ids[order[r][0]] for r in np.flatnonzero(~good)] + [name for name, _ in signals.skipped]
    if failed:
        runs.write_json(out / "failed.json", failed)
    data = WeightDataset.from_rows(architecture, splits, reference, described(signals, splits))
    data.save(out)
    shutil.rmtree(out / "parts")


def described(signals: Signals, splits: dict[str, Rows]) -> dict:
    """What a dataset says of its signals, with the digest of those that were fitted and how many they are."""
    ids = {name for rows in splits.values() for name in rows.ids}
    return {**signals.describe(), "digest": signals.digest(sorted(ids)), "digest_of": len(ids)}


def rows_of(
    signals: Signals, jobs: list[tuple[int, int]], weights: np.ndarray, quality: np.ndarray, seed_of: Callable
) -> Rows:
    """Fitted fields with what their signals say.

    Args:
        jobs: (position of the signal, number of the fit) of each row.
        weights: (N, P).
        quality: (N,).
        seed_of: seed of a fit by the signal's id and the fit's number.
    """
    indices = torch.tensor([i for i, _ in jobs])
    return Rows(
        torch.from_numpy(weights),
        [signals.ids[i] for i, _ in jobs],
        None if signals.labels is None else signals.labels[indices],
        torch.tensor([seed_of(signals.ids[i], n) for i, n in jobs]),
        torch.from_numpy(quality),
        signals.extent[indices],
    )
