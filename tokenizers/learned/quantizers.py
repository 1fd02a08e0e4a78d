"""How latents become codes while a VQ-VAE learns, and the plain codebooks that are left afterwards.

Each quantiser of vector-quantize-pytorch is used in training only. `books` turns what it learnt into one table of code
vectors per token; encoding is the nearest row of a token's table, decoding is a look-up. So nothing of a library's state
(a mode, a first batch, a moving average) can change what ids mean.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

NAMES = ("fsq", "vq", "rvq", "lfq", "simvq")
INIT_ROWS = 20_000
"""Latents of so many fields are seen when codebooks are initialised."""
LOOKUP = 1 << 20
"""Distances held at once: 8 MB, which stay in the cache."""


class Quantizer(nn.Module):
    """Latents (B, T, D) of order one -> quantised, with gradients, and what the quantiser adds to the loss."""

    inner: Any
    """The library's."""

    def __init__(self, tokens: int, dim: int):
        super().__init__()
        self.tokens, self.dim = tokens, dim

    def start(self, latents: Tensor) -> None:
        """Initialise the codebooks from the latents (N, T, D) of an untrained encoder."""

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), and a scalar."""
        raise NotImplementedError

    def books(self) -> Tensor:
        """(S, V, D) code vectors of each token, here the same for all; S = T, or T x levels."""
        return self.inner.codebook.detach().double().cpu().expand(self.tokens, -1, -1)


class FSQ(Quantizer):
    """Finite scalar quantisation (arXiv:2309.15505), evenly spaced: each component is rounded to one of its levels."""

    reach: Tensor

    def __init__(self, tokens: int, dim: int, levels: tuple[int, ...], span: float):
        from vector_quantize_pytorch import FSQ as Library

        super().__init__(tokens, dim)
        self.levels, self.span = levels, span
        self.inner = Library(list(levels), num_codebooks=tokens, keep_num_codebooks_dim=True, bound_hard_clamp=True)
        counts = self.inner._levels.double()
        reach = (
            (counts // 2) / ((counts - 1) * (1 + 1e-3) / 2) / span
        )  # its levels lie 1 / (L // 2) apart, its steps not
        self.register_buffer("reach", reach.float(), persistent=False)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        quantised, _ = self.inner((latents * self.reach).flatten(1)[:, None])  # (B, 1, T D)
        return quantised.view_as(latents) * self.span, latents.new_zeros(())

    def books(self) -> Tensor:
        ids = torch.arange(self.inner.codebook_size, device=self.inner._levels.device)
        codes = self.inner._indices_to_codes(ids).double().cpu() * self.span  # (V, D)
        return codes.expand(self.tokens, -1, -1)


class VQ(Quantizer):
    """Vector quantisation with a codebook per token: k-means start, moving averages, dead codes revived, rotation trick
    (arXiv:1711.00937, arXiv:2410.06424)."""

    def __init__(self, tokens: int, dim: int, codes: int, batch: int):
        from vector_quantize_pytorch import VectorQuantize

        super().__init__(tokens, dim)
        self.inner = VectorQuantize(
            dim=tokens * dim,
            codebook_dim=dim,
            heads=tokens,
            separate_codebook_per_head=tokens > 1,
            codebook_size=codes,
            **_learning(codes, dim, batch),
        )

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        self.inner.train()
        self.inner(latents.flatten(1)[:, None])

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        quantised, _, loss = self.inner(latents.flatten(1)[:, None])
        return quantised.view_as(latents), loss.sum()

    def books(self) -> Tensor:
        return self.inner._codebook.embed.detach().double().cpu()


class RVQ(Quantizer):
    """Residual vector quantisation (arXiv:2107.03312): each level codes what the levels before left over.

    A `VQ` per level, which holds the codebooks of all tokens in one tensor: the library's own residual layers are one
    module per token and level, hundreds of them.
    """

    def __init__(self, tokens: int, dim: int, codes: int, batch: int, levels: int):
        super().__init__(tokens, dim)
        self.levels = cast(Iterable[VQ], nn.ModuleList(VQ(tokens, dim, codes, batch) for _ in range(levels)))

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        for level in self.levels:
            level.start(latents)
            level.eval()
            latents = latents - level(latents)[0]
            level.train()

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        total, losses = torch.zeros_like(latents), latents.new_zeros(())
        for level in self.levels:
            quantised, loss = level(latents - total.detach())
            total, losses = total + quantised, losses + loss
        return total, losses

    def books(self) -> Tensor:
        return torch.stack([level.books() for level in self.levels], 1).flatten(0, 1)  # (T L, V, D)


class LFQ(Quantizer):
    """Lookup-free quantisation (arXiv:2310.05737): a code is the signs of log2 V components."""

    def __init__(self, tokens: int, dim: int, codes: int):
        from vector_quantize_pytorch import LFQ as Library

        super().__init__(tokens, dim)
        self.inner = Library(codebook_size=codes, num_codebooks=tokens, dim=tokens * dim, keep_num_codebooks_dim=True)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        quantised, _, loss = self.inner(latents.flatten(1)[:, None])
        return quantised.view_as(latents), loss.sum()


class SimVQ(Quantizer):
    """One codebook for all tokens, a learnt linear map of fixed vectors (arXiv:2411.02038)."""

    def __init__(self, tokens: int, dim: int, codes: int):
        from vector_quantize_pytorch import SimVQ as Library

        super().__init__(tokens, dim)
        self.inner = Library(dim, codes, rotation_trick=dim > 1)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        quantised, _, loss = self.inner(latents)
        return quantised, loss


def _learning(codes: int, dim: int, batch: int) -> dict:
    """Settings of learnt codebooks. A code used less than a tenth of its share is placed again."""
    return {
        "kmeans_init": True,
        "kmeans_iters": 20,
        "decay": 0.99,
        "threshold_ema_dead_code": 0.1 * batch / codes,
        "commitment_weight": 0.25,
        "rotation_trick": dim > 1,
        "sync_codebook": False,
        "sync_kmeans": False,
    }


def make_quantizer(
    name: str, tokens: int, dim: int, codes: int, *, levels: tuple[int, ...], residual: int, span: float, batch: int
) -> Quantizer:
    """A quantiser by name.

    Args:
        name: one of NAMES.
        tokens, dim: T latents of D components.
        codes: V; for fsq the product of `levels`.
        levels: of each component (fsq).
        residual: levels of rvq.
        span: where the outermost level of fsq lies.
        batch: fields per training step.
    """
    from loguru import logger

    logger.disable("vector_quantize_pytorch")  # it repeats a warning for each codebook; reports have it
    if name == "fsq":
        return FSQ(tokens, dim, levels, span)
    if name == "rvq":
        return RVQ(tokens, dim, codes, batch, residual)
    if name == "vq":
        return VQ(tokens, dim, codes, batch)
    return (LFQ if name == "lfq" else SimVQ)(tokens, dim, codes)


# -- plain codebooks -------------------------------------------------------------------------------------------------


def ordered(books: Tensor) -> Tensor:
    """Codebooks of single numbers sorted, so that ids are ordered; others as they are."""
    return books.sort(1).values if books.shape[2] == 1 else books


@torch.no_grad()
def nearest_code(latents: Tensor, books: Tensor, residual: int = 1) -> Tensor:
    """The code of each token.

    Args:
        latents: (N, T, D) float64.
        books: (T x residual, V, D) float64, from `ordered`.
        residual: levels; each codes what the ones before left.
    Returns:
        (N, T x residual) int64, a token's levels side by side.
    """
    left, found = latents, []
    for level in range(residual):
        book = books[level::residual]
        found.append(_nearest(left, book))
        left = left - _look_up(found[-1], book)
    return torch.stack(found, 2).flatten(1)


def look_up(ids: Tensor, books: Tensor, residual: int = 1) -> Tensor:
    """(N, T x residual) int64 -> (N, T, D): the sum over a token's levels."""
    return _look_up(ids, books).unflatten(1, (-1, residual)).sum(2)


def _nearest(latents: Tensor, book: Tensor) -> Tensor:
    if book.shape[2] == 1:
        edges = (book[:, 1:, 0] + book[:, :-1, 0]) / 2  # (T, V - 1)
        return torch.searchsorted(edges.contiguous(), latents[..., 0].T.contiguous()).T.contiguous()
    rows = max(1, LOOKUP // (book.shape[0] * book.shape[1]))
    half = book.square().sum(2)[:, None] / 2  # (T, 1, V)
    found = []
    for x in latents.split(rows):
        inner = torch.bmm(x.transpose(0, 1), book.transpose(1, 2))  # (T, n, V)
        found.append(torch.sub(half, inner, out=inner).argmin(2).T)
    return torch.cat(found)


def _look_up(ids: Tensor, book: Tensor) -> Tensor:
    return book[torch.arange(len(book), device=ids.device), ids]  # (N, S, D)
