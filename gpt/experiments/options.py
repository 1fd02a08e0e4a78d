"""What can be set of the experiments. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fields.runtime.flags import Overwrites, Precision, Threads, check_numbers
from fields.storage.fetch import beside
from gpt.options import ClassifierFile, Classifiers, DataRoot, FittedTo, ModelConfig, TrainConfig, TransformerSize
from gpt.sampling.options import SampleConfig

MINUTES = 5.0
"""Training of each GPT where neither --minutes nor --steps is given."""
Way = Literal["unconditioned", "conditioned", "meta", "aligned"]


@dataclass(frozen=True)
class CompareVocabulariesConfig(Overwrites):
    """Train a GPT on each of several vocabularies for the same time, evaluate all in the same way, and put them in one table.

    TOKENIZER=FIELDS gives a tokenizer its own weight dataset, with other fits of the same signals (aligned ones, say); the
    others are trained on --fields. All are compared, as pictures, with the same held-out signals. Finished results are
    kept: run the same command again to continue; adding a tokenizer costs only its own training.

    For example:
        python scripts/compare_vocabularies.py runs/mnist/kmeans runs/mnist/pca --fields runs/mnist/fields --data-root DIR
        python scripts/compare_vocabularies.py runs/mnist/pca runs/mnist/aligned-pca=runs/mnist/aligned \\
            --fields runs/mnist/fields --data-root DIR --minutes 10 --labels --out runs/mnist/aligned-or-not
    """

    tokenizers: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Tokenizers to compare, each a folder or user/name on the Hub, alone or as TOKENIZER=FIELDS."""
    fields: str
    """Weight dataset (a folder, or user/name on the Hub); its held-out signals are the references for all."""
    out: Path | None = None
    """Output folder for report.html, comparison.md, comparison.json, comparison.png, bits.png, and a folder per
    tokenizer; default: comparison beside the fields or, if that folder holds a comparison with other settings, a name
    that adds what differs."""
    minutes: float | None = None
    """Training time of each GPT, converted to a number of steps that is measured for all of them side by side; default:
    5, or no limit if --steps is given."""
    steps: int | None = None
    """Largest number of optimiser steps of each GPT."""
    labels: bool = False
    """Start every sequence with the field's label, and report how many samples a classifier reads as their label."""
    model: ModelConfig = field(default_factory=ModelConfig)
    batch: int = TrainConfig.batch
    """Fields per optimiser step."""
    lr: float = TrainConfig.lr
    """Highest learning rate."""
    eval_every: int = TrainConfig.eval_every
    """Steps between validations; samples are drawn from the best model."""
    n: int = 1000
    """Number of fields drawn from each GPT and compared with equally many held-out signals; fewer if there are not as
    many signals."""
    temperature: float = 1.0
    """Sampling temperature; results are comparable with others at 1."""
    signals: FittedTo = None
    data_root: DataRoot = None
    classifier: ClassifierFile = None
    classifiers: Classifiers = Path("runs/classifiers")
    seed: int = 0
    """Random seed of training, samples, references and classifier."""
    precision: Precision = "auto"
    """Number format of training. auto: bf16 on a GPU, or on a CPU with AMX; otherwise fp32 (computed by oneDNN on AMD
    CPUs with AVX-512). launcher: as accelerate is configured."""
    threads: int | None = None
    """CPU threads per process; default: cores / processes. Samples are drawn on one thread."""

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
class MemoriseConfig(Overwrites):
    """Train regression transformers to memorise N fields: each weight is predicted from those before it, without tokens.

    Compares fields fitted from random weights, from one fitted field and from a learnt start, and aligned fields. Writes
    table.md, roll-outs.png (fields predicted weight by weight) and curves.png to OUT. May be interrupted and started again.

    For example:
        python scripts/train_regression.py                                   # the digits that come with scikit-learn
        python scripts/train_regression.py --signals mnist --data-root DIR   # the table of the README
        python scripts/train_regression.py --starts conditioned --n 4 --between --seeds 1
    """

    signals: str = "digits"
    """Signals to fit: digits | mnist | fashion-mnist | a folder of pictures."""
    data_root: Path | None = None
    """Folder with the files of mnist or fashion-mnist (.gz or unpacked)."""
    out: Path | None = None
    """Output folder for fields, models, table and figures; default: runs/SIGNALS/regression or, if that folder holds an
    experiment with other settings, a name that adds what differs."""
    starts: tuple[Way, ...] = ("unconditioned", "conditioned", "meta", "aligned")
    """Ways of fitting to compare: unconditioned, conditioned and meta as in scripts/fit_fields.py --start; aligned:
    unconditioned fields whose neurons are then matched to those of one of them."""
    n: tuple[int, ...] = (1, 4, 32)
    """Numbers of fields to memorise, each tried with all seeds."""
    between: tuple[int, ...] = (8, 16)
    """Further numbers of fields to memorise, tried with the first seed only."""
    seeds: int = 3
    """Number of seeds; each has its own digits and its own initial model."""
    target_psnr: float = 33.0
    """PSNR in dB at which every fit stops, so that all ways of fitting render equally well."""
    steps: int = 1600
    """Optimiser steps of each training, the same for all."""
    batch: int = 2
    """Fields per step. If there are fewer fields than that, they are repeated, so that all trainings see equally many
    weights."""
    lr: float = 4e-3
    """Highest learning rate."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: orthogonalised momentum for the blocks' matrices (Jordan 2024) and AdamW for the rest; adamw: needs several
    times as many steps."""
    loss: Literal["l1", "mse"] = "l1"
    """Loss of the next weight: absolute (l1) or squared (mse) error."""
    scale: float = 0.5
    """Raw weights are divided by this number, whatever the start."""
    standardize: bool = False
    """Instead of --scale, standardise each position by the mean and standard deviation of the N fields; all starts then
    look the same to the model."""
    model: TransformerSize = TransformerSize(n_layer=2, n_head=2)
    """Size of the transformer."""
    precision: Precision = "auto"
    """Number format of training. auto: bf16 where it is fast, otherwise fp32. Predictions of whole fields are always
    computed in fp32."""
    threads: int | None = None
    """Number of models trained at once on the CPU, one thread each; None = cores / processes. A GPU trains one at a
    time."""
    seed: int = 0
    """Random seed of the digits chosen, the fits and the models."""

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
    """Train a GPT on tokens of pictures, without fields, and evaluate its samples in the same way as those of fields.

    For example:
        python scripts/train_pictures.py --signals digits --grid 4 4 --vocab-size 64 --model.dropout 0.2
    """

    signals: str = "digits"
    """Signals: digits, mnist, fashion-mnist, or a folder of pictures of one size."""
    data_root: DataRoot = None
    out: Path | None = None
    """Output folder for table.md, result.json and samples.png; default: runs/SIGNALS/picture-tokens or, if that folder
    holds results of other settings, a name that adds what differs."""
    grid: tuple[int, int] = (4, 4)
    """Rows and columns of patches; they must divide the height and width of a picture."""
    vocab_size: int = 64
    """Number of codes, V."""
    hidden: int = 512
    """Width of the decoder's network."""
    decoder_steps: int = 1000
    """Optimiser steps of the decoder, 256 pictures each."""
    labels: bool = True
    """Start every sequence with the picture's label, if there are labels."""
    steps: int = 1500
    """Optimiser steps of the GPT."""
    batch: int = 32
    """Pictures per optimiser step of the GPT."""
    lr: float = 1e-3
    """Highest learning rate of the GPT."""
    model: ModelConfig = field(default_factory=ModelConfig)
    n: int = 180
    """Number of samples, and of references; fewer if there are not as many."""
    split: str = "test"
    """Split the references come from."""
    classifier: ClassifierFile = None
    classifiers: Classifiers = Path("runs/classifiers")
    seed: int = 0
    """Random seed of everything drawn."""
    threads: Threads = None

    def __post_init__(self):
        object.__setattr__(self, "grid", tuple(self.grid))
        least = dict.fromkeys(("vocab_size", "hidden", "steps", "batch", "n"), 2) | {"grid": 1, "decoder_steps": 1}
        check_numbers(self, least=least, above=("lr",))
