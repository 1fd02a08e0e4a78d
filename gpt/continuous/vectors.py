"""How a field is the vectors that a flow moves: its weights, one vector a neuron, or the latents of a tokenizer."""

import torch
from torch import Tensor

from fields.model import FieldConfig
from tokenizers.base import WeightTokenizer

CHUNK = 1024
"""Fields whose latents are computed at once."""


class Vectors:
    """Rows of weights as vectors, and back.

    Latents are rounded to the nearest codes before they are decoded, for codes are what decoders of tokenizers were trained on.

    Args:
        field: the architecture.
        tokenizer: whose latents are the vectors, T of them; None = the weights themselves.
    """

    def __init__(self, field: FieldConfig, tokenizer: WeightTokenizer | None = None):
        if tokenizer is not None and tokenizer.field != field:
            raise ValueError(
                f"the tokenizer is for fields {tokenizer.field}, the dataset holds {field} ({tokenizer.field.against(field)})."
            )
        self.field, self.tokenizer = field, tokenizer

    @torch.no_grad()
    def of(self, weights: Tensor) -> Tensor:
        """(N, P) -> (N, T, D) float32."""
        t = self.tokenizer
        if t is None:
            return to_vectors(self.field, weights)
        parts = [t.to_latents(part).float() for part in weights.split(CHUNK)]
        return torch.cat([part.reshape(len(part), t.tokens_per_field, -1) for part in parts])

    @torch.no_grad()
    def rows(self, vectors: Tensor) -> Tensor:
        """(N, T, D) -> (N, P); rows of vectors that are not finite are not finite either."""
        t = self.tokenizer
        if t is None:
            return to_rows(self.field, vectors)
        shape = t.to_latents(torch.zeros(1, self.field.size)).shape[1:]
        good = vectors.isfinite().flatten(1).all(1)
        latents = vectors.masked_fill(~good[:, None, None], 0).double().reshape(-1, *shape)
        decoded = torch.cat([t.decode(t.round_latents(part)) for part in latents.split(CHUNK)])
        return decoded.masked_fill(~good[:, None], torch.nan)


def neuron_vectors(config: FieldConfig) -> Tensor:
    """Which weights of a row belong to each neuron: (T, D) int64 positions in the row, -1 where a neuron has fewer inputs.

    A neuron's vector is its incoming weights and its bias, so T is the number of hidden and output neurons.
    """
    widest, rows, at = max(config.widths[:-1]) + 1, [], 0
    for fan_in, fan_out in zip(config.widths, config.widths[1:], strict=False):
        for neuron in range(fan_out):
            row = [*range(at + neuron * fan_in, at + (neuron + 1) * fan_in), at + fan_out * fan_in + neuron]
            rows.append(row + [-1] * (widest - len(row)))
        at += fan_out * (fan_in + 1)
    return torch.tensor(rows)


def to_vectors(config: FieldConfig, weights: Tensor) -> Tensor:
    """(N, P) rows -> (N, T, D), zeros where a neuron has fewer inputs."""
    places = neuron_vectors(config)
    return weights[:, places.clamp_min(0)].masked_fill(places < 0, 0.0)


def to_rows(config: FieldConfig, vectors: Tensor) -> Tensor:
    """The inverse of `to_vectors`: (N, T, D) -> (N, P)."""
    places = neuron_vectors(config)
    rows = vectors.new_empty(len(vectors), config.size)
    rows[:, places[places >= 0]] = vectors[:, places >= 0]
    return rows
