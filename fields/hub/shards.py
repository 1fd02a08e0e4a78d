"""A weight dataset as the Hub gets it: Parquet shards of a sane size, with a picture of every field for the viewer.

The same rows give the same names and the same bytes, so that what the Hub has is not sent again.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from torch import Tensor

from fields.kinds.preview import pictures_of
from fields.runtime.console import bar
from fields.runtime.resources import one_thread
from fields.storage.columns import extents, matrix
from fields.storage.dataset import ROW_GROUP, ROWS_PER_SHARD, SHARD, WeightDataset
from fields.view.render import to_pil

PREVIEW = 64
"""Longest side of a preview, in pixels."""


def shard_rows(size: int) -> int:
    """Rows of a shard of fields with P = `size` weights."""
    return max(1, min(ROWS_PER_SHARD, SHARD // (4 * size)))


def write_shards(data: WeightDataset, folder: Path, preview: bool) -> dict[str, int]:
    """Write all rows; memory holds one row group.

    Args:
        folder: of `{split}-00000-of-0000K.parquet`.
        preview: add a column with the rendered field.
    Returns:
        Shards of each split that has rows.
    """
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    schema = hub_features(data, preview).arrow_schema
    rows, group = shard_rows(data.config.size), max(1, ROW_GROUP // (4 * data.config.size))
    total, made = sum(len(split) for split in data.splits.values()), {}
    with bar(total=total, unit="field", desc="prepare") as shown:
        for name, split in data.splits.items():
            shards = -(-len(split) // rows)
            for i in range(shards):
                end = min(len(split), (i + 1) * rows)
                file = folder / f"{name}-{i:05d}-of-{shards:05d}.parquet"
                with pq.ParquetWriter(
                    file, schema, compression="snappy", write_page_index=True, write_page_checksum=True
                ) as writer:
                    for table in _tables(data, split, range(i * rows, end, group), end, group, preview):
                        writer.write_table(table.cast(schema), row_group_size=group)
                        shown.update(len(table))
            if shards:
                made[name] = shards
    return made


def hub_features(data: WeightDataset, preview: bool):
    """The columns, declared; `preview` first, where the viewer shows it."""
    from datasets import Features, Image

    columns = next(iter(data.splits.values())).features
    return Features(({"preview": Image()} if preview else {}) | dict(columns))


def has_pictures(data: WeightDataset) -> bool:
    """Whether some fields can be drawn."""
    sizes = [data.extent(split).unique(dim=0).tolist() for split in data.splits]
    return any(data.kind.drawable(data.config, size) for part in sizes for size in part)


def _tables(data: WeightDataset, split: Any, starts: range, end: int, group: int, preview: bool) -> Iterator[Any]:
    """Row groups of one shard."""
    import pyarrow as pa

    for at in starts:
        table = split.with_format("arrow")[at : min(end, at + group)]
        if preview:
            weights, extent = matrix(table["weights"], data.config.size), extents(table["extent"])
            pictures = previews(data, weights, extent)
            column = pa.array(
                [None if picture is None else {"bytes": png(picture), "path": None} for picture in pictures],
                pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            )
            table = table.append_column("preview", column)
            table = table.select(["preview", *split.features])
        yield table


def previews(data: WeightDataset, weights: Tensor, extent: Tensor) -> list[Tensor | None]:
    """Small pictures of fields, on one thread: with several the order of sums, and so a byte of a picture, may differ."""
    with one_thread():
        return pictures_of(data.kind, data.config, weights, extent, PREVIEW)


def png(picture: Tensor) -> bytes:
    """A picture as the bytes of a PNG file."""
    file = BytesIO()
    to_pil(picture).save(file, format="PNG")
    return file.getvalue()
