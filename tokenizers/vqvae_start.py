"""Where a VQ-VAE's training starts: principal components in the function's metric, as latents and as a decoder."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tokenizers.pca import RIDGE, directions, gauss_newton
from tokenizers.vqvae import VQVAETokenizer


@dataclass(frozen=True)
class Components:
    """Principal components in the function's metric, in the units of the latents.

    Attributes:
        analysis: (P, K) from standardised rows to latents, float64.
        synthesis: (K, P) back, float64.
        spread: (K,) standard deviation of each latent.
    """

    analysis: Tensor
    synthesis: Tensor
    spread: Tensor

    @classmethod
    def of(cls, tokenizer: VQVAETokenizer, rows: Tensor) -> "Components | None":
        """Of rows (n, P) whose standardizer is fitted; None where they do not differ."""
        z = tokenizer.standardizer(rows.to(tokenizer.made.device)).cpu().double()
        covariance, scale = z.T @ z / len(z), tokenizer.standardizer.std.cpu().double()
        metric = scale[:, None] * gauss_newton(tokenizer.field, rows, tokenizer.config.seed) * scale
        metric += RIDGE * metric.diagonal().mean().clamp_min(1e-30) * torch.eye(len(metric))
        analysis, synthesis = directions(covariance, metric, tokenizer.components)
        spread = (z @ analysis).std(0, correction=0).clamp_min(1e-30)  # (K,)
        if not bool(spread[0] > 1e-20):
            return None
        unit = units(tokenizer, spread)
        return cls(analysis / unit, synthesis * unit[:, None], spread / unit)


def start(tokenizer: VQVAETokenizer, rows: Tensor) -> bool:
    """Set encoder and decoder to principal components in the function's metric; False where fields do not differ."""
    found = Components.of(tokenizer, rows)
    if found is None:
        return False
    with torch.no_grad():
        tokenizer.analysis.copy_(found.analysis)
        lay_decoder(tokenizer, found)
    return True


def lay_decoder(tokenizer: VQVAETokenizer, found: Components) -> None:
    """Start the decoder as the linear map back; no gradients, please."""
    tokenizer.synthesis.copy_(found.synthesis)
    tokenizer.squash.copy_(1 / found.spread.clamp_min(0.3))


def units(tokenizer: VQVAETokenizer, spread: Tensor) -> Tensor:
    """(K,) what counts as one: for evenly spaced levels the same everywhere, else each latent's own size."""
    if tokenizer.config.quantizer == "fsq":
        return spread[0].expand_as(spread)
    if tokenizer.config.quantizer == "lfq":
        return spread.clamp_min(1e-9 * spread[0])
    groups = spread.unflatten(0, (-1, tokenizer.config.numbers))
    size = groups.square().mean(1, keepdim=True).sqrt().clamp_min(1e-9 * spread[0])
    return size.expand_as(groups).flatten()
