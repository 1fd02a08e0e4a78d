"""What can be set of the classic vocabularies. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Suppress

from fields.runtime.flags import check_numbers
from tokenizers.options import TokenizerConfig


@dataclass(frozen=True)
class KMeansConfig(TokenizerConfig):
    """Centroids of groups of consecutive weights (Lloyd 1982), found in standardised units."""

    group: int = 1
    """Number of consecutive weights per token. Groups do not cross layers; the last group of a layer is padded, and the
    padding is ignored."""
    codebook: Literal["global", "layer"] = "global"
    """global: one list of codes for all weights. layer: one list per layer (the ids 0 .. V-1 are shared; a token's
    position tells which list is meant)."""
    fit_groups: int = 200_000
    """For --group above 1: number of groups per codebook, drawn at random, that k-means is fitted on."""
    kind: Suppress[Literal["kmeans"]] = "kmeans"

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, least={"group": 1})
        if self.fit_groups < self.vocab_size:
            raise ValueError(f"--fit-groups must be at least --vocab-size {self.vocab_size}, got {self.fit_groups}.")


@dataclass(frozen=True)
class QuantileConfig(TokenizerConfig):
    """Buckets that follow the weights' distribution: each holds an equal share, and frequent values have buckets of their own."""

    codebook: Literal["global", "layer"] = "global"
    """global: one list of buckets for all weights. layer: one list per layer (the ids 0 .. V-1 are shared; a token's
    position tells which list is meant)."""
    kind: Suppress[Literal["quantile"]] = "quantile"


@dataclass(frozen=True)
class UniformConfig(TokenizerConfig):
    """Equally wide buckets, each decoded to its middle: plain rounding, the baseline for other vocabularies."""

    span: float = 4.0
    """Range of the buckets: at most this many standard deviations on either side of the training mean. Weights beyond
    it are clipped to the outermost buckets. 4 suits hundreds of codes, 3 suits 64 and fewer."""
    codebook: Literal["global", "layer"] = "global"
    """global: one list of buckets for all weights. layer: one list per layer (the ids 0 .. V-1 are shared; a token's
    position tells which list is meant)."""
    kind: Suppress[Literal["uniform"]] = "uniform"

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.span < float("inf"):
            raise ValueError(f"--span must be above 0, got {self.span}.")


@dataclass(frozen=True)
class PCAConfig(TokenizerConfig):
    """Principal components of the weights, quantised with one k-means codebook that all components share."""

    vocab_size: int = 32
    """Number of codes asked for, V. All components share them; those that vary little use few of them, which costs few
    bits."""
    components: int = 192
    """Number of components, one token each, T; at most the number of weights of a field."""
    metric: Literal["function", "weights"] = "function"
    """What the components explain as well as possible: the rendered values (function) or the standardised weights
    (weights)."""
    kind: Suppress[Literal["pca"]] = "pca"

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, least={"components": 1})
