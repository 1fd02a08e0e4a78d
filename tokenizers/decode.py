"""Decode tokens into a weight dataset:  python -m tokenizers.decode --tokens DIR --tokenizer DIR --out DIR"""

from functools import partial

import tyro

from fields.runtime.launch import run_cli
from tokenizers.options import DecodeConfig

if __name__ == "__main__":  # before what follows, which is imported by its name once the flags are read
    parse = partial(tyro.cli, DecodeConfig, prog="python -m tokenizers.decode")
    run_cli("tokenizers.decode:main", parse, alone="python -m tokenizers.decode")

from pathlib import Path

import torch
import tyro

from fields.kinds.preview import preview_dataset
from fields.runtime.console import plural
from fields.runtime.launch import cores
from fields.runtime.runs import claim, vacant
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import beside, is_local
from fields.storage.reference import Reference
from tokenizers.base import WeightTokenizer
from tokenizers.options import DecodeConfig
from tokenizers.registry import load_tokenizer
from tokenizers.tokens import TokenDataset

ROWS = 4096


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


def _folder(tokens: str) -> str | Path:
    """The folder beside which fields go: of tokens that lie in their tokenizer's folder, that one."""
    path = Path(tokens)
    inside = is_local(tokens) and path.name == "tokens" and (path.parent / "config.json").is_file()
    return path.parent if inside else tokens


def main(config: DecodeConfig) -> None:
    """The command."""
    torch.set_num_threads(config.threads or cores())
    tokens = TokenDataset.load(config.tokens, revision=config.revision, flag="--tokens")
    tokenizer = load_tokenizer(config.tokenizer, revision=config.revision, flag="--tokenizer")
    tokens.check_tokenizer(tokenizer)
    parents = {"tokens": tokens.fingerprint, "tokenizer": tokenizer.fingerprint}
    asked = {"kind": "decoded fields", "overwrite": config.overwrite}
    where = {"tokens": config.tokens, "tokenizer": config.tokenizer}
    default = beside(_folder(config.tokens), "decoded")
    out = config.out or vacant(default, {**asked, **where}, parents=parents, free=tuple(where), kind="decode")
    if claim(out, asked, parents=parents, kind="decode") and (out / "field.json").is_file():
        print(f"{out} is complete.")
        preview_dataset(out / "preview.png", WeightDataset.load(out))
        return
    data = decode_dataset(tokens, tokenizer)
    data.save(out)
    preview_dataset(out / "preview.png", data)
    total = sum(len(rows) for rows in data.splits.values())
    print(f"{plural(total, 'field')} of {data.config} in {out}")
