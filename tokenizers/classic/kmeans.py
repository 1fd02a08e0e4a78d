"""k-means codes: one weight a token (scalar, exact and fast by sorting), or several consecutive weights a token."""

import numpy as np
import torch
from torch import Tensor

from fields import layout
from tokenizers.base import WeightTokenizer
from tokenizers.classic import kmeans_1d, kmeans_groups, scalar_codes
from tokenizers.classic.options import KMeansConfig


def codebooks(field, which: str) -> tuple[int, Tensor]:
    """Number of codebooks, C, and the codebook of each weight, (P,) int64."""
    layers = layout.slots(field)[:, 0]
    return (int(layers.max()) + 1, layers) if which == "layer" else (1, torch.zeros_like(layers))


class KMeansTokenizer(WeightTokenizer):
    """Nearest centroid of each group of weights.

    Attributes:
        centres: (C, V, group) centroids in standardised units, C codebooks; those past `counts` are padding.
        counts: (C,) codes per codebook.
    """

    centres: Tensor
    counts: Tensor
    book: Tensor
    index: Tensor
    place: Tensor

    def __init__(self, config: KMeansConfig):
        super().__init__(config)
        number, book = codebooks(self.field, config.codebook)
        self.register_buffer("book", book, persistent=False)
        self.register_buffer("centres", torch.zeros(number, config.vocab_size, config.group))
        self.register_buffer("counts", torch.zeros(number, dtype=torch.int64))
        if config.group > 1:
            index, place = kmeans_groups.cut_groups(layout.slots(self.field)[:, 0], config.group)
            self.register_buffer("index", index, persistent=False)
            self.register_buffer("place", place, persistent=False)

    def _slots(self) -> Tensor:
        """Place of each token: that of its first weight."""
        slots = layout.slots(self.field)
        return (
            slots
            if self.config.group == 1
            else slots[kmeans_groups.cut_groups(slots[:, 0], self.config.group)[0][:, 0]]
        )

    def _fit(self, rows: Tensor, held_out: Tensor | None) -> int:
        z = self.standardizer(rows.to(self.n_codes.device)).cpu()
        for c in range(len(self.counts)):
            made = self._fit_scalar(z, c) if self.config.group == 1 else self._fit_grouped(z, c)
            self.counts[c] = len(made)
            self.centres[c] = torch.cat([made, made[-1:].expand(self.config.vocab_size - len(made), -1)])
        return int(self.counts.max())

    def _fit_scalar(self, z: Tensor, c: int) -> Tensor:
        varying = (
            (self.book == c) & ~self.standardizer.constant
        ).cpu()  # constant positions carry no information: they decode exactly
        values = z[:, varying] if len(self.counts) > 1 or not bool(varying.all()) else z
        if values.numel() == 0:
            return torch.zeros(1, 1)
        found, _ = kmeans_1d.kmeans(values.contiguous().view(-1).numpy(), self.config.vocab_size)
        return torch.from_numpy(np.unique(found.astype(np.float32)))[:, None]

    def _fit_grouped(self, z: Tensor, c: int) -> Tensor:
        index = self.index.cpu()
        index = index[self.book.cpu()[index[:, 0]] == c]
        full = index[(index < self.field.size).all(1)]  # padded groups would teach zeros
        index = full if len(full) else index
        vectors = kmeans_groups.vectors(z, index, self.config.fit_groups, self.config.seed + c)
        return kmeans_groups.fit_centroids(vectors, self.config.vocab_size, self.config.seed)

    def _encode(self, weights: Tensor) -> Tensor:
        s = self.standardizer
        if self.config.group > 1:
            return kmeans_groups.encode_groups(s(weights), self.index, s.constant, self.centres, self.counts, self.book)
        return scalar_codes.encode_scalars(
            weights, s.mean, s.std, self.centres[..., 0], self._edges(), self.counts, self.book
        )

    @property
    def code_vectors(self) -> Tensor | None:
        """Centres of groups, where all tokens share them."""
        shared = self.config.group > 1 and len(self.counts) == 1
        return self.centres[0, : self.codes] if shared else super().code_vectors

    @property
    def has_ordered_codes(self) -> bool:
        """True for scalar codes."""
        return self.config.group == 1

    def code_spacing(self) -> float:
        """Median distance of neighbouring centres."""
        return (
            scalar_codes.gap(self.centres[0, : int(self.counts[0]), 0])
            if self.config.group == 1
            else super().code_spacing()
        )

    def _edges(self) -> Tensor:
        """(C, V - 1) float64 midpoints of neighbouring centres."""
        centres = self.centres[..., 0].double()
        return (centres[:, 1:] + centres[:, :-1]) / 2

    def _decode(self, ids: Tensor) -> Tensor:
        s = self.standardizer
        if self.config.group > 1:
            return s.invert(
                kmeans_groups.decode_groups(ids, self.index, self.place, self.centres, self.counts, self.book)
            )
        return scalar_codes.decode_scalars(ids, s.mean, s.std, self.centres[..., 0], self.counts, self.book)
