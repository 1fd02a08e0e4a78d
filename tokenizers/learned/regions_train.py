"""Training of a vocabulary of regions: principal components, k-means and a ridge regression first, then all by function."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fields.kinds.shapes import ShapeKind
from fields.model import random_points, values
from fields.turned import turned, turns
from tokenizers.distortion import distortion
from tokenizers.learned import quantizers
from tokenizers.learned.regions import RegionsTokenizer
from tokenizers.learned.representatives import representatives, scattered
from tokenizers.learned.train import PROBES, SLOW, WATCHED, VocabularyTrainer
from tokenizers.selection import draw
from tokenizers.standardizer import Moments

SEEN = 4000
"""Fields whose regions give principal components."""
VECTORS = 100_000
"""Latents among which codebooks are laid."""
REGRESSION = 20_000
"""Fields of the ridge regression."""
RIDGE = 1e-2
"""Of the ridge regression, in mean squares of the latents, per field."""
SPAN = 2.5
"""fsq: where the outermost levels lie, in standard deviations of each component."""
KEPT = 1 << 28
"""Coordinates of training fields' values that are kept in memory: of volumes they take longer to compute than a step."""
NEAR, OFTEN = 8, 0.7
"""A code is replaced by one of so many nearest ones, that often; else by another field's code of the region."""


def start_regions(tokenizer: RegionsTokenizer, rows: Tensor) -> bool:
    """Measure the values and set the encoder to principal components; False where fields do not differ."""
    t, c = tokenizer, tokenizer.config
    some = rows[draw(len(rows), SEEN, c.seed)].to(t.n_codes.device)
    with torch.no_grad():
        said = torch.cat([values(t.field, part, t.lattice) for part in some.split(t.chunk)])
        t.centre.copy_(said.mean((0, 1)))
        t.scale.copy_(said.std((0, 1), correction=0).clamp_min(1e-12))
        varied = bool((said - said[:1]).abs().max() > 1e-6)
        inside = core(t)
        x = torch.cat([t.patches(part)[:, :, inside].flatten(0, 1) for part in some.split(t.chunk)]).double()
        covariance = torch.cov(x.T, correction=0).view(x.shape[1], x.shape[1])
        spread, directions = torch.linalg.eigh(covariance)
        spread, directions = spread.flip(0)[: t.numbers], directions.flip(1)[:, : t.numbers]
        directions = directions * directions[directions.abs().argmax(0), torch.arange(t.numbers)].sign()
        unit = spread.clamp_min(1e-12).sqrt()
        unit = unit.clamp_min(1e-3 * float(unit[0])) if c.quantizer == "fsq" else unit[:1]
        t.analysis.zero_()
        t.analysis[inside] = (directions / unit).float()
    return varied


def core(tokenizer: RegionsTokenizer) -> Tensor:
    """Places among the values of a window that lie in the region itself."""
    c, d = tokenizer.config, len(tokenizer.grid)
    inside = torch.zeros((c.side + 2 * c.margin,) * d, dtype=torch.bool)
    inside[(slice(c.margin, c.margin + c.side),) * d] = True
    return inside.flatten().repeat_interleave(tokenizer.field.out_dim).nonzero().flatten().to(tokenizer.n_codes.device)


class RegionsTrainer(VocabularyTrainer):
    """Trains encoder, codebook and decoder together."""

    tokenizer: RegionsTokenizer
    said: Tensor | None = None
    """(N, lattice points, C) values of all training fields, where they are kept."""
    places: list[Tensor]

    def __init__(self, tokenizer: RegionsTokenizer, rows: Tensor, varied: bool):
        t, c, device = tokenizer, tokenizer.config, tokenizer.n_codes.device
        self.tokenizer, self.rows, self.config, self.rate = t, rows.to(device), c, None
        vectors = min(c.batch, len(rows)) * len(t.slots)
        self.quantizer = quantizers.make_quantizer(
            c.quantizer, 1, t.numbers, c.codes, levels=c.levels, residual=1, span=SPAN, batch=vectors
        ).to(device)
        if varied:
            self._start()
        points = random_points(t.field, PROBES, None, device)
        some = self.rows[draw(len(rows), WATCHED, c.seed).to(device)]
        self.spread = float(values(t.field, some, points).var()) or 1.0
        self.net = nn.ModuleDict({"tokenizer": t, "quantizer": self.quantizer})
        t.requires_grad_(True)
        self.optimizer = self._optimizer()
        self._begin()
        self.turns = turns(t.field, c.symmetric).to(device)
        self._keep_values()

    @torch.no_grad()
    def _keep_values(self) -> None:
        """Of volumes: values of all training fields on the lattice, and where the lattice's points go at each turn."""
        t = self.tokenizer
        if not ShapeKind.suits(t.field) or len(self.rows) * t.lattice.numel() > KEPT:
            return
        places = [_places(t.lattice, turn) for turn in self.turns]
        self.places = [place for place in places if place is not None]
        if len(self.places) == len(places):
            self.said = torch.cat([values(t.field, part, t.lattice) for part in self.rows.split(64)])

    @torch.no_grad()
    def _start(self) -> None:
        """Lay the codebook among latents, and the decoder's linear map by ridge regression from codes."""
        t, c = self.tokenizer, self.config
        some = self.rows[draw(len(self.rows), REGRESSION, c.seed).to(self.rows.device)]
        taught = some
        apart = scattered(self.rows, c.seed)
        if apart and c.read == "weights":
            raise ValueError(
                "--read weights needs fields with a common start, but the rows of these fields point in different directions. "
                "Leave the flag out."
            )
        if apart if c.representatives is None else c.representatives:
            taught = representatives(t.field, some.cpu(), c.seed, some.device).to(some.device)
            good = taught.isfinite().all(1)
            some, taught = some[good], taught[good]
            moments = Moments(t.field.size)
            moments.add(taught.cpu())
            t.standardizer.fit(moments)
        latents = torch.cat([t.latents_of(t.patches(part)) for part in some.split(t.chunk)])
        flat = latents.flatten(0, 1)
        self.quantizer.start(flat[draw(len(flat), VECTORS, c.seed).to(flat.device)][:, None])
        self.publish()
        x = torch.cat([t.books[0][t.nearest(part.double())] for part in latents.split(t.chunk)]).flatten(1)
        _regress(x, t.standardizer(taught).double(), t.synthesis, t.offset)
        if c.read == "weights":
            _regress(t.standardizer(some).double(), latents.flatten(1).double(), t.reading, t.reading_offset)

    def _optimizer(self) -> torch.optim.Optimizer:
        t = self.tokenizer
        linear = [t.analysis, t.synthesis, *([t.reading] if self.config.read == "weights" else [])]
        groups = [{"params": [p], "share": SLOW * max(float(p.detach().std()), 1e-6)} for p in linear]
        rest = [p for p in self.net.parameters() if all(p is not q for q in linear)]
        return torch.optim.Adam(
            [*groups, {"params": rest, "share": 1.0}], lr=self.config.lr, betas=(0.9, 0.99), fused=True
        )

    def losses(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is minimised, the distortion in it, and no bits."""
        c, t = self.config, self.tokenizer
        rows, said = self.rows[chosen], None
        with torch.no_grad():
            which = int(torch.randint(len(self.turns), ())) if c.symmetric else 0
            if which:
                rows = turned(t.field, rows, self.turns[which])
            if self.said is not None:
                said = self.said[chosen][:, self.places[which]]
            coords = self.coords(said)
        latents = self.latents(rows, said)
        quantised, extra = self.quantise(latents)
        if c.swap:
            quantised = self.swapped(quantised)
        decoded = t.to_rows(quantised)
        function = distortion(t.field, t.standardizer.invert(decoded), rows, coords, self.spread)
        loss = function + 0.1 * extra
        if c.weight_loss:
            loss = loss + c.weight_loss * F.mse_loss(decoded, t.standardizer(rows))
        return loss, function, loss.new_zeros(())

    def latents(self, rows: Tensor, said: Tensor | None) -> Tensor:
        """(B, T, D) of rows, whose values at all regions' points may be known."""
        t = self.tokenizer
        if t.config.read == "weights":
            return t.latents_of_weights(t.standardizer(rows))
        with torch.no_grad():
            patches = t.patches(rows) if said is None else t.windowed(said)
        return t.latents_of(patches)

    def coords(self, said: Tensor | None) -> Tensor:
        """Random coordinates of a step, (M, d); with --near (B, M, d), some of them where each field changes sign.

        Args:
            said: (B, lattice points, C) values, where they are known.
        """
        c, t = self.config, self.tokenizer
        device = self.rows.device
        near = round(c.near * c.points)
        if said is None or not near:
            return random_points(t.field, c.points, None, device)
        level = 0.5 if t.field.output == "logit" else 0.0
        unsure = (-((said[..., 0] - level) / self.spread**0.5).square() * 8).exp() + 1e-6
        places = torch.multinomial(unsure, near, replacement=True)  # (B, near)
        cell = 2 / torch.tensor([n * c.side for n in t.grid], device=device)  # equal along axes that take turns
        moved = t.lattice[places] + random_points(t.field, tuple(places.shape), None, device) * cell
        anywhere = random_points(t.field, (len(said), c.points - near), None, device)
        return torch.cat([moved.clamp(-1, 1), anywhere], 1)

    def quantise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) quantised, with gradients, and what the quantiser adds to the loss."""
        self.quantizer.train()
        quantised, extra = self.quantizer(latents.flatten(0, 1)[:, None])
        return quantised.view_as(latents), extra

    def swapped(self, quantised: Tensor) -> Tensor:
        """Some of each field's codes replaced; no gradient passes those."""
        with torch.no_grad():
            book = self.quantizer.books()[0].to(quantised)  # (V, D)
            ids = quantizers.nearest_code(quantised.flatten(0, 1)[:, None], book[None]).view(quantised.shape[:2])
            instead, hit = replaced(ids, code_neighbours(book), self.config.swap)
        return torch.where(hit[..., None], book[instead], quantised)


def _regress(x: Tensor, y: Tensor, slopes: Tensor, offset: Tensor) -> None:
    """Set `slopes` (p, q) and `offset` (q,) to the ridge regression of y (n, q) on x (n, p)."""
    middle, goal = x.mean(0), y.mean(0)
    x = x - middle
    gram = x.T @ x
    gram.diagonal().add_(RIDGE * gram.diagonal().mean() + 1e-9)
    solution = torch.linalg.solve(gram, x.T @ (y - goal))
    slopes.copy_(solution)
    offset.copy_(goal - middle @ solution)


def _places(lattice: Tensor, turn: Tensor) -> Tensor | None:
    """(M,) the lattice point at which each turned lattice point lies, or None where it lies on none."""
    step = 1e-4
    keys = [tuple(point) for point in (lattice / step).round().long().tolist()]
    where = {key: i for i, key in enumerate(keys)}
    found = [where.get(tuple(point)) for point in (lattice @ turn.T / step).round().long().tolist()]
    return None if None in found else torch.tensor(found, device=lattice.device)


def code_neighbours(book: Tensor) -> Tensor:
    """(V, D) code vectors -> (V, at most 8) the codes nearest to each."""
    return torch.cdist(book, book).topk(min(NEAR + 1, len(book)), largest=False).indices[:, 1:]


def replaced(ids: Tensor, near: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Some of each field's codes replaced, as `RegionsConfig.swap` says.

    Args:
        ids: (B, T).
        near: (V, 8) from `neighbours`.
        share: of a field's codes, at most.
    Returns:
        (B, T) other ids, and where they are meant to be taken.
    """
    (b, t), device = ids.shape, ids.device
    other = near[ids, torch.randint(near.shape[1], ids.shape, device=device)]
    strange = ids[torch.randint(b, (b, t), device=device), torch.arange(t, device=device)]
    close = torch.rand(b, t, device=device) < OFTEN
    shares = share * torch.rand(b, 1, device=device)
    return torch.where(close, other, strange), torch.rand(b, t, device=device) < shares
