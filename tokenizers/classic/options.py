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
    """Weights per token. Groups do not cross a layer; a layer's last one is padded, and padding does not count."""
    codebook: Literal["global", "layer"] = "global"
    """One list of codes for all weights, or one per layer (the ids 0 .. V-1 are shared; the position tells which)."""
    fit_groups: int = 200_000
    """For --group above 1: groups per codebook that scikit-learn sees, drawn by seed."""
    kind: Suppress[Literal["kmeans"]] = "kmeans"

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, least={"group": 1})
        if self.fit_groups < self.vocab_size:
            raise ValueError(f"--fit-groups must be at least --vocab-size {self.vocab_size}, got {self.fit_groups}.")


@dataclass(frozen=True)
class QuantileConfig(TokenizerConfig):
    """Buckets aligned with the weight distribution: equal shares each, frequent values a bucket of their own."""

    codebook: Literal["global", "layer"] = "global"
    """One list of buckets for all weights, or one per layer (the ids 0 .. V-1 are shared; the position tells which)."""
    kind: Suppress[Literal["quantile"]] = "quantile"


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


@dataclass(frozen=True)
class PCAConfig(TokenizerConfig):
    """Principal components of the weights, each quantised with one k-means codebook for all."""

    vocab_size: int = 32
    """Codes asked for, V. Components share them: those that vary little use few, which costs a GPT few bits."""
    components: int = 192
    """Tokens per field, T; at most as many as the field has weights."""
    metric: Literal["function", "weights"] = "function"
    """What the components explain best: the rendered values, or the standardised weights."""
    kind: Suppress[Literal["pca"]] = "pca"

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, least={"components": 1})
