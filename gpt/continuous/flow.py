"""Rectified flow over fields without tokens: noise is carried to rows of numbers along learnt velocities.

The rival of the GPT: the same transformer sizes, but a field is T vectors of D numbers (`vectors`: its standardised weights, one
vector a neuron, or the latents of a tokenizer) and the model predicts velocities (arXiv 2209.03003). HyperDiffusion
(arXiv 2303.17015) does this with a diffusion over weights. No training loop, no files here.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.model import HubModel, attend, check_sizes_of

TIME_SCALE = 1000.0
"""Times in [0, 1] are multiplied by this before their sines and cosines."""


@dataclass(frozen=True)
class FlowConfig:
    """Sizes of a flow."""

    tokens: int
    """T, vectors of a field."""
    numbers: int
    """D, numbers of a vector."""
    labels: int = 0
    """Classes; 0 = unlabelled. One more embedding stands for "no label"."""
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    kind: Literal["flow"] = "flow"

    def __post_init__(self):
        check_sizes_of(self, "tokens", "numbers", even=True)
        if self.labels < 0:
            raise ValueError(f"labels must be 0 or more, got {self.labels}.")


class FlowBlock(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by time and label (DiT, arXiv 2212.09748)."""

    def __init__(self, config: FlowConfig):
        super().__init__()
        width = config.n_embd
        self.heads = config.n_head
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.adapt = nn.Linear(width, 6 * width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, T, W) and (B, W) -> (B, T, W)."""
        b, n, d = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adapt(condition)[:, None].chunk(6, -1)  # each (B, 1, W)
        h = self.norm(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        h = attend(q, k, v, None, False).transpose(1, 2).reshape(b, n, d)
        x = x + gate1 * self.drop(self.proj(h))
        h = self.norm(x) * (1 + scale2) + shift2
        return x + gate2 * self.drop(self.down(F.gelu(self.up(h))))


class Flow(HubModel, library_name="neural-fields-as-data", tags=["neural-fields"]):
    """Velocities of a rectified flow (Liu et al., arXiv 2209.03003) from a standard normal to fields.

    `mean` and `std` (T, D) are buffers: the model learns numbers of order one and samples in the units it was given.
    """

    Config = FlowConfig
    title = "A rectified flow over neural fields."
    mean: Tensor
    std: Tensor
    blocks: Any  # FlowBlocks: of a ModuleList torch does not say what it holds

    def __init__(self, config: FlowConfig):
        super().__init__()
        self.config = config
        width = config.n_embd
        self.enter = nn.Linear(config.numbers, width)
        self.places = nn.Parameter(torch.randn(config.tokens, width) * 0.02)
        self.labels = nn.Embedding(config.labels + 1, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(FlowBlock(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.adapt = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, config.numbers)
        self.register_buffer("mean", torch.zeros(config.tokens, config.numbers))
        self.register_buffer("std", torch.ones(config.tokens, config.numbers))
        nn.init.normal_(self.labels.weight, std=0.02)
        for layer in (self.adapt, self.leave, *(block.adapt for block in self.blocks)):
            nn.init.zeros_(layer.weight)  # every block starts as the identity, the velocity as zero
            nn.init.zeros_(layer.bias)

    @classmethod
    def create(cls, config: FlowConfig, rows: Tensor, seed: int = 0) -> "Flow":
        """A fresh model whose units are those of training rows, the same for the same seed.

        Args:
            config: sizes.
            rows: (N, T, D) training fields.
            seed: of the weights.
        """
        if rows.shape[1:] != (config.tokens, config.numbers):
            raise ValueError(f"rows must have shape (N, {config.tokens}, {config.numbers}), got {tuple(rows.shape)}.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config)
        model.mean.copy_(rows.mean(0))
        spread = rows.std(0, correction=0)
        model.std.copy_(torch.where(spread > 1e-12, spread, torch.ones_like(spread)))
        return model

    def forward(self, x: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
        """Velocities.

        Args:
            x: (B, T, D) between noise (time 0) and data (time 1), in numbers of order one.
            times: (B,) in [0, 1].
            labels: (B,) int64 in [0, labels], `config.labels` = no label; None = none has one.
        Returns:
            (B, T, D).
        """
        c = self.config
        if labels is None:
            labels = torch.full((len(x),), c.labels, device=x.device)
        half = c.n_embd // 2
        rates = torch.exp(-math.log(10_000.0) * torch.arange(half, device=x.device) / half)
        angles = TIME_SCALE * times[:, None] * rates  # (B, W / 2)
        condition = F.silu(self.time(torch.cat([angles.cos(), angles.sin()], 1)) + self.labels(labels))
        h = self.enter(x) + self.places
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.adapt(condition)[:, None].chunk(2, -1)
        return self.leave(self.norm(h) * (1 + scale) + shift)

    def loss(
        self, rows: Tensor, labels: Tensor | None, noise: Tensor, times: Tensor, wrapped: nn.Module | None = None
    ) -> Tensor:
        """Squared error of the velocity, mean over numbers.

        Args:
            rows: (B, T, D) fields in their own units.
            labels: as in `forward`.
            noise: (B, T, D) standard normal.
            times: (B,) in [0, 1].
            wrapped: this model as a trainer wraps it (DDP, compile), to be called in its place.
        Returns:
            (B,).
        """
        data = (rows - self.mean) / self.std
        velocity = (wrapped or self)(torch.lerp(noise, data, times[:, None, None]), times, labels)
        return (velocity - (data - noise)).square().flatten(1).mean(1)

    @torch.no_grad()
    def sample(self, noise: Tensor, labels: Tensor | None = None, *, steps: int = 50, guidance: float = 1.0) -> Tensor:
        """Fields from noise, by Heun's rule.

        Args:
            noise: (B, T, D) standard normal.
            labels: as in `forward`.
            steps: of the integration; each evaluates the model twice.
            guidance: scale of classifier-free guidance (arXiv 2207.12598); 1 = none.
        Returns:
            (B, T, D) in the units of the training rows.
        """
        x = noise.clone()

        def velocity(x: Tensor, time: float) -> Tensor:
            times = torch.full((len(x),), time, device=x.device)
            told = self(x, times, labels)
            return told if guidance == 1.0 or labels is None else torch.lerp(self(x, times), told, guidance)

        for i in range(steps):
            now, then = i / steps, (i + 1) / steps
            first = velocity(x, now)
            second = velocity(x + first / steps, then)
            x = x + (first + second) / (2 * steps)
        return x * self.std + self.mean

    def __repr__(self) -> str:
        c = self.config
        return (
            f"Flow({c.n_layer} layers of width {c.n_embd}, {c.tokens} vectors of {c.numbers} numbers, {c.labels} labels, "
            f"{self.size():,} parameters)"
        )
