"""What a trainer trains: a task gives the model, the loss of some rows, validation, pictures and files.

A new task is one class: `model`, `__len__`, `loss` and `optimizers` are needed, all else has a default. The trainer
(gpt/training/trainer.py) owns steps, micro-batches, the schedule, the moving average, checkpoints, resuming and logs.
"""

import math
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class Task(Generic[Model]):
    """One kind of model on one dataset.

    Attributes:
        model: fresh, in training mode after the trainer has taken it.
        unit: of the loss, for log lines.
        counted: what `count` counts, for the speed in log lines.
        score: name of the number of `validate` that chooses the best model; the smaller, the better.
        hopeless: a loss from which on the training counts as diverged, though every number be finite.
    """

    model: Model
    unit: str = "per row"
    counted: str = "rows"
    score: str = "loss"
    hopeless: float = math.inf

    def __len__(self) -> int:
        """Rows of the training data."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"

    def loss(self, model: Model, rows: Tensor, seed: int) -> Tensor:
        """() sum of the losses of these rows; divided by `count` it is what is minimised.

        Args:
            model: this task's, as the trainer has wrapped it.
            rows: (B,) int64; -1 stands for a row without loss.
            seed: of whatever is drawn at random (dropout, noise): a function of run, step and micro-batch.
        """
        raise NotImplementedError

    def optimizers(self, config: Any) -> list[torch.optim.Optimizer]:
        """One or more; the trainer sets their learning rate."""
        raise NotImplementedError

    def count(self, rows: Tensor) -> int:
        """Terms in the loss of these rows."""
        return int((rows >= 0).sum())

    def fresh(self) -> Model:
        """A model of the same sizes, to be filled with weights."""
        model: Any = self.model
        return type(model)(model.config)

    def row_losses(self, model: Model, rows: Tensor) -> Tensor | None:
        """(B,) the loss of each row, to name the worst ones; None where that cannot be said."""
        return None

    def row_name(self, row: int) -> str:
        """A row's name in messages."""
        return f"row {row}"

    def validate(self, model: Model, accelerator: Any, micro: int) -> dict[str, Any] | None:
        """Numbers of held-out data, one of them named `score`; None without such data. Called by all processes."""
        return None

    def describe(self) -> str:
        """Data and model in half a line."""
        return f"{len(self):,} rows; {type(self.model).__name__} of {trainable_size(self.model):,} weights"

    def describe_loss(self, loss: float) -> str:
        """A training loss in the words of `describe_validation`."""
        return f"loss {loss:.4f} {self.unit}"

    def describe_validation(self, numbers: dict[str, Any]) -> str:
        """The numbers of `validate` in half a line."""
        return f"{self.score} {numbers[self.score]:.4f}"

    def advise(self, numbers: dict[str, Any], loss: float | None) -> str:
        """What the best model's numbers of `validate` and the last training loss advise; empty where nothing."""
        return ""

    def save(self, path: Path, model: Any, info: dict[str, Any]) -> None:
        """Write a model folder; `info`: step, validation, ema."""
        model.save_pretrained(path)

    def load(self, out: Path) -> Model:
        """The best (else the last) model that `save` wrote in a run's folder."""
        return self.model

    def draw(self, path: Path, model: Model) -> None:
        """A picture of what the model makes."""

    def curves(self, path: Path, rows: list[dict[str, Any]]) -> None:
        """A picture of the lines of metrics.jsonl."""


def trainable_size(model: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(p.numel() for p in model.parameters())
