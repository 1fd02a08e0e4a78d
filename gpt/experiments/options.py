"""What can be set of the experiments. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fields.runtime.flags import Overwrites, Precision, check_numbers
from fields.storage.fetch import beside
from gpt.options import ModelConfig, TrainConfig
from gpt.sampling.options import SampleConfig

MINUTES = 5.0
"""Training of each GPT where neither --minutes nor --steps is given."""
Way = Literal["unconditioned", "conditioned", "meta", "aligned"]


@dataclass(frozen=True)
class CompareVocabulariesConfig(Overwrites):
    """A GPT over each of several vocabularies, trained equally long, evaluated in the same way: one table, one sheet of samples.

    TOKENIZER=FIELDS gives a tokenizer its own weight dataset, other fits of the same signals (aligned ones, say); the
    others are trained on --fields. All are compared as pictures with the same held-out signals. What is finished is not
    made again: the same command goes on where it stopped, and one more tokenizer costs only its own training.

    For example:
        python scripts/compare_vocabularies.py runs/mnist/kmeans runs/mnist/pca --fields runs/mnist/fields --data-root DIR
        python scripts/compare_vocabularies.py runs/mnist/pca runs/mnist/aligned-pca=runs/mnist/aligned \\
            --fields runs/mnist/fields --data-root DIR --minutes 10 --labels --out runs/mnist/aligned-or-not
    """

    tokenizers: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Tokenizers, folders or user/name on the Hub, each alone or as TOKENIZER=FIELDS."""
    fields: str
    """Weight dataset, a folder or user/name on the Hub; its held-out signals are the references of all."""
    out: Path | None = None
    """Folder for report.html, comparison.md, comparison.json, comparison.png, bits.png, and a folder per tokenizer; default:
    comparison beside the fields."""
    minutes: float | None = None
    """Training time of each GPT, as steps that are measured side by side; default 5, or no limit with --steps."""
    steps: int | None = None
    """Optimiser steps of each GPT, at most."""
    labels: bool = False
    """Begin every field with its label, and say how many samples are read as theirs."""
    model: ModelConfig = field(default_factory=ModelConfig)
    batch: int = TrainConfig.batch
    """Fields per optimiser step."""
    lr: float = TrainConfig.lr
    """Highest learning rate."""
    eval_every: int = TrainConfig.eval_every
    """Steps between validations; the best model is sampled."""
    n: int = 1000
    """Fields drawn from each GPT, against as many held-out signals; fewer where there are not as many signals."""
    temperature: float = 1.0
    """Of the draws; 1 is the measure."""
    signals: str | None = None
    """Signals the fields were fitted to (digits, mnist, fashion-mnist, a folder); default: what --fields says."""
    data_root: Path | None = None
    """Where the signals' files lie."""
    classifier: Path | None = None
    """Classifier for FID and label accuracy; default: one is trained from the labelled training signals and cached."""
    classifiers: Path = Path("runs/classifiers")
    """Where trained classifiers are kept."""
    seed: int = 0
    """Of training, draws, references and classifier."""
    precision: Precision = "auto"
    """Of training: auto = bf16 on a GPU, or on a CPU with AMX, else fp32 (onednn on AMD CPUs with AVX-512); launcher = what
    accelerate says."""
    threads: int | None = None
    """CPU threads per process; default: cores / processes. Fields are drawn on one thread."""

    def __post_init__(self):
        if not self.tokenizers:
            raise ValueError("name at least one tokenizer for the comparison.")
        check_numbers(self, least={"n": 2})
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"--minutes must be above 0, got {self.minutes}.")
        self.training("", "", Path(), steps=self.steps)  # refuses what cannot be, by the same words
        SampleConfig("", Path(), temperature=self.temperature)

    @property
    def folder(self) -> Path:
        """Where it all goes."""
        return self.out or beside(self.fields, "comparison")

    @property
    def limit(self) -> float | None:
        """Minutes of training."""
        return MINUTES if self.minutes is None and self.steps is None else self.minutes

    def training(
        self, fields: str, tokenizer: str, out: Path, tokens: str | None = None, steps: int | None = None
    ) -> TrainConfig:
        """The training of one GPT, but for its steps the same for all."""
        names = ("labels", "model", "batch", "lr", "eval_every", "seed", "precision", "threads")
        same: dict[str, Any] = {name: getattr(self, name) for name in names}
        same |= {"steps": steps, "sample_every": None, "log_every": 100}
        return TrainConfig(fields=fields, tokenizer=tokenizer, out=out, tokens=tokens, **same)


@dataclass(frozen=True)
class ModelOptions:
    """Size of the transformer."""

    n_layer: int = 2
    """Blocks."""
    n_head: int = 2
    """Attention heads."""
    n_embd: int = 128
    """Width, a multiple of the heads."""


@dataclass(frozen=True)
class MemoriseConfig(Overwrites):
    """Train regression transformers (each weight of a field predicted from those before it, L1 loss, no tokens) to memorise
    N fields, for fields that were fitted from random weights, from one fitted field, from a learnt start, and aligned.

    Ends with table.md, roll-outs.png and curves.png in OUT. May be interrupted; finished cells are kept.

    For example:
        python scripts/train_regression.py                                   # the embedded digits
        python scripts/train_regression.py --signals mnist --data-root DIR   # the table of the README
        python scripts/train_regression.py --starts conditioned --n 4 --between --seeds 1
    """

    signals: str = "digits"
    """digits | mnist | fashion-mnist | a folder of images."""
    data_root: Path | None = None
    """Folder with the files of mnist or fashion-mnist, .gz or raw."""
    out: Path | None = None
    """Folder for fields, models, table and figures; default runs/SIGNALS/regression, or, where that is of other settings, a
    name with what differs."""
    starts: tuple[Way, ...] = ("unconditioned", "conditioned", "meta", "aligned")
    """Ways of fitting that are compared; aligned = unconditioned with the neurons matched to one of them."""
    n: tuple[int, ...] = (1, 4, 32)
    """Numbers of fields to memorise, with all seeds."""
    between: tuple[int, ...] = (8, 16)
    """Numbers of fields tried with the first seed only."""
    seeds: int = 3
    """Seeds: each has its own digits and its own initial model."""
    target_psnr: float = 33.0
    """dB at which every fit stops, so that all ways render equally well."""
    steps: int = 1600
    """Optimiser steps of a cell, the same for all."""
    batch: int = 2
    """Fields per step. With N = 1 the field stands in the batch repeatedly: all cells see as many weights."""
    lr: float = 4e-3
    """Highest learning rate."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: orthogonalised momentum on the blocks' matrices (Jordan 2024), AdamW on the rest; adamw needs several times
    the steps."""
    loss: Literal["l1", "mse"] = "l1"
    """Absolute or squared error of the next weight."""
    scale: float = 0.5
    """Raw weights are divided by this one number, whatever the start."""
    standardize: bool = False
    """Standardise each position by the mean and deviation of the N fields instead: then all starts look the same."""
    model: ModelOptions = field(default_factory=ModelOptions)
    """Size of the transformer."""
    precision: Precision = "auto"
    """auto = bf16 where it is fast, else fp32. Roll-outs are always computed in fp32."""
    threads: int | None = None
    """Cells at once, one CPU thread each; None = cores / processes. On a GPU one at a time."""
    seed: int = 0
    """Of the digits chosen, of the fits and of the models."""

    def __post_init__(self):
        for name in ("starts", "n", "between"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_numbers(self, least={"steps": 1, "batch": 1, "seeds": 1, "threads": 1}, above=("lr", "scale"))
        if not self.starts or not (self.n or self.between) or min(*self.n, *self.between, 1) < 1:
            raise ValueError(
                f"--starts and --n need at least one entry, counts of at least 1; got {self.starts}, {self.n}."
            )

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.out or Path("runs") / Path(self.signals).resolve().name / "regression"

    @property
    def most(self) -> int:
        """Fields per seed."""
        return max(*self.n, *self.between, 1)


@dataclass(frozen=True)
class PictureTokensConfig(Overwrites):
    """Train a GPT on tokens of pictures, without fields, and measure its samples as those of fields are.

    For example:
        python scripts/train_pictures.py --signals digits --grid 4 4 --vocab-size 64 --model.dropout 0.2
    """

    signals: str = "digits"
    """digits, mnist, fashion-mnist, or a folder of pictures of one size."""
    data_root: Path | None = None
    """Where the signals' files lie."""
    out: Path | None = None
    """Folder for table.md, result.json and samples.png; default runs/SIGNALS/picture-tokens, or, where that is of other settings,
    a name with what differs."""
    grid: tuple[int, int] = (4, 4)
    """Rows and columns of patches; they must divide height and width."""
    vocab_size: int = 64
    """Codes, V."""
    hidden: int = 512
    """Width of the decoder's network."""
    decoder_steps: int = 1000
    """Steps of the decoder, with 256 pictures each."""
    labels: bool = True
    """Begin every picture with its label, where there are labels."""
    steps: int = 1500
    """Steps of the GPT."""
    batch: int = 32
    """Pictures per step of the GPT."""
    lr: float = 1e-3
    """Highest learning rate of the GPT."""
    model: ModelConfig = field(default_factory=ModelConfig)
    n: int = 180
    """Samples and references; fewer where there are not as many."""
    split: str = "test"
    """Of the references."""
    classifier: Path | None = None
    """Classifier for FID and label accuracy; default: one is trained from the labelled training signals and cached."""
    classifiers: Path = Path("runs/classifiers")
    """Where trained classifiers are kept."""
    seed: int = 0
    """Of everything."""
    threads: int | None = None
    """CPU threads; default: all cores."""

    def __post_init__(self):
        object.__setattr__(self, "grid", tuple(self.grid))
        least = dict.fromkeys(("vocab_size", "hidden", "steps", "batch", "n"), 2) | {"grid": 1, "decoder_steps": 1}
        check_numbers(self, least=least, above=("lr",))
