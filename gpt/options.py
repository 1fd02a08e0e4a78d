"""What can be set of training and evaluation. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fields.runtime.flags import Overwrites, Precision, check_numbers, check_tracker


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What a trainer must be told, whatever the task."""

    out: Path | None = None
    """Folder for checkpoints, models (best/, last/), curves and samples; None = all in memory."""
    batch: int = 64
    """Fields per optimiser step, over all processes and micro-batches."""
    micro_batch: int | None = None
    """Fields per forward pass; default: batch / processes. Smaller ones are accumulated and need less memory."""
    lr: float = 1e-3
    """Highest learning rate."""
    min_lr: float | None = None
    """Learning rate of the last step; default: a tenth of --lr."""
    clip: float | None = 1.0
    """Largest norm of the gradient; None = no clipping."""
    ema: float | None = None
    """Decay of a moving average of the weights (0.999, say), which is then validated and saved in best/ and last/."""
    eval_every: int = 200
    """Steps between validations."""
    patience: int | None = None
    """Stop after so many validations without improvement; None = never."""
    sample_every: int | None = 2
    """Validations between pictures of samples; None = only at the end."""
    samples: int = 16
    """Fields in such a picture."""
    save_every: int | None = None
    """Steps between checkpoints; default: as --eval-every."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 20
    """Steps between log lines."""
    compile: bool = False
    """torch.compile the model for training."""
    recompute: bool = False
    """Keep no activations of the blocks but compute them again in the backward pass (gradient checkpointing): a third more
    time, a fraction of the memory, the same numbers."""
    tracker: str | None = None
    """Also log to tensorboard (event files in OUT/tensorboard), wandb or trackio."""
    project: str | None = None
    """Project in the tracker; default: neural-fields-as-data. The run is named by the last two parts of OUT."""
    seed: int = 0
    """Of weights, order and dropout."""

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
class ModelConfig:
    """Size of the transformer."""

    n_layer: int = 4
    """Blocks."""
    n_head: int = 4
    """Attention heads."""
    n_embd: int = 128
    """Width, a multiple of the heads."""
    dropout: float = 0.1
    """On embeddings and residual branches."""
    tie: bool = False
    """Use one matrix for token embedding and head."""
    unigram: bool = True
    """Start from how often each code stands at its position in the training fields, instead of learning it."""
    gates: bool = True
    """Scale token embeddings, and what the head reads, by learnt vectors of the position."""
    similar: Annotated[bool, tyro.conf.arg(aliases=["--model.alike"])] = True
    """Initialise codes that lie close to each other with similar weights, where the tokenizer knows which do (--model.alike
    is the old name of this flag)."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(LoopConfig):
    """How a GPT is optimised: the loop's settings and those of AdamW."""

    steps: int | None = None
    """Optimiser steps; default 2000, or what --minutes allows."""
    warmup: int | None = None
    """Steps of linear warm-up; default: a twentieth of the run, at most 200."""
    weight_decay: float = 0.1
    """Of matrices (AdamW)."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Of AdamW."""
    optimizer: str = "adamw"
    """adamw; muon: orthogonalised momentum on the blocks' matrices (Jordan 2024), AdamW on the rest; or sgd (plain)."""
    token_noise: float = 0.0
    """While training, up to this share of the codes that a field's GPT reads is replaced by another field's at that place; what
    it predicts stays. Against errors that pile up in long samples."""
    label_dropout: float = 0.0
    """While training, this share of the fields is read without its label, for sample.py --guidance; .1 is usual."""
    eval_fields: int | None = 512
    """Validation fields used, drawn once; None = all."""

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
    """Weight dataset: a folder, or user/name on the Hub."""
    tokenizer: str
    """Tokenizer: a folder, or user/name on the Hub."""
    out: Path = field(default=Path("runs/gpt"), kw_only=True)
    """Folder for checkpoints, the model (best/, last/), curves and samples."""
    tokens: str | None = None
    """The dataset's tokens, a folder or user/name on the Hub; default: tokens/ in the tokenizer folder."""
    revision: str | None = None
    """Branch, tag or commit of the Hub names given; one alone may have its own: user/name@v1."""
    stream: bool = False
    """For more than fits in memory: fields are read shard by shard, tokens mapped from files in OUT-mapped/. Pictures of
    samples are then drawn without their nearest training fields."""
    labels: bool = False
    """Begin every field with its label, so that samples can be asked for by class."""
    shifts: int = 0
    """Shifted copies of every training field, learnt beside it as such (never drawn): for vocabularies of regions, whose codes
    follow what the field says. 4 is plenty."""
    shift_by: float = 0.15
    """Largest shift along each axis, in coordinates (a picture is 2 wide)."""
    model: ModelConfig = field(default_factory=ModelConfig)
    minutes: float | None = None
    """Stop after about so many minutes: the number of steps is measured once, before the first one, and kept."""
    resume: bool = True
    """Go on where the folder's newest complete checkpoint ends. With --no-resume a used folder is refused."""
    precision: Precision = "auto"
    """auto = bf16 on a GPU, or on a CPU with AMX, else fp32, on AMD CPUs with AVX-512 by onednn (the same precision, half the
    time, other roundings); launcher = what accelerate says."""
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

    Without --fields and --tokenizer the pipeline is run on the 1,797 digits of scikit-learn, in at most ten minutes on
    two cores: fields are fitted, a vocabulary of regions is learnt, a GPT is trained, new fields are drawn
    and evaluated. Each stage whose output lies under runs/digits already is skipped. The defaults below are the pipeline's
    (labels, steps, batch and dropout differ), or, beside --fields, those of a training.

    For example:
        python scripts/train_gpt.py
        python scripts/train_gpt.py --fields runs/mnist/fields --tokenizer runs/mnist/pca --minutes 30
        python scripts/train_gpt.py --fields user/fields --tokenizer user/pca --tokens user/tokens
    """

    fields: str | None = None  # type: ignore[assignment]  # may be left out here, as the next two
    """Weight dataset: a folder, or user/name on the Hub; None = the embedded digits, made first where missing."""
    tokenizer: str | None = None  # type: ignore[assignment]
    """Tokenizer: a folder, or user/name on the Hub."""
    out: Path | None = field(default=None, kw_only=True)  # type: ignore[assignment]
    """Folder for checkpoints, the model (best/, last/), curves and samples; default: gpt beside the fields (runs/NAME/gpt
    for user/name), or, where that was trained otherwise, a name with what differs."""

    def __post_init__(self):
        if (self.fields is None) != (self.tokenizer is None):
            raise ValueError("give both --fields and --tokenizer, or neither for the pipeline on the embedded digits.")
        super().__post_init__()

    def training(self, **changes) -> TrainConfig:
        """The same settings as what `train` takes."""
        return TrainConfig(**{**{f.name: getattr(self, f.name) for f in fields(TrainConfig)}, **changes})


@dataclass(frozen=True)
class ShapeSettings:
    """Of shapes, which are compared by points on their surfaces."""

    reference: str = "test"
    """Split of the references."""
    points: int = 1024
    """Points on each surface; HyperDiffusion's tables use 2,048."""
    size: int = 64
    """Cells along an edge of the grid for the surfaces."""
    pool: int = 500
    """Training fields among which each sample's and each reference's nearest is sought, for Z_U and copies."""
    baselines: bool = True
    """Rows of noise, means and single weights, too."""

    def __post_init__(self):
        check_numbers(self, "shapes.", least={"points": 2, "size": 8, "pool": 2})


@dataclass(frozen=True)
class EvaluateConfig(Overwrites):
    """Compare samples with held-out references, with all baselines in one table.

    The kind of the fields' signals decides how: pictures by L2, SSIM and a classifier's features; shapes by Chamfer
    distances between their surfaces, which take minutes.

    For example:
        python scripts/evaluate.py --fields runs/digits/fields --samples runs/digits/samples --model runs/digits/gpt
        python scripts/evaluate.py --fields runs/shapes/fields --samples runs/shapes/samples --out runs/shapes/evaluation
    """

    fields: str
    """Weight dataset (folder or Hub id) whose training split the samples were learnt from."""
    out: Path | None = None
    """Folder for report.html, metrics.json, table.md, samples.png, curves.png; default: evaluation beside the fields, or, where
    that holds another one, a name with what differs."""
    samples: str | None = None
    """What to evaluate: a weight dataset, a Hub id user/name, or a folder of images; without it the baselines alone."""
    split: str | None = None
    """Split of the samples' dataset; default `samples`, or its only one."""
    tokenizer: str | None = None
    """Tokenizer (folder or Hub id) for round trip, unigram and token copies; default: that of --model."""
    model: str | None = None
    """Model (folder or Hub id), for its validation bits and its tokenizer."""
    revision: str | None = None
    """Branch, tag or commit of the Hub names given; one alone may have its own: user/name@v1."""
    signals: str | None = None
    """Signals the fields were fitted to (digits, mnist, fashion-mnist, a folder); default: what the dataset says."""
    data_root: Path | None = None
    """Where the signals' files lie."""
    references: str = "images"
    """images = held-out test signals, fields = renders of their fields; or a weight dataset, Hub id or image folder."""
    n: int | None = None
    """Signals on each side, without replacement; fewer where there are not as many. Default: 1,000, of shapes 200."""
    features_n: int | None = None
    """Signals on each side of a second table with FID and KID alone, which need more signals than --n to settle, 10,000 for
    example. Default: no such table. For pictures."""
    classifier: Path | None = None
    """Classifier for FID and label accuracy; default: one is trained from the labelled training signals and cached."""
    classifiers: Path = Path("runs/classifiers")
    """Where trained classifiers are kept."""
    protocol: Literal["standard", "nefgpt"] = "standard"
    """nefgpt = NeF-GPT's own: digit 3, 256 vs 256 with replacement, TRAINING references, D = (1-SSIM)/2."""
    seed: int = 0
    """Of references, baselines, bootstrap and classifier."""
    threads: int | None = None
    """CPU threads; default: all cores."""
    shapes: ShapeSettings = field(default_factory=ShapeSettings)

    def __post_init__(self):
        check_numbers(self, least={"n": 1, "features_n": 2, "threads": 1})


@dataclass(frozen=True)
class DiagnoseConfig(Overwrites):
    """Name the stage that loses most between signals and samples, and what to try next.

    For example:
        python scripts/diagnose.py --model runs/digits/gpt
        python scripts/diagnose.py --model runs/mnist/gpt --n 500 --data-root DIR
    """

    model: str
    """GPT: a training folder, a model folder, or user/name on the Hub."""
    out: Path | None = None
    """Folder for report.html, diagnosis.md, diagnosis.json, diagnosis.png; default: MODEL-diagnosis beside the
    model, or, where that is of other settings, a name with what differs."""
    fields: str | None = None
    """Weight dataset it learnt from (folder or Hub name); default: what the training folder says."""
    signals: str | None = None
    """Signals the fields were fitted to (digits, mnist, fashion-mnist, a folder); default: what the dataset says."""
    data_root: Path | None = None
    """Where the signals' files lie."""
    n: int = 180
    """Pictures of each row; fewer where there are not as many."""
    classifier: Path | None = None
    """Classifier for FID; default: one is trained from the labelled training signals and cached."""
    classifiers: Path = Path("runs/classifiers")
    """Where trained classifiers are kept."""
    seed: int = 0
    """Of references, rows and samples."""
    threads: int | None = None
    """CPU threads; default: all cores."""

    def __post_init__(self):
        check_numbers(self, least={"n": 2, "threads": 1})


DIGITS = PipelineConfig(
    labels=True, steps=1500, batch=32, token_noise=0.1, label_dropout=0.1, model=ModelConfig(dropout=0.2)
)
"""The pipeline's settings: 1,437 digits are soon memorised."""


def defaults(words: list[str]) -> PipelineConfig:
    """What a command line starts from: with --fields a training, without it the pipeline."""
    return PipelineConfig() if any(word.split("=")[0] == "--fields" for word in words) else DIGITS
