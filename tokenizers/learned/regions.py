"""Tokens of regions: a grid over the coordinates, a token for what the field says in each of its cells.

A token that speaks of one place can be predicted from its neighbours; one that speaks of the whole signal hardly can. The
field is evaluated at the points of each region and a little beyond, one small encoder turns them into a latent, one codebook
serves all regions (arXiv:1711.00937). So ids do not depend on the order of hidden neurons, and a change of what a field says
in one place changes the tokens that see it and no others. A decoder of all tokens gives the weights of one field that says
the same. It starts as a ridge regression and learns by function, from codes of which some are replaced, as a model of tokens
would err (arXiv:2509.12474).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from fields.model import FieldConfig, values
from fields.signals.images import axis
from fields.turned import turns
from tokenizers.base import TokenizerConfig, WeightTokenizer
from tokenizers.classic.components import WIDEST
from tokenizers.learned import quantizers
from tokenizers.learned.vqvae import run

GRIDS = {1: (16,), 2: (7, 7), 3: (4, 4, 4)}
"""Regions along each coordinate, where none are asked for."""
MOST = 4096
"""Regions at most."""


@dataclass(frozen=True)
class RegionsConfig(TokenizerConfig):
    """Codes of what the field says in each cell of a grid; a decoder from all codes to weights, trained by function."""

    later: ClassVar[tuple[str, ...]] = ("near", "symmetric", "merge", "tune", "adversarial")
    vocab_size: int = 512
    """Codes, V: one codebook for all regions. With fsq at most as many."""
    grid: tuple[int, ...] = ()
    """Regions along each coordinate, for pictures rows and columns: as many numbers as the field has coordinates. Default:
    7 7 for pictures, 4 4 4 for volumes."""
    side: int = 4
    """Points of a region along each coordinate, at which the field is evaluated."""
    margin: int = 2
    """Points beyond its borders that the encoder of a region sees, too; 0 = none."""
    quantizer: Literal["vq", "fsq", "simvq"] = "vq"
    """vq: k-means, then moving averages. fsq: evenly spaced levels. simvq: a learnt map of fixed vectors."""
    width: int = 16
    """Numbers of a latent, at most as many as a region has values; with fsq one per level."""
    levels: tuple[int, ...] = (8, 8, 8)
    """fsq: levels of each number of a latent, their product at most V."""
    encoder: int = 128
    """Width of the network that reads a region; 0 = only the linear map: principal components of its values."""
    hidden: int = 1024
    """Width of the decoder's network beside its linear map; 0 = only that."""
    steps: int = 3000
    """Optimiser steps at most; 0 = k-means of principal components and the ridge regression."""
    batch: int = 256
    """Fields per step."""
    points: int = 196
    """Random coordinates per step at which decoded and original fields are compared."""
    near: float = 0.0
    """Share of them that lie where a field of three coordinates changes sign, each field's own."""
    lr: float = 1e-3
    """Highest learning rate; warms up over 200 steps and falls as a cosine."""
    swap: float = 0.2
    """While training, up to this share of a field's codes is replaced before they are decoded: seven in ten by one of the
    8 nearest codes, the others by another field's code of that region."""
    weight_loss: float = 0.0
    """Share of the squared error of standardised weights in the loss."""
    symmetric: tuple[int, ...] = ()
    """Coordinates (0 = x) that may change sign and places with each other without making a field less likely: training
    sees mirrored and turned fields, too. 0 1 suits shapes in any position about z."""
    merge: float = 0.0
    """Codes that lie nearer to each other than this, in standard deviations of the codebook, become one, the one used more: there
    are many beside the code of empty regions, whose choice says nothing and costs bits. .2 loses no PSNR; 0 = none."""
    tune: int = 0
    """Steps after the others in which only the decoder learns, its codes fixed; --adversarial then counts, too."""
    adversarial: float = 0.03
    """Share, in the loss of these steps, of what a small network says that learns to tell decoded from fitted fields. Sharper
    fields for generation, at a lower PSNR; 0 = none. Fields of one to three coordinates."""
    eval_every: int = 250
    """Steps between looks at held-out fields; the best state is kept, by held-out PSNR."""
    patience: int = 10
    """Looks without a better held-out PSNR in the second half of the steps after which training stops."""
    kind: Suppress[Literal["regions"]] = "regions"

    def __post_init__(self):
        super().__post_init__()
        for name in ("grid", "levels", "symmetric"):
            object.__setattr__(self, name, tuple(int(n) for n in getattr(self, name)))
        for name in ("side", "width", "batch", "points", "eval_every", "patience", *(["grid"] if self.grid else [])):
            value = getattr(self, name)
            if (min(value) if isinstance(value, tuple) else value) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        for name in ("margin", "encoder", "hidden", "steps", "merge", "tune", "adversarial", "weight_loss"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(self, name)}.")
        for name in ("swap", "near"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} must lie between 0 and 1, got {getattr(self, name)}.")
        if self.lr <= 0:
            raise ValueError(f"--lr must be above 0, got {self.lr}.")
        few = min(self.levels, default=0) < 3
        if few or (self.quantizer == "fsq" and math.prod(self.levels) > self.vocab_size):
            raise ValueError(
                f"--quantizer fsq needs --levels of at least 3 whose product is at most --vocab-size {self.vocab_size}, got "
                f"{list(self.levels)}."
            )
        if self.quantizer == "simvq" and self.width < 2:
            raise ValueError("--quantizer simvq needs --width of at least 2: its codes are directions.")
        if self.field and self.grid:
            self._check_grid(FieldConfig.from_dict(self.field).in_dim)
        if self.field:
            self._check_symmetric(FieldConfig.from_dict(self.field))

    def _check_symmetric(self, field: FieldConfig) -> None:
        try:
            turns(field.in_dim, self.symmetric)
        except ValueError as error:
            raise ValueError(f"--symmetric: {error}") from None
        if self.symmetric and field.coords == "corner":
            raise ValueError(
                "--symmetric needs fields whose coordinates lie evenly about 0, these are at the corners of pixels."
            )

    def _check_grid(self, dimensions: int) -> None:
        if len(self.grid) != dimensions:
            raise ValueError(
                f"--grid needs {dimensions} numbers, one per coordinate of the field, got {' '.join(map(str, self.grid))}."
            )
        if math.prod(self.grid) > MOST:
            raise ValueError(f"--grid may have at most {MOST} regions, got {math.prod(self.grid)}.")

    @property
    def codes(self) -> int:
        """Codes that will be made, V."""
        return math.prod(self.levels) if self.quantizer == "fsq" else self.vocab_size

    @property
    def bit_loss(self) -> float:
        """Loss per bit of a field: bits have no price here."""
        return 0.0


class RegionsTokenizer(WeightTokenizer):
    """Nearest codes of what an encoder says of each region.

    n values of a region and its margin (points times channels), D numbers of a latent.

    Attributes:
        lattice: (M, d) coordinates of all regions' points, the last coordinate of the grid fastest.
        windows: (T, m) which of them a region and its margin see; beyond the domain, the nearest ones.
        centre, scale: (C,) of the values.
        analysis: (n, D) linear part of the encoder.
        synthesis: (T D, P) linear part of the decoder.
        offset: (P,) what the decoder adds.
        books: (1, V, D) code vectors.
        history: step, loss, psnr, bits, used and perplexity of each look of the last fit.
    """

    analysis: nn.Parameter
    synthesis: nn.Parameter
    offset: nn.Parameter
    lattice: Tensor
    windows: Tensor
    centre: Tensor
    scale: Tensor
    books: Tensor
    slow_to_fit = True
    preserves_weights = False
    chunk = 1024
    """Fields encoded or decoded at once."""

    def __init__(self, config: RegionsConfig):
        super().__init__(config)
        size, c = self.field.size, config
        if size > WIDEST:
            raise ValueError(
                f"regions decodes fields of at most {WIDEST:,} weights, this one has {size:,}. Use kmeans."
            )
        self.grid = regions(self.field, c.grid)
        values_ = c.side**self.field.in_dim * self.field.out_dim
        self.numbers = len(c.levels) if c.quantizer == "fsq" else min(c.width, values_)
        self.register_buffer("lattice", lattice(self.field, self.grid, c.side), persistent=False)
        self.register_buffer("windows", windows(self.grid, c.side, c.margin), persistent=False)
        self.register_buffer("centre", torch.zeros(self.field.out_dim))
        self.register_buffer("scale", torch.ones(self.field.out_dim))
        self.register_buffer("books", torch.zeros(1, c.codes, self.numbers, dtype=torch.float64))
        self._make_networks()
        self.history = []

    def _make_networks(self) -> None:
        """Untrained ones of the seed, so that a second fit begins as the first did."""
        c, size, device = self.config, self.field.size, self.n_codes.device
        seen, latents = self.windows.shape[1] * self.field.out_dim, len(self.slots) * self.numbers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(c.seed)
            self.analysis = nn.Parameter(torch.zeros(seen, self.numbers))
            self.synthesis = nn.Parameter(torch.zeros(latents, size))
            self.offset = nn.Parameter(torch.zeros(size))
            if c.encoder:
                self.encoder = network(seen, c.encoder, self.numbers)
            if c.hidden:
                self.decoder = network(latents, c.hidden, size)
        self.requires_grad_(False).to(device)

    def _slots(self) -> Tensor:
        """(T, d) each region's place in the grid: of pictures row and column."""
        axes = [torch.arange(n) for n in regions(self.field, self.config.grid)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)

    def _fit(self, rows: Tensor, held_out: Tensor | None) -> int:
        from tokenizers.learned.regions_decoder import train_regions  # it imports this file

        self._make_networks()
        with torch.enable_grad():
            train_regions(self, rows, held_out)
        self.requires_grad_(False)
        self.eval()
        return self.config.codes

    # -- in any precision: training in float32, the protocol in float64 -----------------------------------------------

    def patches(self, weights: Tensor) -> Tensor:
        """(N, P) weights -> (N, T, n) standardised values that each region's encoder sees."""
        return self.windowed(values(self.field, weights, self.lattice.to(weights.dtype)))

    def windowed(self, said: Tensor) -> Tensor:
        """(N, M, C) values on the lattice -> (N, T, n) standardised ones that each region's encoder sees."""
        said = (said - self.centre.to(said.dtype)) / self.scale.to(said.dtype)
        return said[:, self.windows].flatten(2)

    def latents_of(self, patches: Tensor) -> Tensor:
        """(N, T, n) -> (N, T, D)."""
        y = patches @ self.analysis.to(patches.dtype)
        return y + run(self.encoder, patches) if self.config.encoder else y

    def to_rows(self, latents: Tensor) -> Tensor:
        """(N, T, D) -> (N, P) standardised."""
        y = latents.flatten(1)
        z = y @ self.synthesis.to(y.dtype) + self.offset.to(y.dtype)
        return z + run(self.decoder, y) if self.config.hidden else z

    def nearest(self, latents: Tensor) -> Tensor:
        """(N, T, D) -> (N, T) ids."""
        books = self.books.to(latents.dtype)
        ids = quantizers.nearest(latents.flatten(0, 1)[:, None], books).view(latents.shape[:2])
        return firsts(self.books[0])[ids] if self.config.merge else ids

    def _encode(self, weights: Tensor) -> Tensor:
        return torch.cat([self.round_latents(self.to_latents(part)) for part in weights.split(self.chunk)])

    def _decode(self, ids: Tensor) -> Tensor:
        parts = [self.to_rows(self.books[0][part]).float() for part in ids.split(self.chunk)]
        return torch.cat([self.standardizer.invert(part) for part in parts])

    @property
    def code_vectors(self) -> Tensor | None:
        """Code vectors, the same for all regions."""
        return self.books[0]

    # -- refit ----------------------------------------------------------------------------------------------------

    def to_latents(self, weights: Tensor) -> Tensor:
        """Latents."""
        return self.latents_of(self.patches(weights.double()))

    def round_latents(self, latents: Tensor) -> Tensor:
        """Nearest codes."""
        return self.nearest(latents)

    def latent_gradient(self, gradient: Tensor, ids: Tensor) -> Tensor:
        """Backwards through the decoder."""
        with torch.enable_grad():
            latents = self.books[0][ids].float().requires_grad_(True)
            return torch.autograd.grad(self.to_rows(latents), latents, gradient * self.standardizer.std)[0].double()

    def code_spacing(self) -> float:
        """A third of the codebook's spread."""
        return float(self.books.std()) / 3


def regions(field: FieldConfig, grid: tuple[int, ...]) -> tuple[int, ...]:
    """The grid asked for, or the default of the field's dimension."""
    if not grid and field.in_dim not in GRIDS:
        raise ValueError(f"a field of {field.in_dim} coordinates has no default grid. Give --grid, a number for each.")
    return grid or GRIDS[field.in_dim]


def lattice(field: FieldConfig, grid: tuple[int, ...], side: int) -> Tensor:
    """Coordinates of `side` points a region along each axis.

    Returns:
        (M, d) float32 in the field's own convention; of pictures y is the outer index, as their pixels are.
    """
    axes = torch.meshgrid(*[axis(field.coords, n * side) for n in grid], indexing="ij")
    return torch.stack(axes[::-1] if field.axes == "xy" else axes, -1).flatten(0, -2)


def windows(grid: tuple[int, ...], side: int, margin: int) -> Tensor:
    """(T, m) places in the lattice of each region's points and of `margin` more on each side."""
    around = torch.arange(-margin, side + margin)
    spans = [(torch.arange(n)[:, None] * side + around).clamp(0, n * side - 1) for n in grid]  # (n, side + 2 margin)
    out = torch.zeros(1, 1, dtype=torch.int64)
    for span, n in zip(spans, grid, strict=True):
        out = out[:, None, :, None] * (n * side) + span[None, :, None, :]  # (T so far, n, m so far, span)
        out = out.flatten(2).flatten(0, 1)
    return out


def firsts(book: Tensor) -> Tensor:
    """(V, D) -> (V,): the first code that equals each; products with equal vectors may differ in their last bit."""
    same = torch.unique(book, dim=0, return_inverse=True)[1]
    order = torch.arange(len(book), device=book.device)
    return torch.full_like(order, len(book)).scatter_reduce(0, same, order, "amin")[same]


def network(fan_in: int, hidden: int, fan_out: int) -> nn.Sequential:
    """Three layers, the last one silent."""
    last = nn.Linear(hidden, fan_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(fan_in, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), last)
