"""What can be set of tokenizers, and of the commands that use one. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from tyro.conf import Suppress

from fields.hub.options import Publish
from fields.runtime.flags import Device, Overwrites, Revision, Threads, check_numbers

Mode = Literal["position", "delta", "none"]


@dataclass(frozen=True)
class TokenizerConfig:
    """Options that all kinds of tokenizers share."""

    later: ClassVar[tuple[str, ...]] = ()
    """Options that a kind got after its first release."""
    vocab_size: int = 512
    """Number of codes asked for, V. There are fewer if the weights have fewer distinct values."""
    standardize: Mode = "position"
    """How weights are scaled before they become codes. position: subtract the training mean of each weight and divide
    by its standard deviation. delta: subtract the dataset's reference row and divide by one standard deviation for all
    weights. none: as they are."""
    fit_values: int = 64_000_000
    """Number of weights held in memory during the fit, at about 50 bytes each. If the dataset has more, fields are
    drawn from it at random. Means and standard deviations always come from all training fields."""
    seed: int = 0
    """Random seed of the fit."""
    field: Suppress[dict] = field(default_factory=dict)
    """The FieldConfig as plain values, taken from the dataset."""

    def __post_init__(self):
        if not isinstance(self.field, dict):  # a FieldConfig
            object.__setattr__(self, "field", self.field.to_dict())
        check_numbers(self, least={"vocab_size": 2, "fit_values": 1})
        if self.vocab_size > 65_536:
            raise ValueError(f"--vocab-size must be at most 65536 (ids are stored in 2 bytes), got {self.vocab_size}.")

    def settings(self) -> dict:
        """All options as plain values; without those of `later` that have their default, as before there were any."""
        found = asdict(self)
        return {
            k: v for k, v in found.items() if k not in self.later or v != type(self).__dataclass_fields__[k].default
        }


@dataclass(frozen=True)
class RefitConfig:
    """Whether and how codes are optimised after encoding."""

    refit: bool = False
    """After encoding, change the codes so that the decoded field matches its signal as well as possible (or the
    original field, if the signals are not available). Takes minutes for tens of thousands of fields."""
    refit_steps: int = 100
    """Optimiser steps of --refit."""
    refit_lr: float = 0.05
    """Initial step size of --refit, in units of the distance between neighbouring codes; it falls to zero."""
    refit_rate: float = 0.006
    """For codes that are ordered numbers: weight of the code length in the loss of --refit, as the share of the squared
    error that one bit per field is worth. Higher values give fewer bits and a larger error."""

    def __post_init__(self):
        check_numbers(self, least={"refit_steps": 1, "refit_rate": 0}, above=("refit_lr",))


@dataclass(frozen=True)
class ReportConfig:
    """What the report measures."""

    sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    """Vocabulary sizes at which the report measures the trade-off between bits and PSNR (rate-distortion); `--sizes`
    without a number leaves it out. Kinds that take long to fit are not measured at several sizes: build several
    vocabularies and compare them with python -m tokenizers.compare."""
    sweep_fields: int = 2000
    """Number of training fields used to fit the vocabulary of each of these sizes."""
    held_out: int = 1000
    """Number of held-out fields evaluated in the report, drawn at random."""
    probe_rows: int = 10_000
    """Number of training fields from which a linear probe learns to read the class off the weights before and after
    encoding; 0 = no probe."""
    signals: str | None = None
    """Folder of the pictures the fields were fitted to, for PSNR against them; not needed for the digits."""
    data_root: Path | None = None
    """Folder with the idx files of mnist or fashion-mnist, for PSNR against the pictures."""

    def __post_init__(self):
        object.__setattr__(self, "sizes", tuple(int(s) for s in self.sizes))
        check_numbers(self, least={"sizes": 2, "sweep_fields": 1, "held_out": 1, "probe_rows": 0})


@dataclass(frozen=True)
class EncodeConfig(Overwrites):
    """Turn the fields of a weight dataset into tokens, with constant memory for any number of fields.

    For example:
        python -m tokenizers.encode --tokenizer runs/digits/kmeans --fields runs/digits/fields --out runs/digits/tokens
        python -m tokenizers.encode --tokenizer runs/digits/regions --fields runs/digits/fields --refit --out runs/digits/refit
    """

    tokenizer: str
    """Tokenizer to use: a folder, or user/name on the Hub."""
    fields: str
    """Weight dataset of the architecture the tokenizer was fitted on: a folder, or user/name on the Hub."""
    out: Path | None = None
    """Output folder for the Parquet files and tokens.json; default: tokens beside the fields or, if that folder holds
    tokens made otherwise, a name that adds what differs."""
    revision: Revision = None
    stream: bool = False
    """Read the fields shard by shard instead of all at once, for datasets larger than memory."""
    refitting: RefitConfig = field(default_factory=RefitConfig)
    device: Device = "auto"
    """Device of --refit: auto = a GPU if there is one. Encoding itself runs on the CPU."""
    signals: str | None = None
    """For --refit: folder of the pictures the fields were fitted to; not needed for the digits."""
    data_root: Path | None = None
    """For --refit: folder with the idx files of mnist or fashion-mnist."""
    threads: Threads = None


@dataclass(frozen=True)
class DecodeConfig(Overwrites):
    """Turn tokens back into fields: a weight dataset with the same splits, labels and signal ids.

    Example:
        python -m tokenizers.decode --tokens runs/digits/tokens --tokenizer runs/digits/kmeans --out runs/digits/decoded
    """

    tokens: str
    """Tokens to decode: a folder, a tokenizer's folder that contains `tokens/`, or user/name on the Hub."""
    tokenizer: str
    """The tokenizer that made them: a folder, or user/name on the Hub."""
    out: Path | None = None
    """Output folder for the weight dataset; default: decoded beside the tokens or, if that folder holds fields decoded
    from others, a name that adds what differs."""
    revision: Revision = None
    threads: Threads = None


@dataclass(frozen=True)
class CompareConfig(Overwrites):
    """Compare tokenizers on the same held-out fields: bits, PSNR, size and speed; with --refit, both with and without it.

    For example:
        python -m tokenizers.compare runs/mnist/kmeans runs/mnist/pca runs/mnist/vqvae --fields runs/mnist/fields \\
            --data-root DIR --refit
        python -m tokenizers.compare runs/mnist/pca runs/mnist/graph=runs/mnist/unconditioned --fields runs/mnist/fields \\
            --data-root DIR --split test --out runs/mnist/compare-starts
    """

    tokenizers: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Tokenizers to compare, each a folder or user/name on the Hub. TOKENIZER=FIELDS measures one on another weight
    dataset of the same signals."""
    fields: str
    """Weight dataset for the tokenizers that name none."""
    out: Path | None = None
    """Output folder for report.html, compare.json, compare.md and compare.png; default: compare beside the fields or, if
    that folder holds a comparison made otherwise, a name that adds what differs."""
    refitting: RefitConfig = field(default_factory=RefitConfig)
    split: str | None = None
    """Split to evaluate on; default: validation or, if there is none, test."""
    held_out: int = 1000
    """Number of held-out fields evaluated, drawn at random."""
    counted: int = 20_000
    """Number of training fields, drawn at random, whose codes are counted to compute bits per field."""
    surfaces: int = 8
    """For shapes: number of original shapes whose surfaces are drawn beside their fields and the decoded fields of each
    tokenizer; 0 = none."""
    signals: str | None = None
    """Folder of the pictures the fields were fitted to, for PSNR against them; not needed for the digits."""
    data_root: Path | None = None
    """Folder with the idx files of mnist or fashion-mnist, for PSNR against the pictures."""
    seed: int = 0
    """Random seed that selects the held-out and the counted fields."""
    threads: Threads = None
    device: Device = "auto"
    """Device of --refit: auto = a GPU if there is one. Encoding itself runs on the CPU."""

    def __post_init__(self):
        if not self.tokenizers:
            raise ValueError("name at least one tokenizer to compare.")
        check_numbers(self, least={"held_out": 1, "counted": 1, "surfaces": 0})


@dataclass(frozen=True)
class PublishTokenizer(Publish):
    """A tokenizer: its safetensors and configuration, its report, and a card with the numbers of the report.

    For example:
        python scripts/publish.py tokenizer runs/mnist/pca user/mnist-pca --fields user/mnist-fields
        python -m tokenizers.encode --tokenizer user/mnist-pca --fields user/mnist-fields --out runs/tokens
    """

    fields: str | None = None
    """user/name of the weight dataset it was fitted on, to be named on the card."""


@dataclass(frozen=True)
class PublishTokens(Publish):
    """The tokens of a dataset: Parquet files of ids, tokens.json with the position of every token, and a card.

    PATH is a folder of tokens, or a tokenizer's folder that contains `tokens/`.

    For example:
        python scripts/publish.py tokens runs/mnist/pca user/mnist-tokens --tokenizer user/mnist-pca
    """

    fields: str | None = None
    """user/name of the weight dataset they were made from, to be named on the card."""
    tokenizer: str | None = None
    """user/name of their tokenizer, to be named on the card."""
