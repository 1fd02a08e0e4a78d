"""Training of a graph autoencoder: representatives first, then encoder and decoder by function.

Fields fitted from random weights have no common directions in weight space; what they compute has. So some training fields are
fitted again, from one start, to their own values: their representatives. Principal components of these initialise the
decoder, and the encoder's linear heads are solved for the representatives' latents. From there all of it is trained by
the values of the decoded field.
"""

from functools import reduce

import torch
from torch import Tensor

from tokenizers.learned.graph import GraphTokenizer
from tokenizers.learned.representatives import representatives
from tokenizers.learned.train import Components, VocabularyTrainer, lay_decoder, train_vocabulary
from tokenizers.selection import draw
from tokenizers.standardizer import Moments

SUPERVISED = 0.15
"""Share of the steps that only learn the representatives' latents."""
RIDGE = 0.01
"""Of the heads' first solution, in mean squares of what they see, per row."""
FAST = 10.0
"""Learning rate of the input neurons' states, relative to the rest."""
CALM, STILL = 0.2, 0.02
"""Learning rates of linear heads and of the decoder's linear map, relative to the rest (and to its size)."""


class Representatives:
    """Initialises the decoder, and holds the latents of some fields' representatives.

    Attributes:
        chosen: (n,) their places among the training rows.
        latents: (n, K).
    """

    def __init__(self):
        self.chosen = torch.zeros(0, dtype=torch.int64)
        self.latents = torch.zeros(0, 1)

    def begin(self, tokenizer: GraphTokenizer, rows: Tensor) -> bool:
        """Set the untrained state; False where fields do not differ."""
        c, device = tokenizer.config, tokenizer.n_codes.device
        chosen = draw(len(rows), c.taught, c.seed)
        found = rows[chosen]
        if not c.reference:
            found = representatives(tokenizer.field, found, c.seed, device, c.meta_steps)
        good = found.isfinite().all(1)
        self.chosen, found = chosen[good], found[good]
        moments = Moments(tokenizer.field.size)
        moments.add(found)
        tokenizer.standardizer.fit(moments)
        components = Components.of(tokenizer, found)
        if components is None:
            return False
        with torch.no_grad():
            lay_decoder(tokenizer, components)
            z = tokenizer.standardizer(found.to(device))
            self.latents = (z.cpu().double() @ components.analysis).float().to(device)
            solve_heads(tokenizer, rows[self.chosen].to(device), self.latents)
        return True


def solve_heads(tokenizer: GraphTokenizer, rows: Tensor, latents: Tensor) -> None:
    """Solve the linear heads for the latents (n, K) of rows (n, P), a ridge regression; of neurons, only set the units."""
    reader = tokenizer.reader
    reader.measure(rows[:2000])
    if tokenizer.config.level == "neuron":
        each = reader.contributions(rows[:2000])
        for i, x in enumerate(each):
            reader.unit[i] = x.std((0, 1, 3), correction=0)[:, None].clamp_min(1e-12)
        return
    seen: list[list[Tensor]] = [[] for _ in tokenizer.lines]
    for block in rows.split(1000):
        for i, x in enumerate(reader.pools(block)):
            seen[i].append(reader.features(x, i))
    ends = torch.tensor([0, *[line.out_features for line in tokenizer.lines][::-1]]).cumsum(0).tolist()
    for i, line in enumerate(tokenizer.lines):
        at = len(tokenizer.lines) - 1 - i  # the output layer's latents come first
        x, y = torch.cat(seen[i]).double(), latents[:, ends[at] : ends[at + 1]].double()
        middle, goal = x.mean(0), y.mean(0)
        x = x - middle
        gram = x.T @ x
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=x.device) + 1e-9 * torch.eye(
            len(gram), device=x.device
        )
        solution = torch.linalg.solve(gram, x.T @ (y - goal))
        line.weight.copy_(solution.T)
        line.bias.copy_(goal - middle @ solution)


class GraphTrainer(VocabularyTrainer):
    """Trains all of a graph autoencoder."""

    tokenizer: GraphTokenizer

    def __init__(self, tokenizer: GraphTokenizer, rows: Tensor, varied: bool, known: Representatives):
        super().__init__(tokenizer, rows, varied)
        self.representatives = known
        places = torch.full((len(rows),), -1)
        places[known.chosen] = torch.arange(len(known.chosen))
        self.places = places.to(self.rows.device)

    def _optimizer(self) -> torch.optim.Optimizer:
        t = self.tokenizer
        calm = [p for module in (t.lines, *(pair["line"] for pair in t.corrections)) for p in module.parameters()]
        fast = [p for p in t.reader.parameters()]
        decoder = [p for p in t.decoder.parameters()] if t.config.hidden else []
        known = {id(p) for p in [*calm, *fast, *decoder, t.synthesis]}
        rest = [p for p in self.net.parameters() if id(p) not in known]
        groups = [
            {"params": rest, "share": 1.0},
            {"params": calm, "share": CALM},
            {"params": decoder, "share": CALM},
            {"params": [t.synthesis], "share": STILL * max(float(t.synthesis.detach().std()), 1e-6)},
            {"params": fast, "share": FAST, "weight_decay": 0.0},
        ]
        decay = self.config.decay
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=self.config.lr, betas=(0.9, 0.99), weight_decay=decay)

    def losses(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As of `vqvae`, on noisy fields, which are also the targets; the latents of representatives guide the encoder."""
        c, t = self.config, self.tokenizer
        rows = self.rows[chosen]
        if c.noise:
            rows = rows * (1 + c.noise * torch.randn_like(rows))
        readings = t.readings(rows, c.dropout)
        latents = readings[-1].unflatten(1, (t.latents, -1))
        bits = self.bits(latents)
        guidance = reduce(torch.add, [self.guidance(y, chosen) for y in readings]) / len(readings)
        if self.step < SUPERVISED * c.steps:
            return guidance + c.bit_loss * bits, guidance / t.components, bits
        quantised, extra = self.quantise(latents)
        function = self.distortion(t.to_rows(quantised), rows)
        return function + c.weight_loss * guidance / t.components + c.bit_loss * bits + 0.1 * extra, function, bits

    def guidance(self, latents: Tensor, chosen: Tensor) -> Tensor:
        """Squared distance, summed over components, of what the decoder would read from the representatives' latents."""
        place = self.places[chosen]
        known = (place >= 0).float()[:, None]
        wanted = self.representatives.latents[place.clamp_min(0)]
        got = self.tokenizer.gathered(latents.unflatten(1, (self.tokenizer.latents, -1))).flatten(1)
        return ((got - wanted).square() * known).sum() / known.sum().clamp_min(1)


def train_graph(tokenizer: GraphTokenizer, rows: Tensor, held_out: Tensor | None) -> None:
    """Fit a graph tokenizer in place; gradients must be enabled."""
    known = Representatives()
    train_vocabulary(
        tokenizer,
        rows,
        held_out,
        begin=known.begin,
        make=lambda t, some, varied: GraphTrainer(t, some, varied, known),
    )
