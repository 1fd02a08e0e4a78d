"""A critic of decoded fields: a small convolutional network that learns to tell them from fields as they were fitted.

Squared errors and cross-entropies of points reward blurred strokes, the mean of what a code leaves open. A decoder that also
has to pass a critic (arXiv:1701.00160, as in the tokenizers of arXiv:2012.09841), and whose fields have the critic's features
of the originals (arXiv:1512.09300), decides for one of them. The critic needs no labels and has nothing in common with the
classifier that evaluates samples.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""By the number of coordinates."""
SMALLEST = 4
"""Points along each coordinate that two halvings need."""


class Critic(nn.Module):
    """Three convolutions and two linear maps; high scores for what it takes for fitted fields.

    Args:
        shape: points along each coordinate, at least 4 each.
        channels: numbers at each point.
        mean, std: of the values.
    """

    def __init__(self, shape: tuple[int, ...], channels: int, mean: float, std: float):
        super().__init__()
        if len(shape) not in CONVOLUTIONS or min(shape) < SMALLEST:
            raise ValueError(
                f"--tune with --adversarial needs fields of 1 to 3 coordinates and {SMALLEST} points along each, got "
                f"{' x '.join(map(str, shape))} (--grid times --side). Give --adversarial 0."
            )
        convolution: Callable[..., nn.Module] = CONVOLUTIONS[len(shape)]
        self.shape, self.mean, self.std = shape, mean, std
        widths = [channels, 24, 48, 96]
        kernels = [(4, 2, 1), (4, 2, 1), (3, 1, 1)]  # size, stride, padding
        self.layers = nn.ModuleList(convolution(*widths[i : i + 2], *kernels[i]) for i in range(3))
        self.hidden = nn.LazyLinear(64)
        self.score = nn.Linear(64, 1)
        with torch.no_grad():
            self(torch.zeros(1, *shape, channels).flatten(1, -2))

    def forward(self, values: Tensor) -> tuple[list[Tensor], Tensor]:
        """(N, M, C) values at the points, the last coordinate fastest -> features of three depths, (N,) scores."""
        x = ((values - self.mean) / self.std).unflatten(1, self.shape).movedim(-1, 1)
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            maps.append(x)
        x = F.leaky_relu(self.hidden(x.flatten(1)), 0.2)
        return [*maps[1:], x], self.score(x)[:, 0]

    def own_loss(self, decoded: Tensor, fitted: Tensor) -> Tensor:
        """Hinge loss of telling the two apart, both (N, M, C); no gradient reaches them."""
        return F.relu(1 - self(fitted.detach())[1]).mean() + F.relu(1 + self(decoded.detach())[1]).mean()

    def distance(self, decoded: Tensor, fitted: Tensor) -> tuple[Tensor, Tensor]:
        """For the decoder: how far features are from the fitted fields' (relative to their variance), and the negative score."""
        with torch.no_grad():
            goals, _ = self(fitted)
        features, scores = self(decoded)
        far = [F.mse_loss(a, b) / b.var().clamp_min(1e-12) for a, b in zip(features, goals, strict=True)]
        return torch.stack(far).sum(), -scores.mean()
