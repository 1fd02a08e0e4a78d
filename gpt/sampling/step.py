"""One token more for every row: what `GPT.forward` with a cache computes, in fewer passes and without new memory.

For CPUs and float32 only. There a step of 64 rows is short, and half of its time went to PyTorch's fused attention, which
is made for many queries, and to tensors that were allocated anew in each step.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.model import GPT, KVCache


class Step:
    """A model's step from one position to the next. Not for training: no gradients, no dropout.

    Args:
        model: a GPT in float32 on a CPU.
        cache: of the rows; may already hold what was read with `model.forward`.
        onednn: multiply by oneDNN (see `fields.runtime.products`), which also adds and applies GELU in the same pass. The
            single queries of attention stay with MKL, which is faster there.
    """

    def __init__(self, model: GPT, cache: KVCache, onednn: bool = False):
        c, rows = model.config, cache.data.shape[2]
        self.model, self.cache, self.onednn = model, cache, onednn
        self.width, self.rows = c.n_embd, rows
        self.place = model.place(0, c.context)  # (context, D)
        self.keys = [layer[0].flatten(0, 1) for layer in cache.data]  # each (B * heads, context, D/heads), a view
        self.values = [layer[1].flatten(0, 1) for layer in cache.data]
        like = model.head.weight
        self.qkv, self.up = like.new_empty(rows, 3 * c.n_embd), like.new_empty(rows, 4 * c.n_embd)
        self.logits, self.nothing = like.new_empty(rows, c.vocab.size), like.new_zeros(1, 1, 1)

    @staticmethod
    def fits(model: GPT) -> bool:
        """Whether it is for this model; what a subclass or a hook adds is only in `forward`."""
        plain = type(model) is GPT and not model._forward_hooks and not model._forward_pre_hooks
        return plain and model.head.weight.device.type == "cpu" and model.head.weight.dtype == torch.float32

    @torch.no_grad()
    def __call__(self, ids: Tensor) -> Tensor:
        """Logits of what follows.

        Args:
            ids: (B,) int64, the tokens at position `cache.length`.
        Returns:
            (B, vocab) logits, overwritten by the next call.
        Raises:
            ValueError: if the context is full.
        """
        model, c, t = self.model, self.model.config, self.cache.length
        if t >= c.context:
            raise ValueError(f"a sequence of {t + 1} tokens exceeds the context of {c.context} (SOS, label, codes).")
        x = model.tokens(ids)  # (B, D), a copy
        if c.gates:
            x *= model.gates[0][t]
        x += self.place[t]
        for layer, block in enumerate(model.blocks):
            x = self.added(x, self.attention(block, x, layer, t), block.attention.proj)
            x = self.added(x, self.gelu(block.norm2(x), block.up), block.down)
        self.cache.length = t + 1
        x = model.norm(x)
        if c.gates:
            x *= model.gates[1][t]
        return self.product(x, model.head.weight, model.unigram[t] if c.unigram else None, self.logits)

    def attention(self, block: Any, x: Tensor, layer: int, t: int) -> Tensor:
        """(B, D) -> (B, D): what the one query of each row and head reads, before the projection.

        Two batched products beat the fused kernel twice over for a single query.
        """
        own, heads = block.attention, block.attention.heads
        size = self.width // heads
        qkv = self.product(block.norm1(x), own.qkv.weight, own.qkv.bias, self.qkv)
        q, k, v = (part.reshape(-1, 1, size) for part in qkv.view(self.rows, 3, self.width).unbind(1))
        self.keys[layer][:, t : t + 1], self.values[layer][:, t : t + 1] = k, v
        known = self.keys[layer][:, : t + 1]  # (B * heads, t + 1, D/heads)
        scores = torch.baddbmm(self.nothing, q, known.mT, beta=0, alpha=size**-0.5)
        return torch.bmm(F.softmax(scores, -1), self.values[layer][:, : t + 1]).view(self.rows, self.width)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
        """x weight^T + bias, in `out` or in memory of its own."""
        if self.onednn:
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return torch.mm(x, weight.t(), out=out) if bias is None else torch.addmm(bias, x, weight.t(), out=out)

    def added(self, x: Tensor, y: Tensor, layer: nn.Linear) -> Tensor:
        """x + layer(y); may overwrite x."""
        if self.onednn:
            return torch.ops.mkldnn._linear_pointwise.binary(y, x, layer.weight, layer.bias, "add")
        return x.addmm_(y, layer.weight.t()).add_(layer.bias)

    def gelu(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """GELU of layer(x)."""
        if self.onednn:
            return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "gelu", [], "none")
        return torch.ops.aten.gelu_(torch.addmm(layer.bias, x, layer.weight.t(), out=self.up))
