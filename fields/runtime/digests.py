"""Identity by content: one digest each of signals, rows and files, recorded by whoever writes and compared by whoever reads."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DIGITS = 16
"""Hexadecimal digits of a digest: 64 bits."""


def of_signals(ids: Sequence[str], sizes: Any, values: Iterable[Any]) -> str:
    """Of signals: what they are called, how large they are, and their bytes; in their order.

    Args:
        ids: their names.
        sizes: (N, d) integers.
        values: their bytes as arrays, one for all or one each.
    """
    state = hashlib.sha256(json.dumps(list(ids)).encode())
    for array in (sizes, *values):
        _add(state, array)
    return state.hexdigest()[:DIGITS]


def of_file(path: Path) -> str:
    """Of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def of_content(path: Path) -> str | None:
    """Of a file, or of all files of a folder and their names; of a dataset the file that holds its fingerprint is enough."""
    path = Path(path)
    if (path / "field.json").is_file():
        path = path / "field.json"
    if not path.is_dir():
        return of_file(path) if path.is_file() else None
    return of_json([[str(p.relative_to(path)), of_file(p)] for p in sorted(path.rglob("*")) if p.is_file()])


def of_footer(opened: Any) -> str:
    """Of a Parquet file's footer: how many rows and bytes, and the least and largest value of each column. Shards of other
    rows have another one; what lies before it is held by the checksums of its pages.

    Args:
        opened: the file's path, or a file open for reading.
    Raises:
        ValueError: if it is no Parquet file.
    """
    if isinstance(opened, (str, Path)):
        with Path(opened).open("rb") as file:
            return of_footer(file)
    end = opened.seek(0, 2)
    opened.seek(max(0, end - 8))
    tail = opened.read(8)
    length = int.from_bytes(tail[:4], "little")
    if len(tail) < 8 or tail[4:] != b"PAR1" or length > end - 8:
        raise ValueError("it does not end as a Parquet file")
    opened.seek(end - 8 - length)
    return hashlib.sha256(opened.read(length)).hexdigest()[:DIGITS]


def of_json(values: Any) -> str:
    """Of plain values: equal where they are equal after writing and reading."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:DIGITS]


def check_digest(what: Path | str, recorded: str | None, found: str, todo: str = "Download or make it again.") -> None:
    """Refuse content other than what was recorded; files of versions that recorded nothing pass.

    Raises:
        ValueError: naming both digests.
    """
    if recorded is not None and recorded != found:
        raise ValueError(
            f"{what} is damaged or was replaced: its digest is {found}, but {recorded} was recorded. {todo}"
        )


def write_table(table: Any, path: Path, **options: Any) -> None:
    """A Parquet file whose pages carry checksums; options are `pyarrow.parquet.write_table`'s."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, write_page_checksum=True, **options)


def read_table(path: Path, **options: Any) -> Any:
    """A Parquet file whose pages' checksums, where there are any, are compared.

    Raises:
        ValueError: if it cannot be read, or a checksum differs.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, page_checksum_verification=True, **options)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is damaged ({said}). Download or make it again.") from None


def _add(state: Any, array: Any) -> None:
    array = np.ascontiguousarray(np.asarray(array))
    state.update(f"{array.dtype}{array.shape}\0".encode())
    state.update(memoryview(array).cast("B") if array.size else b"")
