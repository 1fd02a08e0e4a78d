"""The ids a GPT sees. No tokenizer emits the special ones."""

from dataclasses import dataclass


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
        if not 0 <= i < self.labels:
            raise ValueError(f"label must lie in [0, {self.labels}), got {i}.")
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
