"""A learned vocabulary: a VQ-VAE over the weights, trained on the values of the decoded field (arXiv:1711.00937).

Encoder and decoder start as the linear maps of `pca`, so that training starts where that ends, and a small network with a
zero last layer is added to each. What is learnt with a quantiser of vector-quantize-pytorch is stored as plain codebooks
(`quantizers`); encoding and decoding run in double precision and never learn, so ids are the same in any batch.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tokenizers.base import WeightTokenizer
from tokenizers.classic import scalar_codes
from tokenizers.learned import quantizers
from tokenizers.learned.options import VQVAEConfig


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
                self.decoder = two_layers(self.components, self.decoder_width, self.field.size)
        self.requires_grad_(False).to(device)

    def _make_encoder(self, size: int, count: int) -> None:
        self.analysis = nn.Parameter(torch.zeros(size, count))
        if self.config.hidden:
            self.encoder = two_layers(size, self.config.hidden, count)

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
        from tokenizers.learned.train import (  # it imports this file
            VocabularyTrainer,
            start_from_components,
            train_vocabulary,
        )

        self._make_networks()
        with torch.enable_grad():
            train_vocabulary(self, rows, held_out, begin=start_from_components, make=VocabularyTrainer)
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
            y = y + run_layers(self.encoder, z)
        return y.unflatten(1, (self.latents, -1))

    def to_rows(self, latents: Tensor) -> Tensor:
        """(N, T, D) -> (N, P) standardised."""
        y = latents.flatten(1)
        z = y @ self.synthesis.to(y.dtype)
        if self.config.hidden:
            z = z + run_layers(self.decoder, y * self.squash.to(y.dtype))
        return z

    def _encode(self, weights: Tensor) -> Tensor:
        return torch.cat([self.round_latents(self.to_latents(part)) for part in weights.split(self.chunk)])

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
        return quantizers.nearest_code(latents, self.books, self.config.depth)

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


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with weights and biases set to zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def two_layers(fan_in: int, hidden: int, fan_out: int) -> nn.Sequential:
    """Two layers, the last one zero."""
    last = zeroed(nn.Linear(hidden, fan_out))
    return nn.Sequential(nn.Linear(fan_in, hidden), nn.GELU(), last)


def run_layers(net: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Layers one after the other, in the precision of their input."""
    for layer in net:
        if isinstance(layer, nn.Linear):
            x = nn.functional.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
        else:
            x = layer(x)
    return x
