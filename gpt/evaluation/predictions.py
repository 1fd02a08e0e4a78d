"""What a GPT says of codes that are known: bits, how often a draw would err, draws of one code or of the second half."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt.data import Sequences
from gpt.model import GPT, KVCache
from gpt.sampling.generate import choose, uniforms

BATCH = 128
"""Fields read at once."""


@dataclass(frozen=True)
class Predictions:
    """Of N fields of T codes, each code being predicted from the true ones before it.

    Attributes:
        bits: (N,) -log2 p of a field's codes.
        errors: (N, T) one minus p of the true code: how likely a draw is another one.
        drawn: (N, T) one draw per place.
    """

    bits: Tensor
    errors: Tensor
    drawn: Tensor


def sequences(model: GPT, ids: Tensor, labels: Tensor | None) -> Sequences:
    """(N, T) codes as the model reads them; labels are used if it has any."""
    return Sequences(ids, model.config.vocab, labels if model.config.labels else None)


@torch.no_grad()
def predict(model: GPT, ids: Tensor, labels: Tensor | None, seed: int = 0) -> Predictions:
    """Read known codes.

    Args:
        model: in evaluation mode.
        ids: (N, T) codes.
        labels: (N,) classes, needed by a model with labels.
        seed: of the draws.
    """
    c, data = model.config, sequences(model, ids, labels)
    u = uniforms(seed, torch.arange(len(ids)), c.tokens_per_field)
    bits, errors, drawn = [], [], []
    for rows in torch.arange(len(ids)).split(BATCH):
        inputs, _ = data.batch(rows)
        logits = model(inputs)[:, c.first - 1 : c.context - 1, : c.codes].double()  # (n, T, V)
        found = logits.log_softmax(2).gather(2, ids[rows, :, None])[:, :, 0]
        bits.append(-found.sum(1) / math.log(2))
        errors.append(1 - found.exp())
        flat = choose(logits.flatten(0, 1).float(), u[rows].flatten(), 1.0, None, None)
        drawn.append(flat.view(len(rows), -1))
    return Predictions(torch.cat(bits), torch.cat(errors), torch.cat(drawn))


@torch.no_grad()
def draw_rest(model: GPT, ids: Tensor, labels: Tensor | None, given: int, seed: int = 0) -> Tensor:
    """(N, T) codes whose first `given` are the known ones; the others are drawn by the model, one after the other."""
    c, data, parts = model.config, sequences(model, ids, labels), []
    u = uniforms(seed, torch.arange(len(ids)), c.tokens_per_field)
    for rows in torch.arange(len(ids)).split(BATCH):
        inputs, store = data.batch(rows)[0], KVCache(c, len(rows), model.head.weight)
        for place in range(given, c.tokens_per_field):
            at = c.first + place  # where this code stands in the sequence
            logits = model(inputs[:, store.length : at], cache=store)[:, -1, : c.codes].float()
            inputs[:, at] = choose(logits, u[rows, place], 1.0, None, None)
        parts.append(inputs[:, c.first :])
    return torch.cat(parts)


def replace(ids: Tensor, pool: Tensor, share: float, seed: int) -> Tensor:
    """(N, T) codes of which a share, at random, is another field's code at that place.

    Args:
        ids: (N, T).
        pool: (M, T) codes that replace them.
        share: in [0, 1].
        seed: of places and codes.
    """
    generator = torch.Generator().manual_seed(seed)
    others = pool.gather(0, torch.randint(len(pool), ids.shape, generator=generator))
    return torch.where(torch.rand(ids.shape, generator=generator) < share, others, ids)
