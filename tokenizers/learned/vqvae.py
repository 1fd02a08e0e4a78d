"""A learned vocabulary: a VQ-VAE over the weights, trained on the values of the decoded field (arXiv:1711.00937).

Encoder and decoder start as the linear maps of `pca`, so that training starts where that ends, and a small network with a
zero last layer is added to each. What is learnt with a quantiser of vector-quantize-pytorch is stored as plain codebooks
(`quantizers`); encoding and decoding run in double precision and never learn, so ids are the same in any batch.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from tokenizers.base import TokenizerConfig, WeightTokenizer
from tokenizers.classic import scalar_codes
from tokenizers.learned import quantizers

MOST_NUMBERS = 4096
"""Numbers of a latent; a code of more is a mistake."""


@dataclass(frozen=True)
class VQVAEConfig(TokenizerConfig):
    """An autoencoder of the weights with discrete latents, trained by the decoded field's values."""

    vocab_size: int = 128
    """Codes asked for, V. With fsq, more codes lie closer together: more bits, better pictures."""
    quantizer: Literal["fsq", "vq", "rvq", "lfq", "simvq"] = "fsq"
    """fsq: evenly spaced levels. vq: a codebook per latent. rvq: several, each for what the last left. lfq: signs. simvq:
    one codebook for all latents, a learnt map of fixed vectors."""
    latents: int = 192
    """Latents per field, T: tokens, except with rvq, where each latent gives `--residual` tokens."""
    width: int = 1
    """Numbers per latent, neighbouring components; lfq has log2 V. All latents together have at most P numbers."""
    levels: tuple[int, ...] = ()
    """fsq: levels of each number of a latent, their product at most V. Default: V^(1/width) each."""
    residual: int = 2
    """rvq: codes per latent."""
    span: float = 4.0
    """fsq: where the outermost levels lie, in standard deviations of the first component."""
    hidden: int = 512
    """Width of the networks added to the linear maps; 0 = none."""
    steps: int = 8000
    """Optimiser steps at most; 0 = the start as it is."""
    batch: int = 256
    """Fields per step."""
    points: int = 96
    """Random coordinates per step at which decoded and original fields are compared."""
    lr: float = 4e-4
    """Highest learning rate; warms up over 200 steps and falls as a cosine."""
    rate: float | None = None
    """fsq with one number a latent: loss per bit of a field, by a logistic model of each latent. Default: 2e-5 there, and
    nothing elsewhere."""
    weight_loss: float = 0.001
    """Share of the squared error of standardised weights in the loss."""
    noise: float = 0.0
    """Standard deviation of noise on the encoder's standardised input while training."""
    eval_every: int = 250
    """Steps between evaluations on held-out fields; the best state is kept, by held-out PSNR or, with --rate, by the loss."""
    patience: int = 10
    """Evaluations without a better held-out PSNR (with --rate: loss) in the second half of the steps after which training stops."""
    kind: Suppress[Literal["vqvae", "graph"]] = "vqvae"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "levels", tuple(int(n) for n in self.levels))
        for name in ("latents", "width", "residual", "batch", "points", "eval_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}.")
        for name in ("hidden", "steps", "bit_loss", "weight_loss", "noise"):
            if getattr(self, name) < 0:
                flag = "rate" if name == "bit_loss" else name.replace("_", "-")
                raise ValueError(f"--{flag} must be 0 or more, got {getattr(self, name)}.")
        if self.width > MOST_NUMBERS:
            raise ValueError(f"--width must be at most {MOST_NUMBERS:,}, got {self.width}.")
        if self.lr <= 0 or self.span <= 0:
            raise ValueError(f"--lr and --span must be above 0, got {self.lr} and {self.span}.")
        if self.quantizer == "lfq" and 2 ** round(math.log2(self.vocab_size)) != self.vocab_size:
            raise ValueError(f"--quantizer lfq needs a --vocab-size that is a power of 2, got {self.vocab_size}.")
        if self.quantizer == "simvq" and self.width < 2:
            raise ValueError("--quantizer simvq needs --width of at least 2: its codes are directions.")
        if self.bit_loss and (self.quantizer != "fsq" or self.width > 1):
            raise ValueError("--rate is for --quantizer fsq with --width 1.")
        if self.quantizer == "fsq":
            self._check_levels()

    def _check_levels(self) -> None:
        levels = self.fsq_levels
        if len(levels) != self.width or min(levels) < 3 or math.prod(levels) > self.vocab_size:
            raise ValueError(
                f"--quantizer fsq needs {self.width} --levels (one per number of a latent) of at least 3 whose product is "
                f"at most --vocab-size {self.vocab_size}, got {list(levels)}."
            )

    @property
    def bit_loss(self) -> float:
        """`rate`, or its default."""
        plain = self.quantizer == "fsq" and self.width == 1
        return (2e-5 if plain else 0.0) if self.rate is None else self.rate

    @property
    def fsq_levels(self) -> tuple[int, ...]:
        """Levels of each number of a latent."""
        each = int(self.vocab_size ** (1 / self.width) + 1e-9)
        return self.levels or (each,) * self.width

    @property
    def codes(self) -> int:
        """Codes that will be made, V."""
        return math.prod(self.fsq_levels) if self.quantizer == "fsq" else self.vocab_size

    @property
    def numbers(self) -> int:
        """Numbers per latent, D."""
        return round(math.log2(self.vocab_size)) if self.quantizer == "lfq" else self.width

    @property
    def depth(self) -> int:
        """Codes per latent."""
        return self.residual if self.quantizer == "rvq" else 1


class VQVAETokenizer(WeightTokenizer):
    """Nearest codes of the encoder's output.

    Attributes:
        analysis: (P, K) linear part of the encoder, K = T D numbers in all.
        synthesis: (K, P) linear part of the decoder.
        squash: (K,) scales the decoder network's input.
        books: (T x levels, V, D) code vectors.
        history: step, loss, psnr, bits, used and perplexity of each evaluation of the last fit.
    """

    analysis: nn.Parameter
    synthesis: nn.Parameter
    squash: Tensor
    books: Tensor
    slow_to_fit = True
    chunk = 4096
    """Fields encoded or decoded at once."""

    def __init__(self, config: VQVAEConfig):
        super().__init__(config)
        size = self.field.size
        count = self.components
        self.synthesis = nn.Parameter(torch.zeros(count, size))
        self.register_buffer("squash", torch.ones(count))
        books = torch.zeros(len(self.slots), config.codes, config.numbers, dtype=torch.float64)
        self.register_buffer("books", books)
        self._make_networks()
        self.history = []

    def _make_networks(self) -> None:
        """Untrained ones of the seed, so that a second fit begins as the first did."""
        device = self.n_codes.device
        with torch.random.fork_rng(devices=[]):  # the global random state stays as it was
            torch.manual_seed(self.config.seed)
            self._make_encoder(self.field.size, self.components)
            if self.config.hidden:
                self.decoder = network(self.components, self.decoder_width, self.field.size)
        self.requires_grad_(False).to(device)

    def _make_encoder(self, size: int, count: int) -> None:
        self.analysis = nn.Parameter(torch.zeros(size, count))
        if self.config.hidden:
            self.encoder = network(size, self.config.hidden, count)

    @property
    def decoder_width(self) -> int:
        """Width of the decoder's network."""
        return self.config.hidden

    @property
    def components(self) -> int:
        """Numbers that the decoder reads, K."""
        return self.latents * self.config.numbers

    @property
    def latents(self) -> int:
        """T, without residual levels: as many as asked for, where the field has so many weights."""
        size, d = self.field.size, self.config.numbers
        if d > size:
            raise ValueError(f"a latent of {d} numbers is wider than the field's {size} weights. Lower --vocab-size.")
        return min(self.config.latents, size // d)

    def _slots(self) -> Tensor:
        """(T, 1) the latent, 0 explains most; with rvq (T x levels, 2), the latent and the level."""
        depth = self.config.depth
        latent = torch.arange(self.latents).repeat_interleave(depth)
        if self.config.quantizer != "rvq":
            return latent[:, None]
        return torch.stack([latent, torch.arange(depth).repeat(self.latents)], 1)

    def _fit(self, rows: Tensor, held_out: Tensor | None) -> int:
        from tokenizers.learned.train import Trainer, start, train  # it imports this file

        self._make_networks()
        with torch.enable_grad():
            train(self, rows, held_out, begin=start, make=Trainer)
        self.requires_grad_(False)
        self.eval()
        return self.config.codes

    def read(self, rows: Tensor, noise: float = 0.0) -> Tensor:
        """(N, P) weights -> (N, T, D) latents as they are trained, with noise on what the encoder sees."""
        z = self.standardizer(rows)
        return self.latents_of(z + noise * torch.randn_like(z) if noise else z)

    # -- in any precision: training in float32, the protocol in float64 -----------------------------------------------

    def latents_of(self, z: Tensor) -> Tensor:
        """(N, P) standardised -> (N, T, D)."""
        y = z @ self.analysis.to(z.dtype)
        if self.config.hidden:
            y = y + run(self.encoder, z)
        return y.unflatten(1, (self.latents, -1))

    def to_rows(self, latents: Tensor) -> Tensor:
        """(N, T, D) -> (N, P) standardised."""
        y = latents.flatten(1)
        z = y @ self.synthesis.to(y.dtype)
        if self.config.hidden:
            z = z + run(self.decoder, y * self.squash.to(y.dtype))
        return z

    def _encode(self, weights: Tensor) -> Tensor:
        return torch.cat([self._encode_chunk(part) for part in weights.split(self.chunk)])

    def _encode_chunk(self, weights: Tensor) -> Tensor:
        return self.round_latents(self.to_latents(weights))

    def _decode(self, ids: Tensor) -> Tensor:
        return torch.cat([self._decode_chunk(part) for part in ids.split(self.chunk)])

    def _decode_chunk(self, ids: Tensor) -> Tensor:
        latents = quantizers.look_up(ids, self.books, self.config.depth)
        return self.standardizer.invert(self.to_rows(latents).float())

    @property
    def code_vectors(self) -> Tensor | None:
        """Code vectors, where all latents share them."""
        return self.books[0] if self.config.quantizer in ("fsq", "lfq", "simvq") else super().code_vectors

    # -- refit ----------------------------------------------------------------------------------------------------

    @property
    def has_ordered_codes(self) -> bool:
        """True where a latent is one number with one code."""
        return self.config.numbers == 1 and self.config.depth == 1

    def to_latents(self, weights: Tensor) -> Tensor:
        """Latents."""
        return self.latents_of(self.standardizer(weights).double())

    def round_latents(self, latents: Tensor) -> Tensor:
        """Nearest codes."""
        return quantizers.nearest(latents, self.books, self.config.depth)

    def latent_gradient(self, gradient: Tensor, ids: Tensor) -> Tensor:
        """Backwards through the decoder."""
        latents = quantizers.look_up(ids, self.books, self.config.depth).float()
        back = gradient * self.standardizer.std
        if not self.config.hidden:
            return (back @ self.synthesis.T).view_as(latents).double()
        with torch.enable_grad():
            latents.requires_grad_(True)
            return torch.autograd.grad(self.to_rows(latents), latents, back)[0].double()

    def code_spacing(self) -> float:
        """Median distance of neighbouring codes; of code vectors, a third of the codebook's spread."""
        if self.has_ordered_codes:
            return scalar_codes.gap(self.books[0, :, 0])
        return float(self.books.std()) / 3


def network(fan_in: int, hidden: int, fan_out: int) -> nn.Sequential:
    """Two layers, the last one zero."""
    last = nn.Linear(hidden, fan_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(fan_in, hidden), nn.GELU(), last)


def run(net: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Layers one after the other, in the precision of their input."""
    for layer in net:
        if isinstance(layer, nn.Linear):
            x = nn.functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
        else:
            x = layer(x)
    return x
