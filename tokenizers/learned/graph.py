"""A permutation-invariant vocabulary: a graph autoencoder over a field's neurons and layers.

The encoder passes messages over the graph of a field (`graph_messages`), so that its codes do not depend on the order of
hidden neurons (nor on ReLU's scales or sine's signs); it sees weights and nothing else. The decoder gives the weights of one
representative of all fields that compute the same. Both are trained on the field's values, as `vqvae` is, and share its
quantisers, codebooks and decoder.
"""

from typing import Any

import torch
from torch import Tensor, nn

from fields.model import FieldConfig, spaced_points
from tokenizers.learned import quantizers
from tokenizers.learned.options import GraphConfig
from tokenizers.learned.vqvae import VQVAETokenizer, run_layers, two_layers, zeroed


class GraphTokenizer(VQVAETokenizer):
    """Codes of a field's layers, or of its neurons, that do not depend on the order of hidden neurons.

    Attributes:
        reader: passes the messages.
        heads: per layer, from pooled features to latents: `lines` linear, `nets` a network added to it.
        corrections: per round, from the difference between the field and its decoded latents to a change of the latents.
        parts: per layer, from a neuron's latents to its share of the decoder's input (level neuron).
    """

    lines: Any  # lists of modules, of which torch does not say what they hold
    nets: Any
    corrections: Any
    parts: Any
    preserves_weights = False
    chunk = 512

    def __init__(self, config: GraphConfig):  # loading reads the kind from this signature
        layers = len(FieldConfig.from_dict(config.field).hidden) + 1 if config.field else 1
        if config.latents < layers:
            raise ValueError(f"--latents must be at least the field's {layers} layers, got {config.latents}.")
        super().__init__(config)

    def _make_encoder(self, size: int, count: int) -> None:
        from tokenizers.learned.graph_messages import Reader  # torch-geometric takes seconds to import

        c, d, h = self.config, self.config.numbers, self.config.hidden
        spare = torch.full((size,), torch.nan) if c.reference else None
        coordinates = None if c.messages == "learnt" else spaced_points(self.field, c.channels)
        self.reader = Reader(self.field, c.channels if coordinates is None else len(coordinates), spare, coordinates)
        wide, sizes = self.reader.width, [n * d for n in self.per_layer]
        each = [max(8, h // len(sizes))] * len(sizes)
        self.lines = nn.ModuleList(nn.Linear(wide, n) for n in sizes)
        self.nets = nn.ModuleList(two_layers(wide, e, n) for e, n in zip(each, sizes, strict=True))
        self.corrections = nn.ModuleList()
        self.parts = nn.ModuleList()
        if c.level == "layer":
            for _ in range(c.rounds):
                pair = {"line": zeroed(nn.Linear(wide, count)), "net": two_layers(wide + count, max(8, h // 2), count)}
                self.corrections.append(nn.ModuleDict(pair))
        else:
            self.parts.extend(nn.Sequential(nn.Linear(n, h // 2), nn.GELU(), nn.Linear(h // 2, count)) for n in sizes)

    # -- places -----------------------------------------------------------------------------------------------------

    @property
    def decoder_width(self) -> int:
        """Half of the encoder's."""
        return max(8, self.config.hidden // 2)

    @property
    def components(self) -> int:
        """Numbers that the decoder reads, K."""
        return super().latents * self.config.numbers

    @property
    def per_layer(self) -> list[int]:
        """Latents of each layer, first to last; of each of its neurons with level neuron. The last takes what is left."""
        widths = self.field.widths[1:]
        if self.config.level == "neuron":
            return [max(1, super().latents // sum(widths))] * len(widths)
        each = super().latents // len(widths)
        return [each] * (len(widths) - 1) + [super().latents - each * (len(widths) - 1)]

    @property
    def latents(self) -> int:
        """T, without residual levels."""
        if self.config.level == "layer":
            return sum(self.per_layer)
        return sum(n * w for n, w in zip(self.per_layer, self.field.widths[1:], strict=True))

    def _slots(self) -> Tensor:
        """(T, 2) layer and latent, the output layer first; (T, 3) layer, neuron and latent; with rvq, then the level."""
        if self.config.level == "neuron":
            shapes = zip(self.per_layer, self.field.widths[1:], strict=True)
            return torch.tensor([(i, j, k) for i, (n, w) in enumerate(shapes) for j in range(w) for k in range(n)])
        order = list(enumerate(self.per_layer))[::-1]
        depth = self.config.depth
        rows = [(i, k, level) for i, n in order for k in range(n) for level in range(depth)]
        return torch.tensor(rows)[:, : 3 if self.config.quantizer == "rvq" else 2]

    # -- encoding ---------------------------------------------------------------------------------------------------

    def read(self, rows: Tensor, noise: float = 0.0) -> Tensor:
        """(N, P) weights in any precision -> (N, T, D) latents; `noise` is unused: the trainer adds it."""
        return self.readings(rows)[-1].unflatten(1, (self.latents, -1))

    def readings(self, rows: Tensor, drop: float = 0.0) -> list[Tensor]:
        """Latents (N, T D) as first read and after each correction.

        Args:
            rows: (N, P).
            drop: dropout of what the heads see.
        """
        reader = self.reader
        if self.config.level == "neuron":
            seen = [reader.features(x, i) for i, x in enumerate(reader.contributions(rows))]  # (N, width, F)
            return [torch.cat([head.flatten(1) for head in self._heads(seen, drop)], 1)]
        pools = reader.pools(rows)
        seen = [reader.features(x, i) for i, x in enumerate(pools)]
        found = [torch.cat(self._heads(seen, drop)[::-1], 1)]
        for pair in self.corrections:
            y = found[-1]
            rest = seen[-1] - reader.output_features(
                self.standardizer.invert(self.to_rows(y.unflatten(1, (self.latents, -1))))
            )
            found.append(y + run_layers([pair["line"]], rest) + run_layers(pair["net"], torch.cat([2 * rest, y], 1)))
        return found

    def _heads(self, seen: list[Tensor], drop: float) -> list[Tensor]:
        out = []
        for x, line, net in zip(seen, self.lines, self.nets, strict=True):
            x = nn.functional.dropout(x, drop) if drop else x
            out.append(run_layers([line], x) + run_layers(net, x))
        return out

    def to_latents(self, weights: Tensor) -> Tensor:
        """Latents, in double; of neurons, in the order of their codes."""
        latents = self.read(weights.double())
        if self.config.level == "layer":
            return latents
        order = self.order(quantizers.nearest_code(latents, self.books))
        return latents.gather(1, order[..., None].expand_as(latents))

    def order(self, ids: Tensor) -> Tensor:
        """(N, T) ids of neurons in any order -> (N, T) places that sort each layer's neurons by their codes."""
        places, at = [], 0
        for n, width in zip(self.per_layer, self.field.widths[1:], strict=True):
            codes = ids[:, at : at + n * width].unflatten(1, (width, n))
            order = torch.arange(width, device=ids.device).expand(len(ids), -1)
            for k in reversed(range(n)):  # least important first, each sort keeping the one before
                order = order.gather(1, codes[..., k].gather(1, order).argsort(dim=1, stable=True))
            places.append(at + (order[..., None] * n + torch.arange(n, device=ids.device)).flatten(1))
            at += n * width
        return torch.cat(places, 1)

    def canonical_ids(self, ids: Tensor) -> Tensor:
        """Ids with each layer's neurons sorted."""
        return ids if self.config.level == "layer" else ids.gather(1, self.order(ids))

    # -- decoding ---------------------------------------------------------------------------------------------------

    def to_rows(self, latents: Tensor) -> Tensor:
        """(N, T, D) -> (N, P) the representative, standardised."""
        return super().to_rows(self.gathered(latents))

    def gathered(self, latents: Tensor) -> Tensor:
        """(N, T, D) -> (N, K, 1) what the decoder reads: of neurons, the sum of their parts, whatever their order."""
        if self.config.level == "layer":
            return latents
        total, at = latents.new_zeros(()), 0
        for n, width, part in zip(self.per_layer, self.field.widths[1:], self.parts, strict=True):
            total = total + run_layers(part, latents[:, at : at + n * width].reshape(len(latents), width, -1)).sum(1)
            at += n * width
        return total[..., None]

    # -- fitting ----------------------------------------------------------------------------------------------------

    def check_reference(self) -> None:
        """Refuse --reference where there is none."""
        if self.config.reference and not bool(self.standardizer.reference.isfinite().all()):
            raise ValueError(
                "--reference needs the row the fits started from, but this dataset has none. Leave it out, or fit the fields "
                "with --start conditioned or --start meta."
            )

    def _fit(self, rows: Tensor, held_out: Tensor | None) -> int:
        from tokenizers.learned.graph_train import train_graph  # it imports this file

        self.check_reference()
        self._make_networks()
        if self.config.reference:
            self.reader.reference.copy_(self.standardizer.reference)
        with torch.enable_grad():
            train_graph(self, rows, held_out)
        self.requires_grad_(False)
        self.eval()
        return self.config.codes
