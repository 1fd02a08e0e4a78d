"""One cell of the experiment of `gpt.experiments.memorise`: a regression transformer trained on N fields, and what it generates."""

import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.metrics.pairs import psnr
from fields.runtime import runs
from fields.signals.base import Signals
from fields.storage.dataset import WeightDataset
from fields.view.render import render
from gpt.continuous.regression import RegressionConfig, RegressionTransformer
from gpt.continuous.task import RegressionTask
from gpt.options import LoopConfig
from gpt.training.local import Local
from gpt.training.schedule import warmup_steps
from gpt.training.trainer import Trainer

WINDOW = 16
EXPLODED = 0.1
"""A roll-out has exploded where the mean error of WINDOW weights in a row exceeds this (a weight's deviation is .3 to .7)."""
PREFIX = 16
"""Weights given to a second roll-out, which shows whether a model failed to name the field or to remember it."""
GENERATED = ("rolled", "prefixed", "teacher")
FLOOR = 1e-2
"""Least deviation that --standardize divides by: with one field every deviation is zero."""


@dataclass(frozen=True, order=True)
class Trial:
    """One model of the experiment."""

    n: int
    seed: int
    start: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.start}-n{self.n}-seed{self.seed}"


class Cut:
    """Asks the trainings of all threads to stop after their step; a cell that is not finished is thrown away."""

    requested = False


_BIRTH = threading.Lock()
"""A fresh model borrows the global random state, which threads share."""


def train_cell(
    config: Any, cell: Trial, rows: Tensor, precision: str, cut: Cut, tick=lambda n: None
) -> RegressionTransformer:
    """One model that has seen `rows` (N, P) for `config.steps` steps.

    Args:
        config: a MemoriseConfig.
        cell: which one.
        rows: on the device of the training.
        precision: "no" or "bf16".
        cut: stops it.
        tick: called with 1 after each step.
    Raises:
        RuntimeError: if the loss is not finite.
        KeyboardInterrupt: after a stop.
    """
    mean, scale = torch.zeros(()), torch.tensor(config.scale)
    if config.standardize:
        mean, scale = rows.mean(0), rows.std(0, correction=0).clamp_min(FLOOR)
    sizes = RegressionConfig(rows.shape[1], **asdict(config.model))
    with _BIRTH:
        model = RegressionTransformer.create(sizes, mean, scale, config.seed + cell.seed).to(rows.device)
    loop = LoopConfig(
        batch=config.batch,
        lr=config.lr,
        min_lr=config.lr / 100,
        eval_every=config.steps,
        log_every=config.steps,
        seed=cell.seed,
    )
    trainer = Trainer(loop, RegressionTask(model, rows, config.loss, config.optimizer), Local(rows.device, precision))
    try:
        trainer.run(config.steps, warmup_steps(None, config.steps), progress=lambda values: tick(1), interrupt=cut)
    except RuntimeError as error:
        raise RuntimeError(f"{cell.name}: {error}") from None
    return trainer.model.eval()


def measure_trial(model: RegressionTransformer, data: WeightDataset, pool: Signals, rows: slice) -> dict[str, Any]:
    """What a model generates.

    Args:
        model: on the CPU.
        data: the fields, in the order of `pool`.
        pool: the signals.
        rows: those memorised, N.
    Returns:
        rolled, prefixed, teacher (N, P): the fields from their first weight, from their first PREFIX weights, and from the
        true weights before each; l1: mean error of `teacher`; exploded (N,): step of a roll-out, P if never; and in dB,
        (N,): psnr_signal, psnr_own, psnr_nearest, psnr_prefixed: of the rolled field against the signal, against the field
        itself, against the nearest of the N fields, and of the prefixed one against the field itself; psnr_teacher: of
        `teacher` against the field; psnr_fit, psnr_mean: of the field, and of the mean of all N, against the signal.
    """
    weights, at = data.weights("train")[rows], range(*rows.indices(len(pool)))
    images = pool.images(list(at))
    generated = {
        "rolled": model.roll_out(weights[:, :1]),
        "prefixed": model.roll_out(weights[:, :PREFIX]),
        "teacher": model.teacher_forced(weights),
    }
    own, mean, rolled, prefixed, teacher = (
        render(data.config, w, *images.shape[1:3])
        for w in (weights, weights.mean(0, keepdim=True), *generated.values())
    )
    return {
        **generated,
        "l1": float((generated["teacher"] - weights)[:, 1:].abs().mean()),
        "exploded": explosion((generated["rolled"] - weights).abs()),
        "psnr_signal": psnr(rolled, images),
        "psnr_own": psnr(rolled, own),
        "psnr_nearest": torch.stack([psnr(rolled, other.expand_as(rolled)) for other in own]).amax(0),
        "psnr_prefixed": psnr(prefixed, own),
        "psnr_teacher": psnr(teacher, own),
        "psnr_fit": psnr(own, images),
        "psnr_mean": psnr(mean.expand_as(images), images),
    }


def explosion(errors: Tensor) -> Tensor:
    """First step from which WINDOW errors in a row exceed EXPLODED on average; the number of steps where none does.

    Args:
        errors: (N, P) absolute.
    Returns:
        (N,) int64.
    """
    width = min(WINDOW, errors.shape[1])
    above = errors.unfold(1, width, 1).mean(2) > EXPLODED  # (N, P - width + 1)
    return torch.where(above.any(1), above.int().argmax(1), errors.shape[1])


def save_cell(folder: Path, cell: Trial, model: RegressionTransformer, found: dict[str, Any]) -> None:
    """The model, what it generated (rows.safetensors) and, last, cell.json."""
    from safetensors.torch import save_file

    with runs.replace_folder(folder) as temporary:
        model.save_pretrained(temporary / "model")
        save_file({k: found[k].contiguous() for k in GENERATED}, temporary / "rows.safetensors")
        numbers = {k: v for k, v in found.items() if k not in GENERATED}
        runs.write_json(temporary / "cell.json", {**asdict(cell), **numbers})
