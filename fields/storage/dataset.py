"""WeightDataset: rows of weights with what one needs to read them, on Hugging Face `datasets`.

A folder holds `data/{split}-00000-of-0000K.parquet` and `field.json` (the field's architecture and conventions, the
reference row the fits began from, the signals' description, a fingerprint). It is readable without this code:
`datasets.load_dataset(folder)` gives the rows, and `field.json` says how to evaluate one.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields import layout
from fields.kinds.registry import kind_of
from fields.model import FieldConfig
from fields.runtime.digests import check_digest, of_footer
from fields.runtime.records import read_json
from fields.runtime.runs import digest, replace_folder, write_json
from fields.signals.origin import ORIGIN, read_origin
from fields.signals.seen import sample_of
from fields.storage.columns import (
    check_extents,
    check_labels,
    current,
    extents,
    features,
    matrix,
    read_parquet,
    stored_names,
    table_of,
)  # fmt: skip
from fields.storage.fetch import fetch_fields
from fields.storage.reference import HINT, Reference
from fields.storage.rows import Rows
from fields.storage.streaming import StreamedRows, by_split, open_splits

ROWS_PER_SHARD = 20_000
SHARD = 256 << 20  # most bytes of numbers in a shard that is published, or of tokens
ROW_GROUP = 16 << 20  # bytes of weights that a reader of a stream holds at once
SPLITS = ("train", "validation", "test", "samples")
FORMATS = ("neural-fields-as-data/weights/1", "neural-fields-as-data/weights/2")
"""Formats that are read; the last one is written. In the first, quality was called psnr, and extent height and width."""
FORMAT = FORMATS[-1]
KEPT = ("run.json", "README.md", ORIGIN)
"""What stays in a folder when its dataset is replaced."""
ORDER = "per layer: weight (out, in) row by row, then bias (out)"


@dataclass
class FieldFile:
    """`field.json`, as far as it is read."""

    field: dict[str, Any]
    reference: dict[str, Any]
    signals: "SignalsSaid"
    format: str = FORMAT
    rows: dict[str, int] | None = None
    fingerprint: str | None = None
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    """Shard -> digest of its footer; comparing costs a few bytes, so that streams are compared too."""


@dataclass
class SignalsSaid:
    """What `Signals.describe()` says, as far as it is read."""

    name: str | None = None
    label_names: list[str] | None = None
    split_seed: int | None = None
    shape: list[int] | None = None
    digest: str | None = None
    digest_of: int | None = None


class WeightDataset:
    """Fields of one architecture as rows, in splits.

    Attributes:
        config: the architecture.
        reference: the row the fits started from.
        signals: what `Signals.describe()` says.
        splits: split name -> `datasets.Dataset`.
        origin: where the signals are stored on this machine, if the folder it was loaded from says so.
        kind: the kind of the signals: points, quality and its measure, thumbnails.
        fingerprint: 16 hexadecimal digits of rows, ids, splits, architecture and reference.
    """

    def __init__(self, config: FieldConfig, splits: dict[str, Any], reference: Reference, signals: dict):
        self.config, self.splits, self.reference, self.signals = config, splits, reference, signals
        self.kind = kind_of(config, signals)
        self.origin: dict | None = None
        self._fingerprint: str | None = None
        self.check()

    def __repr__(self) -> str:
        return f"WeightDataset({summary(self)}; {self.kind.name})"

    # -- making ---------------------------------------------------------------------------------------------------

    @classmethod
    def from_rows(
        cls,
        config: FieldConfig,
        splits: Mapping[str, Rows | Mapping[str, Any]],
        reference: Reference | None = None,
        signals: dict | None = None,
    ) -> "WeightDataset":
        """Rows in memory as a dataset.

        Args:
            config: the architecture.
            splits: per split its `Rows`, or a mapping with their names: `weights` (N, P), and optionally `labels` (N,),
                `quality` (N,), `ids` (N strings), `seeds` (N,), `extent` (N, K).
            reference: the start of the fits.
            signals: the signals' description; `label_names` in it names the classes.
        Raises:
            ValueError: for rows of another layout or non-finite ones, naming the first.
        """
        from datasets import Dataset

        signals = dict(signals or {})
        names, made = signals.get("label_names"), {}
        for split, rows in splits.items():
            table = table_of(config, split, Rows.of(rows), names, signals)
            made[split] = Dataset(table, split=split)
        return cls(config, made, reference or Reference("unknown", "not recorded"), signals)

    @classmethod
    def load(
        cls, path: Path | str, *, revision: str | None = None, stream: bool = False, flag: str = ""
    ) -> "WeightDataset":
        """Open a folder, or `user/name[:variant][@revision]` on the Hub. A folder never touches the network.

        Args:
            path: the folder or the name.
            revision: for a Hub name without one.
            stream: read rows when they are needed, one row group at a time, instead of holding all in memory; files
                of the Hub are not kept on disk. It is then not checked again that no signal is in two splits.
            flag: the flag it came from, for messages.
        Raises:
            FileNotFoundError: if there is no weight dataset, with the command that makes one.
            ValueError: if rows and `field.json` disagree.
        """
        from datasets import Dataset, concatenate_datasets

        source, path = path, fetch_fields(path, revision, flag, small=stream)
        about = read_json(path / "field.json", HINT, FieldFile)
        if about["format"] not in FORMATS:
            raise ValueError(
                f"{path} has the format {about['format']}, read are {', '.join(FORMATS)}. Update this code."
            )
        config = FieldConfig.from_dict(about["field"])
        wanted, splits = features(config.size, about["signals"].get("label_names")), {}
        if stream:
            former = (stored_names, current)
            data = cls(config, {}, Reference.from_dict(about["reference"], path), about["signals"])
            found = open_splits(source, path, "data", wanted.arrow_schema, HINT, former, about["files"])
            data.splits = {s: StreamedRows(found[s], wanted) for s in sorted(found, key=_split_order)}
            data._fingerprint, data.origin = about["fingerprint"], read_origin(path)
            data._check_counts(about["rows"], path)
            return data
        files = sorted((path / "data").glob("*-*-of-*.parquet"))
        named = by_split(f"{path}/data", ((str(file), file) for file in files), HINT)
        for split in sorted(named, key=_split_order):
            shards = [file for _, file in named[split]]
            parts = [Dataset(read_parquet(f, wanted, config, about["files"].get(f.name)), split=split) for f in shards]
            splits[split] = concatenate_datasets(parts) if len(parts) > 1 else parts[0]
        data = cls(config, splits, Reference.from_dict(about["reference"], path), about["signals"])
        data._check_counts(about["rows"], path)
        data._fingerprint, data.origin = data._digest(about["field"], about["reference"]), read_origin(path)
        check_digest(f"{path}/data", about["fingerprint"], data._fingerprint)
        return data

    def save(self, path: Path | str, keep: tuple[str, ...] = KEPT, also: dict[str, Any] | None = None) -> None:
        """Write the folder, all or nothing: `field.json` comes last and makes it a dataset.

        Args:
            path: the folder; other files in it are kept if it is not a dataset yet.
            keep: names of files that stay when an older dataset is replaced.
            also: name -> values of JSON files that appear together with the dataset.
        Raises:
            ValueError: if there are no rows.
        """
        path = Path(path)
        if not any(len(rows) for rows in self.splits.values()):
            raise ValueError(f"there are no rows to save in {path}.")
        if (path / "field.json").is_file():
            with replace_folder(path) as temporary:
                files = self._write(temporary / "data")
                self.reference.save_encoder(temporary)
                for name in keep:
                    if (path / name).is_file():
                        (temporary / name).write_bytes((path / name).read_bytes())
                for name, values in (also or {}).items():
                    write_json(temporary / name, values)
                write_json(temporary / "field.json", {**self.describe(), "files": files})
            return
        with replace_folder(path / "data") as temporary:
            files = self._write(temporary)
        for name, values in (also or {}).items():
            write_json(path / name, values)
        self.reference.save_encoder(path)
        write_json(path / "field.json", {**self.describe(), "files": files})

    def push_to_hub(self, repo: str, *, private: bool = False, revision: str | None = None, **options: Any):
        """Publish as `user/name`, with a card; as `scripts/publish.py fields` does. Options: `PublishFields`."""
        from fields.hub.publish import PublishFields, publish_fields

        return publish_fields(PublishFields(Path("."), repo, private, revision, **options), self)

    def _write(self, folder: Path) -> dict[str, str]:
        """The Parquet shards, and the digests of their footers; an empty split is left out, as `datasets.load_dataset`
        cannot read one."""
        import pyarrow.parquet as pq

        folder.mkdir(parents=True, exist_ok=True)
        for split, rows in self.splits.items():
            shards = -(-len(rows) // ROWS_PER_SHARD)
            for i in range(shards):
                part = rows.select(range(i * ROWS_PER_SHARD, min(len(rows), (i + 1) * ROWS_PER_SHARD)))
                table = part.with_format("arrow")[:].cast(rows.features.arrow_schema)
                group = max(1, ROW_GROUP // (4 * self.config.size))
                pq.write_table(
                    table,
                    folder / f"{split}-{i:05d}-of-{shards:05d}.parquet",
                    row_group_size=group,
                    write_page_checksum=True,
                )
        return {file.name: of_footer(file) for file in sorted(folder.glob("*.parquet"))}

    def describe(self) -> dict:
        """What `field.json` holds: enough to evaluate a row without this code."""
        return {
            "format": FORMAT,
            "field": self.config.to_dict(),
            "widths": list(self.config.widths),
            "order": ORDER,
            "layers": [[name, list(shape)] for name, shape in layout.shapes(self.config.widths)],
            "reference": self.reference.to_dict(),
            "signals": self.signals,
            "kind": self.kind.name,
            "measure": self.kind.measure.to_dict(),
            "rows": {split: len(rows) for split, rows in self.splits.items()},
            "fingerprint": self.fingerprint,
        }

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of rows, ids, splits, architecture and reference."""
        if self._fingerprint is None:
            self._fingerprint = self._digest(self.config.to_dict(), self.reference.to_dict())
        return self._fingerprint

    def _digest(self, config: dict, reference: dict) -> str:
        """Of rows, ids, labels, and of architecture and reference as they are written."""
        parts: list[Any] = [config, reference]
        for split in sorted(name for name, rows in self.splits.items() if len(rows)):  # empty ones are not stored
            parts += [split, self.ids(split)]
            parts += [batch for batch in self.batches(split, 65_536)]
            if (labels := self.labels(split)) is not None:
                parts.append(labels)
        return digest(*parts)

    @property
    def label_names(self) -> list[str] | None:
        """Class names; None for unlabelled signals."""
        return self.signals.get("label_names")

    def split(self, name: str):
        """One split.

        Raises:
            ValueError: if it is not there, naming those that are.
        """
        if name not in self.splits:
            raise ValueError(f"split {name!r} not found; this dataset has {', '.join(self.splits)}.")
        return self.splits[name]

    def check_training(self) -> None:
        """Refuse a dataset without training fields, for what is learnt from these alone or matched to them."""
        if not len(self.splits.get("train", ())):
            raise ValueError(
                f"the dataset has no training fields (splits: {', '.join(self.splits) or 'none'}). Fit signals that have a "
                "training split, or name one so."
            )

    def batches(self, split: str, size: int = 4096) -> Iterator[Tensor]:
        """Rows of a split, streamed: (n, P) float32, n <= size."""
        for table in self.tables(split, size):
            yield matrix(table["weights"], self.config.size)

    def tables(self, split: str, size: int = 4096) -> Iterator[Any]:
        """Rows of a split as Arrow tables with all columns, at most `size` rows each."""
        rows = self.split(split).with_format("arrow")
        for at in range(0, len(rows), size):
            yield rows[at : at + size]

    def weights(self, split: str, indices: Tensor | list[int] | None = None) -> Tensor:
        """Weights of a split, (N, P) float32: all rows, or those at `indices`."""
        rows = self.split(split)
        if indices is not None:
            rows = rows.select([int(i) for i in indices])
            return matrix(rows.with_format("arrow")[:]["weights"], self.config.size)
        out, at = torch.empty(len(rows), self.config.size), 0
        for batch in self.batches(split):
            out[at : at + len(batch)] = batch
            at += len(batch)
        return out

    def _column_of(self, split: str, name: str):
        rows = self.split(split).with_format("arrow")
        return rows.column(name) if isinstance(rows, StreamedRows) else rows[:][name]

    def _column(self, split: str, name: str) -> np.ndarray:
        return self._column_of(split, name).to_numpy(zero_copy_only=False)

    def labels(self, split: str) -> Tensor | None:
        """(N,) int64 class indices, -1 where unknown; None for unlabelled signals."""
        if self.label_names is None:
            return None
        found = torch.from_numpy(np.array(self._column(split, "label"), dtype=np.int64))
        check_labels(found, len(self.label_names), f"split {split}")
        return found

    def ids(self, split: str) -> list[str]:
        """Signal id of each row: N strings."""
        return self._column(split, "signal_id").tolist()

    def quality(self, split: str) -> Tensor:
        """(N,) quality of each field by `kind.measure` (PSNR in dB for pictures, IoU for shapes); NaN where unknown."""
        return torch.from_numpy(np.array(self._column(split, "quality"), dtype=np.float32))

    def seeds(self, split: str) -> Tensor:
        """(N,) int64: which fit of its signal a row is, by seed."""
        return torch.from_numpy(np.array(self._column(split, "seed"), dtype=np.int64))

    def extent(self, split: str) -> Tensor:
        """(N, K) int64 size of each signal: height and width of a picture; 0 where it is not known."""
        found = extents(self._column_of(split, "extent"))
        check_extents(found, self.kind.axes, f"split {split}")
        return found

    def rows(self, split: str, indices: Tensor | Sequence[int] | None = None) -> Rows:
        """Rows of a split in memory, with all columns: all rows, or those at `indices`."""
        columns = Rows(
            torch.empty(len(self.split(split)), 0), self.ids(split), self.labels(split), self.seeds(split),
            self.quality(split), self.extent(split),
        )  # fmt: skip
        if indices is None:
            return columns.with_weights(self.weights(split))
        return columns.pick(torch.as_tensor(indices)).with_weights(self.weights(split, torch.as_tensor(indices)))

    def render(self, split: str, indices: Tensor | list[int] | None = None) -> Tensor:
        """(N, H, W, C) pictures of fields, those of pictures at their own size; see `Kind.thumbnail`.

        Raises:
            ValueError: if the rows asked for have several sizes.
        """
        sizes = self.extent(split)
        sizes = torch.unique(sizes if indices is None else sizes[torch.as_tensor(indices)], dim=0)
        if len(sizes) != 1:
            raise ValueError(f"render needs signals of one size, got {sizes.tolist()[:5]}. Ask for rows of one size.")
        return self.kind.thumbnail(self.config, self.weights(split, indices), sizes[0].tolist())

    # -- checks and joining ---------------------------------------------------------------------------------------

    def _check_counts(self, said: dict[str, int] | None, path: Path) -> None:
        """What `field.json` counts is there: a split may have been lost whole, or shards of another dataset mixed in.

        Raises:
            ValueError: naming split and numbers.
        """
        if said is None:  # not every writer counts
            return
        for name in {**said, **self.splits}:
            found = len(self.splits.get(name, ()))
            if found != said.get(name, 0):
                raise ValueError(
                    f"{path}/data has {found:,} rows of split {name}, its field.json says {said.get(name, 0):,}. "
                    "Download or make it again."
                )

    def check(self) -> None:
        """Check that no signal is in two splits and no row twice, and that columns and the reference are as declared."""
        row = self.reference.row
        if row is not None and (row.shape != (self.config.size,) or not row.isfinite().all()):
            raise ValueError(
                f"the reference row has shape {tuple(row.shape)}{'' if row.isfinite().all() else ' and is not finite'}, "
                f"expected {self.config.size:,} numbers, the weights of one field."
            )
        wanted = features(self.config.size, self.label_names)
        seen: dict[str, str] = {}
        for name, rows in self.splits.items():
            if rows.features != wanted:
                raise ValueError(
                    f"split {name} has columns {rows.features}, expected {wanted} for the field {self.config}."
                )
            if name == "samples":
                continue
            self._check_repeated(name)
            for signal in set(self.ids(name)):
                if signal and seen.setdefault(signal, name) != name:
                    raise ValueError(
                        f"signal {signal} is in two splits, {seen[signal]} and {name}. Put all fits of a signal into one split."
                    )

    def _check_repeated(self, split: str) -> None:
        """Refuse a field that is there twice: it counts twice in every mean, and is a copy of itself in every search."""
        ids = self.ids(split)
        if sum(map(bool, ids)) == len(set(ids) - {""}):
            return
        first: dict[tuple[str, int], int] = {}
        pairs = [
            (found, row)
            for row, key in enumerate(zip(ids, self.seeds(split).tolist(), strict=True))
            if key[0] and (found := first.setdefault(key, row)) != row
        ]
        if not pairs:
            return
        before, after = (self.weights(split, list(rows)) for rows in zip(*pairs, strict=True))
        same = (before == after).all(1).nonzero().flatten().tolist()
        if same:
            a, b = pairs[same[0]]
            raise ValueError(
                f"split {split}: rows {a} and {b} are one field, of signal {ids[a]} and one seed, and so {len(same)} rows repeat "
                "others. Keep one row of each signal_id and seed."
            )

    def concatenate(self, *others: "WeightDataset") -> "WeightDataset":
        """Rows of several datasets of one architecture, split by split.

        Raises:
            ValueError: naming the first differing architecture, reference or classes, and the rows concerned.
        """
        from datasets import concatenate_datasets

        reference = self.reference
        for i, other in enumerate(others, 1):
            if other.config != self.config:
                counts = {name: len(rows) for name, rows in other.splits.items()}
                raise ValueError(
                    f"dataset {i} (rows {counts}) is {other.config}, dataset 0 is {self.config} "
                    f"({other.config.against(self.config)}): they cannot be combined."
                )
            if other.label_names != self.label_names:
                raise ValueError(f"dataset {i} has classes {other.label_names}, dataset 0 has {self.label_names}.")
            if other.reference.to_dict() != reference.to_dict():
                seen = sample_of(None, (), f"{reference.seen} {other.reference.seen}")
                reference = Reference("unknown", "rows from several references", seen=seen)
        names = sorted({n for d in (self, *others) for n in d.splits}, key=_split_order)
        splits = {n: concatenate_datasets([d.splits[n] for d in (self, *others) if n in d.splits]) for n in names}
        about = self.signals
        if any(other.signals.get("digest") != about.get("digest") for other in others):
            about = {k: v for k, v in about.items() if k not in ("digest", "digest_of")}
        return WeightDataset(self.config, splits, reference, about)


def _split_order(name: str) -> tuple[int, str]:
    return (SPLITS.index(name) if name in SPLITS else len(SPLITS), name)


def summary(data: WeightDataset) -> str:
    """One line for logs."""
    counts = ", ".join(f"{len(rows):,} {name}" for name, rows in data.splits.items())
    return f"{data.config}; {counts}; start {data.reference.start}; {json.dumps(data.signals.get('name'))}"
