"""Tokens as a file that is mapped into memory, for training on more of them than fit."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from fields.runs import read_json, write_atomic, write_json
from gpt.data import MappedIds
from tokenizers.token_files import smallest
from tokenizers.tokens import TokenDataset

ROWS = 8192


def map_ids(tokens: TokenDataset, split: str, folder: Path) -> MappedIds:
    """The ids of a split as `folder`/{split}.ids; written once, a few rows at a time, and found again.

    Raises:
        ValueError: for ids that are no codes of the tokenizer.
    """
    n, kind = tokens.count(split), smallest(tokens.codes)
    shape, file, card = (n, tokens.tokens_per_field), folder / f"{split}.ids", folder / f"{split}.json"
    known = {"tokens": tokens.fingerprint, "shape": list(shape), "dtype": kind.name}
    if not (card.is_file() and file.is_file() and read_json(card) == known):
        card.unlink(missing_ok=True)
        with write_atomic(file) as temporary, temporary.open("wb") as handle:
            for ids in tqdm(tokens.batches(split, ROWS), total=-(-n // ROWS), desc=f"map {split}", disable=None):
                if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < tokens.codes:
                    raise ValueError(f"split {split} holds ids outside [0, {tokens.codes}). Encode the dataset anew.")
                handle.write(np.ascontiguousarray(ids.numpy().astype(kind)).tobytes())
        write_json(card, known)
    return MappedIds(np.memmap(file, dtype=kind, mode="r", shape=shape))
