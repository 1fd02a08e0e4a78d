"""Tokens as sequences SOS [label] codes EOS PAD, and which of them a step sees. No DataLoader.

Why none: all tokens of a dataset fit in memory (60,000 fields of 593 two-byte tokens are 71 MB), a batch is one
indexing operation, and the order must be a pure function of (seed, step), so that a resumed run and any number of
processes see the same fields; a loader would only add state to save.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fields.runtime.console import bar
from fields.runtime.runs import read_json, write_atomic, write_json
from gpt.model import IGNORE
from tokenizers.tokens import TokenDataset, smallest
from tokenizers.vocab import Counts, Vocab

MAPPED_ROWS = 8192
"""Rows written to a mapped file at once."""
COUNTED = 16_384
"""Rows whose codes are counted at once."""
TARGETS = 1 << 21
"""Targets counted at once; each takes some 50 bytes."""


def seed_of(*parts: int | str) -> int:
    """A well mixed 63-bit seed of several numbers or words."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


class MappedIds:
    """(N, T) codes in a file, mapped into memory: only the rows that are asked for are read.

    Args:
        array: (N, T), a `numpy.memmap` of unsigned integers.
    """

    def __init__(self, array: np.ndarray):
        self.array, self.shape, self.ndim = array, array.shape, array.ndim

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """(n, T) int64 of the rows asked for."""
        return torch.from_numpy(self.array[rows if isinstance(rows, slice) else rows.numpy()].astype(np.int64))


def map_ids(tokens: TokenDataset, split: str, folder: Path) -> MappedIds:
    """The ids of a split as `folder`/{split}.ids; written once, a few rows at a time, and found again.

    Raises:
        ValueError: for ids that are no codes of the tokenizer.
    """
    n, kind = tokens.count(split), smallest(tokens.codes)
    shape, file, marks = (n, tokens.tokens_per_field), folder / f"{split}.ids", folder / f"{split}.json"
    known = {"tokens": tokens.fingerprint, "shape": list(shape), "dtype": kind.name}
    if not (marks.is_file() and file.is_file() and read_json(marks, "Delete it.", dict) == known):
        marks.unlink(missing_ok=True)
        with write_atomic(file) as temporary, temporary.open("wb") as handle:
            parts, total = tokens.batches(split, MAPPED_ROWS), -(-n // MAPPED_ROWS)
            for ids in bar(parts, total=total, desc=f"map {split}", unit="part", leave=False):
                if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < tokens.codes:
                    raise ValueError(f"split {split} holds ids outside [0, {tokens.codes}). Encode the dataset again.")
                handle.write(np.ascontiguousarray(ids.numpy().astype(kind)).tobytes())
        write_json(marks, known)
    return MappedIds(np.memmap(file, dtype=kind, mode="r", shape=shape))


class Numbers:
    """Names of rows that are not known: their numbers."""

    def __getitem__(self, i: int) -> str:
        return str(i)


class Sequences:
    """Fields' codes in memory, in the smallest integers, served as padded batches.

    Args:
        ids: (N, T) codes in [0, V); a `MappedIds` stays on disk and was checked when it was written.
        vocab: the ids of the model.
        labels: (N,) class indices, needed if the vocabulary has labels.
        names: N signal ids, for messages.
        lengths: (N,) tokens of each field where they differ; what follows in `ids` is never read.
    Raises:
        ValueError: for empty data, codes outside the vocabulary or missing labels.
    """

    def __init__(
        self,
        ids: "Tensor | MappedIds",
        vocab: Vocab,
        labels: Tensor | None = None,
        names: list[str] | None = None,
        lengths: Tensor | None = None,
    ):
        if ids.ndim != 2 or not len(ids) or not ids.shape[1]:
            raise ValueError(f"token ids must have shape (N, T), both at least 1, got {tuple(ids.shape)}.")
        self.vocab = vocab
        self.lengths = torch.full((len(ids),), ids.shape[1]) if lengths is None else lengths.long()
        if self.lengths.shape != (len(ids),) or self.lengths.min() < 0 or self.lengths.max() > ids.shape[1]:
            raise ValueError(f"lengths must be {len(ids)} numbers in [0, {ids.shape[1]}].")
        self.labels = None if not vocab.labels else self._check_labels(labels)
        self.names = names or Numbers()
        self.ids = ids if isinstance(ids, MappedIds) else self._check_ids(ids)

    def _check_ids(self, ids: Tensor) -> Tensor:
        """(N, T) in small integers, 0 behind the end of a field."""
        vocab, real = self.vocab, torch.arange(ids.shape[1]) < self.lengths[:, None]
        wrong = (((ids < 0) | (ids >= vocab.codes)) & real).any(1).nonzero().flatten()
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"row {row} holds ids in [{int(ids[row].min())}, {int(ids[row].max())}], expected codes in "
                f"[0, {vocab.codes}). Encode the dataset again with this tokenizer."
            )
        return ids.masked_fill(~real, 0).to(torch.int16 if vocab.codes <= 2**15 else torch.int32)

    def _check_labels(self, labels: Tensor | None) -> Tensor:
        if labels is None:
            raise ValueError("--labels needs a dataset with labels; this one has none. Leave the flag out.")
        bad = ((labels < 0) | (labels >= self.vocab.labels)).nonzero().flatten()
        if len(bad):
            raise ValueError(
                f"--labels needs a label in [0, {self.vocab.labels}) for every field; {len(bad)} have another, "
                f"the first is row {int(bad[0])} with {int(labels[bad[0]])}."
            )
        return labels.long()

    def __len__(self) -> int:
        return len(self.ids)

    def targets(self, rows: Tensor) -> int:
        """Tokens of these rows that carry loss: codes, EOS, and the label where there is one."""
        return int(self.lengths[rows].sum()) + len(rows) * (2 if self.vocab.labels else 1)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets.

        Args:
            rows: (B,) int64; -1 stands for a row of PAD, which carries no loss.
        Returns:
            inputs (B, T + 1 or 2) int64 from SOS on; targets of the same shape, shifted by one, IGNORE behind EOS.
        """
        v, empty = self.vocab, rows < 0
        length, codes = self.lengths[rows][:, None], self.ids[rows].long()
        head = [torch.full((len(rows), 1), v.sos)]
        if self.labels is not None:
            head.append(v.codes + 3 + self.labels[rows][:, None])
        place = torch.arange(codes.shape[1] + 1)
        body = torch.cat([codes, torch.full((len(rows), 1), v.pad)], 1)  # (B, T + 1): codes and room for EOS
        body = body.masked_fill(place == length, v.eos).masked_fill(place > length, v.pad)
        full = torch.cat([*head, body], 1).masked_fill(empty[:, None], v.pad)
        # by position: where PAD stands is known, so no real EOS can ever be masked out with it
        last = length + len(head) - 1  # index of EOS among the targets
        silent = (torch.arange(full.shape[1] - 1) > last) | empty[:, None]
        return full[:, :-1], full[:, 1:].masked_fill(silent, IGNORE)

    def log_frequencies(self) -> Tensor:
        """(context, vocab) float32: log of how often each id is the target of each position, one added to every count."""
        v, width = self.vocab, self.batch(torch.tensor([0]))[1].shape[1]
        counts = torch.zeros(width * v.size, dtype=torch.int64)
        for rows in torch.arange(len(self)).split(max(1, TARGETS // self.ids.shape[1])):
            targets = self.batch(rows)[1]
            place = torch.arange(width) * v.size
            counts += torch.bincount((targets + place)[targets != IGNORE], minlength=width * v.size)
        table = counts.view(-1, v.size).double() + 1
        return (table / table.sum(1, keepdim=True)).log().float()


@lru_cache(maxsize=4)
def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """(n,) permutation of one epoch."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed_of("epoch", seed, epoch)))


def global_batch(n: int, size: int, seed: int, step: int) -> Tensor:
    """Rows of optimiser step `step` (from 1), over all processes: epochs end to end, each row once per epoch.

    Returns:
        (size,) int64.
    """
    at = np.arange((step - 1) * size, step * size)
    parts = [epoch_order(n, seed, int(e))[torch.from_numpy(at[at // n == e] % n)] for e in np.unique(at // n)]
    return torch.cat(parts)


def micro_batches(rows: Tensor, micro: int, rank: int, world: int) -> list[tuple[int, Tensor]]:
    """This process's share of a global batch, cut for the forward pass.

    Micro-batch i belongs to process i mod world, and its dropout is keyed by i: their number changes nothing.
    Every process gets the same number (collectives must match): where rows run out, one row of PAD stands in.

    Returns:
        [(i, rows of micro-batch i)].
    """
    rounds = -(-len(rows) // (micro * world))
    pad = torch.tensor([-1])
    cut = [(i, rows[i * micro : (i + 1) * micro]) for i in range(rank, rounds * world, world)]
    return [(i, part if len(part) else pad) for i, part in cut]


def unigram_bits(train: Tensor | MappedIds, other: Tensor, codes: int) -> float:
    """Bits per field of the per-position unigram: what a model that ignores everything but the position pays.

    Args:
        train: (N, T) codes that are counted, one added to every count.
        other: (M, T) codes that are charged.
        codes: V.
    """
    counts = Counts(train.shape[1], codes)
    for at in range(0, len(train), COUNTED):
        counts.add(train[at : at + COUNTED].long())
    bits = torch.zeros(len(other), dtype=torch.float64)
    for position, lengths in enumerate(counts.lengths()):
        bits += lengths[other[:, position].long()]
    return float(bits.mean())
