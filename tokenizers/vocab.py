"""The ids a GPT sees, of which no tokenizer emits the special ones; how often codes occur at each position, and the bits that follow."""

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor


@dataclass(frozen=True)
class Vocab:
    """Ids a GPT sees: codes, then SOS, EOS, PAD, then one id per label."""

    codes: int
    labels: int = 0

    def __post_init__(self):
        if self.codes < 1 or self.labels < 0:
            raise ValueError(f"a vocabulary needs codes >= 1 and labels >= 0, got {self.codes} and {self.labels}.")

    @property
    def sos(self) -> int:
        """Start of a field."""
        return self.codes

    @property
    def eos(self) -> int:
        """End of a field."""
        return self.codes + 1

    @property
    def pad(self) -> int:
        """Fills a batch; carries no loss."""
        return self.codes + 2

    def label(self, i: int) -> int:
        """The id of class i."""
        if not isinstance(i, Integral) or not 0 <= i < self.labels:
            raise ValueError(f"label must be a class number in [0, {self.labels}), got {i!r}.")
        return self.codes + 3 + i

    @property
    def size(self) -> int:
        """All ids."""
        return self.codes + 3 + self.labels

    def name(self, i: int) -> str:
        """`code 5`, `SOS`, `EOS`, `PAD`, `label 3`, or `no id`."""
        if 0 <= i < self.codes:
            return f"code {i}"
        special = {self.sos: "SOS", self.eos: "EOS", self.pad: "PAD"}
        return special.get(i) or (f"label {i - self.codes - 3}" if self.pad < i < self.size else "no id")


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
