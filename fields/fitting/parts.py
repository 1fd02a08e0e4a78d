"""How a fit is cut into blocks and parts, and how the parts become a weight dataset."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fields.model import FieldConfig
from fields.runtime import runs
from fields.signals.base import SPLITS, Signals
from fields.storage.columns import table_of
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference
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
class FitBlock:
    """Fits done together: signals of one size, one fit number."""

    indices: tuple[int, ...]
    number: int
    extent: tuple[int, ...]


def cut(
    architecture: FieldConfig, signals: Signals, fits: int, device: torch.device, share: float = 1.0
) -> list[list[FitBlock]]:
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
            blocks += [FitBlock(tuple(same[i : i + step]), number, size) for i in range(0, len(same), step)]
    parts: list[list[FitBlock]] = [[]]
    count = 0
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
    parts: list[list[FitBlock]],
    out: Path,
    seed_of: Callable[[str, int], int],
) -> None:
    """Parts -> dataset, a part at a time; fields that diverged or failed are left out and listed in failed.json."""
    from datasets import Dataset

    folder, failed, fitted = out / "parts", [], set()
    with _Tables(folder, architecture, signals) as tables:
        for i, part in enumerate(parts):
            jobs = [(k, block.number) for block in part for k in block.indices]
            found = read_part(out, i, len(jobs), architecture.size)
            if found is None:
                raise RuntimeError(
                    f"{part_file(out, i)} is missing or damaged. Run the same command again; it continues from there."
                )
            good = np.isfinite(found["quality"])
            failed += [signals.ids[jobs[r][0]] for r in np.flatnonzero(~good)]
            fitted |= {jobs[r][0] for r in np.flatnonzero(good)}
            for split in SPLITS:
                rows = [r for r, (k, _) in enumerate(jobs) if good[r] and signals.split[k] == split]
                if rows:
                    weights, quality = found["weights"][rows], found["quality"][rows]
                    tables.add(split, rows_of(signals, [jobs[r] for r in rows], weights, quality, seed_of))
    if not fitted:
        raise RuntimeError("every field diverged or failed; nothing was stored. Lower --lr, or raise --steps.")
    failed += [name for name, _ in signals.skipped]
    if failed:
        runs.write_json(out / "failed.json", failed)
    splits = {s: Dataset.from_file(str(tables.file(s)), split=s) for s in SPLITS if s in tables.writers}  # mapped
    about = described(signals, {signals.ids[k] for k in fitted})
    WeightDataset(architecture, splits, reference, about).save(out)
    del splits
    shutil.rmtree(folder)


class _Tables:
    """Rows appended to one Arrow file per split."""

    def __init__(self, folder: Path, architecture: FieldConfig, signals: Signals):
        self.folder, self.architecture, self.names = folder, architecture, signals.label_names
        self.about = signals.describe()
        self.writers: dict[str, Any] = {}

    def file(self, split: str) -> Path:
        return self.folder / f"rows-{split}.arrow"

    def add(self, split: str, rows: Rows) -> None:
        """Append rows of a split."""
        import pyarrow as pa

        table = table_of(self.architecture, split, rows, self.names, self.about)
        if split not in self.writers:
            self.writers[split] = pa.ipc.new_stream(str(self.file(split)), table.schema)
        self.writers[split].write_table(table)

    def __enter__(self) -> "_Tables":
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self.writers.values():
            writer.close()


def described(signals: Signals, ids: set[str]) -> dict:
    """What a dataset says of its signals, with the digest of those that were fitted and how many they are.

    Args:
        ids: of those that were fitted.
    """
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
