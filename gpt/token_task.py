"""The GPT as a task of the trainer: tokens of fields are learnt, bits are validated, samples are drawn."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.model import random_points
from fields.runtime.console import bar, plural
from fields.symmetry import shift
from gpt.checkpoint import load_model, save_model
from gpt.corpus import Corpus
from gpt.data import Sequences, seed_of
from gpt.model import GPT
from gpt.sampling.generate import sample_ids
from gpt.sampling.sheet import save_samples_sheet
from gpt.training.log import draw_curves
from gpt.training.task import Task
from gpt.training.validate import Validator

SHIFTED = 4096
"""Shifted fields encoded at once."""
HOPELESS = 10.0
"""A loss beyond this many times that of a uniform guess is divergence, though every number be finite."""

MEMORISED = 0.9
"""Share of the bits by counting below which training fields are known better than held-out ones can be."""


class TokenTask(Task[GPT]):
    """A GPT on sequences of tokens, without any file.

    Args:
        model: fresh.
        train: what is learnt.
        held_out: what is validated, or None.
        weights: P, weights of a field, for bits per weight.
        most: held-out fields used; None = all.
        noise: up to this share of the codes that are read is replaced while training.
        label_dropout: share of the fields that are read without their label while training.
        shifted: copies of the training fields, row i of copy k at k N + i, read in place of half of them: PAD stands where SOS
            does otherwise, so that the model knows.
    """

    unit, counted, score = "nats/token", "tokens", "bits_per_field"

    def __init__(
        self,
        model: GPT,
        train: Sequences,
        held_out: Sequences | None = None,
        weights: int = 1,
        most: int | None = None,
        noise: float = 0.0,
        label_dropout: float = 0.0,
        shifted: Sequences | None = None,
    ):
        if label_dropout and not train.vocab.labels:
            raise ValueError("label dropout hides the labels of some fields, so it needs labels.")
        self.noise, self.label_dropout, self.shifted = noise, label_dropout, shifted
        self.model, self.train, self.held_out, self.weights = model, train, held_out, weights
        self.hopeless = HOPELESS * math.log(train.vocab.size)
        self.validator = Validator(train, held_out, weights, most)

    def __len__(self) -> int:
        return len(self.train)

    def count(self, rows: Tensor) -> int:
        """Tokens that carry loss."""
        return self.train.targets(rows)

    def loss(self, model: GPT, rows: Tensor, seed: int) -> Tensor:
        """Nats of all tokens; `seed` is that of dropout."""
        torch.manual_seed(seed)
        device = self.model.slots.device
        inputs, targets = self.train.batch(rows)
        if self.shifted is not None:
            inputs, targets = self.moved(rows, inputs, targets, seed)
        if self.noise or self.label_dropout:
            inputs = self.disturbed(inputs, seed)
        return model(inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)).sum()

    def moved(self, rows: Tensor, inputs: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """The batch with half of its rows, at random, replaced by one of their shifted copies."""
        assert self.shifted is not None
        generator, n = torch.Generator().manual_seed(seed_of("shift", seed)), len(self)
        copy = torch.randint(len(self.shifted) // n, (len(rows),), generator=generator)
        chosen = ((torch.rand(len(rows), generator=generator) < 0.5) & (rows >= 0))[:, None]
        others, theirs = self.shifted.batch(torch.where(rows >= 0, copy * n + rows, rows))
        others[:, 0] = self.train.vocab.pad
        return torch.where(chosen, others, inputs), torch.where(chosen, theirs, targets)

    def disturbed(self, inputs: Tensor, seed: int) -> Tensor:
        """(B, n) inputs as a model meets them when it samples: some codes are wrong, some labels are not told (PAD stands there).

        A row's share of wrong codes is uniform in [0, `noise`]; each becomes the code of another training field at its place.
        """
        generator = torch.Generator().manual_seed(seed_of("noise", seed))
        first, vocab, inputs = self.model.config.first, self.train.vocab, inputs.clone()
        codes, others = inputs[:, first:], torch.randint(len(self), (len(inputs),), generator=generator)
        share = self.noise * torch.rand(len(inputs), 1, generator=generator)
        wrong = (torch.rand(codes.shape, generator=generator) < share) & (codes < vocab.codes)
        inputs[:, first:] = torch.where(wrong, self.train.ids[others].long(), codes)
        silent = torch.rand(len(inputs), generator=generator) < self.label_dropout
        if vocab.labels:
            inputs[silent, 1] = vocab.pad
        return inputs

    def row_losses(self, model: GPT, rows: Tensor) -> Tensor:
        """(B,) nats of each field."""
        inputs, targets = (t.to(model.slots.device) for t in self.train.batch(rows))
        return model(inputs, targets).sum(1).cpu()

    def row_name(self, row: int) -> str:
        """The signal's id."""
        return self.train.names[row]

    def optimizers(self, config: Any) -> list[torch.optim.Optimizer]:
        """AdamW with decay on matrices only (gates are scales, not matrices), or plain SGD."""
        return make_optimizers(config, self.model)

    def validate(self, model: GPT, accelerator: Any, micro: int) -> dict[str, Any] | None:
        """Bits of held-out fields."""
        return self.validator.measure(model, accelerator, micro)

    def describe(self) -> str:
        """Fields, tokens and the model's size."""
        c = self.model.config
        text = f"{plural(len(self), 'field')} of {plural(c.tokens_per_field, 'token')}, {c.vocab.size} ids; GPT of {self.model.size():,} weights"
        return text if self.held_out is not None else f"{text}; no validation fields, so no best/ and no early stop"

    def describe_loss(self, loss: float) -> str:
        """Bits of a field, EOS and label included."""
        return f"{loss * self.bits_per_loss:,.1f} bits/field"

    def describe_validation(self, numbers: dict[str, Any]) -> str:
        """Bits of a field beside those of the unigram."""
        unigram = numbers["unigram_bits_per_field"]
        return f"{numbers['bits_per_field']:,.1f} bits/field (unigram {unigram:,.1f})"

    def advise(self, numbers: dict[str, Any], loss: float | None) -> str:
        """What to do where held-out fields cost more bits than by counting codes: fewer steps if it has memorised, else more."""
        bits, counted = numbers["bits_per_field"], numbers["unigram_bits_per_field"]
        if bits <= counted or loss is None:
            return ""
        told = loss * self.bits_per_loss
        held_out = f"held-out fields cost {bits:,.1f} bits, more than the {counted:,.1f} of counting codes"
        if told < MEMORISED * counted:
            return (
                f"{held_out}, and training fields {told:,.1f}: the model has memorised its {plural(len(self), 'field')}. Take fewer "
                "--steps, a smaller --eval-every (the best model is kept) or more --model.dropout; or fit more signals."
            )
        return f"{held_out}, and so do training fields ({told:,.1f}): train longer (--steps), or with another --lr."

    @property
    def bits_per_loss(self) -> float:
        """Bits of a field in a nat per token."""
        return self.train.targets(torch.tensor([0])) / math.log(2)


class CorpusTask(TokenTask):
    """A GPT on the tokens of a weight dataset: models are saved with their tokenizer, samples are rendered.

    Args:
        config: a TrainConfig.
        corpus: what is learnt.
        model: fresh.
    """

    def __init__(self, config: Any, corpus: Corpus, model: GPT):
        size, most = corpus.data.config.size, config.eval_fields
        shifted = shifted_copies(corpus, config.shifts, config.shift_by, config.seed) if config.shifts else None
        noise, silent = config.token_noise, config.label_dropout
        super().__init__(model, corpus.train, corpus.held_out, size, most, noise, silent, shifted)
        self.config, self.corpus = config, corpus

    def save(self, path: Path, model: GPT, info: dict[str, Any]) -> None:
        """The model's folder."""
        dropped = {"label_dropout": self.label_dropout} if self.label_dropout else {}
        save_model(path, model, self.corpus.tokenizer, {**self.corpus.info(), **dropped, **info})

    def load(self, out: Path) -> GPT:
        """What `save` wrote."""
        return load_model(out)[0]

    def draw(self, path: Path, model: GPT) -> None:
        """A sheet of samples, each beside its nearest training field."""
        c, draws = self.corpus, sample_ids(model, self.config.samples, seed=self.config.seed)
        weights = c.tokenizer.decode(draws.codes[draws.complete])
        save_samples_sheet(path, c.data.config, weights, c.info()["size"], None if c.streamed else c.data)

    def curves(self, path: Path, rows: list[dict[str, Any]]) -> None:
        """Bits per field over steps."""
        draw_curves(path, rows, self.bits_per_loss)


def shifted_copies(corpus: Corpus, copies: int, by: float, seed: int) -> Sequences:
    """Tokens of the training fields, shifted at random.

    Args:
        corpus: in memory.
        copies: of every field.
        by: largest shift along each axis, in coordinates.
        seed: of the shifts.
    Returns:
        copies * N sequences, row i of copy k at k N + i, with the fields' labels.
    """
    data, train = corpus.data, corpus.train
    weights, generator = data.weights("train"), torch.Generator().manual_seed(seed_of("shifts", seed))
    kind = torch.int16 if train.vocab.codes <= 2**15 else torch.int32
    ids = torch.empty(copies * len(weights), train.ids.shape[1], dtype=kind)
    with bar(total=len(ids), desc="encode shifted fields", unit="field", leave=False) as progress:
        for at in range(0, len(ids), SHIFTED):
            rows = torch.arange(at, min(at + SHIFTED, len(ids)))
            moved = by * random_points(data.config, len(rows), generator)
            ids[rows] = corpus.tokenizer.encode(shift(data.config, weights[rows % len(weights)], moved)).to(ids.dtype)
            progress.update(len(rows))
    labels = None if train.labels is None else train.labels.repeat(copies)
    return Sequences(ids, train.vocab, labels)


def make_optimizers(config: Any, model: GPT) -> list[torch.optim.Optimizer]:
    """AdamW with decay on matrices only (gates are scales, not matrices), plain SGD, or Muon beside AdamW.

    Muon (Jordan 2024; step sizes matched to AdamW's as in arXiv:2502.16982) takes the matrices of the blocks, AdamW the rest.
    """
    scales = {id(p) for p in model.gates} if model.config.gates else set()
    blocks = {id(p) for p in model.blocks.parameters() if p.ndim == 2} if config.optimizer == "muon" else set()
    rest = [p for p in model.parameters() if id(p) not in blocks]
    matrices = [p for p in rest if p.ndim >= 2 and id(p) not in scales]
    others = [p for p in rest if p.ndim < 2 or id(p) in scales]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return [torch.optim.SGD(groups, lr=config.lr)]
    fused = next(model.parameters()).device.type in ("cpu", "cuda")  # one pass over the weights
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)]
    if blocks:
        chosen = [p for p in model.parameters() if id(p) in blocks]
        decay, match = config.weight_decay, "match_rms_adamw"
        made.append(torch.optim.Muon(chosen, lr=config.lr, weight_decay=decay, adjust_lr_fn=match))
    return made
