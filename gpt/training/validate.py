"""Validation: bits per field and per weight of held-out fields, beside the per-position unigram."""

import math
from typing import Any

import torch
from torch import Tensor

from fields.runtime.launch import widest
from gpt.data import Sequences, unigram_bits
from gpt.model import GPT


@torch.no_grad()
def code_nats(model: GPT, data: Sequences, rows: Tensor, accelerator: Any, micro: int) -> float:
    """Sum over rows and codes of -ln p, shared among the processes.

    Args:
        model: unwrapped; left in training mode.
        rows: (n,) int64 rows of `data`.
        micro: rows per forward pass.
    """
    model.eval()
    total = torch.zeros((), dtype=torch.float64)
    first, last = model.config.first - 1, model.config.context - 1  # positions whose targets are codes
    for at in range(accelerator.process_index * micro, len(rows), accelerator.num_processes * micro):
        part = rows[at : at + micro]
        inputs, targets = (t.to(accelerator.device) for t in data.batch(part))
        with accelerator.autocast():
            losses = model(inputs, targets)[:, first:last]  # (n, T)
        inside = torch.arange(losses.shape[1]) < data.lengths[part][:, None]  # a short row's EOS stands among the codes
        total += (losses.cpu().double() * inside).sum()
    model.train()
    # sums of different ranks as float32 would round; on MPS, which has nothing wider, there is one rank
    return float(accelerator.reduce(total.to(accelerator.device, widest(accelerator.device)), "sum"))


class Validator:
    """Measures a model on the same held-out fields again and again."""

    def __init__(self, train: Sequences, held_out: Sequences | None, weights: int, most: int | None):
        self.data, self.weights = held_out, weights
        if held_out is None:
            return
        n = len(held_out)
        generator = torch.Generator().manual_seed(0)
        self.rows = (
            torch.arange(n)
            if most is None or most >= n
            else torch.randperm(n, generator=generator)[:most].sort().values
        )
        self.unigram = unigram_bits(train.ids, held_out.ids[self.rows], train.vocab.codes)

    def measure(self, model: GPT, accelerator: Any, micro: int) -> dict[str, float] | None:
        """Bits of the codes now, beside the unigram's; None without held-out fields. To be called by all processes.

        SOS, label and EOS are not counted: they say nothing about weights.
        """
        if self.data is None:
            return None
        field = code_nats(model, self.data, self.rows, accelerator, micro) / math.log(2) / len(self.rows)
        p = self.weights
        return {
            "fields": len(self.rows),
            "bits_per_field": field,
            "bits_per_weight": field / p,
            "unigram_bits_per_field": self.unigram,
            "unigram_bits_per_weight": self.unigram / p,
        }
