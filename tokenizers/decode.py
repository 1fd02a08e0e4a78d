"""Decode tokens into a weight dataset:  python -m tokenizers.decode --tokens DIR --tokenizer DIR --out DIR"""

from fields.runtime.console import plural
from fields.runtime.processes import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from fields.kinds.preview import preview_dataset
from fields.runtime.flags import Overwrites
from fields.runtime.launch import run_cli
from fields.runtime.runs import claim
from fields.storage.dataset import Reference, WeightDataset
from tokenizers.base import WeightTokenizer
from tokenizers.registry import load_tokenizer
from tokenizers.tokens import TokenDataset

ROWS = 4096


@dataclass(frozen=True)
class DecodeConfig(Overwrites):
    """Turn tokens back into fields: a weight dataset with the same splits, labels and signal ids.

    Example:
        python -m tokenizers.decode --tokens runs/digits/tokens --tokenizer runs/digits/kmeans --out runs/digits/decoded
    """

    tokens: str
    """Tokens: a folder, the tokenizer's folder that holds `tokens/`, or user/name on the Hub."""
    tokenizer: str
    """The tokenizer that made them: a folder, or user/name on the Hub."""
    out: Path
    """Folder to write."""
    revision: str | None = None
    """Branch, tag or commit of the Hub names given; one alone may have its own: user/name@v1."""


def decode_dataset(tokens: TokenDataset, tokenizer: WeightTokenizer) -> WeightDataset:
    """All splits decoded, in memory: 4 P bytes a field.

    Raises:
        ValueError: if another tokenizer made the tokens.
    """
    tokens.check_tokenizer(tokenizer)
    splits = {}
    for split in tokens.splits:
        weights = torch.cat([tokenizer.decode(ids).cpu() for ids in tokens.batches(split, ROWS)])
        splits[split] = tokens.about(split).with_weights(weights)
    reference = None if tokens.info.reference is None else Reference.from_dict(tokens.info.reference)
    return WeightDataset.from_rows(tokenizer.field, splits, reference, tokens.info.signals)


def main(config: DecodeConfig) -> None:
    """The command."""
    tokens = TokenDataset.load(config.tokens, revision=config.revision, flag="--tokens")
    tokenizer = load_tokenizer(config.tokenizer, revision=config.revision, flag="--tokenizer")
    tokens.check_tokenizer(tokenizer)
    parents = {"tokens": tokens.fingerprint, "tokenizer": tokenizer.fingerprint}
    asked = {"kind": "decoded fields", "overwrite": config.overwrite}
    if claim(config.out, asked, parents=parents, kind="decode") and (config.out / "field.json").is_file():
        print(f"{config.out} is complete.")
        preview_dataset(config.out / "preview.png", WeightDataset.load(config.out))
        return
    data = decode_dataset(tokens, tokenizer)
    data.save(config.out)
    preview_dataset(config.out / "preview.png", data)
    total = sum(len(rows) for rows in data.splits.values())
    print(f"{plural(total, 'field')} of {data.config} in {config.out}")


if __name__ == "__main__":
    run_cli(
        main, lambda: tyro.cli(DecodeConfig, prog="python -m tokenizers.decode"), alone="python -m tokenizers.decode"
    )
