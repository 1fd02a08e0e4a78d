"""The Arrow table under a weight dataset: its declared columns, and rows in and out of it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields import layout
from fields.model import FieldConfig


def features(size: int, label_names: list[str] | None):
    """The columns of a weight dataset, declared: empty ones keep their types."""
    from datasets import ClassLabel, Features, List, Value

    columns = {"weights": List(Value("float32"), length=size)}
    if label_names is not None:
        columns["label"] = ClassLabel(names=list(label_names))
    columns |= {"psnr": Value("float32"), "signal_id": Value("string"), "seed": Value("int64")}
    return Features(columns | {"height": Value("int32"), "width": Value("int32")})


def matrix(column: Any, size: int) -> Tensor:
    """An Arrow column of fixed-length lists as (n, P) float32."""
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    parts = [np.asarray(chunk.flatten()).reshape(-1, size) for chunk in chunks]
    return torch.from_numpy(np.concatenate(parts) if parts else np.zeros((0, size), np.float32))


def table_of(config: FieldConfig, split: str, rows: dict[str, Any], names: list[str] | None, signals: dict):
    """Rows in memory as an Arrow table with the declared schema."""
    import pyarrow as pa

    weights = torch.as_tensor(rows["weights"], dtype=torch.float32)
    layout.check(config, weights)
    bad = (~weights.isfinite().all(1)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"row {bad[0]} of split {split} is not finite ({len(bad)} such rows). Refit or leave them out."
        )
    n = len(weights)
    shape = signals.get("shape") or [0, 0]
    sizes = torch.as_tensor(rows["sizes"] if rows.get("sizes") is not None else [shape[:2]] * n).reshape(n, 2)
    given = {"psnr": rows.get("psnr"), "seed": rows.get("seed"), "signal_id": rows.get("signal_id")}
    columns = {
        "weights": pa.FixedSizeListArray.from_arrays(pa.array(weights.contiguous().numpy().ravel()), config.size)
    }
    if names is not None:
        labels = rows.get("labels")
        columns["label"] = numbers(labels, n, -1, np.int64)
    columns["psnr"] = numbers(given["psnr"], n, float("nan"), np.float32)
    columns["signal_id"] = pa.array(
        list(given["signal_id"]) if given["signal_id"] is not None else [""] * n, pa.string()
    )
    columns["seed"] = numbers(given["seed"], n, 0, np.int64)
    columns["height"], columns["width"] = (numbers(sizes[:, i], n, 0, np.int32) for i in (0, 1))
    wrong = [name for name, column in columns.items() if len(column) != n]
    if wrong:
        raise ValueError(f"column {wrong[0]} of split {split} has {len(columns[wrong[0]])} entries for {n} rows.")
    return pa.table(columns).cast(features(config.size, names).arrow_schema)


def numbers(values: Any, n: int, default: float, dtype: type):
    import pyarrow as pa

    return pa.array(np.full(n, default, dtype) if values is None else np.asarray(torch.as_tensor(values)).astype(dtype))


def read_parquet(file: Path, wanted: Any, config: FieldConfig):
    """One shard, checked against the architecture, as a memory-mapped Arrow table."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{file} is not a readable Parquet file ({error}). Fetch or make the dataset anew.") from None
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise ValueError(f"{file} has no column {missing[0]!r}; it has {table.column_names}.")
    table = table.select(list(wanted))
    lengths = pc.list_value_length(table["weights"]).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != config.size)
    if len(wrong):
        raise ValueError(
            f"{file}: row {wrong[0]} has {lengths[wrong[0]]} weights, the field {config} has {config.size} "
            f"({len(wrong)} such rows). Keep one architecture per dataset."
        )
    return table.cast(wanted.arrow_schema)
