"""What can be set of tokenizers, and of the commands that use one. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from tyro.conf import Suppress

from fields.hub.options import Publish
from fields.runtime.flags import Device, Overwrites, check_numbers

Mode = Literal["position", "delta", "none"]


@dataclass(frozen=True)
class TokenizerConfig:
    """What the configs of all kinds share."""

    later: ClassVar[tuple[str, ...]] = ()
    """Options that a kind got after its first release."""
    vocab_size: int = 512
    """Codes asked for, V. There are fewer where the weights have fewer distinct values."""
    standardize: Mode = "position"
    """position: training mean and standard deviation of each weight. delta: minus the reference row, one standard
    deviation for all. none: as they are."""
    fit_values: int = 64_000_000
    """Weights held in memory while fitting, about 50 bytes each at the peak; of more, whole fields are drawn by
    seed. Means and deviations always see all training fields."""
    seed: int = 0
    """Seed of everything random in the fit."""
    field: Suppress[dict] = field(default_factory=dict)
    """The FieldConfig as plain values; comes from the dataset."""

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
    """Whether and how codes are refitted."""

    refit: bool = False
    """Change codes after encoding so that the decoded field matches its signal best (the field's own values where the
    signals are not available). Takes minutes for tens of thousands of fields."""
    refit_steps: int = 100
    """Steps of refit."""
    refit_lr: float = 0.05
    """How far a step of refit moves, in distances of neighbouring codes; falls to zero."""
    refit_rate: float = 0.006
    """Share of the squared error that refit trades for one bit less per field, where codes are ordered numbers."""

    def __post_init__(self):
        check_numbers(self, least={"refit_steps": 1, "refit_rate": 0}, above=("refit_lr",))


@dataclass(frozen=True)
class ReportConfig:
    """What the report measures."""

    sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    """Vocabulary sizes of the rate-distortion picture; give none (`--sizes`) to leave it out. Kinds that take long to fit have
    none: build several and compare them with python -m tokenizers.compare."""
    sweep_fields: int = 2000
    """Training fields each of these is fitted on."""
    held_out: int = 1000
    """Held-out fields evaluated, drawn by seed."""
    probe_rows: int = 10_000
    """Training fields the class probe learns from; 0 = no probe."""
    signals: str | None = None
    """Folder of the pictures the fields were fitted to, for PSNR against them; the embedded digits need none."""
    data_root: Path | None = None
    """Folder with the idx files of mnist or fashion-mnist, for PSNR against them."""

    def __post_init__(self):
        object.__setattr__(self, "sizes", tuple(int(s) for s in self.sizes))
        check_numbers(self, least={"sizes": 2, "sweep_fields": 1, "held_out": 1, "probe_rows": 0})


@dataclass(frozen=True)
class EncodeConfig(Overwrites):
    """Turn the fields of a weight dataset into tokens; memory stays the same however many there are.

    For example:
        python -m tokenizers.encode --tokenizer runs/digits/kmeans --fields runs/digits/fields --out runs/digits/tokens
        python -m tokenizers.encode --tokenizer runs/digits/regions --fields runs/digits/fields --refit --out runs/digits/refit
    """

    tokenizer: str
    """A tokenizer: a folder, or user/name on the Hub."""
    fields: str
    """A weight dataset of the same architecture: a folder, or user/name on the Hub."""
    out: Path
    """Folder to write: Parquet files and tokens.json."""
    revision: str | None = None
    """Branch, tag or commit of the Hub names given; one alone may have its own: user/name@v1."""
    stream: bool = False
    """Read the fields shard by shard instead of holding them all, for datasets larger than memory."""
    refitting: RefitConfig = field(default_factory=RefitConfig)
    device: Device = "auto"
    """Where refit computes: auto = a GPU where there is one. Plain codes are found on the CPU."""
    signals: str | None = None
    """Folder of the pictures the fields were fitted to, which refit matches; the embedded digits need none."""
    data_root: Path | None = None
    """Folder with the idx files of mnist or fashion-mnist, for refit."""


@dataclass(frozen=True)
class DecodeConfig(Overwrites):
    """Turn tokens back into fields: a weight dataset with the same splits, labels and signal ids.

    Example:
        python -m tokenizers.decode --tokens runs/digits/tokens --tokenizer runs/digits/kmeans --out runs/digits/decoded
    """

    tokens: str
    """Tokens: a folder, the tokenizer's folder that holds `tokens/`, or user/name on the Hub."""
    tokenizer: str
    """The tokenizer that made them: a folder, or user/name on the Hub."""
    out: Path
    """Folder to write."""
    revision: str | None = None
    """Branch, tag or commit of the Hub names given; one alone may have its own: user/name@v1."""


@dataclass(frozen=True)
class CompareConfig(Overwrites):
    """Bits against PSNR of tokenizers on the same held-out fields, with their sizes and speeds; with --refit both ways.

    For example:
        python -m tokenizers.compare runs/mnist/kmeans runs/mnist/pca runs/mnist/vqvae --fields runs/mnist/fields \\
            --data-root DIR --refit --out runs/mnist/compare
        python -m tokenizers.compare runs/mnist/pca runs/mnist/graph=runs/mnist/unconditioned --fields runs/mnist/fields \\
            --data-root DIR --split test --out runs/mnist/compare-starts
    """

    tokenizers: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Tokenizers, folders or user/name on the Hub, each alone or as TOKENIZER=FIELDS: with other fields of the same signals."""
    fields: str
    """The weight dataset of the tokenizers that name no other."""
    out: Path
    """Folder for report.html, compare.json, compare.md and compare.png."""
    refitting: RefitConfig = field(default_factory=RefitConfig)
    split: str | None = None
    """Split to evaluate on; default: validation, else test."""
    held_out: int = 1000
    """Fields evaluated, drawn by seed."""
    counted: int = 20_000
    """Training fields whose codes are counted for the bits, drawn by seed."""
    signals: str | None = None
    """Folder of the pictures the fields were fitted to, for PSNR against them; the embedded digits need none."""
    data_root: Path | None = None
    """Folder with the idx files of mnist or fashion-mnist, for PSNR against them."""
    seed: int = 0
    """Seed of both draws."""
    threads: int | None = None
    """CPU threads; default: all cores."""
    device: Device = "auto"
    """Where refit computes: auto = a GPU where there is one. Plain codes are found on the CPU."""

    def __post_init__(self):
        if not self.tokenizers:
            raise ValueError("name at least one tokenizer to compare.")
        check_numbers(self, least={"held_out": 1, "counted": 1})


@dataclass(frozen=True)
class PublishTokenizer(Publish):
    """A tokenizer: safetensors and config, its report, and a card with the report's numbers.

    For example:
        python scripts/publish.py tokenizer runs/mnist/pca user/mnist-pca --fields user/mnist-fields
        python -m tokenizers.encode --tokenizer user/mnist-pca --fields user/mnist-fields --out runs/tokens
    """

    fields: str | None = None
    """user/name of the weight dataset it was learnt from, for the card."""


@dataclass(frozen=True)
class PublishTokens(Publish):
    """The tokens of a dataset: Parquet files of ids, tokens.json with the place of every token, and a card.

    The folder is one of tokens, or a tokenizer's with `tokens/` in it.

    For example:
        python scripts/publish.py tokens runs/mnist/pca user/mnist-tokens --tokenizer user/mnist-pca
    """

    fields: str | None = None
    """user/name of the weight dataset they were made from, for the card."""
    tokenizer: str | None = None
    """user/name of their tokenizer, for the card."""
