"""TokenDataset: fields as rows of ids, in splits, beside what a GPT needs to know about them.

A folder `tokens/` holds `{split}-00000-of-0000K.parquet` (ids as fixed-length lists of the smallest unsigned integers)
and `tokens.json`. It is readable without this code: `datasets.load_dataset("parquet", data_files=...)` gives the rows,
and `tokens.json` the slots and the fingerprints of the tokenizer and of the dataset.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.runtime.runs import read_json
from fields.storage.fetch import fetch
from fields.storage.streaming import open_splits
from tokenizers.base import Vocab, WeightTokenizer
from tokenizers.token_files import (
    FORMAT,
    HINT,
    ROWS_PER_SHARD,
    TokenInfo,
    features,
    fingerprint_of,
    mark,
    matrix,
    read_split,
    to_table,
    write_tokens,
)

__all__ = ["TokenDataset", "TokenInfo", "features", "to_table", "write_tokens"]


class TokenDataset:
    """Rows of ids in splits.

    Attributes:
        info: what all rows share.
        fingerprint: 16 hexadecimal digits of ids, splits, signal ids, and of the tokenizer's fingerprint.
    """

    def __init__(self, info: TokenInfo, tables: dict[str, Any], fingerprint: str):
        self.info, self._tables, self.fingerprint = info, tables, fingerprint
        self.slots = torch.tensor(info.slots, dtype=torch.int64)

    @classmethod
    def load(
        cls, path: Path | str, *, revision: str | None = None, stream: bool = False, flag: str = ""
    ) -> "TokenDataset":
        """Open a `tokens` folder, the tokenizer folder that holds one, or `user/name[@revision]` on the Hub.

        Rows are held in their small integers; with `stream` they are read when they are asked for, a row group at a
        time, and files of the Hub are not kept on disk.

        Raises:
            FileNotFoundError: if there are no tokens, with the command that makes them.
            ValueError: if shards are missing, damaged, or of another shape.
        """
        source, wanted = path, ["tokens.json"] + ([] if stream else ["*.parquet"])
        path = fetch(path, "dataset", revision=revision, patterns=wanted, flag=flag)
        if not (path / "tokens.json").is_file() and (path / "tokens" / "tokens.json").is_file():
            path = path / "tokens"
        values = read_json(path / "tokens.json", HINT.format(path=path))
        if values.get("format") != FORMAT:
            raise ValueError(f"{path}/tokens.json has format {values.get('format')!r}, expected {FORMAT!r}.")
        info = TokenInfo(**{k: v for k, v in values.items() if k in TokenInfo.__dataclass_fields__})
        if stream:
            tables = open_splits(source, path, "", features(info).arrow_schema, HINT.format(path=path))
            if {split: len(rows) for split, rows in tables.items()} != values["rows"]:
                raise ValueError(f"{path}: files and tokens.json do not belong together. {HINT.format(path=path)}")
            tables = {split: tables[split] for split in values["rows"]}
        else:
            tables = {split: read_split(path, split, n, info) for split, n in values["rows"].items()}
        return cls(info, tables, values["fingerprint"])

    @classmethod
    def from_ids(cls, tokenizer: WeightTokenizer, splits: dict[str, dict[str, Any]], data: Any = None):
        """Rows in memory.

        Args:
            tokenizer: whose ids they are.
            splits: per split a dict of `ids` (N, T), and optionally `labels`, `signal_id`, `seed`, `sizes` (N, 2).
            data: the WeightDataset they were made from, if any.
        """
        info = TokenInfo.of(tokenizer, data)
        made = {name: to_table(info, rows, name) for name, rows in splits.items()}
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
        """Class names, None for unlabelled signals."""
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
        return torch.from_numpy(matrix(column, self.tokens_per_field).astype(np.int64))

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

    def sizes(self, split: str) -> Tensor:
        """(N, 2) int64 height and width of each signal."""
        both = [np.array(self._table(split)[name].to_numpy(), dtype=np.int64) for name in ("height", "width")]
        return torch.from_numpy(np.stack(both, 1))

    def check_tokenizer(self, tokenizer: WeightTokenizer) -> None:
        """Refuse a tokenizer that did not make these ids, naming both."""
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise ValueError(
                f"these tokens were made by tokenizer {self.tokenizer_fingerprint} ({self.info.kind}, {self.codes} "
                f"codes), not by {tokenizer.fingerprint} ({tokenizer.config.kind}, {tokenizer.codes} codes). "
                "Give the tokenizer they were made with, or encode the fields anew."
            )


def _pieces(table: Any) -> Iterator[Any]:
    """A table, or rows that are streamed, piece by piece."""
    for at in range(0, len(table), ROWS_PER_SHARD):
        yield table.slice(at, ROWS_PER_SHARD)
