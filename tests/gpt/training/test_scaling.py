"""Loss scaling, as accelerate does it for fp16, with PyTorch's scaler on a CPU."""

import json

import pytest
import torch
from torch import nn

from gpt.training.local import Local
from gpt.training.task import Task
from gpt.training.trainer import SKIPS, LoopConfig, Trainer


class Line(Task):
    """y = 2 x; `factor` makes gradients overflow."""

    def __init__(self, factor: float = 1.0):
        torch.manual_seed(0)
        self.model, self.x, self.factor = nn.Linear(1, 1), torch.linspace(-1, 1, 64)[:, None], factor

    def __len__(self) -> int:
        return len(self.x)

    def loss(self, model, rows, seed):
        x = self.x[rows[rows >= 0]]
        error = (model(x) - 2 * x).square().sum()
        if error.requires_grad:
            error.register_hook(lambda gradient: gradient * self.factor)
        return error

    def fresh(self):
        return nn.Linear(1, 1)

    def optimizers(self, config):
        return [torch.optim.SGD(self.model.parameters(), lr=config.lr)]


class Scaled(Local):
    """As accelerate's in fp16: the loss is multiplied, clipping divides gradients, an overflow leaves the step out."""

    def __init__(self, scale: float):
        super().__init__()
        self.scaler, self.skipped = torch.amp.GradScaler("cpu", init_scale=scale), 0

    def prepare(self, *things):
        self.inner = [thing for thing in things if isinstance(thing, torch.optim.Optimizer)]
        return tuple(Stepper(thing, self) if thing in self.inner else thing for thing in things)

    def backward(self, loss):
        self.scaler.scale(loss).backward()

    def clip_grad_norm_(self, parameters, most):
        for optimizer in self.inner:
            self.scaler.unscale_(optimizer)
        return super().clip_grad_norm_(parameters, most)


class Stepper:
    """An optimiser behind a scaler."""

    def __init__(self, optimizer, accelerator):
        self.optimizer, self.accelerator, self.param_groups = optimizer, accelerator, optimizer.param_groups
        self.zero_grad = optimizer.zero_grad

    def step(self):
        scaler, before = self.accelerator.scaler, self.accelerator.scaler.get_scale()
        scaler.step(self.optimizer)
        scaler.update()
        self.accelerator.skipped += scaler.get_scale() < before


def test_steps_that_overflow_are_left_out_and_the_rest_is_learnt():
    accelerator, task, said = Scaled(2.0**127), Line(8.0), []
    Trainer(LoopConfig(batch=16, lr=0.1, ema=0.5), task, accelerator).run(120, 0, said.append)
    assert 0 < accelerator.skipped < SKIPS and abs(task.model.weight.item() - 2) < 0.1
    assert [values["grad_norm"] is None for values in said[: accelerator.skipped]] == [True] * accelerator.skipped
    assert all(values["grad_norm"] is not None for values in said[accelerator.skipped :])
    assert json.loads(json.dumps(said)) == said


def test_a_gradient_that_never_becomes_finite_is_a_divergence():
    task = Line(float("inf"))
    with pytest.raises(RuntimeError, match=f"diverged at step {SKIPS + 1}"):
        Trainer(LoopConfig(batch=16, lr=0.1), task, Scaled(4.0)).run(100, 0)
    with pytest.raises(RuntimeError, match="diverged at step 1:"):
        Trainer(LoopConfig(batch=16, lr=0.1), Line(float("inf")), Local()).run(100, 0)


def test_the_average_is_that_of_the_steps_and_not_of_the_initial_weights():
    task, seen, keep = Line(), [], 0.9
    task.model.weight.data.fill_(100.0)
    trainer = Trainer(LoopConfig(batch=16, lr=0.1, ema=keep, clip=None), task, Local())
    trainer.run(12, 0, lambda values: seen.append(task.model.weight.item()))
    shares = [keep ** (12 - step) for step in range(1, 13)]
    wanted = sum(share * value for share, value in zip(shares, seen, strict=True)) / sum(shares)
    assert trainer.usable().weight.item() == pytest.approx(wanted, rel=1e-5)
