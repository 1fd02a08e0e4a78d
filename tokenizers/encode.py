"""Encode a weight dataset, batch by batch:  python -m tokenizers.encode --tokenizer DIR --fields DIR --out DIR"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from fields.dataset import WeightDataset
from fields.launch import run_cli
from fields.runs import claim
from fields.table import matrix
from tokenizers.base import WeightTokenizer
from tokenizers.registry import load_tokenizer
from tokenizers.tokens import TokenInfo, to_table, write_tokens

VALUES = 6_000_000
"""Weights encoded at once."""


@dataclass(frozen=True)
class EncodeConfig:
    """Turn the fields of a weight dataset into tokens; memory stays the same however many there are.

    Example:
        python -m tokenizers.encode --tokenizer runs/digits/kmeans --fields runs/digits/fields --out runs/digits/tokens
    """

    tokenizer: str
    """A tokenizer: a folder, or user/name on the Hub."""
    fields: str
    """A weight dataset of the same architecture: a folder, or user/name on the Hub."""
    out: Path
    """Folder to write: Parquet files and tokens.json."""
    revision: str | None = None
    """Branch, tag or commit of the Hub names given; one alone may have its own: user/name@v1."""
    stream: bool = False
    """Read the fields shard by shard instead of holding them all, for datasets larger than memory."""


def check_field(tokenizer: WeightTokenizer, data: WeightDataset) -> None:
    """Refuse a dataset of another architecture, naming both."""
    if tokenizer.field == data.config:
        return
    ours, theirs = tokenizer.field.to_dict(), data.config.to_dict()
    differing = ", ".join(f"{k}: {ours[k]} against {theirs[k]}" for k in ours if ours[k] != theirs[k])
    raise ValueError(
        f"the tokenizer {tokenizer.fingerprint} reads fields {tokenizer.field}, the dataset {data.fingerprint} has "
        f"{data.config} ({differing}). Build a tokenizer for this dataset."
    )


def encode_dataset(tokenizer: WeightTokenizer, data: WeightDataset, out: Path, *, progress: bool = True) -> str:
    """Write the tokens of all splits to `out`; returns their fingerprint."""
    check_field(tokenizer, data)
    info = TokenInfo.of(tokenizer, data)
    total = sum(len(rows) for rows in data.splits.values())
    with tqdm(total=total, unit=" fields", desc="encode", disable=None if progress else True) as bar:
        splits = {s: (len(rows), _tables(tokenizer, data, info, s, bar)) for s, rows in data.splits.items()}
        return write_tokens(out, info, splits)


def _tables(tokenizer: WeightTokenizer, data: WeightDataset, info: TokenInfo, split: str, bar: Any) -> Iterator[Any]:
    """Tables of one split, one batch each."""
    at = 0
    for table in data.tables(split, max(1, VALUES // data.config.size)):
        try:
            ids = tokenizer.encode(matrix(table["weights"], data.config.size))
        except ValueError as error:
            raise ValueError(f"split {split}, rows from {at} on: {error}") from None
        column = {name: table[name].to_numpy() for name in ("seed", "height", "width")}
        rows = {
            "ids": ids,
            "signal_id": table["signal_id"].to_pylist(),
            "seed": torch.from_numpy(column["seed"].copy()),
        }
        rows["sizes"] = torch.from_numpy(np.stack([column["height"], column["width"]], 1))
        if info.label_names is not None:
            rows["labels"] = torch.from_numpy(table["label"].to_numpy().copy())
        yield to_table(info, rows, split)
        at += len(table)
        bar.update(len(table))


def _open(config: EncodeConfig) -> tuple[WeightTokenizer, WeightDataset]:
    tokenizer = load_tokenizer(config.tokenizer, revision=config.revision, flag="--tokenizer")
    return tokenizer, WeightDataset.load(config.fields, revision=config.revision, stream=config.stream, flag="--fields")


def main(config: EncodeConfig) -> None:
    """The command."""
    tokenizer, data = _open(config)
    check_field(tokenizer, data)
    parents = {"tokenizer": tokenizer.fingerprint, "fields": data.fingerprint}
    if claim(config.out, {"kind": "tokens"}, parents=parents) and (config.out / "tokens.json").is_file():
        print(f"{config.out} is complete.")
        return
    fingerprint = encode_dataset(tokenizer, data, config.out)
    total = sum(len(rows) for rows in data.splits.values())
    print(f"{total:,} fields x {tokenizer.tokens_per_field} tokens in {config.out} (fingerprint {fingerprint})")


if __name__ == "__main__":
    run_cli(main, tyro.cli(EncodeConfig, prog="python -m tokenizers.encode"))
