"""The Arrow table under a weight dataset: its declared columns, and rows in and out of it.

Datasets of the format weights/1 have the columns psnr, height and width; they are read as quality and extent.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields import layout
from fields.kinds.registry import kind_of
from fields.model import FieldConfig
from fields.runtime.digests import check_digest, of_footer
from fields.runtime.files import FETCH, is_pointer
from fields.runtime.text import check_split
from fields.storage.rows import Rows

PLAUSIBLE = 1e6
"""No weight of a field that can be drawn is as large: such rows are diverged or damaged, and make codes and scales useless."""
LONGEST = 1 << 24
"""No side of a picture and no number of points is larger."""
EDITED = "Download or make it again; rows that were changed on purpose are written by WeightDataset.save."
FORMER = {"quality": ("psnr",), "extent": ("height", "width")}
"""Columns -> those that stood in their place in the format weights/1."""


def features(size: int, label_names: list[str] | None):
    """The columns of a weight dataset, declared: empty ones keep their types."""
    from datasets import ClassLabel, Features, List, Value

    columns = {"weights": List(Value("float32"), length=size)}
    if label_names is not None:
        columns["label"] = ClassLabel(names=list(label_names))
    columns |= {"quality": Value("float32"), "signal_id": Value("string"), "seed": Value("int64")}
    return Features(columns | {"extent": List(Value("int32"))})


def stored_names(wanted: Iterable[str], found: Iterable[str]) -> list[str]:
    """The names that columns have in a file, which may be of the format weights/1."""
    found = set(found)
    names: list[str] = []
    for name in wanted:
        former = FORMER.get(name, ())
        names += former if name not in found and former and found.issuperset(former) else [name]
    return names


def current(table: Any):
    """A table with the columns of today in place of those of weights/1; others are left alone."""
    if "quality" not in table.column_names and "psnr" in table.column_names:
        table = table.rename_columns(["quality" if name == "psnr" else name for name in table.column_names])
    if "extent" not in table.column_names and {"height", "width"} <= set(table.column_names):
        sides = np.stack([table[name].to_numpy() for name in ("height", "width")], 1)
        column = extent_column(torch.from_numpy(sides))
        table = table.drop_columns(["height", "width"]).append_column("extent", column)
    return table


def extents(column: Any) -> Tensor:
    """A column of extents as (n, K) int64; shorter ones are filled up with 0, which says unknown."""
    import pyarrow as pa

    column = column.combine_chunks() if hasattr(column, "chunks") else column
    column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    lengths = np.diff(column.offsets.to_numpy())
    values = column.flatten().to_numpy().astype(np.int64)
    if not len(lengths) or (lengths == lengths[0]).all():
        return torch.from_numpy(values).reshape(len(lengths), int(lengths[0]) if len(lengths) else 2)
    out = np.zeros((len(lengths), lengths.max()), np.int64)
    out[np.arange(lengths.max()) < lengths[:, None]] = values
    return torch.from_numpy(out)


def extent_column(extent: Tensor):
    """(n, K) as an Arrow column of lists."""
    import pyarrow as pa

    starts = pa.array(np.arange(len(extent) + 1, dtype=np.int32) * extent.shape[1])
    return pa.ListArray.from_arrays(starts, pa.array(extent.to(torch.int32).numpy().ravel()))


def matrix(column: Any, size: int) -> Tensor:
    """An Arrow column of fixed-length lists as (n, P) float32."""
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    parts = [np.asarray(chunk.flatten()).reshape(-1, size) for chunk in chunks]
    return torch.from_numpy(np.concatenate(parts) if parts else np.zeros((0, size), np.float32))


def table_of(config: FieldConfig, split: str, rows: Rows, names: list[str] | None, signals: dict):
    """Rows in memory as an Arrow table with the declared schema."""
    check_split(split)  # it becomes part of a file's name
    import pyarrow as pa

    layout.check_weights(config, rows.weights)
    _check_weights(rows.weights.numpy(), f"split {split}", 0)
    n, extent = len(rows), rows.extent
    if extent is None:
        unknown = [0] * len(kind_of(config, signals).axes)
        extent = torch.tensor([signals.get("shape") or unknown] * n).reshape(n, -1 if n else len(unknown))
    flat = pa.array(rows.weights.contiguous().numpy().ravel())
    columns = {"weights": pa.FixedSizeListArray.from_arrays(flat, config.size)}
    if names is not None:
        columns["label"] = pa.array((torch.full((n,), -1) if rows.labels is None else rows.labels).numpy())
    columns["quality"], columns["signal_id"] = pa.array(rows.quality.numpy()), pa.array(rows.ids, pa.string())
    columns["seed"] = pa.array(rows.seeds.numpy())
    columns["extent"] = extent_column(extent)
    return pa.table(columns).cast(features(config.size, names).arrow_schema)


def shards_said(name: str) -> int:
    """Of how many shards a file is one, by its name: SPLIT-00000-of-00002.parquet, or with a digest as others write it.

    Raises:
        ValueError: for another name.
    """
    found = re.search(r"-of-(\d+)(?:-[0-9a-f]+)?\.parquet$", name)
    if found is None:
        raise ValueError(
            f"{name} is no name of a shard; expected SPLIT-00000-of-00001.parquet. Rename it, or take it out of the folder."
        )
    return int(found[1])


def read_parquet(file: Path, wanted: Any, config: FieldConfig, recorded: str | None = None):
    """One shard, checked against the architecture, as a memory-mapped Arrow table.

    Args:
        file: the shard.
        wanted: the declared columns.
        config: the architecture.
        recorded: digest of the shard's footer, where `field.json` has one.
    Raises:
        ValueError: naming the file, and the first row that is not as declared.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file, memory_map=True, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        if is_pointer(file):
            raise ValueError(f"{file} {FETCH}") from None
        raise ValueError(
            f"{file} is not a readable Parquet file ({error}). Download or make the dataset again."
        ) from None
    table = current(table.select([n for n in stored_names(wanted, table.column_names) if n in table.column_names]))
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise ValueError(f"{file} has no column {missing[0]!r}; it has {table.column_names}.")
    table = table.select(list(wanted))
    try:
        lengths = pc.list_value_length(table["weights"]).to_numpy(zero_copy_only=False)
        made = table.cast(wanted.arrow_schema) if (lengths == config.size).all() else None
    except (pa.ArrowException, NotImplementedError) as error:
        raise ValueError(
            f"{file}: its columns cannot be read as {', '.join(wanted)} of a weight dataset ({error}). Write it with "
            "WeightDataset.save, or make the dataset again."
        ) from None
    if made is None:
        wrong = np.flatnonzero(lengths != config.size)
        raise ValueError(
            f"{file}: row {wrong[0]} has {lengths[wrong[0]]} weights, the field {config} has {config.size} "
            f"({len(wrong)} such rows). Keep one architecture per dataset."
        )
    split = file.name.split("-")[0]
    # an evaluation counts generated fields that are not finite as failures; they must reach it
    check_rows(table.drop_columns("weights") if split == "samples" else table, f"{file}, split {split}")
    check_digest(file, recorded, of_footer(file), EDITED)
    return made


def check_labels(labels: Tensor, classes: int, where: str) -> None:
    """Refuse (N,) labels other than -1 (unknown) to classes - 1.

    Raises:
        ValueError: naming the first row.
    """
    bad = torch.nonzero((labels < -1) | (labels >= classes))
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"{where}: row {row} has the label {int(labels[row])}, and field.json names {classes} classes "
            f"({len(bad)} such rows). Make the dataset again."
        )


def check_extents(extent: Tensor, axes: Sequence[str], where: str) -> None:
    """Refuse (N, K) sizes of signals that none can have.

    Raises:
        ValueError: naming the first row.
    """
    if not extent.numel():
        fits = not len(extent)
    else:
        counted = len(axes) <= extent.shape[1] <= max(2, len(axes))  # the format weights/1 has two for every kind
        fits = counted and int(extent.min()) >= 0 and int(extent.max()) <= LONGEST
    if not fits:
        wrong = (extent < 0) | (extent > LONGEST)
        row = int(wrong.any(1).nonzero()[0]) if wrong.any() else 0
        raise ValueError(
            f"{where}: row {row} has the extent {extent[row].tolist()}; expected {' and '.join(axes)}, each from 0 "
            f"(unknown) to {LONGEST:,}. Make the dataset again."
        )


def check_rows(table: Any, where: str, first: int = 0) -> None:
    """Refuse rows that are not there, not finite, or beyond what weights can be: one place for memory and streams.

    Args:
        table: some rows with some of the columns of today.
        where: file and split, for the message.
        first: number of the first row in the file.
    Raises:
        ValueError: naming the first row.
    """
    import pyarrow.compute as pc

    for name in table.column_names:
        if name != "quality" and table[name].null_count:  # an unknown quality is null or NaN
            row = first + int(np.flatnonzero(pc.is_null(table[name]).to_numpy(zero_copy_only=False))[0])
            raise ValueError(f"{where}: row {row} has no {name}. Leave such rows out, or make the dataset again.")
    if "weights" not in table.column_names:
        return
    for chunk in table["weights"].chunks:
        flat = chunk.flatten()
        values = flat.to_numpy(zero_copy_only=False)  # nulls are NaN here
        if len(chunk):
            _check_weights(values.reshape(len(chunk), -1), where, first)
        first += len(chunk)


def _check_weights(weights: np.ndarray, where: str, first: int) -> None:
    """Refuse (N, P) weights with a row that is not finite or not plausible."""
    if not weights.size or -PLAUSIBLE <= weights.min() <= weights.max() <= PLAUSIBLE:  # False with a NaN
        return
    bad = np.flatnonzero(~(np.abs(weights) <= PLAUSIBLE).all(1))
    row = weights[bad[0]]
    said = (
        f"holds a weight of {np.abs(row).max():.1g}, more than {PLAUSIBLE:.0g}"
        if np.isfinite(row).all()
        else "is not finite"
    )
    raise ValueError(f"{where}: row {first + bad[0]} {said} ({len(bad)} such rows). Refit or leave them out.")
