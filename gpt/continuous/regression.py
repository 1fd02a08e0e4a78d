"""The continuous baseline: a transformer that reads the weights of a field as numbers and predicts the next one.

No tokens: an MLP embeds each weight, a linear head gives the next (blocks and cache are those of gpt/model.py). Trained
with an L1 loss it gives one number, never a distribution: it can only memorise, and does so where fields share a start.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.model import HubModel, KVCache, TransformerBlock, check_sizes_of, initialise


@dataclass(frozen=True)
class RegressionConfig:
    """Sizes of a regression transformer."""

    weights: int
    """P, weights of a field."""
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    kind: Literal["regression"] = "regression"

    def __post_init__(self):
        if self.weights < 2:
            raise ValueError(f"a field needs at least 2 weights to predict one from another, got {self.weights}.")
        check_sizes_of(self)

    @property
    def context(self) -> int:
        """Longest input: all weights but the last."""
        return self.weights - 1


class RegressionTransformer(HubModel, library_name="neural-fields-as-data"):
    """Weights 0 .. t of a field -> weight t + 1.

    `mean` and `scale` are buffers, so that a saved model reads and writes raw weights: a weight is shown to the network
    as (w - mean) / scale, by position.
    """

    Config = RegressionConfig
    title = "A regression transformer over the weights of neural fields."
    mean: Tensor
    scale: Tensor
    embed: Any  # two linear maps: of a Sequential torch does not say what it holds

    def __init__(self, config: RegressionConfig):
        super().__init__()
        self.config = config
        width = config.n_embd
        self.embed = nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))
        self.positions = nn.Embedding(config.context, width)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)
        self.register_buffer("mean", torch.zeros(config.weights))
        self.register_buffer("scale", torch.ones(config.weights))
        initialise(self)
        self._spread()

    @torch.no_grad()
    def _spread(self) -> None:
        """Begin with an embedding that tells numbers apart: its hidden units bend at many places, with slopes of about 1.

        GPT-2's weights would let all of them bend at 0 with slopes of .02, next to which the positions shout.
        """
        first, second = self.embed[0], self.embed[2]
        nn.init.normal_(first.weight, std=1.0)
        first.bias.copy_(-first.weight[:, 0] * torch.randn(first.out_features))
        nn.init.normal_(second.weight, std=second.in_features**-0.5)
        nn.init.normal_(self.positions.weight, std=0.2)

    def __repr__(self) -> str:
        c = self.config
        return f"RegressionTransformer({c.n_layer} layers of width {c.n_embd}, {c.weights} weights, {self.size():,} parameters)"

    @classmethod
    def create(cls, config: RegressionConfig, mean: Tensor, scale: Tensor, seed: int = 0) -> "RegressionTransformer":
        """A fresh model, the same for the same seed, without touching the global random state.

        Args:
            config: sizes.
            mean, scale: (P,) or (), `scale` above 0.
            seed: of the weights.
        """
        if not bool((scale > 0).all()):
            raise ValueError(f"scale must be above 0 everywhere, got {float(scale.min())}.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config)
        model.mean.copy_(mean.expand(config.weights))
        model.scale.copy_(scale.expand(config.weights))
        return model

    def normalise(self, weights: Tensor) -> Tensor:
        """(N, P) raw weights -> what the network sees."""
        return (weights - self.mean) / self.scale

    def raw(self, normal: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return normal * self.scale + self.mean

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Predictions of the next, normalised weights.

        Args:
            x: (B, n) normalised weights from the first on, or, with a cache, what follows the part it holds.
            cache: filled with this input; None = none.
        Returns:
            (B, n): entry t is the prediction of weight t + 1.
        Raises:
            ValueError: if the sequence is longer than all weights but the last.
        """
        start = 0 if cache is None else cache.length
        end = start + x.shape[1]
        if end > self.config.context:
            raise ValueError(f"a sequence of {end} weights exceeds the context of {self.config.context}.")
        h = self.drop(self.embed(x[..., None]) + self.positions.weight[start:end])  # (B, n, D)
        for layer, block in enumerate(self.blocks):
            h = block(h, layer, cache)
        if cache is not None:
            cache.length = end
        return self.head(self.norm(h))[..., 0]

    def loss(self, weights: Tensor, kind: Literal["l1", "mse"] = "l1") -> Tensor:
        """Mean error of the next weight over all positions but the first, in normalised units; ().

        Args:
            weights: (B, P) raw.
            kind: l1 = absolute, mse = squared.
        """
        x = self.normalise(weights)
        error = F.l1_loss if kind == "l1" else F.mse_loss
        return error(self(x[:, :-1]).float(), x[:, 1:])

    @torch.no_grad()
    def teacher_forced(self, weights: Tensor) -> Tensor:
        """(N, P) raw weights, each predicted from the true ones before it; the first is the field's own."""
        x = self.normalise(weights)
        return self.raw(torch.cat([x[:, :1], self(x[:, :-1])], 1))

    @torch.no_grad()
    def roll_out(self, first: Tensor) -> Tensor:
        """Whole fields from their first weights alone: every prediction is read as the next input.

        Args:
            first: (N, k) raw weights, k >= 1.
        Returns:
            (N, P) raw weights, the first k as given.
        """
        rows = torch.zeros(len(first), self.config.weights, device=self.mean.device)
        rows[:, : first.shape[1]] = (first - self.mean[: first.shape[1]]) / self.scale[: first.shape[1]]
        cache = KVCache(self.config, len(first), self.head.weight)
        for t in range(first.shape[1], self.config.weights):
            rows[:, t] = self(rows[:, cache.length : t], cache=cache)[:, -1]
        return self.raw(rows)
