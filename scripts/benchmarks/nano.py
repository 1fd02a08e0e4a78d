"""A plain GPT for comparison: nanoGPT's model, optimiser and loop (Karpathy 2023), as short as they can be.

GPT-2's blocks with biases, fused attention, tied embedding and head, windows cut at random from one stream of tokens,
AdamW in two groups, clipping, generation without a cache. No Accelerate, no validation, no checkpoints.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NanoBlock(nn.Module):
    """Attention and MLP, pre-norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        b, t, d = x.shape
        q, k, v = (
            part.view(b, t, self.heads, d // self.heads).transpose(1, 2)
            for part in self.c_attn(self.ln_1(x)).split(d, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).contiguous().view(b, t, d)
        x = x + self.c_proj(y)
        return x + self.c_out(self.gelu(self.c_fc(self.ln_2(x))))


class NanoGPT(nn.Module):
    """Decoder-only transformer with learned positions; dropout 0.

    Args:
        vocab: ids.
        context: longest input.
        layers, heads, width: sizes.
    """

    def __init__(self, vocab: int, context: int, layers: int, heads: int, width: int):
        super().__init__()
        self.context = context
        self.wte, self.wpe = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(NanoBlock(width, heads) for _ in range(layers))
        self.ln_f, self.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                residual = name.endswith(("c_proj.weight", "c_out.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * layers) if residual else 0.02)
        self.head.weight = self.wte.weight

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits and mean loss; without targets the logits of the last position alone."""
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        x = self.ln_f(x)
        if targets is None:
            return self.head(x[:, [-1]]), None
        logits = self.head(x)
        return logits, F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    @torch.no_grad()
    def generate(self, ids: Tensor, new: int) -> Tensor:
        """(B, n) -> (B, n + new), the whole sequence read anew for each token."""
        for _ in range(new):
            logits = self(ids[:, -self.context :])[0][:, -1]
            ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], 1)
        return ids


class NanoTrainer:
    """nanoGPT's loop over a stream of tokens.

    Args:
        model: fresh.
        stream: (n,) int64 tokens of all fields, each followed by an end token.
        batch: windows of a step.
        lr: learning rate.
        seed: of the windows.
    """

    def __init__(self, model: NanoGPT, stream: Tensor, batch: int, lr: float, seed: int):
        self.model, self.stream, self.batch = model.train(), stream, batch
        self.forward: Callable = model  # or compiled
        self.generator = torch.Generator().manual_seed(seed)
        parameters = list(model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))

    def step(self) -> float:
        """One step; the loss in nats a token."""
        t = self.model.context
        at = torch.randint(len(self.stream) - t, (self.batch,), generator=self.generator)
        x = torch.stack([self.stream[i : i + t] for i in at])
        y = torch.stack([self.stream[i + 1 : i + 1 + t] for i in at])
        loss = self.forward(x, y)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()
