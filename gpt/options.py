"""What can be set of training and evaluation. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fields.runtime.flags import Overwrites, Precision, Revision, Threads, check_numbers, check_tracker

arg = tyro.conf.arg
FittedTo = Annotated[
    str | None,
    arg(
        help="Signals the fields were fitted to (digits, mnist, fashion-mnist, or a folder); default: what the dataset says."
    ),
]
DataRoot = Annotated[
    Path | None, arg(help="Folder with the files of the signals; see scripts/fit_fields.py --data-root.")
]
ClassifierFile = Annotated[
    Path | None,
    arg(
        help="Classifier for FID and label accuracy; default: one is trained on the labelled training signals and stored in "
        "--classifiers."
    ),
]
Classifiers = Annotated[Path, arg(help="Folder in which trained classifiers are stored for later evaluations.")]
"""Options of several commands, described once."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Options of every training, whatever the task."""

    out: Path | None = None
    """Output folder for checkpoints, models (best/, last/), curves and samples; None = keep everything in memory."""
    batch: int = 64
    """Fields per optimiser step, summed over all processes and micro-batches."""
    micro_batch: int | None = None
    """Fields per forward pass; default: batch / processes. Lower it if memory runs out: gradients of several passes are
    then accumulated."""
    lr: float = 1e-3
    """Highest learning rate."""
    min_lr: float | None = None
    """Learning rate of the last step; default: a tenth of --lr."""
    clip: float | None = 1.0
    """Largest norm of the gradient; a greater one is scaled down to it. None = no clipping."""
    ema: float | None = None
    """Decay per step of an exponential moving average of the weights, such as 0.999. The average is then validated and
    saved in best/ and last/; the initial weights have no share in it. None = no average."""
    eval_every: int = 200
    """Steps between validations."""
    patience: int | None = None
    """Stop after this many validations in a row without improvement; None = never."""
    sample_every: int | None = 2
    """Number of validations between pictures of samples; None = only at the end."""
    samples: int = 16
    """Number of fields in each picture of samples."""
    save_every: int | None = None
    """Steps between checkpoints; default: the value of --eval-every."""
    keep: int = 2
    """Number of checkpoints kept; older ones are deleted."""
    log_every: int = 20
    """Steps between log lines."""
    compile: bool = False
    """Compile the model with torch.compile: faster steps after a slow start."""
    recompute: bool = False
    """Gradient checkpointing: compute the activations of the blocks again in the backward pass instead of storing them.
    Training takes a third longer, needs a fraction of the memory, and gives the same numbers."""
    tracker: str | None = None
    """Also log to tensorboard (event files in OUT/tensorboard), wandb or trackio."""
    project: str | None = None
    """Project name in the tracker; default: neural-fields-as-data. The run is named after the last two parts of OUT."""
    seed: int = 0
    """Random seed of the initial weights, the order of the fields and dropout."""

    def __post_init__(self):
        least = {"batch": 1, "micro_batch": 1, "eval_every": 1, "patience": 1, "sample_every": 1, "samples": 0}
        least |= {"save_every": 1, "keep": 1, "log_every": 1, "seed": 0}
        check_numbers(self, least=least, above=("clip",))
        if not self.lr > 0 or not 0 <= self.least_lr <= self.lr:
            raise ValueError(f"--lr must be above 0 and --min-lr in [0, lr], got {self.lr} and {self.min_lr}.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"--ema must lie between 0 and 1, got {self.ema}.")
        check_tracker(self.tracker)

    @property
    def least_lr(self) -> float:
        """Learning rate of the last step."""
        return self.lr / 10 if self.min_lr is None else self.min_lr


@dataclass(frozen=True)
class TransformerSize:
    """Size of the transformer."""

    n_layer: int = 4
    """Number of transformer blocks."""
    n_head: int = 4
    """Attention heads per block."""
    n_embd: int = 128
    """Width of the embeddings; a multiple of the number of heads."""


@dataclass(frozen=True)
class ModelConfig(TransformerSize):
    """Size of the transformer."""

    dropout: float = 0.1
    """Dropout probability on embeddings and residual branches."""
    tie: bool = False
    """Use one matrix for both the token embedding and the output head."""
    unigram: bool = True
    """Add the log-frequencies of the codes at each position, counted in the training fields, to the logits, so that the
    model need not learn them."""
    gates: bool = True
    """Scale the token embeddings and the input of the output head by learnt vectors, one for each position."""
    similar: Annotated[bool, arg(aliases=["--model.alike"])] = True
    """Initialise codes that are close to each other with similar weights, if the tokenizer knows their distances
    (--model.alike is the old name of this flag)."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(LoopConfig):
    """How a GPT is optimised: the options of every training and those of AdamW."""

    steps: int | None = None
    """Number of optimiser steps; default: 2000, or as many as --minutes allows."""
    warmup: int | None = None
    """Steps in which the learning rate rises linearly to --lr; default: a twentieth of the run, at most 200."""
    weight_decay: float = 0.1
    """Weight decay of matrices (AdamW)."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay rates of the gradient's mean and square."""
    optimizer: str = "adamw"
    """adamw; muon: orthogonalised momentum for the blocks' matrices (Jordan 2024) and AdamW for the rest; sgd: plain
    stochastic gradient descent."""
    token_noise: float = 0.0
    """During training, replace up to this share of the codes the GPT reads by those of another field at the same
    position; the codes it predicts stay as they are. Reduces errors that add up in long samples. 0 = none."""
    label_dropout: float = 0.0
    """During training, hide the label of this share of the fields; sample.py --guidance needs it, and 0.1 is usual. 0 =
    none."""
    eval_fields: int | None = 512
    """Number of validation fields used, the same ones every time; None = all."""

    def __post_init__(self):
        object.__setattr__(self, "betas", tuple(self.betas))
        super().__post_init__()
        check_numbers(self, least={"steps": 1, "warmup": 0, "eval_fields": 1}, shares=("token_noise", "label_dropout"))
        if self.steps is not None and self.warmup is not None and self.warmup > self.steps:
            raise ValueError(f"--warmup must be at most --steps ({self.steps}), got {self.warmup}.")
        if self.optimizer not in ("adamw", "muon", "sgd"):
            raise ValueError(f"--optimizer must be adamw, muon or sgd, got {self.optimizer!r}.")
        if self.weight_decay < 0 or not all(0 <= b < 1 for b in self.betas):
            raise ValueError(
                f"--weight-decay must be 0 or more and --betas in [0, 1), got {self.weight_decay}, {self.betas}."
            )


@dataclass(frozen=True)
class TrainConfig(OptimizerConfig, Overwrites):
    """Train a GPT on the tokens of a weight dataset."""

    fields: str
    """Weight dataset to train on: a folder, or user/name on the Hub."""
    tokenizer: str
    """Tokenizer to use: a folder, or user/name on the Hub."""
    out: Path = field(default=Path("runs/gpt"), kw_only=True)
    """Output folder for checkpoints, the model (best/, last/), curves and samples."""
    tokens: str | None = None
    """Tokens of the dataset: a folder, or user/name on the Hub; default: tokens/ in the tokenizer's folder."""
    revision: Revision = None
    stream: bool = False
    """For datasets larger than memory: read fields shard by shard, and map tokens from files in OUT-mapped/. Pictures
    of samples are then drawn without the nearest training fields."""
    labels: bool = False
    """Start every sequence with the field's label, so that samples of a given class can be drawn."""
    shifts: int = 0
    """Number of shifted copies of every training field. The GPT learns them as sequences marked as shifted, which are
    never drawn as samples. For vocabularies of regions, whose codes follow the field's values; 4 is plenty, 0 =
    none."""
    shift_by: float = 0.15
    """Largest shift along each axis, in coordinates (a picture is 2 wide)."""
    model: ModelConfig = field(default_factory=ModelConfig)
    minutes: float | None = None
    """Stop after about this many minutes: the time of a step is measured once, before the first one, and the number of
    steps is set from it."""
    resume: bool = True
    """Continue from the newest complete checkpoint in the output folder. With --no-resume a folder that is in use is
    refused."""
    precision: Precision = "auto"
    """Number format of training. auto: bf16 on a GPU, or on a CPU with AMX; otherwise fp32, computed by oneDNN on AMD
    CPUs with AVX-512 (the same precision in half the time, rounded differently). launcher: as accelerate is
    configured."""
    threads: int | None = None
    """CPU threads per process; default: cores / processes."""

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, least={"threads": 1}, above=("minutes",))
        if self.shifts < 0 or not 0 < self.shift_by <= 1:
            raise ValueError(
                f"--shifts must be 0 or more and --shift-by in (0, 1], got {self.shifts}, {self.shift_by}."
            )


@dataclass(frozen=True)
class PipelineConfig(TrainConfig):
    """Train a GPT on the tokens of neural fields.

    Without --fields and --tokenizer the whole pipeline runs on the 1,797 digits of scikit-learn, in at most ten minutes on
    two cores: fields are fitted, a vocabulary of regions is learnt, a GPT is trained, and new fields are drawn and evaluated.
    A stage whose output already exists under runs/digits is skipped. The defaults below are those of the pipeline; with
    --fields, those of a training apply (labels, steps, batch and dropout differ).

    For example:
        python scripts/train_gpt.py
        python scripts/train_gpt.py --fields runs/mnist/fields --tokenizer runs/mnist/pca --minutes 30
        python scripts/train_gpt.py --fields user/fields --tokenizer user/pca --tokens user/tokens
    """

    fields: str | None = None  # type: ignore[assignment]  # may be left out here, as the next two
    """Weight dataset to train on: a folder, or user/name on the Hub; None = scikit-learn's digits, which are fitted
    first if necessary."""
    tokenizer: str | None = None  # type: ignore[assignment]
    """Tokenizer to use: a folder, or user/name on the Hub."""
    out: Path | None = field(default=None, kw_only=True)  # type: ignore[assignment]
    """Output folder for checkpoints, the model (best/, last/), curves and samples; default: gpt beside the fields
    (runs/NAME/gpt for user/name) or, if that folder holds a model trained with other settings, a name that adds what
    differs."""

    def __post_init__(self):
        if (self.fields is None) != (self.tokenizer is None):
            raise ValueError(
                "give both --fields and --tokenizer, or neither to run the pipeline on scikit-learn's digits."
            )
        super().__post_init__()

    def training(self, **changes) -> TrainConfig:
        """The same settings as what `train` takes."""
        return TrainConfig(**{**{f.name: getattr(self, f.name) for f in fields(TrainConfig)}, **changes})


@dataclass(frozen=True)
class ShapeSettings:
    """Options for shapes, which are compared by points on their surfaces."""

    points: int = 1024
    """Points sampled on each surface; HyperDiffusion's tables use 2,048."""
    size: int = 64
    """Grid cells along an edge of the cube from which surfaces are extracted."""
    pool: int = 500
    """Number of training fields searched for the nearest neighbour of each sample and each reference, for Z_U and the
    search for copies."""
    baselines: bool = True
    """Also evaluate noisy and averaged training fields and weights drawn one by one."""

    def __post_init__(self):
        check_numbers(self, "shapes.", least={"points": 2, "size": 8, "pool": 2})


@dataclass(frozen=True)
class EvaluateConfig(Overwrites):
    """Compare samples with held-out references, and with all baselines, in one table.

    Pictures are compared by L2, SSIM and the features of a classifier; shapes by Chamfer distances between their surfaces,
    which takes minutes. The weight dataset tells which of the two its fields are.

    For example:
        python scripts/evaluate.py --fields runs/digits/fields --samples runs/digits/samples --model runs/digits/gpt
        python scripts/evaluate.py --fields runs/shapes/fields --samples runs/shapes/samples --out runs/shapes/evaluation
    """

    fields: str
    """Weight dataset whose training split the model was trained on: a folder, or user/name on the Hub."""
    out: Path | None = None
    """Output folder for report.html, metrics.json, table.md, samples.png and curves.png; default: evaluation beside the
    fields or, if that folder holds an evaluation made with other settings, a name that adds what differs."""
    samples: str | None = None
    """Samples to evaluate: a weight dataset, user/name on the Hub, or a folder of pictures; None = evaluate the
    baselines only."""
    split: str | None = None
    """Split of the samples' dataset; default: `samples`, or the only one it has."""
    tokenizer: str | None = None
    """Tokenizer (a folder, or user/name on the Hub) for the baselines that need tokens: round trip, unigram and copies
    of tokens; default: the one stored with --model."""
    model: str | None = None
    """Model (a folder, or user/name on the Hub) that drew the samples, for its validation bits and its tokenizer."""
    revision: Revision = None
    signals: FittedTo = None
    data_root: DataRoot = None
    references: str = "images"
    """What samples are compared with. images: held-out test signals; fields: renders of the fields fitted to them; or a
    weight dataset, a name on the Hub, or a folder of pictures."""
    reference_split: str | None = None
    """Split that the references of --fields come from. Choose settings (a temperature, a recipe) by `validation` and report
    `test`; shapes can be compared with `held-out` ones, of both. Default: test, or validation where there is no test split."""
    n: int | None = None
    """Number of samples, and of references, drawn without replacement; fewer if there are not as many. Default: 1,000
    pictures or 200 shapes."""
    features_n: int | None = None
    """For pictures: number of samples, and of references, of a second table with FID and KID alone, which need more signals
    than --n to settle, for example 10,000; None = no such table."""
    classifier: ClassifierFile = None
    classifiers: Classifiers = Path("runs/classifiers")
    protocol: Literal["standard", "nefgpt"] = "standard"
    """standard: the project's own protocol. nefgpt: that of the NeF-GPT paper, for comparison with it: digit 3, 256
    samples against 256 TRAINING references drawn with replacement, D = (1 - SSIM) / 2."""
    seed: int = 0
    """Random seed of the references, baselines, bootstrap and classifier."""
    threads: Threads = None
    shapes: ShapeSettings = field(default_factory=ShapeSettings)

    def __post_init__(self):
        check_numbers(self, least={"n": 1, "features_n": 2, "threads": 1})


@dataclass(frozen=True)
class DiagnoseConfig(Overwrites):
    """Find the stage that loses most quality between the signals and the samples, and say what to try next.

    For example:
        python scripts/diagnose.py --model runs/digits/gpt
        python scripts/diagnose.py --model runs/mnist/gpt --n 500 --data-root DIR
    """

    model: str
    """Trained GPT: a training folder, a model folder, or user/name on the Hub."""
    out: Path | None = None
    """Output folder for report.html, diagnosis.md, diagnosis.json and diagnosis.png; default: MODEL-diagnosis beside
    the model or, if that folder holds a diagnosis made with other settings, a name that adds what differs."""
    fields: str | None = None
    """Weight dataset the model was trained on: a folder, or user/name on the Hub; default: the one named in the
    training folder."""
    signals: FittedTo = None
    data_root: DataRoot = None
    n: int = 180
    """Number of pictures per stage; fewer if there are not as many."""
    classifier: ClassifierFile = None
    classifiers: Classifiers = Path("runs/classifiers")
    seed: int = 0
    """Random seed of the references, the fields of each stage and the samples."""
    threads: Threads = None

    def __post_init__(self):
        check_numbers(self, least={"n": 2, "threads": 1})


DIGITS = PipelineConfig(
    labels=True, steps=1500, batch=32, token_noise=0.1, label_dropout=0.1, model=ModelConfig(dropout=0.2)
)
"""The pipeline's settings: 1,437 digits are soon memorised."""


def defaults(words: list[str]) -> PipelineConfig:
    """What a command line starts from: with --fields a training, without it the pipeline."""
    return PipelineConfig() if any(word.split("=")[0] == "--fields" for word in words) else DIGITS
