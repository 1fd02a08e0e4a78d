"""Rows in Parquet files, here or on the Hub, read a row group at a time: what does not fit in memory can still be used.

Files of the Hub are read where they lie, by ranges, and nothing of them is kept on disk: every pass fetches them anew.
`datasets` streams from the first row on; here any rows and single columns are read alone (the labels of 55,000 fields of MNIST in
less than 0.01 CPU seconds, by `datasets` 0.33), and what was read is checked as rows in memory are.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np

from fields.runtime.digests import check_digest, of_footer
from fields.storage.columns import check_rows, shards_said
from fields.storage.fetch import HubName, is_local, reason

Former = tuple[Callable[[Sequence[str], Sequence[str]], list[str]], Callable[[Any], Any]]
HELD = 2
"""Row groups held at once."""


class Shards:
    """The rows of one split, in order.

    Args:
        files: per file a name for messages and a function that opens it for `pyarrow.parquet.ParquetFile`.
        schema: the Arrow schema of the columns to read; others are left alone.
        former: how files of an older format are read: the names that the columns have there, given those wanted and those
            found; and a table of the file's columns as one of today's.
        marks: file's name -> digest of its footer; files that it does not name are not compared.
    Raises:
        ValueError: for a file that is not Parquet or has other columns.
    """

    def __init__(
        self,
        files: Sequence[tuple[str, Callable[[], Any]]],
        schema: Any,
        former: Former | None = None,
        marks: dict[str, str] | None = None,
    ):
        self.files, self.schema, self.marks = list(files), schema, marks or {}
        self.names, self.current = former or (lambda wanted, found: list(wanted), lambda table: table)
        self._open: tuple[int, Any] | None = None
        self._groups: dict[tuple[int, int], Any] = {}
        self.starts: list[tuple[int, int, int]] = []  # first row, file, row group
        rows = 0
        for i in range(len(self.files)):
            meta = self._file(i).metadata
            self._check(i)
            for group in range(meta.num_row_groups):
                self.starts.append((rows, i, group))
                rows += meta.row_group(group).num_rows
        self.rows = rows
        self.firsts = np.array([start for start, _, _ in self.starts])

    def __len__(self) -> int:
        return self.rows

    def slice(self, start: int = 0, length: int | None = None):
        """Rows from `start` on, as an Arrow table."""
        import pyarrow as pa

        end = self.rows if length is None else min(self.rows, start + length)
        parts, at = [self.schema.empty_table()], start
        while at < end:
            first, table = self._at(at)
            part = table.slice(at - first, end - at)
            parts.append(part)
            at += len(part)
        return pa.concat_tables(parts)

    def take(self, indices: Sequence[int]):
        """Chosen rows in the order asked for; every row group that holds one is read once."""
        import pyarrow as pa

        wanted = np.asarray(indices, dtype=np.int64)
        order = np.argsort(wanted, kind="stable")
        parts, at = [self.schema.empty_table()], 0
        while at < len(order):
            first, table = self._at(int(wanted[order[at]]))
            stop = int(np.searchsorted(wanted[order], first + len(table)))
            parts.append(table.take(pa.array(wanted[order[at:stop]] - first)))
            at = stop
        return pa.concat_tables(parts).take(pa.array(np.argsort(order, kind="stable")))

    def __getitem__(self, name: str):
        """One whole column; only this column is read."""
        import pyarrow as pa

        parts = []
        for i in range(len(self.files)):
            names = self.names([name], self._file(i).schema_arrow.names)
            table = self.current(self._read(i, methodcaller("read", columns=names)))
            if "weights" in self.schema.names:
                check_rows(table.select([name]), str(self.files[i][0]))
            parts += table[name].cast(self.schema.field(name).type).chunks
        return pa.chunked_array(parts, type=self.schema.field(name).type)

    def _at(self, row: int) -> tuple[int, Any]:
        """The first row and the table of the row group that holds a row."""
        first, i, group = self.starts[int(np.searchsorted(self.firsts, row, side="right")) - 1]
        if (i, group) not in self._groups:
            while len(self._groups) >= HELD:
                self._groups.pop(next(iter(self._groups)))
            names = self.names(self.schema.names, self._file(i).schema_arrow.names)
            table = self._read(i, lambda file: file.read_row_group(group, columns=names, use_threads=False))
            table = self.current(table).select(self.schema.names)
            if "weights" in self.schema.names:
                start = min(row for row, file, _ in self.starts if file == i)
                check_rows(table, str(self.files[i][0]), first - start)
            self._groups[i, group] = table.cast(self.schema)
        return first, self._groups[i, group]

    def _file(self, i: int) -> Any:
        """One file is open at a time."""
        import pyarrow.parquet as pq

        if self._open is None or self._open[0] != i:
            self.close()
            self._open = (
                i,
                self._asked(
                    i, lambda: pq.ParquetFile(self.files[i][1](), pre_buffer=False, page_checksum_verification=True)
                ),
            )
        return self._open[1]

    def close(self) -> None:
        """Close the open file; the next read opens it again."""
        if self._open is not None:
            self._open[1].close(force=True)
        self._open = None

    def _read(self, i: int, read: Callable[[Any], Any]) -> Any:
        return self._asked(i, lambda: read(self._file(i)))

    def _asked(self, i: int, function: Callable[[], Any]) -> Any:
        """Call; what goes wrong is told with the file's name."""
        import pyarrow as pa

        try:
            return function()
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"{self.files[i][0]} is not a readable Parquet file ({error}). Download it again."
            ) from None
        except Exception as error:  # several libraries' errors of disk and network
            raise RuntimeError(
                f"{self.files[i][0]} could not be read ({reason(error)}). Run the same command again."
            ) from None

    def _check(self, i: int) -> None:
        name, opened = self.files[i]
        if (wanted := self.marks.get(name.split("/")[-1])) is not None:
            check_digest(name, wanted, self._asked(i, lambda: of_footer(opened())))
        found = self._file(i).schema_arrow
        kept = [name for name in self.names(self.schema.names, found.names) if name in found.names]
        found = self.current(found.empty_table().select(kept)).schema
        for column in self.schema:
            if column.name not in found.names or not _alike(found.field(column.name).type, column.type):
                has = found.field(column.name).type if column.name in found.names else "no such column"
                raise ValueError(
                    f"{self.files[i][0]}: column {column.name} must be {column.type}, there is {has}. "
                    "Open it without --stream, or write it with WeightDataset.save."
                )


def _alike(a: Any, b: Any) -> bool:
    """Whether two Arrow types are equal; what the items of a list are called does not count."""
    import pyarrow as pa

    return a == b or (pa.types.is_list(a) and pa.types.is_list(b) and a.value_type == b.value_type)


class StreamedRows:
    """`Shards` with the few methods of a `datasets.Dataset` that a `WeightDataset` uses."""

    def __init__(self, shards: Shards, features: Any, chosen: Sequence[int] | None = None):
        self.shards, self.features, self.chosen = shards, features, chosen

    def __len__(self) -> int:
        return len(self.shards) if self.chosen is None else len(self.chosen)

    def with_format(self, _: str) -> "StreamedRows":
        """Arrow is the only format."""
        return self

    def select(self, indices: Sequence[int]) -> "StreamedRows":
        """Chosen rows; read when they are asked for."""
        return StreamedRows(self.shards, self.features, [self._row(i) for i in indices])

    def _row(self, i: int) -> int:
        return i if self.chosen is None else self.chosen[i]

    def __getitem__(self, rows: slice):
        """An Arrow table."""
        start, stop, _ = rows.indices(len(self))
        if self.chosen is None:
            return self.shards.slice(start, max(0, stop - start))
        return self.shards.take(self.chosen[start:stop])

    def column(self, name: str):
        """One column; only this one is read."""
        return self.shards[name] if self.chosen is None else self[:][name]


def open_splits(
    source: str | Path,
    folder: Path,
    under: str,
    schema: Any,
    hint: str = "",
    former: Former | None = None,
    marks: dict[str, str] | None = None,
) -> dict[str, Shards]:
    """The splits of a dataset, by the names of its files.

    Args:
        source: what the user named: a folder, or a Hub name.
        folder: where its small files lie here; of a Hub name the snapshot, whose name is the commit.
        under: folder of the Parquet files below it; "" = itself.
        schema: of the columns to read.
        hint: what to do if there are none.
        former, marks: as in `Shards`.
    Raises:
        FileNotFoundError: if there are no files.
        ValueError: if some are missing.
    """
    files = by_split(source, parquet_files(source, folder, under), hint)
    return {split: Shards(part, schema, former, marks) for split, part in files.items()}


def by_split(source: str | Path, files: Iterable[tuple[str, Any]], hint: str) -> dict[str, list[tuple[str, Any]]]:
    """Shards (a path `SPLIT-00000-of-0000K.parquet`, and what goes with it) by the split that their names say.

    Args:
        source: where they are, for messages.
        files: in order.
        hint: what to do if there are none.
    Raises:
        FileNotFoundError: if there are no files.
        ValueError: if some are missing.
    """
    found: dict[str, list[tuple[str, Any]]] = {}
    for name, opened in files:
        found.setdefault(name.replace("\\", "/").split("/")[-1].split("-")[0], []).append((name, opened))
    if not found:
        raise FileNotFoundError(f"{source} holds no Parquet files. {hint}")
    for split, part in found.items():
        expected = shards_said(part[0][0])
        if len(part) != expected:
            raise ValueError(f"{source} has {len(part)} of {expected} shards of split {split}. Download it again.")
    return found


def parquet_files(source: str | Path, folder: Path, under: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The Parquet files of a dataset, for `Shards`; arguments as `open_splits`.

    Raises:
        RuntimeError: if the Hub does not list them and none is in the cache.
    """
    here = sorted((folder / under).glob("*-*-of-*.parquet"))
    if is_local(source):
        yield from ((str(path), partial(str, path)) for path in here)
        return
    from huggingface_hub import HfFileSystem, constants

    _, _, commit, *parts = folder.relative_to(constants.HF_HUB_CACHE).parts  # REPOSITORY/snapshots/COMMIT/...
    inside = "/".join([*parts, *([under] if under else [])])
    place = f"datasets/{HubName.parse(str(source)).repo}@{commit}" + (f"/{inside}" if inside else "")
    system = HfFileSystem()
    try:
        found = sorted(system.glob(f"{place}/*-*-of-*.parquet"))
    except Exception as error:  # several libraries' errors of the network: what was fetched whole before still serves
        if not here:
            raise RuntimeError(
                f"{source} cannot be streamed, {reason(error)}, and its shards are not in the cache. Try again with a network."
            ) from None
        yield from ((str(path), partial(str, path)) for path in here)
        return
    for path in found:
        yield f"hf://{path}", partial(system.open, path, block_size=4 << 20)
