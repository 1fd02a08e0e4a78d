"""Encode a weight dataset, batch by batch:  python -m tokenizers.encode --tokenizer DIR --fields DIR --out DIR"""

from functools import partial

import tyro

from fields.runtime.launch import run_cli
from tokenizers.options import EncodeConfig

if __name__ == "__main__":  # before what follows, which is imported by its name once the flags are read
    options = (tyro.conf.OmitArgPrefixes,)
    parse = partial(tyro.cli, EncodeConfig, prog="python -m tokenizers.encode", config=options)
    run_cli("tokenizers.encode:main", parse, alone="python -m tokenizers.encode")

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import tyro

from fields.runtime.console import bar, plural
from fields.runtime.launch import choose_device, cores
from fields.runtime.runs import claim, vacant
from fields.signals.seen import elsewhere, refuse_seen
from fields.storage.columns import extents, matrix
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import beside
from fields.storage.rows import Rows
from tokenizers.base import WeightTokenizer
from tokenizers.options import EncodeConfig, RefitConfig
from tokenizers.refit import Refit
from tokenizers.registry import load_tokenizer
from tokenizers.tokens import TokenInfo, to_table, write_tokens

VALUES = 6_000_000
"""Weights encoded at once."""


def divide(text: str, fields: str) -> tuple[str, str]:
    """TOKENIZER=FIELDS as both, TOKENIZER alone with the fields of all; a folder whose name has an = wins."""
    if "=" not in text or Path(text).is_dir():
        return text, fields
    source, _, own = text.rpartition("=")
    if not source or not own:
        raise ValueError(f"{text!r}: expected TOKENIZER or TOKENIZER=FIELDS.")
    return source, own


def check_field(tokenizer: WeightTokenizer, data: WeightDataset) -> None:
    """Refuse a dataset of another architecture, naming both, or one that holds out what the tokenizer has learnt from."""
    if tokenizer.field == data.config:
        refuse_seen(f"the tokenizer {tokenizer.fingerprint}", tokenizer.seen, data)
        if elsewhere(tokenizer.seen, data) == 1:
            said = f"the tokenizer {tokenizer.fingerprint} was learnt from other signals than the training fields here"
            print(f"warning: {said}: its codes may fit these less well.", file=sys.stderr)
        return
    raise ValueError(
        f"the tokenizer {tokenizer.fingerprint} reads fields {tokenizer.field}, the dataset {data.fingerprint} has "
        f"{data.config} ({tokenizer.field.against(data.config)}). Build a tokenizer for this dataset."
    )


def encode_dataset(
    tokenizer: WeightTokenizer, data: WeightDataset, out: Path, *, progress: bool = True, refit: Refit | None = None
) -> str:
    """Write the tokens of all splits to `out`, refitted or plain; returns their fingerprint."""
    check_field(tokenizer, data)
    info = TokenInfo.of(tokenizer, data)
    total = sum(len(rows) for rows in data.splits.values())
    with bar(total=total, unit="field", desc="encode", quiet=not progress) as shown:
        splits = {s: (len(rows), _tables(tokenizer, data, info, s, shown, refit)) for s, rows in data.splits.items()}
        return write_tokens(out, info, splits)


def _tables(
    tokenizer: WeightTokenizer, data: WeightDataset, info: TokenInfo, split: str, shown: Any, refit: Refit | None
) -> Iterator[Any]:
    """Tables of one split, one batch each."""
    at = 0
    for table in data.tables(split, max(1, VALUES // data.config.size)):
        weights = matrix(table["weights"], data.config.size)
        try:
            ids = tokenizer.encode(weights)
        except ValueError as error:
            raise ValueError(f"split {split}, rows from {at} on: {error}") from None
        labels = None if info.label_names is None else torch.from_numpy(table["label"].to_numpy().copy())
        seeds = torch.from_numpy(table["seed"].to_numpy().copy())
        sizes = extents(table["extent"])
        rows = Rows(weights, table["signal_id"].to_pylist(), labels, seeds, extent=sizes)
        if refit is not None:
            ids = refit(weights, ids, rows.ids, sizes, shown.update)
        yield to_table(info, ids, rows, split)
        at += len(table)
        if refit is None:
            shown.update(len(table))


def refit_settings(config: RefitConfig) -> dict:
    """What a folder's content depends on; nothing without refit."""
    return asdict(config) if config.refit else {}


def _open(config: EncodeConfig) -> tuple[WeightTokenizer, WeightDataset]:
    tokenizer = load_tokenizer(config.tokenizer, revision=config.revision, flag="--tokenizer")
    return tokenizer, WeightDataset.load(config.fields, revision=config.revision, stream=config.stream, flag="--fields")


def main(config: EncodeConfig) -> None:
    """The command."""
    torch.set_num_threads(config.threads or cores())
    choose_device(config.device)  # refuses what is not there, before anything is read
    tokenizer, data = _open(config)
    check_field(tokenizer, data)
    parents = {"tokenizer": tokenizer.fingerprint, "fields": data.fingerprint}
    asked = {"kind": "tokens", **refit_settings(config.refitting), "overwrite": config.overwrite}
    where = {"tokenizer": config.tokenizer, "fields": config.fields}
    out = config.out or vacant(
        beside(config.fields, "tokens"), {**asked, **where}, parents=parents, free=tuple(where), kind="encode"
    )
    if claim(out, asked, parents=parents, kind="encode") and (out / "tokens.json").is_file():
        print(f"{out} is complete.")
        return
    refit = None
    if config.refitting.refit:
        device = choose_device(config.device)
        refit = Refit.of(tokenizer, data, config.refitting, config.signals, config.data_root, device)
    fingerprint = encode_dataset(tokenizer, data, out, refit=refit)
    total = sum(len(rows) for rows in data.splits.values())
    print(f"{plural(total, 'field')} x {tokenizer.tokens_per_field} tokens in {out} (fingerprint {fingerprint})")
