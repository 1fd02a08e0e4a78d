"""Initialisation from counts: how often each code stands at each position, and which codes lie close to each other."""

import torch
from torch import Tensor

from gpt.data import Sequences
from gpt.model import GPT, INITIAL

LENGTH = 1.0
"""Distance over which the initial weights of codes are similar, in standard deviations of the codes that occur, per dimension.
Lengths of .8 and 2.3 learn as well."""
MOST = 2048
"""Codes up to which this is done: the covariance has V^2 entries, and its root takes V^3 steps."""


@torch.no_grad()
def initialise_from_counts(model: GPT, train: Sequences, points: Tensor | None, seed: int) -> GPT:
    """Fill a fresh model's table of log-frequencies and draw similar weights for close codes; returns it.

    Args:
        model: fresh; its table `unigram`, where it has one, is counted.
        train: what it will learn.
        points: (V, D): codes whose points lie close start with similar rows of embedding and head; None = each its own.
        seed: of these rows.
    Raises:
        ValueError: if the points are not those of the model's codes.
    """
    c = model.config
    if points is not None and (points.ndim != 2 or len(points) != c.codes):
        raise ValueError(f"points must have shape ({c.codes}, D), got {tuple(points.shape)}.")
    similar = points if c.codes <= MOST else None
    if not c.unigram and similar is None:
        return model
    table = train.log_frequencies()
    if c.unigram:
        model.unigram.copy_(table)
    if similar is None:
        return model
    shares = table[c.first - 1 : -1, : c.codes].double().exp().mean(0)  # of each code among all codes
    root = covariance_root(similar.cpu().double(), shares / shares.sum())
    generator = torch.Generator().manual_seed(seed)
    for weight in (model.tokens.weight,) if c.tie else (model.tokens.weight, model.head.weight):
        drawn = root @ torch.randn(c.codes, c.n_embd, generator=generator, dtype=torch.float64)
        weight[: c.codes] = (INITIAL * drawn).to(weight)
    return model


def covariance_root(points: Tensor, shares: Tensor) -> Tensor:
    """The symmetric root of the Gaussian process covariance exp(-distance^2 / 2) of the codes: the only one that does not
    depend on signs and order of eigenvectors, which differ between machines and numbers of threads.

    Args:
        points: (V, D) float64.
        shares: (V,) how often each occurs: lengths are measured where codes are used, not where they could be.
    Returns:
        (V, V), times (V, n) independent numbers: n functions of the codes, of variance one each.
    """
    middle = shares @ points
    spread = (shares @ (points - middle).square()).sqrt()
    z = (points - middle)[:, spread > 0] / spread[spread > 0]
    near = (-torch.cdist(z, z).square() / (2 * LENGTH**2 * max(1, z.shape[1]))).exp()
    values, vectors = torch.linalg.eigh(near)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
