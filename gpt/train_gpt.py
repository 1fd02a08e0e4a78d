"""Training a GPT on tokens, on Accelerate: what can be configured, and a run from start to end (the loop: gpt/training/trainer.py; what is trained: gpt/token_task.py)."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from fields.runtime.launch import precision_of, start
from fields.runtime.processes import on_all, on_main
from fields.runtime.products import products_put_back
from fields.runtime.resources import check_memory
from fields.runtime.runs import claim, read_json, vacant, write_json
from fields.storage.fetch import at
from gpt.corpus import Corpus, load_corpus
from gpt.model import GPT, GPTConfig
from gpt.options import ModelConfig, TrainConfig
from gpt.token_task import CorpusTask
from gpt.training.priors import initialise_from_counts
from gpt.training.schedule import warmup_steps
from gpt.training.task import trainable_size
from gpt.training.trainer import Trainer

DEFAULT_STEPS = 2000
PATHS = ("fields", "tokenizer", "tokens", "out")  # named by what is in them: `parents`
FREE = (
    *PATHS,
    *("revision", "stream", "threads", "compile", "recompute", "keep", "micro_batch", "steps", "tracker", "project"),
    *("log_every", "sample_every", "save_every", "resume"),
)
"""What may change when a run goes on: it moves no weight, re-keys dropout (micro_batch), or prolongs it (steps)."""


@products_put_back()
def train(config: TrainConfig, default: bool = False) -> dict[str, Any]:
    """Train a GPT, or continue its training.

    Args:
        config: dataset, tokenizer, model and training options.
        default: whether the user named no folder; if the config's folder holds a model trained with other settings, another one is used.
    Returns:
        step, and the validation numbers of best and last.
    Raises:
        ValueError, FileNotFoundError: if inputs do not belong together, before anything is computed.
        RuntimeError: if training diverges, or a checkpoint cannot be written.
        KeyboardInterrupt: after SIGINT or SIGTERM, when the state has been saved.
    """
    from accelerate import DistributedDataParallelKwargs  # a second, which --help does not need

    if config.label_dropout and not config.labels:
        raise ValueError("--label-dropout hides the labels of some fields, so it needs --labels.")
    if config.shifts and config.stream:
        raise ValueError("--shifts needs the fields in memory. Leave out --stream or --shifts.")
    accelerator = start(
        threads=config.threads,
        precision=config.precision,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],  # buffers never change
    )
    if config.micro_batch is None and config.batch < accelerator.num_processes:
        raise ValueError(
            f"--batch {config.batch} is fewer than the {accelerator.num_processes} processes. Raise --batch."
        )
    corpus = _corpus(config, accelerator)
    check_sizes(architecture_of(config, corpus), accelerator.device)  # before the folder is claimed
    about: dict[str, Any] = {"parents": corpus.parents, "free": FREE, "upgrade": new_names, "kind": "train_gpt"}
    if default:
        config = replace(config, out=on_main(accelerator, vacant, config.out, config, **about))
    about |= {"seed": config.seed, "used": {"precision": precision_of(accelerator)}}
    known = on_main(accelerator, claim, config.out, config, **about)
    if known and not config.resume:
        raise ValueError(
            f"--no-resume: {config.out} already holds a run. Choose another --out, or leave out --no-resume to continue."
        )
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
        weights = trainable_size(GPT(sizes))
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
