"""Principal components as tokens: the directions of weight space along which fields differ most in what they compute.

Weights of fitted fields are correlated, and most of their variance does not show in the picture. A linear change of basis
removes both: components are sought in the metric of the rendered values (a generalised eigenproblem of the weights'
covariance and the mean Gauss-Newton matrix of the field), cut where they no longer show, and each is quantised like a
weight. Few tokens, the important ones first.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tyro.conf import Suppress

from fields.model import FieldConfig, values
from tokenizers.base import TokenizerConfig, WeightTokenizer
from tokenizers.classic import kmeans_1d, scalar_codes

WIDEST = 4096
"""Most weights of a field: the eigenproblem is dense."""
FIELDS, POINTS = 256, 128
"""Fields, and points of each, over which the Gauss-Newton matrix is averaged."""
RIDGE = 1e-3
"""Share of the mean over positions that every direction counts besides what it shows: none is free."""


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
        if self.components < 1:
            raise ValueError(f"--components must be at least 1, got {self.components}.")


class PCATokenizer(WeightTokenizer):
    """The nearest code of each component.

    Ids of decoded rows are found again as long as codes lie further apart than float32 resolves the weights.

    Attributes:
        analysis: (P, T) standardised weights -> components.
        synthesis: (T, P) back.
        centres: (V,) codes, in the metric's units.
    """

    analysis: Tensor
    synthesis: Tensor
    centres: Tensor

    def __init__(self, config: PCAConfig):
        super().__init__(config)
        size, tokens = self.field.size, len(self.slots)
        if size > WIDEST:
            raise ValueError(
                f"pca reads fields of at most {WIDEST:,} weights, this one has {size:,}. Use kmeans --group, or a smaller "
                "field."
            )
        self.register_buffer("analysis", torch.zeros(size, tokens, dtype=torch.float64))
        self.register_buffer("synthesis", torch.zeros(tokens, size, dtype=torch.float64))
        self.register_buffer("centres", torch.zeros(config.vocab_size, dtype=torch.float64))

    def _slots(self) -> Tensor:
        """(T, 1): the number of the component; 0 explains most."""
        return torch.arange(min(self.config.components, self.field.size))[:, None]

    def _fit(self, rows: Tensor, held_out: Tensor | None) -> int:
        z = self.standardizer(rows.to(self.n_codes.device)).cpu().double()
        covariance = z.T @ z / len(z)
        if self.config.metric == "function":
            metric = gauss_newton(self.field, rows, self.config.seed)
            scale = self.standardizer.std.cpu().double()
            metric = scale[:, None] * metric * scale
            metric += RIDGE * metric.diagonal().mean().clamp_min(1e-30) * torch.eye(len(metric))
        else:
            metric = torch.eye(len(covariance), dtype=torch.float64)
        analysis, synthesis = directions(covariance, metric, len(self.slots))
        self.analysis.copy_(analysis)
        self.synthesis.copy_(synthesis)
        components = (z @ analysis).float()
        found, _ = kmeans_1d.kmeans(components.flatten().numpy(), self.config.vocab_size)
        found = np.unique(found.astype(np.float32))
        self.centres.copy_(torch.from_numpy(np.pad(found, (0, self.config.vocab_size - len(found)), mode="edge")))
        return len(found)

    def _encode(self, weights: Tensor) -> Tensor:
        return self.round_latents(self.to_latents(weights))  # in double: batches round alike

    def _decode(self, ids: Tensor) -> Tensor:
        return self.standardizer.invert((self.centres[ids] @ self.synthesis).float())

    # -- refit ----------------------------------------------------------------------------------------------------

    @property
    def has_ordered_codes(self) -> bool:
        """Codes of components are."""
        return True

    def to_latents(self, weights: Tensor) -> Tensor:
        """Components."""
        return self.standardizer(weights).double() @ self.analysis

    def round_latents(self, latents: Tensor) -> Tensor:
        """Nearest code of each component."""
        centres = self.centres[: self.codes]
        return torch.searchsorted((centres[1:] + centres[:-1]) / 2, latents)

    def latent_gradient(self, gradient: Tensor, ids: Tensor) -> Tensor:
        """Through the linear map."""
        return (gradient * self.standardizer.std).double() @ self.synthesis.T

    def code_spacing(self) -> float:
        """Median distance of neighbouring centres."""
        return scalar_codes.gap(self.centres[: self.codes])


def gauss_newton(config: FieldConfig, rows: Tensor, seed: int) -> Tensor:
    """How much each direction of weight space shows: the mean of J^T J, J = d value / d weights.

    Args:
        rows: (N, P) training fields; some are drawn by seed.
        seed: of the fields and of the points, uniform in [-1, 1] along each axis.
    Returns:
        (P, P) float64.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = rows[torch.randperm(len(rows), generator=generator)[:FIELDS]].cpu()
    total = torch.zeros(config.size, config.size, dtype=torch.float64)

    def value(row: Tensor, coords: Tensor) -> Tensor:
        return values(config, row[None], coords)[0].flatten()  # (M C,)

    jacobian = torch.func.jacrev(value)
    for row in rows:
        coords = torch.rand(POINTS, config.in_dim, generator=generator) * 2 - 1
        j = jacobian(row, coords).double()  # (M C, P)
        total += j.T @ j / POINTS
    return total / len(rows)


def directions(covariance: Tensor, metric: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` directions that explain most of a covariance in a metric.

    Args:
        covariance: (P, P) of the rows.
        metric: (P, P) positive definite: the squared length of a change d is d^T metric d.
    Returns:
        (P, count) from rows to components of uncorrelated lengths in the metric, and (count, P) back; both float64.
        Directions without variance are zero.
    """
    spread, axes = torch.linalg.eigh(metric)
    root = axes * spread.clamp_min(0).sqrt() @ axes.T  # metric = root root
    variance, basis = torch.linalg.eigh(root @ covariance @ root)
    variance, basis = variance.flip(0)[:count], basis.flip(1)[:, :count]
    least = (variance[0] * 1e-12).clamp_min(1e-30)  # below is rounding
    sign = basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()  # eigenvectors come with either sign
    basis = basis * sign * (variance > least)
    analysis = root @ basis
    back = covariance @ analysis / variance.clamp_min(least)  # in the range of the covariance
    return analysis, back.T.contiguous()
