"""Principal components of weights in the metric of the function: along which directions fields differ most in their values.

With rows A (n, P) of standardised weights and the metric M = S G S + ridge (G the mean Gauss-Newton matrix J^T J of the
field's values, S the standard deviations), the components are the eigenvectors of M^(1/2) A^T A M^(1/2).

Up to WIDEST weights the P x P matrices are formed and decomposed. Above, nothing of size P x P exists: the eigenvectors u of
the small operator A M A^T (n x n) give the same components, M A^T u and u^T A, and are found by randomised subspace iteration
(arXiv:0909.4061) with products by M alone, field by field. Memory is that of the rows in float64 and of three (P, count)
matrices, time is ROUNDS + 3 passes over WIDE_FIELDS Jacobians; measured numbers stand in the README of this folder.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from fields.model import FieldConfig, random_points, values

WIDEST = 4096
"""Weights up to which the dense eigenproblem is solved."""
FIELDS, POINTS = 256, 128
"""Fields, and points of each, over which the Gauss-Newton matrix is averaged."""
WIDE_FIELDS = 64
"""The same for the low-rank method, which forms each Jacobian ROUNDS + 3 times."""
RIDGE = 1e-3
"""Share of the mean over positions that every direction counts besides what it shows: none is free."""
ROUNDS, EXTRA = 1, 32
"""Power iterations of the randomised method, and directions it follows beyond those asked for."""


def principal_components(
    field: FieldConfig,
    rows: Tensor,
    z: Tensor,
    std: Tensor,
    count: int,
    seed: int,
    *,
    metric: Literal["function", "weights"] = "function",
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """The `count` directions along which rows differ most, by the exact method or, for wide fields, the low-rank one.

    Args:
        field: the architecture.
        rows: (n, P) training fields.
        z: (n, P) the same, standardised, float64, on the CPU.
        std: (P,) of the standardizer.
        count: how many.
        seed: of the fields and points of the Gauss-Newton matrix, and of the randomised method.
        metric: squared length of a change: of the values, or of the standardised weights.
        device: where the low-rank method computes; the exact one computes on the CPU.
    Returns:
        (P, count) from standardised rows to components, and (count, P) back, float64, on the CPU. Directions without
        variance are zero.
    """
    scale = std.cpu().double()
    if field.size > WIDEST:
        product = metric_product(field, rows, scale.to(device), seed) if metric == "function" else lambda x: x
        analysis, synthesis = low_rank_directions(z.to(device), product, count, seed)
        return analysis.cpu(), synthesis.cpu()
    covariance = z.T @ z / len(z)
    if metric == "weights":
        return directions(covariance, torch.eye(len(covariance), dtype=torch.float64), count)
    matrix = scale[:, None] * gauss_newton(field, rows, seed) * scale
    matrix += RIDGE * matrix.diagonal().mean().clamp_min(1e-30) * torch.eye(len(matrix))
    return directions(covariance, matrix, count)


# -- dense -----------------------------------------------------------------------------------------------------------


def gauss_newton(config: FieldConfig, rows: Tensor, seed: int) -> Tensor:
    """How much each direction of weight space shows: the mean of J^T J, J = d value / d weights.

    Args:
        rows: (N, P) training fields; some are drawn by seed.
        seed: of the fields and of the points, uniform in [-1, 1] along each axis.
    Returns:
        (P, P) float64.
    """
    total, n = torch.zeros(config.size, config.size, dtype=torch.float64), 0
    for j in jacobians(config, rows.cpu(), seed):
        total += j.T @ j / POINTS
        n += 1
    return total / n


def jacobians(config: FieldConfig, rows: Tensor, seed: int, fields: int = FIELDS) -> Iterator[Tensor]:
    """(M C, P) float64 of each of `fields` rows by seed, at M = POINTS random points, where the rows lie."""
    generator = torch.Generator().manual_seed(seed)
    rows = rows[torch.randperm(len(rows), generator=generator)[:fields]]

    def value(row: Tensor, coords: Tensor) -> Tensor:
        return values(config, row[None], coords)[0].flatten()  # (M C,)

    jacobian = torch.func.jacrev(value)
    for row in rows:
        coords = random_points(config, POINTS, generator)
        yield jacobian(row, coords.to(row.device)).double()


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


# -- low rank --------------------------------------------------------------------------------------------------------


def metric_product(field: FieldConfig, rows: Tensor, scale: Tensor, seed: int) -> Callable[[Tensor], Tensor]:
    """X (P, r) -> M X, without M: each Jacobian is formed, used and forgotten; one field's is (POINTS C, P).

    Args:
        field, rows, seed: as of `gauss_newton`.
        scale: (P,) float64, the standard deviations S; computes on its device.
    """
    rows = rows.to(scale.device)
    n = min(WIDE_FIELDS, len(rows))
    trace = sum(float((j * scale).square().sum()) for j in jacobians(field, rows, seed, WIDE_FIELDS)) / (POINTS * n)
    ridge = RIDGE * max(trace / field.size, 1e-30)

    def product(x: Tensor) -> Tensor:
        scaled, out = scale[:, None] * x, torch.zeros_like(x)
        for j in jacobians(field, rows, seed, WIDE_FIELDS):
            out.addmm_(j.T, j @ scaled)
        return scale[:, None] * out / (POINTS * n) + ridge * x

    return product


def low_rank_directions(z: Tensor, product: Callable[[Tensor], Tensor], count: int, seed: int) -> tuple[Tensor, Tensor]:
    """As `directions`, from rows (n, P) and products with the metric; exact where n is at most count + EXTRA.

    Args:
        z: (n, P) float64.
        product: X (P, r) -> metric X.
        count: how many; those beyond n are zero.
        seed: of the first subspace.
    """
    n, width = z.shape
    rank = min(n, count + EXTRA)
    start = torch.randn(n, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(z.device)
    if rank < n:
        for _ in range(ROUNDS + 1):
            start = z @ product(z.T @ torch.linalg.qr(start).Q)
    base = z.T @ torch.linalg.qr(start).Q / n**0.5  # (P, rank)
    seen = product(base)
    small = base.T @ seen
    variance, vectors = torch.linalg.eigh((small + small.T) / 2)
    variance, vectors = variance.flip(0)[:count], vectors.flip(1)[:, :count]
    least = (variance[0] * 1e-12).clamp_min(1e-30)  # below is rounding
    vectors = vectors * (variance > least) / variance.clamp_min(least).sqrt()
    back = base @ vectors  # (P, count)
    sign = back.gather(0, back.abs().argmax(0, keepdim=True)).sign()  # eigenvectors come with either sign
    none = z.new_zeros(width, count - len(variance))
    analysis, back = seen @ (vectors * sign), back * sign
    return torch.cat([analysis, none], 1), torch.cat([back, none], 1).T.contiguous()
