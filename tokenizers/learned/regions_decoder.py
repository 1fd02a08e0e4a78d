"""Training of a vocabulary of regions in its stages; here the second one.

All of it first (regions_train.py), then the decoder alone, its codes fixed, by function and against a critic.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from fields.model import values
from tokenizers.distortion import distortion
from tokenizers.learned.critic import Critic
from tokenizers.learned.regions import RegionsTokenizer
from tokenizers.learned.regions_train import RegionsTrainer, code_neighbours, replaced, start_regions
from tokenizers.learned.train import SLOW, WATCHED, train_vocabulary
from tokenizers.selection import draw

TUNING, CRITIC = 0.6, 4e-4
"""Learning rates: the decoder's relative to the first stage's, and the critic's."""
SCORES = 0.5
"""Share of the critic's scores, relative to that of its features."""


class DecoderTrainer(RegionsTrainer):
    """Trains the decoder alone, from codes that stay as they are, by function and against a critic."""

    title = "decoder"

    def __init__(self, tokenizer: RegionsTokenizer, rows: Tensor, varied: bool):
        t, c = tokenizer, tokenizer.config
        self.tokenizer, self.rows, self.rate = t, rows.to(t.n_codes.device), None
        self.config = replace(c, steps=c.tune, lr=TUNING * c.lr)
        with torch.no_grad():
            self.ids = torch.cat([t._encode(part) for part in self.rows.split(t.chunk)])
            some = self.rows[draw(len(rows), WATCHED, c.seed).to(self.rows.device)]
            said = torch.cat([values(t.field, part, t.lattice) for part in some.split(t.chunk)])
        self.spread, self.book = float(said.var()) or 1.0, t.books[0].float()
        self.near = code_neighbours(self.book)
        t.requires_grad_(False)
        self.learning = [t.synthesis, t.offset, *(t.decoder.parameters() if c.hidden else ())]
        for p in self.learning:
            p.requires_grad_(True)
        self.critic = None
        if c.adversarial:
            shape = tuple(n * c.side for n in t.grid)
            self.critic = Critic(shape, t.field.out_dim, float(said.mean()), float(said.std()) or 1.0).to(said)
        self.net = nn.ModuleDict({"tokenizer": t} | ({"critic": self.critic} if self.critic is not None else {}))
        self.optimizer = self._optimizer()
        self._begin()

    def clipped(self) -> list[nn.Parameter]:
        """The decoder's."""
        return self.learning

    def _optimizer(self) -> torch.optim.Optimizer:
        first, *rest = self.learning
        share = SLOW * max(float(first.detach().std()), 1e-6)
        groups = [{"params": [first], "share": share}, {"params": rest, "share": 1.0}]
        if self.critic is not None:
            critic = {"params": list(self.critic.parameters()), "share": CRITIC / self.config.lr, "betas": (0.5, 0.9)}
            groups.append(critic)
        return torch.optim.Adam(groups, lr=self.config.lr, betas=(0.9, 0.99), fused=True)

    def losses(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is minimised, the distortion in it, and no bits."""
        c, t = self.config, self.tokenizer
        rows, ids = self.rows[chosen], self.ids[chosen]
        if c.swap:
            instead, hit = replaced(ids, self.near, c.swap)
            ids = torch.where(hit, instead, ids)
        decoded = t.to_rows(self.book[ids])
        if self.critic is None:
            function = self.distortion(decoded, rows)
            return function, function, function.new_zeros(())
        weights = t.standardizer.invert(decoded)
        function = distortion(t.field, weights, rows, t.lattice, self.spread)
        with torch.no_grad():
            fitted = values(t.field, rows, t.lattice)
        said = values(t.field, weights, t.lattice)
        self.critic.requires_grad_(False)
        features, scores = self.critic.distance(said, fitted)
        self.critic.requires_grad_(True)
        loss = function + c.adversarial * (features + SCORES * scores) + self.critic.own_loss(said, fitted)
        return loss, function, function.new_zeros(())

    def publish(self) -> None:
        """The codebook stays."""

    def score(self, found: dict) -> float:
        """Later states are better: PSNR alone prefers blurred strokes."""
        return float(found["step"])


def train_regions(tokenizer: RegionsTokenizer, rows: Tensor, held_out: Tensor | None) -> None:
    """Fit a tokenizer of regions where it lies, in one stage or two; gradients must be on."""
    train_vocabulary(tokenizer, rows, held_out, begin=start_regions, make=RegionsTrainer)
    if tokenizer.config.merge:
        ids = torch.cat([tokenizer._encode(part.to(tokenizer.n_codes.device)) for part in rows.split(tokenizer.chunk)])
        used = torch.bincount(ids.flatten(), minlength=tokenizer.config.codes)
        tokenizer.books[0] = merged(tokenizer.books[0], used, tokenizer.config.merge)
    if tokenizer.config.tune:
        train_vocabulary(
            tokenizer,
            rows,
            held_out,
            begin=lambda _, rows: bool((rows - rows[:1]).abs().max() > 0),
            make=DecoderTrainer,
            stage="decoder",
        )


def merged(book: Tensor, used: Tensor, share: float) -> Tensor:
    """A codebook in which codes that lie close to one used more are its copies: of equal codes the first one is always taken.

    Args:
        book: (V, D).
        used: (V,) how often each code occurs.
        share: distance below which they are one, in standard deviations of the codebook.
    Returns:
        (V, D).
    """
    near, found = torch.cdist(book, book) < share * book.std(), torch.full((len(book),), -1, device=book.device)
    for code in used.argsort(descending=True, stable=True).tolist():
        if found[code] < 0:
            found[near[code] & (found < 0)] = code
            found[code] = code
    return book[found]
