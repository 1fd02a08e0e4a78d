"""How often codes occur at each position, and the bits that follow from it."""

import torch
from torch import Tensor


class Counts:
    """How often each code stands at each position."""

    def __init__(self, tokens: int, codes: int):
        self.n = torch.zeros(tokens * codes, dtype=torch.int64)
        self.tokens, self.codes, self.fields = tokens, codes, 0

    def add(self, ids: Tensor) -> None:
        """Take in (N, T) ids."""
        spots = ids.cpu() + torch.arange(self.tokens) * self.codes
        self.n += torch.bincount(spots.flatten(), minlength=self.tokens * self.codes)
        self.fields += len(ids)

    def per_code(self) -> Tensor:
        """(V,) counts over all positions."""
        return self.n.view(self.tokens, self.codes).sum(0)

    def marginal_bits(self) -> float:
        """Entropy of a token drawn from any position."""
        return _entropy(self.per_code())

    def lengths(self) -> Tensor:
        """(T, V) bits of each code at each position, with one added to every count."""
        share = (self.n.view(self.tokens, self.codes) + 1).double() / (self.fields + self.codes)
        return -share.log2()

    def position_bits(self, ids: Tensor) -> float:
        """Bits per token of (N, T) other ids under each position's own counts with one added to every code."""
        spots = ids.cpu() + torch.arange(self.tokens) * self.codes
        return float(-((self.n[spots] + 1).double() / (self.fields + self.codes)).log2().mean())


def _entropy(counts: Tensor) -> float:
    share = counts.double() / counts.sum()
    return float(-torch.special.xlogy(share, share).sum() / torch.log(torch.tensor(2.0)))
