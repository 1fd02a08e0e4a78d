"""Principal components as tokens: the directions of weight space along which fields differ most in what they compute.

Weights of fitted fields are correlated, and most of their variance does not show in the picture. A linear change of basis
removes both: components are sought in the metric of the rendered values (a generalised eigenproblem of the weights'
covariance and the mean Gauss-Newton matrix of the field), cut where they no longer show, and each is quantised like a
weight. Few tokens, the important ones first.
"""

import numpy as np
import torch
from torch import Tensor

from tokenizers.base import WeightTokenizer
from tokenizers.classic import kmeans_1d, scalar_codes
from tokenizers.classic.components import WIDEST, principal_components
from tokenizers.classic.options import PCAConfig


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
        self.slow_to_fit = size > WIDEST
        self.register_buffer("analysis", torch.zeros(size, tokens, dtype=torch.float64))
        self.register_buffer("synthesis", torch.zeros(tokens, size, dtype=torch.float64))
        self.register_buffer("centres", torch.zeros(config.vocab_size, dtype=torch.float64))

    def _slots(self) -> Tensor:
        """(T, 1): the number of the component; 0 explains most."""
        return torch.arange(min(self.config.components, self.field.size))[:, None]

    def _fit(self, rows: Tensor, held_out: Tensor | None) -> int:
        z = self.standardizer(rows.to(self.n_codes.device)).cpu().double()
        c, std = self.config, self.standardizer.std
        analysis, synthesis = principal_components(
            self.field, rows, z, std, len(self.slots), c.seed, metric=c.metric, device=std.device
        )
        self.analysis.copy_(analysis)
        self.synthesis.copy_(synthesis)
        components = (z @ analysis).float()
        centres, _ = kmeans_1d.kmeans(components.flatten().numpy(), self.config.vocab_size)
        centres = np.unique(centres.astype(np.float32))
        self.centres.copy_(torch.from_numpy(np.pad(centres, (0, self.config.vocab_size - len(centres)), mode="edge")))
        return len(centres)

    def _encode(self, weights: Tensor) -> Tensor:
        return self.round_latents(self.to_latents(weights))  # in double: batches round alike

    def _decode(self, ids: Tensor) -> Tensor:
        return self.standardizer.invert((self.centres[ids] @ self.synthesis).float())

    # -- refit ----------------------------------------------------------------------------------------------------

    @property
    def has_ordered_codes(self) -> bool:
        """True: components are single numbers."""
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
