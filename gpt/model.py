"""A decoder-only transformer over the tokens of neural fields (GPT-2's shape: pre-norm, GELU, learned positions).

What differs from a text model: the place of every token in the network (layer, neuron, ...) is known before it is drawn, so the
input at position t also gets the embedding of the place of the token to be predicted NEXT; what codes mean depends on
their position, so embedding and head are scaled by its gates; and how often each code stands where is counted, not
learnt (`unigram`; `gpt.training.priors` fills it in). No training, no sampling.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn

from fields.runtime.products import onednn_used
from tokenizers.vocab import Vocab

IGNORE = -100
"""Target that carries no loss. Set by position, never by id."""

INITIAL = 0.02
"""Standard deviation of initial weights."""


def check_sizes_of(config: Any, *counts: str, even: bool = False) -> None:
    """Refuse sizes of a transformer that mean nothing; `counts` are its own, `even` heads have an even width."""
    for name in (*counts, "n_layer", "n_head", "n_embd"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}.")
    if config.n_embd % (config.n_head * (2 if even else 1)):
        times = "2 n_head" if even else "n_head"
        raise ValueError(f"n_embd must be a multiple of {times}, got {config.n_embd} and {config.n_head}.")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {config.dropout}.")


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a GPT."""

    codes: int
    """V, codes of the tokenizer."""
    tokens_per_field: int
    """T."""
    slot_sizes: tuple[int, ...] = ()
    """Number of places per column of `slots`."""
    labels: int = 0
    """Label tokens; 0 = no label position."""
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.1
    tie: bool = False
    """One matrix for embedding and head."""
    unigram: bool = False
    """Logits are added to a fixed table of log-frequencies of each id at each position."""
    gates: bool = False
    """Token embeddings and what the head reads are scaled, number by number, by vectors of the position."""
    kind: Literal["gpt"] = "gpt"

    def __post_init__(self):
        object.__setattr__(self, "slot_sizes", tuple(int(s) for s in self.slot_sizes))  # JSON brings lists
        check_sizes_of(self, "codes", "tokens_per_field")
        if self.labels < 0 or any(s < 1 for s in self.slot_sizes):
            raise ValueError(
                f"labels must be 0 or more and slot sizes 1 or more, got {self.labels}, {self.slot_sizes}."
            )

    @property
    def vocab(self) -> Vocab:
        """The ids the model sees."""
        return Vocab(self.codes, self.labels)

    @property
    def first(self) -> int:
        """Position of the first code in a sequence: 1 after SOS, 2 with a label."""
        return 2 if self.labels else 1

    @property
    def context(self) -> int:
        """Longest input: SOS [label] and all T codes; the output after the last one is EOS."""
        return self.first + self.tokens_per_field


class BlockConfig(Protocol):
    """What blocks and caches ask of a model's config."""

    @property
    def n_layer(self) -> int: ...
    @property
    def n_head(self) -> int: ...
    @property
    def n_embd(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def context(self) -> int: ...


class KVCache:
    """Keys and values of what the model has read, allocated once.

    Args:
        config: a model's, with n_layer, n_head, n_embd and context.
        batch: rows, B.
        like: a tensor of the wanted dtype and device.
    """

    def __init__(self, config: BlockConfig, batch: int, like: Tensor):
        head = config.n_embd // config.n_head
        self.data = like.new_empty(config.n_layer, 2, batch, config.n_head, config.context, head)
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, heads, n, D/heads) keys and values behind the `length` known ones; returns all of them."""
        end = self.length + k.shape[2]
        for part, new in enumerate((k, v)):
            self.data[layer, part, :, :, self.length : end] = new.detach()  # a cache is for inference
        return self.data[layer, 0, :, :, :end], self.data[layer, 1, :, :, :end]


SCORES = 1 << 23
"""Attention scores that a CPU holds at once."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """`scaled_dot_product_attention` of (B, heads, n, D/heads) queries, keys and values.

    On CPUs in bfloat16, or with oneDNN's products, the scores are written out, block by block of queries: there PyTorch's
    fused kernel is half as fast forward and backward as plain matrix products, or less.
    """
    if q.device.type == "cpu" and q.dtype == torch.float32 and onednn_used():
        return attend_in_blocks(q, k, v, mask, causal)
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    n, known, parts = q.shape[2], k.shape[2], []
    rows = max(16, SCORES // (q.shape[0] * q.shape[1] * known))
    for at in range(0, n, rows):
        end = min(n, at + rows)
        reach = end if causal else known
        scores = (q[:, :, at:end] @ k[:, :, :reach].mT).float() * q.shape[3] ** -0.5  # (B, heads, rows, reach)
        if causal:
            mask = torch.ones(end - at, reach, dtype=torch.bool).tril(at)
        elif mask is not None:
            mask = mask.expand(n, known)
        if mask is not None:
            scores = scores.masked_fill(~(mask if causal else mask[at:end]), -math.inf)
        parts.append(scores.softmax(-1).to(v.dtype) @ v[:, :, :reach])
    return torch.cat(parts, 2)


BLOCK = 128
"""Queries whose scores are written out together."""


def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """`attend` by batched products, one for scores and mask and one for values, block by block of queries."""
    shape, n, known, parts = q.shape, q.shape[2], k.shape[2], []
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))  # (B * heads, n or known, D/heads)
    if mask is None:
        mask = torch.ones(n, known, dtype=torch.bool)
        mask = mask.tril() if causal else mask
    bias = torch.zeros(mask.shape).masked_fill_(~mask, -math.inf).expand(n, known)
    for at in range(0, n, BLOCK):
        end = min(n, at + BLOCK)
        reach = end if causal else known
        own = bias[at:end, :reach].expand(len(q), -1, -1)
        scores = torch.baddbmm(own, q[:, at:end], k[:, :reach].mT, alpha=shape[3] ** -0.5)
        parts.append(torch.bmm(scores.softmax(-1), v[:, :reach]))
    return (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).view(shape)


class Attention(nn.Module):
    """Causal self-attention.

    No dropout on the attention matrix: it would force PyTorch's CPU kernel to materialise (B, heads, T, T).
    """

    def __init__(self, config: BlockConfig):
        super().__init__()
        self.heads = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, layer: int, cache: KVCache | None) -> Tensor:
        """(B, n, D) -> (B, n, D)."""
        b, n, d = x.shape
        q, k, v = (
            self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        )  # each (B, heads, n, D/heads)
        mask, causal = None, n > 1
        if cache is not None:
            k, v = cache.extend(layer, k, v)
            if causal and cache.length:  # is_causal would align the query block with the FIRST keys
                known = torch.arange(k.shape[2], device=x.device)
                mask, causal = known <= known[cache.length :, None], False  # (n, length + n)
        y = attend(q, k, v, mask, causal)
        return self.proj(y.transpose(1, 2).reshape(b, n, d))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: BlockConfig):
        super().__init__()
        width = config.n_embd
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(config)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, layer: int, cache: KVCache | None) -> Tensor:
        """(B, n, D) -> (B, n, D)."""
        x = x + self.drop(self.attention(self.norm1(x), layer, cache))
        return x + self.drop(self.down(F.gelu(self.up(self.norm2(x)))))


def initialise(model: Any) -> None:
    """GPT-2's initial weights; residual branches start small, the deeper the model, the smaller.

    Args:
        model: with its `blocks`.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=INITIAL)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for block in model.blocks:
        for layer in (block.attention.proj, block.down):
            nn.init.normal_(layer.weight, std=INITIAL / math.sqrt(2 * len(model.blocks)))


class HubModel(nn.Module, PyTorchModelHubMixin):
    """A model that is saved as config.json and model.safetensors. A subclass takes a config alone."""

    title = ""
    """What it is, on its short card."""

    @classmethod
    def from_pretrained(cls, *args: Any, strict: bool = True, **kwargs: Any) -> Self:
        """The mixin's, but missing or unknown weights are an error unless `strict=False`."""
        return super().from_pretrained(*args, strict=strict, **kwargs)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """A short card; `scripts/publish.py` writes the full one."""
        return ModelCard(f"---\nlibrary_name: neural-fields-as-data\n---\n{self.title}\n")

    def size(self) -> int:
        """Number of trainable numbers."""
        return sum(p.numel() for p in self.parameters())


class GPT(HubModel, library_name="neural-fields-as-data", tags=["neural-fields"]):
    """GPT-2 (Radford et al. 2019) over SOS [label] T codes EOS, with embeddings of each token's place.

    `slots` is a buffer, so a saved model needs no tokenizer to know the place of each token. Create a model with `GPT.create`, and for
    training initialise it from counts (`gpt.training.priors`).
    """

    Config = GPTConfig
    title = "A GPT over the tokens of neural fields."
    slots: Tensor
    unigram: Tensor
    blocks: Any  # Blocks: of a ModuleList torch does not say what it holds

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        width = config.n_embd
        self.tokens = nn.Embedding(config.vocab.size, width)
        self.positions = nn.Embedding(config.context, width)
        # one row more than places: label and EOS stand nowhere in the network
        self.places = nn.ModuleList(nn.Embedding(size + 1, width) for size in config.slot_sizes)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.vocab.size, bias=False)
        if config.tie:
            self.head.weight = self.tokens.weight
        if config.gates:
            self.gates = nn.ParameterList(nn.Parameter(torch.empty(config.context, width)) for _ in ("in", "out"))
        if config.unigram:
            self.register_buffer("unigram", torch.zeros(config.context, config.vocab.size))
        self.register_buffer("slots", torch.zeros(config.tokens_per_field, len(config.slot_sizes), dtype=torch.int64))
        initialise(self)
        for gate in self.gates if config.gates else ():
            nn.init.normal_(gate, mean=1.0, std=1.0)  # a code's number can mean other things elsewhere, from the start

    def __repr__(self) -> str:
        c = self.config
        labels = f", {c.labels} labels" if c.labels else ""
        return (
            f"GPT({c.n_layer} layers of width {c.n_embd}, {c.tokens_per_field} tokens of {c.codes} codes{labels}, "
            f"{self.size():,} parameters)"
        )

    @classmethod
    def create(cls, config: GPTConfig, slots: Tensor, seed: int = 0) -> "GPT":
        """A fresh model, the same for the same seed, without touching the global random state.

        Args:
            config: sizes.
            slots: (T, S) int64, column s in [0, slot_sizes[s]).
            seed: of the weights.
        Raises:
            ValueError: if `slots` does not fit the config.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(config)
        if slots.shape != model.slots.shape:
            raise ValueError(f"slots must have shape {tuple(model.slots.shape)}, got {tuple(slots.shape)}.")
        limits = torch.tensor(config.slot_sizes)
        if slots.numel() and (slots.min() < 0 or (slots.max(0).values >= limits).any()):
            raise ValueError(f"slots must lie below {config.slot_sizes}, got up to {slots.max(0).values.tolist()}.")
        model.slots.copy_(slots)
        return model

    def push_to_hub(self, repo_id: str, *, tokenizer: Any = None, info: dict | None = None, **options: Any) -> Any:
        """Publish as `user/name` with tokenizer and card, as `scripts/publish.py model` does.

        Args:
            repo_id: user/name.
            tokenizer: the one it was trained with.
            info: what model.json says, as `gpt.checkpoint.load_model` gives it.
            options: `private`, `revision` and the other ones of `gpt.hub.PublishModel`.
        """
        from gpt.hub import push_model

        if tokenizer is None or info is None:
            raise ValueError("push_to_hub needs tokenizer and info, as gpt.checkpoint.load_model gives them.")
        return push_model(self, repo_id, tokenizer=tokenizer, info=info, **options)

    def place(self, start: int, end: int) -> Tensor:
        """(end - start, D): position t's own embedding plus that of the place of token t + 1."""
        c, device = self.config, self.slots.device
        total = self.positions.weight[start:end]
        # next token of position t is code t + 1 - first; before it stands the label, after the last one EOS
        code = torch.arange(start, end, device=device) + 1 - c.first
        nowhere = (code < 0) | (code >= c.tokens_per_field)
        rows = self.slots[code.clamp(0, c.tokens_per_field - 1)]  # (end - start, S)
        for s, (places, size) in enumerate(zip(self.places, c.slot_sizes, strict=True)):
            total = total + places(rows[:, s].masked_fill(nowhere, size))
        return total

    def forward(self, ids: Tensor, targets: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Logits, or losses where targets are given.

        Args:
            ids: (B, n) int64: the sequence from its SOS, or, with a cache, what follows the part it holds.
            targets: (B, n) int64, IGNORE where there is nothing to predict.
            cache: filled with this input; None = none.
        Returns:
            (B, n, vocab) logits; with targets (B, n) float32 losses in nats, 0 where ignored.
        Raises:
            ValueError: if the sequence is longer than the context; nothing is ever cut off.
        """
        start = 0 if cache is None else cache.length
        end = start + ids.shape[1]
        if end > self.config.context:
            raise ValueError(
                f"a sequence of {end} tokens exceeds the context of {self.config.context} (SOS, label, codes)."
            )
        x = self.tokens(ids)
        if self.config.gates:
            x = x * self.gates[0][start:end]
        x = self.drop(x + self.place(start, end))
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, cache)
        if cache is not None:
            cache.length = end
        x = self.norm(x)
        if self.config.gates:
            x = x * self.gates[1][start:end]
        logits = self.head(x)
        if self.config.unigram:
            logits = logits + self.unigram[start:end]
        if targets is None:
            return logits
        losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="none")
        return losses.view_as(targets)
