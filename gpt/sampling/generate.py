"""Drawing sequences from a GPT, token by token. No files here.

Every draw is one uniform number keyed by (seed, field index, position), and rows are computed in blocks of a fixed
width (the last one filled with rows that are thrown away). So field i is the same whatever else is asked for: more
fields, a later start, or several processes change none.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fields.runtime.launch import widest
from fields.runtime.products import check_onednn
from fields.runtime.resources import check_memory, fixed_threads
from gpt.model import GPT, KVCache
from gpt.sampling.options import check_sampling
from gpt.sampling.step import Step

STATUSES = ("complete", "too short", "too long", "empty", "malformed")


@dataclass(frozen=True)
class Draws:
    """Sequences as drawn.

    Attributes:
        index: (n,) numbers of the fields.
        codes: (n, T) int64, -1 from the end of a sequence on.
        labels: (n,) int64, -1 where there is none.
        status: (n,) positions in STATUSES. complete: T codes, then EOS. too short: EOS earlier. too long: T codes and
            no EOS. empty: EOS at once. malformed: SOS, PAD or a label where a code belongs, or no label where one does.
    """

    index: Tensor
    codes: Tensor
    labels: Tensor
    status: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @property
    def complete(self) -> Tensor:
        """(n,) bool: those that can be decoded."""
        return self.status == 0

    def pick(self, rows: Tensor) -> "Draws":
        """The rows asked for."""
        return Draws(self.index[rows], self.codes[rows], self.labels[rows], self.status[rows])

    def report(self) -> dict:
        """Counts by status, distinct complete sequences, and how often a code repeats the one before it."""
        counts = {name: int((self.status == i).sum()) for i, name in enumerate(STATUSES)}
        same = (self.codes[:, 1:] == self.codes[:, :-1]) & (self.codes[:, 1:] >= 0)
        pairs = int((self.codes[:, 1:] >= 0).sum())
        whole = Counter(map(tuple, self.codes[self.complete].tolist()))
        return {
            "asked": len(self),
            **counts,
            "distinct": len(whole),
            "repeated_token_share": int(same.sum()) / pairs if pairs else 0.0,
        }

    @staticmethod
    def join(parts: list["Draws"]) -> "Draws":
        """Rows of several, by field number."""
        both = Draws(*(torch.cat([getattr(p, k) for p in parts]) for k in ("index", "codes", "labels", "status")))
        return both.pick(both.index.argsort())


def uniforms(seed: int, index: Tensor, positions: int) -> Tensor:
    """(n, positions) float64 in [0, 1): row i depends on (seed, index[i]) alone (Philox, a counter-based generator)."""
    rows = [np.random.Generator(np.random.Philox(key=[seed, int(i)])).random(positions) for i in index]
    return torch.from_numpy(np.stack(rows))


def choose(logits: Tensor, u: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """One id per row by the inverse of its distribution function.

    Args:
        logits: (B, V); -inf for what is not allowed.
        u: (B,) in [0, 1), float64 where the device has it.
        temperature: 0 = the likeliest id.
        top_k: keep the k likeliest (clamped to V); None or 0 = all.
        top_p: keep the likeliest until their probability reaches p, at least one; None = all.
    Returns:
        (B,) int64.
    Raises:
        RuntimeError: for logits that are not numbers.
    """
    top = logits.amax(1, keepdim=True)
    if top.isnan().any() or top.isposinf().any():
        raise RuntimeError("the model's logits are not finite; it has diverged. Use an earlier checkpoint.")
    if temperature == 0:
        return logits.argmax(1)
    z = logits.to(widest(logits.device)) - top
    z = (z if temperature == 1 else z.div_(temperature)).exp_()
    if top_k or (top_p is not None and top_p < 1):
        p, order = (z / z.sum(1, keepdim=True)).sort(dim=1, descending=True, stable=True)
        drop = torch.zeros_like(p, dtype=torch.bool)
        if top_k:
            drop[:, min(top_k, p.shape[1]) :] = True
        if top_p is not None and top_p < 1:
            p = p.masked_fill(drop, 0)
            drop |= p.cumsum(1) - p >= top_p * p.sum(1, keepdim=True)  # what stands before a token is enough
            drop[:, 0] = False
        z = z.masked_fill(torch.zeros_like(drop).scatter(1, order, drop), 0)
    cdf = z.cumsum(1)
    picked = torch.searchsorted(cdf, (u[:, None] * cdf[:, -1:]), right=True)[:, 0]
    if (picked == z.shape[1]).any():  # rounding has pushed u * total up to the total
        picked = torch.minimum(picked, z.shape[1] - 1 - (z > 0).flip(1).long().argmax(1))
    return picked


@contextmanager
def _pool(workers: int, threads: int):
    """`map`, in this thread or in `workers` ones; what has not begun when it is left is not begun."""
    if workers < 2:
        yield map
        return
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        try:
            yield pool.map
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def check_fits(model: GPT, n: int, block: int, workers: int, cache: bool, guidance: float) -> None:
    """Refuse draws beyond the memory: keys and values of what each worker's block has read, logits, and all tokens.

    Args:
        model, n, block, workers, cache, guidance: as in `sample_ids`.
    Raises:
        ValueError: with the flag to lower.
    """
    c, device = model.config, model.head.weight.device
    kept = 2 * c.n_layer * c.n_embd * c.context * cache * (1 + (guidance != 1))
    row = 4 * (kept + 8 * model.head.weight.shape[0] + 16 * c.n_embd + 4 * c.context)
    at_once = block * min(workers, -(-n // block))
    check_memory(row * at_once, f"keys and values of {at_once:,} fields", device, "a smaller --block")
    check_memory(16 * c.context * n, f"tokens of {n:,} fields", "cpu", "a smaller --n")


def sample_ids(
    model: GPT,
    n: int,
    *,
    seed: int = 0,
    label: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float = 1.0,
    grammar: bool = True,
    first: int = 0,
    cache: bool = True,
    block: int = 64,
    prompt: Tensor | None = None,
    threads: int = 1,
    workers: int = 1,
    onednn: bool = False,
    share: tuple[int, int] = (0, 1),
    progress: Callable[[int], None] | None = None,
) -> Draws:
    """Draw fields first .. first + n - 1.

    Args:
        model: on any device; used in evaluation mode.
        n: fields, at least 1.
        seed: of all draws.
        label: class index; None = none, or drawn by the model if it has labels.
        temperature, top_k, top_p: as in `choose`.
        guidance: strength of the label, for models trained with label dropout: 1 = as learnt, 0 = ignored, above 1
            more than that (classifier-free guidance, arXiv:2207.12598).
        grammar: allow only valid tokens at each position; otherwise the model may end early or draw invalid tokens.
        first: number of the first field.
        cache: use a key-value cache; without it the same tokens are drawn, more slowly.
        block: fields computed together.
        prompt: (k,) codes that every field starts with; -1 where a code is drawn. A given code is known to the
            model only from its place on.
        threads: CPU threads of a block; the same number, the same fields.
        workers: blocks drawn at once; does not change the fields.
        onednn: multiply by oneDNN, faster on some CPUs (`fields.runtime.products`); its rounding changes some draw in ten thousand.
        share: (rank, world): only every world-th block, from the rank-th on.
        progress: called with the number of fields finished.
    Raises:
        ValueError: for settings out of range, or a label the model does not have.
    """
    check_sampling(temperature, top_k, top_p, guidance)
    if guidance != 1 and not model.config.labels:
        raise ValueError("--guidance is for models trained with --labels and --label-dropout; leave it out.")
    if n < 1 or first < 0 or block < 1 or seed < 0:
        raise ValueError(
            f"n and block must be at least 1, first and seed 0 or more, got {n}, {block}, {first}, {seed}."
        )
    if onednn:
        check_onednn()
    check_fits(model, n, block, workers if cache else 1, cache, guidance)
    forced = _forced(model, label, prompt)
    numbers = list(range(first // block, -(-(first + n) // block)))[share[0] :: share[1]]

    def draw(number: int) -> Draws:
        index = torch.arange(number * block, (number + 1) * block)  # aligned: a field's neighbours are always the same
        u = uniforms(seed, index, model.config.context)
        ids = _draw_block(model, u, forced, grammar, cache, (temperature, top_k, top_p), guidance, onednn)
        return classify(model, index, ids).pick(((index >= first) & (index < first + n)).nonzero().flatten())

    training, parts = model.training, []
    model.eval()
    with fixed_threads(threads), _pool(workers, threads) as each:
        for part in each(draw, numbers):
            parts.append(part)
            if progress is not None:
                progress(len(part))
    model.train(training)
    return (
        Draws.join(parts)
        if parts
        else classify(model, torch.zeros(0).long(), torch.zeros(0, model.config.context).long())
    )


def _forced(model: GPT, label: int | None, prompt: Tensor | None) -> dict[int, int]:
    """Position of the target -> id that is given, not drawn."""
    c, given = model.config, {}
    if label is not None:
        if not c.labels:
            raise ValueError("this model was trained without labels (train with --labels); leave --label out.")
        given[0] = c.vocab.label(label)
    codes = [] if prompt is None else prompt.tolist()
    if len(codes) > c.tokens_per_field or any(not -1 <= code < c.codes for code in codes):
        raise ValueError(
            f"a prompt holds at most {c.tokens_per_field} codes in [0, {c.codes}), or -1 where one is drawn, got {codes}."
        )
    return given | {c.first - 1 + i: code for i, code in enumerate(codes) if code >= 0}


@torch.no_grad()
def _draw_block(
    model: GPT,
    u: Tensor,
    forced: dict[int, int],
    grammar: bool,
    cache: bool,
    how: tuple[float, int | None, float | None],
    guidance: float,
    onednn: bool,
) -> Tensor:
    """(B, context) ids after SOS: [label] T codes and one more, PAD after the end of a row."""
    c, v, device = model.config, model.config.vocab, model.slots.device
    ids = torch.full((len(u), c.context + 1), v.pad, device=device)
    ids[:, 0] = v.sos
    for t, value in forced.items():
        ids[:, t + 1] = value
    told = _Reader(model, len(u), cache, onednn)
    untold = _Reader(model, len(u), cache, onednn, labels=False) if guidance != 1 else None
    u, done = u.to(device, widest(device)), torch.zeros(len(u), dtype=torch.bool, device=device)
    for t in range(c.context):
        if t in forced:
            continue  # read together with the next token that is drawn
        if grammar and t == c.context - 1:
            ids[:, t + 1] = v.eos
            break
        logits = told(ids, t)
        if untold is not None and t >= c.first - 1:  # the label itself is drawn as learnt
            logits = guidance * logits + (1 - guidance) * untold(ids, t)
        if grammar:
            low, high = (v.pad + 1, v.size) if t < c.first - 1 else (0, v.codes)
            picked = low + choose(logits[:, low:high], u[:, t], *how)
        else:
            picked = choose(logits, u[:, t], *how).masked_fill(done, v.pad)
            done |= (picked == v.eos) | ((picked >= v.codes) & (t >= c.first - 1))
        ids[:, t + 1] = picked
        if done.all():
            break
    return ids[:, 1:].cpu()


class _Reader:
    """Reads rows as they grow; with `labels=False` as if their labels had been left out, which PAD in their place says."""

    def __init__(self, model: GPT, rows: int, cache: bool, onednn: bool, labels: bool = True):
        self.model, self.labels = model, labels
        self.store = KVCache(model.config, rows, model.head.weight) if cache else None
        self.step = Step(model, self.store, onednn) if self.store is not None and Step.fits(model) else None

    def __call__(self, ids: Tensor, t: int) -> Tensor:
        """(B, vocab) logits of what follows position t."""
        if not self.labels:
            ids = ids.clone()
            ids[:, 1] = self.model.config.vocab.pad
        seen = 0 if self.store is None else self.store.length
        if self.step is not None and seen == t:
            return self.step(ids[:, t])
        return self.model(ids[:, seen : t + 1], cache=self.store)[:, -1].float()


def classify(model: GPT, index: Tensor, ids: Tensor) -> Draws:
    """What the rows are.

    Args:
        model: whose vocabulary it is.
        index: (B,) field numbers.
        ids: (B, context) ids after SOS.
    """
    c, v = model.config, model.config.vocab
    labels = torch.full((len(ids),), -1)
    wrong = torch.zeros(len(ids), dtype=torch.bool)
    if c.labels:
        labels = (ids[:, 0] - v.pad - 1).clamp(min=-1)
        wrong = labels < 0
        ids = ids[:, 1:]
    stop = ids >= v.codes  # (B, T + 1)
    length = torch.where(stop.any(1), stop.long().argmax(1), c.tokens_per_field + 1)
    end = ids.gather(1, length.clamp(max=c.tokens_per_field)[:, None])[:, 0]
    status = torch.full((len(ids),), STATUSES.index("too short"))
    status[(length == c.tokens_per_field) & (end == v.eos)] = STATUSES.index("complete")
    status[length > c.tokens_per_field] = STATUSES.index("too long")
    status[(length == 0) & (end == v.eos)] = STATUSES.index("empty")
    wrong |= (length <= c.tokens_per_field) & (end != v.eos)
    status[wrong] = STATUSES.index("malformed")
    codes = ids[:, : c.tokens_per_field].clone()
    codes[torch.arange(c.tokens_per_field) >= length[:, None]] = -1
    return Draws(index, codes, labels, status)
