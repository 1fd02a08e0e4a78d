"""Encode a weight dataset, batch by batch:  python -m tokenizers.encode --tokenizer DIR --fields DIR --out DIR"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from fields.dataset import WeightDataset
from fields.launch import run_cli
from fields.runs import claim
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
    labels, names, seeds, sizes = data.labels(split), data.ids(split), data.seeds(split), data.sizes(split)
    at = 0
    for batch in data.batches(split, max(1, VALUES // data.config.size)):
        part = slice(at, at + len(batch))
        try:
            ids = tokenizer.encode(batch)
        except ValueError as error:
            raise ValueError(f"split {split}, rows from {at} on: {error}") from None
        rows = {"ids": ids, "signal_id": names[part], "seed": seeds[part], "sizes": sizes[part]}
        if labels is not None:
            rows["labels"] = labels[part]
        yield to_table(info, rows, split)
        at += len(batch)
        bar.update(len(batch))


def _open(config: EncodeConfig) -> tuple[WeightTokenizer, WeightDataset]:
    tokenizer = load_tokenizer(config.tokenizer, revision=config.revision, flag="--tokenizer")
    return tokenizer, WeightDataset.load(config.fields, revision=config.revision, flag="--fields")


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
