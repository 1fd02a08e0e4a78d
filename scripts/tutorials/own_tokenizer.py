"""A vocabulary of one's own: one class, one line in the registry, and every command knows it.

A notebook in percent format: run it as a script, or cell by cell in an editor that knows `# %%`.
"""

# %% The root of the checkout comes first on the path (README, "Names")
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

# %% Fields of 200 digits, in memory
import torch

from fields import SignalsConfig, fit, load_signals, psnr

digits = load_signals(SignalsConfig("digits"))
chosen = torch.arange(200)
data = fit(digits.images(chosen), steps=60, meta_steps=40, split=["train"] * 160 + ["validation"] * 40, quiet=True)

# %% The class: every weight is said by how many standard deviations it lies from its mean, rounded
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tokenizers.base import WeightTokenizer
from tokenizers.options import TokenizerConfig


@dataclass(frozen=True)
class RoundedConfig(TokenizerConfig):
    """Standardised weights, rounded to evenly spaced numbers from -3 to 3."""

    vocab_size: int = 16
    """Codes."""
    kind: Literal["rounded"] = "rounded"


class RoundedTokenizer(WeightTokenizer):
    """One token a weight; the base class fits `standardizer` before it calls `_fit`, checks shapes, saves and loads."""

    def __init__(self, config: RoundedConfig):
        super().__init__(config)

    def _fit(self, rows: Tensor, held_out: Tensor | None) -> int:
        return self.config.vocab_size  # nothing is learnt

    def _encode(self, weights: Tensor) -> Tensor:
        last = self.config.vocab_size - 1
        return ((self.standardizer(weights) + 3) / 6 * last).round().clamp(0, last).long()

    def _decode(self, ids: Tensor) -> Tensor:
        return self.standardizer.invert(ids.float() / (self.config.vocab_size - 1) * 6 - 3)


# %% The line: from here on `load_tokenizer` and all commands of this process know it
from tokenizers.registry import TOKENIZERS

TOKENIZERS["rounded"] = (RoundedConfig, RoundedTokenizer)

# %% What it keeps, beside the kind that learns its codes
from fields import render
from tokenizers import KMeansTokenizer

weights = data.weights("validation")
targets = render(data.config, weights, 8, 8)
kinds = {"rounded": RoundedTokenizer, "kmeans": KMeansTokenizer}
for codes in (4, 16, 64):
    for name, kind in kinds.items():
        tokenizer = kind.for_field(data.config, vocab_size=codes).fit(data.weights("train"))
        decoded = tokenizer.decode(tokenizer.encode(weights))
        found = psnr(render(data.config, decoded, 8, 8), targets).mean()
        print(f"{name:8} {codes:3} codes: {float(found):5.2f} dB between decoded fields and the fields themselves")
