"""The loop of training: one optimiser step, and what happens between steps, for any `Task` (gpt/training/task.py).

What a step does depends on (seed, step) alone: which rows, which noise, which learning rate. So a run that was
interrupted, however often, goes on exactly as if it had not been, and the number of processes changes rounding only
(dropout: at the same rows per forward pass, as each micro-batch draws its own masks).
"""

import math
import shutil
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fields.runtime.console import duration, plural
from fields.runtime.launch import check_compiler, widest
from fields.runtime.processes import Interrupt, Stopped, on_main
from fields.runtime.records import read_json
from fields.runtime.resources import check_room
from fields.runtime.runs import digest, replace_folder
from fields.runtime.tracking import Tracking
from gpt.data import global_batch, micro_batches, seed_of
from gpt.options import LoopConfig
from gpt.training.checkpoints import Checkpoints
from gpt.training.log import MetricsLog
from gpt.training.schedule import learning_rate
from gpt.training.task import Task

SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")
"""Kinds of distribution, by accelerate's names, where no process holds the whole model."""
SKIPS = 32
"""Steps in a row that loss scaling may leave out; from 65,536 on that many halvings leave no scale."""
OVERHEAD = 1.1
"""A step's time by that of its passes, for optimiser and validation."""


@dataclass
class SavedStep:
    """What model.json says of when it was saved."""

    step: int


def recompute_blocks(model: nn.Module) -> None:
    """Have a model's blocks computed again in the backward pass instead of kept.

    Raises:
        ValueError: for a model without `blocks`.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise ValueError(f"--recompute needs a model with blocks, {type(model).__name__} has none. Leave the flag out.")
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


class Trainer:
    """Model, optimisers and state of one run.

    Args:
        config: a LoopConfig.
        task: what is trained, and on what.
        accelerator: of this process: accelerate's, or a `Local`.
    Attributes:
        state: step, numbers of the best validation, validations since then, and whether training stopped early.
        best: a copy of the best model, where there is no folder to keep it in.
    """

    def __init__(self, config: LoopConfig, task: Task, accelerator: Any):
        self.config, self.task, self.accelerator = config, task, accelerator
        how = getattr(getattr(accelerator, "distributed_type", None), "value", "NO")
        if how in SHARDED:
            raise ValueError(
                f"{how} divides a model over processes, which this trainer does not support: each process keeps the whole model. "
                "Leave it out of the launcher's configuration; --recompute and --micro-batch reduce the memory needed."
            )
        self.model: Any = task.model.to(accelerator.device).train()
        task.model = self.model
        if config.recompute:
            recompute_blocks(self.model)
        if config.compile:
            check_compiler()
        wrapped = torch.compile(self.model) if config.compile else self.model
        self.wrapped, *self.optimizers = accelerator.prepare(wrapped, *task.optimizers(config))
        self.micro = config.micro_batch or -(-config.batch // accelerator.num_processes)
        self.ema = None if config.ema is None else {k: v.clone() for k, v in self.model.state_dict().items()}
        self.metrics = None if config.out is None else MetricsLog(config.out / "metrics.jsonl")
        self.checkpoints = (
            None if config.out is None else Checkpoints(config.out / "checkpoints", accelerator, config.keep)
        )
        self.state: dict[str, Any] = {"step": 0, "best": None, "stale": 0, "stopped": False, "last": None}
        self.saved = -1  # step of the newest checkpoint
        self.skipped = 0  # steps in a row whose gradient overflowed
        self.tracking: Tracking | None = None
        self.trained = False
        self.best: Any = None

    def __repr__(self) -> str:
        return f"Trainer({self.task!r}, step {self.state['step']})"

    @property
    def out(self) -> Path:
        """The run's folder; what is read and written there is only asked for where there is one."""
        assert self.config.out is not None
        return self.config.out

    # -- one step -------------------------------------------------------------------------------------------------

    def backward(self, rows: Tensor, step: int) -> Tensor:
        """Gradients of the mean loss over ALL terms of the global batch, whatever the cut into micro-batches.

        Returns:
            () float64 (float32 where the device has no wider), this process' sum of losses.
        """
        a, total = self.accelerator, max(1, self.task.count(rows))
        parts = micro_batches(rows, self.micro, a.process_index, a.num_processes)
        summed = torch.zeros((), dtype=widest(a.device), device=a.device)
        for j, (i, part) in enumerate(parts):
            with a.no_sync(self.wrapped) if j + 1 < len(parts) else nullcontext():
                with a.autocast():
                    losses = self.task.loss(self.wrapped, part, seed_of("dropout", self.config.seed, step, i))
                a.backward(losses * (a.num_processes / total))  # DDP takes the mean over processes
            summed = summed + losses.detach().to(summed.dtype)
        return summed

    def step(self, step: int, rate: float, interrupt: Any) -> dict[str, Any]:
        """One optimiser step. In fp16 one whose scaled gradient overflowed leaves the weights as they are and halves the scale.

        Raises:
            RuntimeError: if loss or gradient is not finite, or the loss is hopeless; the weights are then unchanged.
        """
        a, task = self.accelerator, self.task
        rows = global_batch(len(task), self.config.batch, self.config.seed, step)
        summed = self.backward(rows, step)
        stop = torch.tensor(float(interrupt.requested), dtype=summed.dtype, device=a.device)
        summed, stop = a.reduce(torch.stack([summed, stop]), "sum").tolist()
        loss = summed / max(1, task.count(rows))
        clip = math.inf if self.config.clip is None else self.config.clip
        norm = float(a.clip_grad_norm_(self.wrapped.parameters(), clip))
        overflow = getattr(a, "scaler", None) is not None and not math.isfinite(norm)
        self.skipped = self.skipped + 1 if overflow else 0
        fine = math.isfinite(norm) or 0 < self.skipped <= SKIPS
        if not (fine and math.isfinite(loss) and loss < task.hopeless):
            on_main(a, self._diverged, step, rate, loss, norm, rows)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None and self.config.ema is not None and not overflow:
            self._average(self.ema, self.config.ema, step)
        values = {
            "step": step,
            "epoch": step * self.config.batch / len(task),
            "loss": loss,
            "lr": rate,
            "grad_norm": None if overflow else norm,
        }
        return {**values, "batch": digest(rows), "stop": stop > 0, "terms": task.count(rows)}

    @torch.no_grad()
    def _average(self, ema: dict[str, Tensor], keep: float, step: int) -> None:
        # as of Adam's moments (arXiv:1412.6980, section 3) the start is corrected for: the initial weights have no share
        share = (1 - keep) / (1 - keep**step)
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                ema[name].lerp_(value, share)

    @torch.no_grad()
    def _diverged(self, step: int, rate: float, loss: float, norm: float, rows: Tensor) -> None:
        """Say what is wrong, and with which rows."""
        model, said = self.usable(ema=False), ""
        said_of_rows = [self.task.row_losses(model, part) for part in rows.split(self.micro)]
        known = [part for part in said_of_rows if part is not None]
        if len(known) == len(said_of_rows):
            losses = torch.cat(known)
            bad = (~losses.isfinite()).nonzero().flatten()
            worst = bad if len(bad) else losses.argsort(descending=True)
            names = ", ".join(self.task.row_name(int(rows[i])) for i in worst[:5])
            said = f"{'not finite' if len(bad) else 'highest'} losses: {names}. "
        kept = [] if self.checkpoints is None else self.checkpoints.all()
        raise RuntimeError(
            f"training diverged at step {step}: loss {loss:.4g} {self.task.unit}, lr {rate:.3g}, gradient norm {norm:.4g}; "
            f"{said}{f'{kept[-1]} is untouched' if kept else 'No checkpoint was written'}. "
            "Lower --lr or leave bad fields out."
        )

    def seconds_per_step(self, tries: int = 12) -> float:
        """Time of a step as the usual one of some passes: optimiser and validation come on top."""
        times = [self.seconds_of_pass(step) for step in range(1, tries + 1)]
        return OVERHEAD * statistics.median(times[tries // 2 :])  # first ones are slow

    def seconds_of_pass(self, step: int) -> float:
        """Time of a forward and backward pass of a batch, measured without a step; to be called by all processes."""
        began = time.perf_counter()
        float(self.backward(global_batch(len(self.task), self.config.batch, self.config.seed, step), step))
        seconds = time.perf_counter() - began  # float() has waited for the device
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return seconds

    # -- a run ----------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go back to the newest complete checkpoint, or stay at step 0.

        Raises:
            RuntimeError: if no checkpoint can be read, or they were taken away: models of the run would be replaced.
        """
        assert self.checkpoints is not None and self.metrics is not None
        found = self.checkpoints.load()
        if found is None:
            if (card := self.out / "last" / "model.json").is_file():  # written after a checkpoint
                raise RuntimeError(
                    f"{self.out} holds models of step {read_json(card, '', SavedStep)['step']} but no checkpoint to continue from. "
                    "Put checkpoints/ back, choose another --out, or start over with --overwrite."
                )
            self.accelerator.print("no complete checkpoint: starting at step 0")
        else:
            state, ema = found
            if self.ema is not None and ema is not None:
                self.ema = {k: v.to(self.accelerator.device) for k, v in ema.items()}
            self.state = {k: state[k] for k in self.state}
            self.saved = self.state["step"]
            epoch = self.saved * self.config.batch / len(self.task)
            self.accelerator.print(f"resumed at step {self.saved} (epoch {epoch:.2f})")
            on_main(self.accelerator, self._follow)
        on_main(self.accelerator, self.metrics.rewind, self.state["step"])

    def _follow(self) -> None:
        """Make last/ and best/ the models of the checkpoint gone back to, if a kill or a hand came in between."""
        assert self.checkpoints is not None
        if self.state["step"] and not self._is_of("last", self.state["step"]):
            self._save_model("last", self.usable())
        best = self.checkpoints.path(self.saved) / "best"  # not in checkpoints of older versions
        if self.state["best"] and best.is_dir() and not self._is_of("best", self.state["best"].get("step")):
            with replace_folder(self.out / "best") as temporary:
                shutil.copytree(best, temporary, dirs_exist_ok=True)
            self.accelerator.print(
                f"best/ is that of step {self.state['best'].get('step')} again, as in the checkpoint"
            )

    def _is_of(self, name: str, step: int | None) -> bool:
        """Whether the model in a folder is there, and of a step."""
        try:
            return read_json(self.out / name / "model.json", "", SavedStep)["step"] == step
        except (OSError, ValueError):
            return False

    def finished(self, steps: int) -> bool:
        """Whether nothing is left to do."""
        return self.state["step"] == steps or self.state["stopped"]

    def run(
        self,
        steps: int,
        warmup: int,
        progress: Callable[[dict[str, Any]], None] | None = None,
        interrupt: Any = None,
    ) -> dict[str, Any]:
        """Train until `steps`.

        Args:
            steps: of the whole run.
            warmup: steps of linear warm-up.
            progress: called after each step with its numbers.
            interrupt: something whose `requested` stops the run after the step; None = SIGINT and SIGTERM.
        Returns:
            `summary`.
        Raises:
            RuntimeError: if training diverges, or a checkpoint cannot be written.
            KeyboardInterrupt: after an interruption, when the state has been saved.
        """
        c, a = self.config, self.accelerator
        self._announce(steps)
        if c.out is not None:
            copies = (c.keep + 1) * (
                4 + (self.ema is not None)
            ) + 2  # weights, two moments and the best model; best/ and last/
            size = 4 * sum(p.numel() for p in self.model.parameters()) * copies
            on_main(a, check_room, c.out, size, "checkpoints and models")
        self._say_rate(steps, warmup)
        self.trained = True
        terms, began, logged = 0, time.perf_counter(), self.state["step"]
        with nullcontext(interrupt) if interrupt is not None else Interrupt() as stopping, self._tracked():
            for step in range(self.state["step"] + 1, steps + 1):
                rate = learning_rate(step, steps=steps, warmup=warmup, top=c.lr, least=c.least_lr)
                values = self.step(step, rate, stopping)
                stop, terms = values.pop("stop"), terms + values.pop("terms")
                self.state["step"] = step
                if progress is not None:
                    progress(values)
                if step % c.log_every == 0 or step == steps:
                    seconds = time.perf_counter() - began
                    left = seconds / (step - logged) * (steps - step)
                    self._log(values, terms / seconds, steps, left)
                    terms, began, logged = 0, time.perf_counter(), step
                if step % c.eval_every == 0 or step == steps:
                    pause = time.perf_counter()
                    self.validate(step)
                    began += time.perf_counter() - pause
                if step % (c.save_every or c.eval_every) == 0 or step == steps or stop or self.state["stopped"]:
                    self.save(step)
                if stop:
                    if c.out is not None:
                        a.print(f"interrupted after step {step}; run the same command again to continue from there")
                    raise Stopped(getattr(stopping, "number", signal.SIGINT))
                if self.state["stopped"]:
                    a.print(f"stopped at step {step}: no improvement in {c.patience} validations")
                    break
        return self.finish()  # a signal ends it: all is saved

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        """An open tracker, in the main process and where one is asked for."""
        c = self.config
        if c.tracker and c.out is not None and self.accelerator.is_main_process:
            self.tracking = Tracking(c.tracker, c.out, c.project, c, self.state["step"])
        try:
            yield
        finally:
            if self.tracking is not None:
                self.tracking.close()
                self.tracking = None

    def finish(self) -> dict[str, Any]:
        """Final pictures, if they are not there yet; to be called by all processes."""
        c = self.config
        if c.out is not None and (self.trained or (c.samples and not (c.out / "samples.png").is_file())):
            on_main(self.accelerator, self._finish)
        return self.summary()

    def validate(self, step: int) -> None:
        """Measure, keep the best, draw; to be called by all processes."""
        c, a = self.config, self.accelerator
        model = self.usable()
        numbers = self.task.validate(model, a, self.micro)
        if numbers is not None:
            score, best = self.task.score, self.state["best"]
            # a validation that is not finite is never the best, also not one that an older version kept as such
            known = best is not None and math.isfinite(best[score])
            better = math.isfinite(numbers[score]) and not (known and numbers[score] >= best[score])
            self.state["last"] = {"step": step, **numbers}
            self.state["stale"] = 0 if better else self.state["stale"] + 1
            self.state["stopped"] = c.patience is not None and self.state["stale"] >= c.patience
            if better:
                self.state["best"] = self.state["last"]
                if c.out is None:
                    self.best = model
                else:
                    on_main(a, self._save_model, "best", model)
            self._log_validation(step, numbers, better)
        if c.out is None:
            return
        count = step // c.eval_every
        if c.sample_every and c.samples and count and count % c.sample_every == 0:
            on_main(a, self._draw_samples, c.out / "samples" / f"step-{step:07d}.png", model, step)
        on_main(a, self._draw_curves)

    def save(self, step: int) -> None:
        """A checkpoint and last/, once per step; to be called by all processes."""
        if self.saved != step and self.checkpoints is not None:
            best = self.out / "best" if self.state["best"] else None
            self.checkpoints.save(step, self.state, self.ema, best)
            on_main(self.accelerator, self._save_model, "last", self.usable())
            self.saved = step

    def usable(self, ema: bool = True) -> Any:
        """A bare float32 copy of the model (of its moving average, if there is one), to measure, draw and save."""
        copy = self.task.fresh().to(self.accelerator.device)
        copy.load_state_dict(self.ema if ema and self.ema is not None else self.model.state_dict())
        return copy.eval()

    def summary(self) -> dict[str, Any]:
        """Where the run stands."""
        return {k: self.state[k] for k in ("step", "best", "last", "stopped")}

    # -- what it writes and says ----------------------------------------------------------------------------------

    def _save_model(self, name: str, model: nn.Module) -> None:
        info = {"step": self.state["step"], "validation": self.state["last"], "ema": self.config.ema}
        self.task.save(self.out / name, model, info)

    def _draw_samples(self, path: Path, model: nn.Module, step: int) -> None:
        self.task.draw(path, model)
        if self.tracking is not None and path.is_file():
            self.tracking.picture("samples", path, step)

    def _draw_curves(self) -> None:
        self.task.curves(self.out / "training.png", MetricsLog(self.out / "metrics.jsonl").read())

    def _finish(self) -> None:
        out, best = self.out, self.state["best"]
        self._draw_curves()
        if self.config.samples:
            self.task.draw(out / "samples.png", self.task.load(out))
        if best:
            rows = MetricsLog(out / "metrics.jsonl").read()
            advice = self.task.advise(best, next((row["loss"] for row in reversed(rows) if "loss" in row), None))
            if advice:
                self.accelerator.print(f"warning: {advice}")
            said = self.task.describe_validation(best)
            self.accelerator.print(
                f"best: step {best['step']}, {said}; model in {out}/best, samples in {out}/samples.png"
            )

    def _announce(self, steps: int) -> None:
        c, a = self.config, self.accelerator
        a.print(
            f"{self.task.describe()}; {plural(steps, 'step')} of {plural(c.batch, 'field')} ({plural(a.num_processes, 'process')}, {self.micro} per "
            f"forward pass), {steps * c.batch / len(self.task):.1f} epochs"
        )

    def _say_rate(self, steps: int, warmup: int) -> None:
        """Say where a run of another length than before takes up another learning rate."""
        c, a = self.config, self.accelerator
        if not (self.state["step"] and a.is_main_process and self.metrics is not None):
            return
        row = next((row for row in reversed(self.metrics.read()) if "lr" in row and "step" in row), None)
        if row is None:
            return
        rate = learning_rate(row["step"], steps=steps, warmup=warmup, top=c.lr, least=c.least_lr)
        if not math.isclose(rate, row["lr"], rel_tol=1e-6):
            a.print(
                f"the learning rate falls until step {steps:,} now, so it goes from {row['lr']:.2g} (step {row['step']:,}) to {rate:.2g}"
            )

    def _log(self, values: dict[str, Any], speed: float, steps: int, left: float) -> None:
        a, step, norm = self.accelerator, values["step"], values["grad_norm"]
        a.print(
            f"step {step:>6}/{steps}  epoch {step * self.config.batch / len(self.task):.1f}  "
            f"training {self.task.describe_loss(values['loss'])}  lr {values['lr']:.1e}  grad {'overflow' if norm is None else format(norm, '.2f')}  "
            f"{speed:,.0f} {self.task.counted}/s  {duration(left)} left"
        )
        if a.is_main_process and self.metrics is not None:
            self.metrics.add(**values, **{f"{self.task.counted}_per_second": round(speed, 1)})
        if self.tracking is not None:
            self.tracking.log("train", {**values, f"{self.task.counted}_per_second": speed}, step)

    def _log_validation(self, step: int, numbers: dict[str, Any], better: bool) -> None:
        a = self.accelerator
        a.print(f"step {step:>6}  validation {self.task.describe_validation(numbers)}{'  best' if better else ''}")
        if a.is_main_process and self.metrics is not None:
            self.metrics.add(step=step, **numbers)
        if self.tracking is not None:
            self.tracking.log("validation", numbers, step)
