"""Weights as numbers of order one: what a tokenizer subtracts and divides by, learnt from training fields only."""

from typing import Self

import torch
from torch import Tensor, nn

from tokenizers.options import Mode

RESOLUTION = 1e-6
"""A spread below this share of the mean is float32's rounding, not information: the position counts as constant."""


class Moments:
    """Mean and variance per position of batches seen one after the other (Chan, Golub, LeVeque 1983), in float64."""

    def __init__(self, width: int):
        self.n = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.squares = torch.zeros(width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take in a batch (n, P)."""
        if len(rows) == 0:
            return
        rows = rows.to("cpu", torch.float64)
        mean, n = rows.mean(0), len(rows)
        difference, total = mean - self.mean, self.n + n
        self.squares += (rows - mean).square().sum(0) + difference.square() * (self.n * n / total)
        self.mean += difference * (n / total)
        self.n = total

    @property
    def variance(self) -> Tensor:
        """(P,) population variance."""
        return self.squares / max(self.n, 1)


class Standardizer(nn.Module):
    """z = (w - mean) / std per position, and back.

    Modes: `position` takes the training mean and standard deviation of each position; `delta` the reference row and
    one standard deviation for all positions; `none` leaves the weights alone. A position with std 0 is constant: it
    becomes 0, and comes back as exactly its mean.
    """

    mean: Tensor
    std: Tensor
    reference: Tensor

    def __init__(self, mode: Mode, width: int):
        super().__init__()
        self.mode, self.width = mode, width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("reference", torch.full((width,), float("nan")), persistent=False)  # only `fit` needs it

    def extra_repr(self) -> str:
        """Mode and width."""
        return f"{self.mode}, {self.width} weights"

    def set_reference(self, row: Tensor | None) -> Self:
        """Set the row (P,) that the fits started from; `delta` is measured from it."""
        if row is not None:
            if row.shape != (self.width,):
                raise ValueError(f"the reference row must have shape ({self.width},), got {tuple(row.shape)}.")
            self.reference.copy_(row)
        return self

    def check_reference(self) -> None:
        """Refuse `delta` without a reference."""
        if self.mode == "delta" and not bool(self.reference.isfinite().all()):
            raise ValueError(
                "--standardize delta needs the reference row the fits started from, but this dataset has none. "
                "Use --standardize position, or fit the fields with --start conditioned or --start meta."
            )

    def fit(self, moments: Moments) -> Self:
        """Take mean and std from the moments of the training rows."""
        self.check_reference()
        mean, variance = moments.mean, moments.variance
        if self.mode == "none":
            return self
        if self.mode == "delta":
            offset = mean - self.reference.cpu().double()  # mean delta of each position
            variance = (variance.mean() + offset.var(correction=0)).expand(self.width)  # within plus between positions
            mean = self.reference.cpu().double()
        std = variance.sqrt()
        std = torch.where(std < RESOLUTION * mean.abs(), 0.0, std)
        self.mean.copy_(mean)
        self.std.copy_(std)
        return self

    @property
    def constant(self) -> Tensor:
        """(P,) bool: positions that carry no information."""
        return self.std == 0

    def forward(self, weights: Tensor) -> Tensor:
        """(N, P) weights -> (N, P) standardised."""
        z = weights - self.mean
        z.div_(self.std.masked_fill(self.constant, 1.0))
        return z.masked_fill_(self.constant, 0.0)

    def invert(self, z: Tensor) -> Tensor:
        """(N, P) standardised -> (N, P) weights."""
        return torch.addcmul(self.mean, z, self.std)
