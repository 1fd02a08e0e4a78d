"""Tokens of regions: a grid over the coordinates, a token for what the field says in each of its cells.

A token that speaks of one place can be predicted from its neighbours; one that speaks of the whole signal hardly can. The
field is evaluated at the points of each region and a little beyond, one small encoder turns them into a latent, one codebook
serves all regions (arXiv:1711.00937). So ids do not depend on the order of hidden neurons, and a change of what a field says
in one place changes the tokens that see it and no others. A decoder of all tokens gives the weights of one field that says
the same. It starts as a ridge regression and learns by function, from codes of which some are replaced, as a model of tokens
would err (arXiv:2509.12474).
"""

import torch
from torch import Tensor, nn

from fields.kinds.registry import kind_of
from fields.model import FieldConfig, values
from fields.signals.images import axis
from tokenizers.base import WeightTokenizer
from tokenizers.classic.components import WIDEST
from tokenizers.learned import quantizers
from tokenizers.learned.options import RegionsConfig
from tokenizers.learned.vqvae import run_layers, zeroed


class RegionsTokenizer(WeightTokenizer):
    """Nearest codes of what an encoder says of each region.

    n values of a region and its margin (points times channels), D numbers of a latent.

    Attributes:
        lattice: (M, d) coordinates of all regions' points, the last coordinate of the grid fastest.
        windows: (T, m) which of them a region and its margin see; beyond the domain, the nearest ones.
        centre, scale: (C,) of the values.
        analysis: (n, D) linear part of the encoder of values.
        reading: (P, T D) linear part of the encoder of weights, where `config.read` says so; `reading_offset` (T D,) is added.
        synthesis: (T D, P) linear part of the decoder.
        offset: (P,) what the decoder adds.
        books: (1, V, D) code vectors.
        history: step, loss, psnr, bits, used and perplexity of each look of the last fit.
    """

    analysis: nn.Parameter
    reading: nn.Parameter
    reading_offset: nn.Parameter
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
    """Fields decoded at once."""
    encoded = 64
    """Fields encoded at once: what they say at all points stays in the cache, which makes 2.8 times as many a second."""

    def __init__(self, config: RegionsConfig):
        super().__init__(config)
        size, c = self.field.size, config
        if size > WIDEST:
            raise ValueError(
                f"regions decodes fields of at most {WIDEST:,} weights, but this one has {size:,}. Use kmeans."
            )
        self.grid = regions(self.field, c.grid)
        values_ = c.side ** len(self.grid) * self.field.out_dim
        self.numbers = len(c.levels) if c.quantizer == "fsq" else min(c.width, values_)
        self.register_buffer("lattice", region_points(self.field, self.grid, c.side), persistent=False)
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
                self.encoder = three_layers(seen, c.encoder, self.numbers)
            if c.hidden:
                self.decoder = three_layers(latents, c.hidden, size)
            if c.read == "weights":
                self.reading = nn.Parameter(torch.zeros(size, latents))
                self.reading_offset = nn.Parameter(torch.zeros(latents))
                if c.hidden:
                    self.reader = three_layers(size, c.hidden, latents)
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
        return y + run_layers(self.encoder, patches) if self.config.encoder else y

    def latents_of_weights(self, z: Tensor) -> Tensor:
        """(N, P) standardised rows -> (N, T, D), where weights are read."""
        y = z @ self.reading.to(z.dtype) + self.reading_offset.to(z.dtype)
        y = y + run_layers(self.reader, z) if self.config.hidden else y
        return y.unflatten(1, (-1, self.numbers))

    def to_rows(self, latents: Tensor) -> Tensor:
        """(N, T, D) -> (N, P) standardised."""
        y = latents.flatten(1)
        z = y @ self.synthesis.to(y.dtype) + self.offset.to(y.dtype)
        return z + run_layers(self.decoder, y) if self.config.hidden else z

    def nearest(self, latents: Tensor) -> Tensor:
        """(N, T, D) -> (N, T) ids."""
        books = self.books.to(latents.dtype)
        ids = quantizers.nearest_code(latents.flatten(0, 1)[:, None], books).view(latents.shape[:2])
        return firsts(self.books[0])[ids] if self.config.merge else ids

    def _encode(self, weights: Tensor) -> Tensor:
        at_once = self.encoded if self.config.read == "function" else self.chunk
        return torch.cat([self.round_latents(self.to_latents(part)) for part in weights.split(at_once)])

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
        if self.config.read == "weights":
            return self.latents_of_weights(self.standardizer(weights).double())
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
    """The grid asked for, or the default of the field's kind."""
    found = grid or kind_of(field).regions(field)
    if not found:
        raise ValueError(f"a field {field} has no default grid. Give --grid with one number per coordinate.")
    return found


def region_points(field: FieldConfig, grid: tuple[int, ...], side: int) -> Tensor:
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


def three_layers(fan_in: int, hidden: int, fan_out: int) -> nn.Sequential:
    """Three layers, the last one zero."""
    last = zeroed(nn.Linear(hidden, fan_out))
    return nn.Sequential(nn.Linear(fan_in, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), last)
