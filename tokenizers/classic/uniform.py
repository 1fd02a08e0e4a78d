"""Uniform codes: evenly spaced between the low and the high of the training weights. The baseline of all others."""

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from tyro.conf import Suppress

from tokenizers.base import TokenizerConfig
from tokenizers.classic.quantile import QuantileConfig, QuantileTokenizer


@dataclass(frozen=True)
class UniformConfig(TokenizerConfig):
    """Equally wide buckets, each decoding to its middle: the plain rounding that other vocabularies are held against."""

    span: float = 4.0
    """The buckets reach at most this many standard deviations from the mean of the training weights; what lies beyond is
    clipped to the end buckets. 4 suits hundreds of codes, 3 fewer (64 and less)."""
    codebook: Literal["global", "layer"] = "global"
    """One list of buckets for all weights, or one per layer (the ids 0 .. V-1 are shared; the position tells which)."""
    kind: Suppress[Literal["uniform"]] = "uniform"

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.span < float("inf"):
            raise ValueError(f"--span must be above 0, got {self.span}.")


class UniformTokenizer(QuantileTokenizer):
    """The bucket of each weight, as `QuantileTokenizer`, whose buffers it has; only where buckets end is another."""

    def __init__(self, config: UniformConfig):
        super().__init__(cast(QuantileConfig, config))  # what is read of it both have

    def _buckets(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return even(values, self.config.vocab_size, self.config.span)


def even(values: np.ndarray, k: int, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Edges and middles of k equally wide buckets; a single one where all values are the same.

    Args:
        values: (n,) float32.
        k: buckets asked for.
        span: they cover the values, but at most this many standard deviations on either side of their mean.
    Returns:
        (k - 1,) edges and (k,) middles, float64 ascending.
    """
    mean, reach = values.mean(dtype=np.float64), span * values.std(dtype=np.float64)
    low, high = max(float(values.min()), mean - reach), min(float(values.max()), mean + reach)
    if not low < high:
        return np.zeros(0), np.array([low])
    bounds = np.linspace(low, high, 2 * k + 1)  # edges and middles by turns
    return bounds[2:-1:2], bounds[1::2]
