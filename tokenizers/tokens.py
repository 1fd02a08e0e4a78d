"""TokenDataset: fields as rows of ids, in splits, with what a GPT needs to know about them.

A folder `tokens/` holds `{split}-00000-of-0000K.parquet` (ids as fixed-length lists of the smallest unsigned integers)
and `tokens.json`. It is readable without this code: `datasets.load_dataset("parquet", data_files=...)` gives the rows,
and `tokens.json` the slots and the fingerprints of the tokenizer and of the dataset.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fields.runtime.digests import check_digest, of_footer
from fields.runtime.records import read_json
from fields.runtime.runs import digest, replace_folder, write_json
from fields.runtime.text import check_split
from fields.storage.columns import current, extent_column, extents, matrix, shards_said, stored_names
from fields.storage.dataset import SHARD, SignalsSaid
from fields.storage.fetch import fetch
from fields.storage.rows import Rows
from fields.storage.streaming import open_splits
from tokenizers.base import WeightTokenizer
from tokenizers.vocab import Vocab

FORMATS = ("neural-fields-as-data/tokens/1", "neural-fields-as-data/tokens/2")
"""Formats that are read; the last one is written. In the first, extent was height and width."""
FORMAT = FORMATS[-1]
ROWS_PER_SHARD = 50_000
ROW_GROUP = 4 << 20  # bytes of ids that a reader of a stream holds at once
HINT = "Tokens are made with: python -m tokenizers.encode --tokenizer DIR --fields DIR --out {path}"


@dataclass(frozen=True)
class TokenInfo:
    """What all rows share."""

    codes: int
    slots: list[list[int]]
    field: dict
    tokenizer_fingerprint: str
    dataset_fingerprint: str
    kind: str = ""
    signals: Any = dataclasses.field(default_factory=dict)
    reference: dict | None = None

    @classmethod
    def of(cls, tokenizer: WeightTokenizer, data: Any = None) -> "TokenInfo":
        """Of the tokens that `tokenizer` makes of a WeightDataset (None: of ids that come from elsewhere)."""
        return cls(
            codes=tokenizer.codes,
            slots=tokenizer.slots.tolist(),
            field=tokenizer.field.to_dict(),
            tokenizer_fingerprint=tokenizer.fingerprint,
            dataset_fingerprint="" if data is None else data.fingerprint,
            kind=tokenizer.config.kind,
            signals={} if data is None else data.signals,
            reference=None if data is None else data.reference.to_dict(),
        )

    @property
    def label_names(self) -> list[str] | None:
        """Class names; None for unlabelled signals."""
        return self.signals.get("label_names")


@dataclass(frozen=True, kw_only=True)
class TokenFile(TokenInfo):
    """What tokens.json holds."""

    signals: SignalsSaid = dataclasses.field(default_factory=cast(Any, dict))  # in JSON an object
    rows: dict[str, int]
    fingerprint: str
    format: str
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """Shard -> digest of its footer."""


class TokenDataset:
    """Rows of ids in splits.

    Attributes:
        info: what all rows share.
        fingerprint: 16 hexadecimal digits of ids, splits, signal ids, and of the tokenizer's fingerprint.
    """

    def __init__(self, info: TokenInfo, tables: dict[str, Any], fingerprint: str):
        self.info, self._tables, self.fingerprint = info, tables, fingerprint
        self.slots = torch.tensor(info.slots, dtype=torch.int64)

    def __repr__(self) -> str:
        rows = ", ".join(f"{split} {len(table):,}" for split, table in self._tables.items())
        return f"TokenDataset({self.info.kind}, {self.codes} codes, {self.tokens_per_field} tokens per field; {rows})"

    @classmethod
    def load(
        cls, path: Path | str, *, revision: str | None = None, stream: bool = False, flag: str = ""
    ) -> "TokenDataset":
        """Open a `tokens` folder, the tokenizer folder that holds one, or `user/name[@revision]` on the Hub.

        Rows are held as small integers; with `stream` they are read when they are needed, one row group at a
        time, and files of the Hub are not kept on disk.

        Raises:
            FileNotFoundError: if there are no tokens, with the command that makes them.
            ValueError: if shards are missing, damaged, or have another shape.
        """
        source, wanted = path, ["tokens.json"] + ([] if stream else ["*.parquet"])
        path = fetch(path, "dataset", revision=revision, patterns=wanted, flag=flag)
        if not (path / "tokens.json").is_file() and (path / "tokens" / "tokens.json").is_file():
            path = path / "tokens"
        values = read_json(path / "tokens.json", HINT.format(path=path), TokenFile)
        if values.get("format") not in FORMATS:
            raise ValueError(f"{path}/tokens.json has format {values.get('format')!r}, expected {FORMAT!r}.")
        info = TokenInfo(**{k: v for k, v in values.items() if k in TokenInfo.__dataclass_fields__})
        for split in values["rows"]:
            check_split(split, f"{path}/tokens.json")
        if stream:
            former = (stored_names, current)
            hint, schema = HINT.format(path=path), features(info).arrow_schema
            tables = open_splits(source, path, "", schema, hint, former, values["files"])
            if {split: len(rows) for split, rows in tables.items()} != values["rows"]:
                raise ValueError(f"{path}: files and tokens.json do not belong together. {HINT.format(path=path)}")
            tables = {split: tables[split] for split in values["rows"]}
        else:
            tables = {split: read_split(path, split, n, info) for split, n in values["rows"].items()}
            found = fingerprint_of(info, {split: mark([table]) for split, table in tables.items() if len(table)})
            check_digest(path, values["fingerprint"], found, HINT.format(path=path))
        return cls(info, tables, values["fingerprint"])

    @classmethod
    def from_ids(
        cls, tokenizer: WeightTokenizer, splits: Mapping[str, Tensor | tuple[Tensor, Rows] | Mapping], data: Any = None
    ):
        """Rows in memory.

        Args:
            tokenizer: whose ids they are.
            splits: per split the ids (N, T); or these and the rows that they stand for; or, as before, a mapping of `ids`
                with the names of columns.
            data: the WeightDataset they were made from, if any.
        """
        info = TokenInfo.of(tokenizer, data)
        made = {name: to_table(info, *_with_rows(given), name) for name, given in splits.items()}
        marks = {name: mark([table]) for name, table in made.items() if len(table)}
        return cls(info, made, fingerprint_of(info, marks))

    def save(self, path: Path | str) -> None:
        """Write the folder, all or nothing."""
        write_tokens(path, self.info, {name: (len(t), _pieces(t)) for name, t in self._tables.items()})

    def push_to_hub(self, repo: str, *, private: bool = False, revision: str | None = None, **options: Any):
        """Publish as `user/name`, with a card, as `scripts/publish.py tokens` does. Options: `PublishTokens`."""
        from tokenizers.hub import push_tokens

        return push_tokens(self, repo, private=private, revision=revision, **options)

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return list(self._tables)

    @property
    def codes(self) -> int:
        """V."""
        return self.info.codes

    @property
    def tokens_per_field(self) -> int:
        """T."""
        return len(self.slots)

    @property
    def slot_sizes(self) -> list[int]:
        """For each column of `slots`, one more than its largest entry."""
        return (self.slots.amax(0) + 1).tolist()

    @property
    def label_names(self) -> list[str] | None:
        """Class names; None for unlabelled signals."""
        return self.info.label_names

    @property
    def tokenizer_fingerprint(self) -> str:
        """Of the tokenizer that made the ids."""
        return self.info.tokenizer_fingerprint

    @property
    def dataset_fingerprint(self) -> str:
        """Of the weight dataset they were made from."""
        return self.info.dataset_fingerprint

    @property
    def vocab(self) -> Vocab:
        """Codes, SOS, EOS, PAD and labels."""
        return Vocab(self.codes, len(self.label_names or []))

    def count(self, split: str) -> int:
        """Rows of a split."""
        return len(self._table(split))

    def _table(self, split: str):
        if split not in self._tables:
            raise ValueError(f"split {split!r} not found; these tokens have {', '.join(self.splits)}.")
        return self._tables[split]

    def ids(self, split: str, rows: slice = slice(None)) -> Tensor:
        """(N, T) int64, all rows or a slice of them."""
        start, stop, _ = rows.indices(self.count(split))
        column = self._table(split).slice(start, max(0, stop - start))["ids"]
        return matrix(column, self.tokens_per_field).to(torch.int64)

    def batches(self, split: str, size: int = 4096) -> Iterator[Tensor]:
        """(n, T) int64 at a time, n <= size."""
        for at in range(0, self.count(split), size):
            yield self.ids(split, slice(at, at + size))

    def labels(self, split: str) -> Tensor | None:
        """(N,) int64 class indices, -1 where unknown; None for unlabelled signals."""
        if self.label_names is None:
            return None
        return torch.from_numpy(np.array(self._table(split)["label"].to_numpy(), dtype=np.int64))

    def signal_ids(self, split: str) -> list[str]:
        """Which signal each row was fitted to."""
        return self._table(split)["signal_id"].to_pylist()

    def seeds(self, split: str) -> Tensor:
        """(N,) int64."""
        return torch.from_numpy(np.array(self._table(split)["seed"].to_numpy(), dtype=np.int64))

    def extent(self, split: str) -> Tensor:
        """(N, K) int64 extent of each signal: height and width of a picture."""
        return extents(self._table(split)["extent"])

    def about(self, split: str) -> Rows:
        """A split's rows without weights and quality."""
        ids, labels, seeds = self.signal_ids(split), self.labels(split), self.seeds(split)
        return Rows(torch.empty(self.count(split), 0), ids, labels, seeds, extent=self.extent(split))

    def check_tokenizer(self, tokenizer: WeightTokenizer) -> None:
        """Refuse a tokenizer that did not make these ids, naming both."""
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise ValueError(
                f"these tokens were made by tokenizer {self.tokenizer_fingerprint} ({self.info.kind}, {self.codes} "
                f"codes), not by {tokenizer.fingerprint} ({tokenizer.config.kind}, {tokenizer.codes} codes). "
                "Give the tokenizer they were made with, or encode the fields again."
            )


def _pieces(table: Any) -> Iterator[Any]:
    """A table, or rows that are streamed, piece by piece."""
    for at in range(0, len(table), ROWS_PER_SHARD):
        yield table.slice(at, ROWS_PER_SHARD)


# -- files ----------------------------------------------------------------------------------------------------------


def smallest(codes: int) -> np.dtype:
    """The smallest unsigned type that holds ids below `codes`."""
    return np.dtype(np.uint8 if codes <= 1 << 8 else np.uint16 if codes <= 1 << 16 else np.uint32)


def features(info: TokenInfo):
    """The columns, declared."""
    from datasets import ClassLabel, Features, List, Value

    columns = {"ids": List(Value(smallest(info.codes).name), length=len(info.slots))}
    if info.label_names is not None:
        columns["label"] = ClassLabel(names=list(info.label_names))
    columns |= {"signal_id": Value("string"), "split": Value("string"), "seed": Value("int64")}
    return Features(columns | {"extent": List(Value("int32"))})


def _with_rows(given: Tensor | tuple[Tensor, Rows] | Mapping) -> tuple[Tensor, Rows]:
    """Ids, and rows without weights where only ids are given."""
    if isinstance(given, tuple):
        return given
    columns = dict(given) if isinstance(given, Mapping) else {"ids": given}
    ids = torch.as_tensor(columns.pop("ids"))
    return ids, Rows.of({"weights": torch.empty(len(ids), 0), **columns})


def to_table(info: TokenInfo, ids: Tensor, rows: Rows, split: str = ""):
    """An Arrow table of (N, T) ids and of what is known of their rows; weights and quality stay behind."""
    import pyarrow as pa

    if split:
        check_split(split)  # it becomes part of a file's name
    n, width = len(ids), len(info.slots)
    if ids.shape != (n, width) or (n and not 0 <= int(ids.min()) <= int(ids.max()) < info.codes):
        raise ValueError(f"ids must have shape (N, {width}) and lie in [0, {info.codes}), got {tuple(ids.shape)}.")
    flat = pa.array(ids.cpu().contiguous().numpy().astype(smallest(info.codes)).ravel())
    columns = {"ids": pa.FixedSizeListArray.from_arrays(flat, width)}
    if info.label_names is not None:
        columns["label"] = numbers(rows.labels, n, -1)
    columns["signal_id"] = pa.array(rows.ids, pa.string())
    columns["split"] = pa.array([split] * n, pa.string())
    columns["seed"] = numbers(rows.seeds, n, 0)
    columns["extent"] = extent_column(torch.zeros(n, 2) if rows.extent is None else rows.extent)
    return pa.table(columns).cast(features(info).arrow_schema)


def write_tokens(
    path: Path | str,
    info: TokenInfo,
    splits: Mapping[str, tuple[int, Iterable[Any]]],
    keep: tuple[str, ...] = ("run.json", "README.md"),
) -> str:
    """Write a tokens folder from tables that come one after the other; memory holds one of them.

    Args:
        path: the folder; an older one is replaced when all is written.
        splits: per split the number of rows, and the tables that hold them in order.
        keep: files of an older folder that stay.
    Returns:
        The fingerprint.
    """
    filled = {split: part for split, part in splits.items() if part[0]}  # load_dataset cannot read an empty split
    if not filled:
        raise ValueError(f"there are no fields to write as tokens to {path}.")
    marks = {}
    with replace_folder(Path(path)) as temporary:
        for split, (n, tables) in filled.items():
            marks[split] = mark(_write_shards(temporary, split, n, tables, features(info).arrow_schema))
        fingerprint = fingerprint_of(info, marks)
        counts = {split: n for split, (n, _) in filled.items()}
        values = {"format": FORMAT, **asdict(info), "tokens_per_field": len(info.slots)}
        values["files"] = {file.name: of_footer(file) for file in sorted(temporary.glob("*.parquet"))}
        write_json(temporary / "tokens.json", {**values, "rows": counts, "fingerprint": fingerprint})
        for name in keep:
            if (Path(path) / name).is_file():
                (temporary / name).write_bytes((Path(path) / name).read_bytes())
    return fingerprint


def _write_shards(folder: Path, split: str, n: int, tables: Iterable[Any], schema: Any) -> Iterator[Any]:
    """Write the tables of one split, and hand them on."""
    import pyarrow.parquet as pq

    width = max(1, schema.field("ids").type.list_size)
    rows, group = max(1, min(ROWS_PER_SHARD, SHARD // width)), max(1, ROW_GROUP // width)
    shards = -(-n // rows)
    writer: Any = None
    shard, room = -1, 0
    try:
        for table in tables:
            table = table.set_column(table.column_names.index("split"), "split", [[split] * len(table)]).cast(schema)
            yield table
            while len(table):
                if room == 0:
                    if writer is not None:
                        writer.close()
                    shard, room = shard + 1, rows
                    writer = pq.ParquetWriter(
                        folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet", schema, write_page_checksum=True
                    )
                writer.write_table(table.slice(0, room), row_group_size=group)
                taken = min(room, len(table))
                table, room = table.slice(taken), room - taken
    finally:
        if writer is not None:
            writer.close()


def read_split(path: Path, split: str, n: int, info: TokenInfo):
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(path.glob(f"{split}-*-of-*.parquet"))
    if not files or len(files) != shards_said(files[0].name):
        raise ValueError(f"{path} has {len(files)} shards of split {split}, some are missing. {HINT.format(path=path)}")
    try:
        table = pa.concat_tables([current(pq.read_table(f, page_checksum_verification=True)) for f in files])
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: split {split} is not readable ({error}). {HINT.format(path=path)}") from None
    schema = features(info).arrow_schema
    if len(table) != n or not table.schema.equals(schema):
        raise ValueError(
            f"{path}: split {split} has {len(table)} rows of {table.schema.names}, tokens.json says {n} of "
            f"{schema.names} with {len(info.slots)} ids below {info.codes}. {HINT.format(path=path)}"
        )
    return table


def mark(tables: Iterable[Any]) -> str:
    """SHA-256 of ids, labels and signal ids of a split, however its rows are cut into tables."""
    state, names = hashlib.sha256(), hashlib.sha256()
    for table in tables:
        for chunk in table["ids"].chunks:
            state.update(np.ascontiguousarray(chunk.flatten()).tobytes())
        labels = table["label"].to_pylist() if "label" in table.column_names else [None] * len(table)
        for name, label in zip(table["signal_id"].to_pylist(), labels, strict=True):
            names.update(f"{name}\0{label}\0".encode())
    return state.hexdigest() + names.hexdigest()


def fingerprint_of(info: TokenInfo, marks: dict[str, str]) -> str:
    return digest(info.tokenizer_fingerprint, info.dataset_fingerprint, info.codes, dict(sorted(marks.items())))


def numbers(values: Any, n: int, default: int):
    import pyarrow as pa

    array = np.full(n, default) if values is None else np.asarray(torch.as_tensor(values))
    return pa.array(array.astype(np.int64))
