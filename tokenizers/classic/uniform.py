"""Uniform codes: evenly spaced between the low and the high of the training weights. The baseline of all others."""

from typing import cast

import numpy as np

from tokenizers.classic.options import QuantileConfig, UniformConfig
from tokenizers.classic.quantile import QuantileTokenizer


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
