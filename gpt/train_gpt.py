"""Training a GPT on tokens, on Accelerate: what can be configured, and a run from start to end (the loop: gpt/training/trainer.py; what is trained: gpt/token_task.py)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from fields.runtime.flags import Overwrites, Precision
from fields.runtime.launch import check_memory, precision_of, start
from fields.runtime.processes import on_all, on_main
from fields.runtime.products import products_put_back
from fields.runtime.runs import claim, read_json, write_json
from fields.storage.fetch import at
from gpt.corpus import Corpus, load_corpus
from gpt.model import GPT, GPTConfig
from gpt.token_task import CorpusTask
from gpt.training.priors import initialise_from_counts
from gpt.training.schedule import warmup_steps
from gpt.training.task import size
from gpt.training.trainer import LoopConfig, Trainer

DEFAULT_STEPS = 2000
PATHS = ("fields", "tokenizer", "tokens", "out")  # named by what is in them: `parents`
FREE = (
    *PATHS,
    "revision",
    "stream",
    "threads",
    "compile",
    "recompute",
    "keep",
    "micro_batch",
    "steps",
    "tracker",
    "project",
    "log_every",
    "sample_every",
    "save_every",
    "resume",
)
"""What may change when a run goes on: it moves no weight, re-keys dropout (micro_batch), or prolongs it (steps)."""


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
        for name, low in {"steps": 1, "warmup": 0, "eval_fields": 1}.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {low}, got {value}.")
        if self.steps is not None and self.warmup is not None and self.warmup > self.steps:
            raise ValueError(f"--warmup must be at most --steps ({self.steps}), got {self.warmup}.")
        if self.optimizer not in ("adamw", "muon", "sgd"):
            raise ValueError(f"--optimizer must be adamw, muon or sgd, got {self.optimizer!r}.")
        for name in ("token_noise", "label_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name.replace('_', '-')} must lie between 0 and 1, got {getattr(self, name)}.")
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
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {self.threads}.")
        if self.shifts < 0 or not 0 < self.shift_by <= 1:
            raise ValueError(
                f"--shifts must be 0 or more and --shift-by in (0, 1], got {self.shifts}, {self.shift_by}."
            )
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"--minutes must be above 0, got {self.minutes}.")


@products_put_back()
def train(config: TrainConfig) -> dict[str, Any]:
    """Train, or go on with, a GPT.

    Returns:
        step, and the validation numbers of best and last.
    Raises:
        ValueError, FileNotFoundError: if inputs do not belong together, before anything is computed.
        RuntimeError: if training diverges, or a checkpoint cannot be written.
        KeyboardInterrupt: after SIGINT or SIGTERM, when the state has been saved.
    """
    from accelerate import DistributedDataParallelKwargs  # a second, which --help does not need

    if config.label_dropout and not config.labels:
        raise ValueError("--label-dropout leaves labels out of some fields: it needs --labels.")
    if config.shifts and config.stream:
        raise ValueError("--shifts holds the fields in memory: leave out --stream, or --shifts.")
    accelerator = start(
        threads=config.threads,
        precision=config.precision,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],  # buffers never change
    )
    if config.micro_batch is None and config.batch < accelerator.num_processes:
        raise ValueError(f"--batch {config.batch} is fewer than the {accelerator.num_processes} processes. Raise it.")
    corpus = _corpus(config, accelerator)
    check_sizes(architecture_of(config, corpus), accelerator.device)  # before the folder is claimed
    known = on_main(accelerator, _claim, config, corpus.parents, precision_of(accelerator))
    trainer = make_trainer(config, corpus, accelerator)
    if known:
        on_all(accelerator, trainer.resume)
    steps = _steps(config, trainer)
    if trainer.state["step"] > steps:
        raise ValueError(
            f"{config.out} is at step {trainer.state['step']}, beyond --steps {steps}. Choose another --out."
        )
    if trainer.finished(steps):
        accelerator.print(
            f"{config.out} is finished at step {trainer.state['step']}. "
            "Raise --steps to go on, or choose another --out."
        )
        return trainer.finish()
    return trainer.run(steps, warmup_steps(config.warmup, steps))


def make_trainer(config: TrainConfig, corpus: Corpus, accelerator: Any) -> Trainer:
    """A fresh model of the configured sizes, ready to be trained."""
    model = GPT.create(architecture_of(config, corpus), corpus.tokenizer.slots, config.seed)
    vectors = corpus.tokenizer.code_vectors if config.model.similar else None
    initialise_from_counts(model, corpus.train, vectors, config.seed)
    return Trainer(config, CorpusTask(config, corpus, model), accelerator)


def architecture_of(config: TrainConfig, corpus: Corpus) -> GPTConfig:
    """The model's sizes, for the corpus's tokens.

    Raises:
        ValueError: for sizes that do not go together.
    """
    return GPTConfig(
        codes=corpus.vocab.codes,
        tokens_per_field=corpus.tokenizer.tokens_per_field,
        slot_sizes=tuple(corpus.tokenizer.slot_sizes),
        labels=corpus.vocab.labels,
        **{name: getattr(config.model, name) for name in ModelConfig.__dataclass_fields__ if name != "similar"},
    )


def check_sizes(sizes: GPTConfig, device: torch.device) -> None:
    """Refuse a model that with its gradients and moments is larger than the memory.

    Raises:
        ValueError: with the numbers.
    """
    with torch.device("meta"):  # counted without being made
        weights = size(GPT(sizes))
    check_memory(16 * weights, f"weights, gradients and moments of {weights:,} numbers", device)


def sources(config: TrainConfig) -> tuple[Any, Any, Any]:
    """Fields, tokenizer and tokens, Hub names with their revision."""
    return at(config.fields, config.revision), at(config.tokenizer, config.revision), at(config.tokens, config.revision)


def _corpus(config: TrainConfig, accelerator: Any) -> Corpus:
    """What is learnt. Mapped files are written by the main process, before the others look."""
    mapped = config.out.with_name(f"{config.out.name}-mapped") if config.stream else None
    if mapped is not None and accelerator.num_processes > 1:
        on_main(accelerator, lambda: load_corpus(*sources(config), config.labels, mapped) and None)
    return on_all(accelerator, load_corpus, *sources(config), config.labels, mapped)


def new_names(config: dict[str, Any]) -> dict[str, Any]:
    """A saved configuration with the names of today, and what was added since as it was without."""
    config = {"token_noise": 0.0, "label_dropout": 0.0, "shifts": 0, "shift_by": 0.15, **config}
    model = config.get("model")
    if isinstance(model, dict) and "alike" in model:
        config = {**config, "model": {"similar" if k == "alike" else k: v for k, v in model.items()}}
    return config


def _claim(config: TrainConfig, parents: dict[str, str], precision: str) -> bool:
    """Make the folder, or find it made by the same configuration; `where` things lie may differ, their content not."""
    how: dict[str, Any] = {"free": FREE, "upgrade": new_names, "kind": "train_gpt", "used": {"precision": precision}}
    known = claim(config.out, config, parents=parents, seed=config.seed, **how)
    if known and not config.resume:
        raise ValueError(
            f"--no-resume: {config.out} holds a run already. Choose another --out, or leave the flag out to go on."
        )
    return known


@dataclass
class Measured:
    """The run's `trainer.json`, as far as it is read again."""

    steps: int


def _steps(config: TrainConfig, trainer: Trainer) -> int:
    """Steps of the run. What --minutes allows is measured once and kept in trainer.json, for resuming."""
    minutes = config.minutes
    if minutes is None:
        return DEFAULT_STEPS if config.steps is None else config.steps
    path, accelerator = config.out / "trainer.json", trainer.accelerator
    kept = on_main(accelerator, lambda: read_json(path, "Delete it.", Measured)["steps"] if path.is_file() else None)
    if kept is None:
        seconds = trainer.seconds_per_step()
        kept = on_main(accelerator, lambda: max(1, int(minutes * 60 / seconds)))  # the main process' clock
        on_main(accelerator, write_json, path, {"steps": kept, "minutes": minutes, "seconds_per_step": seconds})
        accelerator.print(f"{seconds:.2f} s per step: {kept} steps in {minutes:g} minutes")
    return kept if config.steps is None else min(kept, config.steps)
