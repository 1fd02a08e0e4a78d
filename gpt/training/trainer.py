"""The loop of training: one optimiser step, and what happens between steps."""

import math
import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.runtime.processes import Interrupt, on_main
from fields.runtime.runs import digest
from gpt.checkpoint import Checkpoints, load_model, save_model
from gpt.corpus import Corpus
from gpt.data import global_batch, micro_batches, seed_of
from gpt.model import GPT
from gpt.sampling.generate import sample_ids
from gpt.sampling.sheet import save_samples_sheet
from gpt.training.log import Metrics, draw_curves
from gpt.training.schedule import learning_rate
from gpt.training.validate import Bits, Validator

HOPELESS = 10.0
"""A loss beyond this many times that of a uniform guess is divergence, though every number be finite."""

OVERHEAD = 1.1
"""A step's time by that of its passes, for optimiser and validation."""


class Trainer:
    """Model, optimiser and state of one run.

    Args:
        config: a TrainConfig.
        corpus: what is learnt.
        model: fresh.
        accelerator: of this process.
    Attributes:
        state: step, best bits per field, validations since then, and whether training stopped early.
    """

    def __init__(self, config: Any, corpus: Corpus, model: GPT, accelerator: Any):
        self.config, self.corpus, self.accelerator = config, corpus, accelerator
        self.model = model.to(accelerator.device).train()
        wrapped = torch.compile(self.model) if config.compile else self.model
        self.wrapped, self.optimizer = accelerator.prepare(wrapped, make_optimizer(config, self.model))
        self.micro = config.micro_batch or -(-config.batch // accelerator.num_processes)
        self.ema = None if config.ema is None else {k: v.clone() for k, v in self.model.state_dict().items()}
        self.validator = Validator(corpus.train, corpus.held_out, corpus.data.config.size, config.eval_fields)
        self.metrics = Metrics(config.out / "metrics.jsonl")
        self.checkpoints = Checkpoints(config.out / "checkpoints", accelerator, config.keep)
        self.state: dict[str, Any] = {"step": 0, "best": None, "stale": 0, "stopped": False, "last": None}
        self.saved = -1  # step of the newest checkpoint
        self.trained = False

    # -- one step -------------------------------------------------------------------------------------------------

    def backward(self, rows: Tensor, step: int) -> Tensor:
        """Gradients of the mean loss over ALL targets of the global batch, whatever the cut into micro-batches.

        Returns:
            () float64, this process' sum of losses in nats.
        """
        a, total = self.accelerator, max(1, self.corpus.train.targets(rows))
        parts, summed = micro_batches(rows, self.micro, a.process_index, a.num_processes), 0.0
        for j, (i, part) in enumerate(parts):
            torch.manual_seed(seed_of("dropout", self.config.seed, step, i))
            inputs, targets = (t.to(a.device, non_blocking=True) for t in self.corpus.train.batch(part))
            with a.no_sync(self.wrapped) if j + 1 < len(parts) else nullcontext():
                losses = self.wrapped(inputs, targets).sum()
                a.backward(losses * (a.num_processes / total))  # DDP takes the mean over processes
            summed = summed + losses.detach().double()
        return summed

    def step(self, step: int, rate: float, interrupt: Interrupt) -> dict[str, Any]:
        """One optimiser step.

        Raises:
            RuntimeError: if loss or gradient is not finite, or the loss is hopeless; the weights are then unchanged.
        """
        a, train = self.accelerator, self.corpus.train
        rows = global_batch(len(train), self.config.batch, self.config.seed, step)
        summed = self.backward(rows, step)
        stop = torch.tensor(float(interrupt.requested), dtype=torch.float64, device=a.device)
        summed, stop = a.reduce(torch.stack([summed, stop]), "sum").tolist()
        loss = summed / max(1, train.targets(rows))
        clip = math.inf if self.config.clip is None else self.config.clip
        norm = float(a.clip_grad_norm_(self.wrapped.parameters(), clip))
        if not (math.isfinite(norm) and loss < HOPELESS * math.log(self.corpus.vocab.size)):
            on_main(a, self._diverged, step, rate, loss, norm, rows)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self._average()
        values = {
            "step": step,
            "epoch": step * self.config.batch / len(train),
            "loss": loss,
            "lr": rate,
            "grad_norm": norm,
        }
        return {**values, "batch": digest(rows), "stop": stop > 0, "tokens": train.targets(rows)}

    @torch.no_grad()
    def _average(self) -> None:
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.ema[name].lerp_(value, 1 - self.config.ema)

    @torch.no_grad()
    def _diverged(self, step: int, rate: float, loss: float, norm: float, rows: Tensor) -> None:
        """Say what is wrong, and with which fields."""
        losses, model = [], self.usable(ema=False)
        for at in range(0, len(rows), self.micro):
            inputs, targets = self.corpus.train.batch(rows[at : at + self.micro])
            losses.append(model(inputs.to(model.slots.device), targets.to(model.slots.device)).sum(1).cpu())
        losses = torch.cat(losses)
        bad = (~losses.isfinite()).nonzero().flatten()
        worst = bad if len(bad) else losses.argsort(descending=True)
        names = ", ".join(self.corpus.train.names[int(rows[i])] for i in worst[:5])
        kept = self.checkpoints.all()
        raise RuntimeError(
            f"training diverged at step {step}: loss {loss:.4g} nats/token, lr {rate:.3g}, gradient norm {norm:.4g}; "
            f"{'not finite' if len(bad) else 'highest'} losses: {names}. "
            f"{f'{kept[-1]} is untouched' if kept else 'No checkpoint was written'}. "
            "Lower --lr or leave bad fields out."
        )

    def seconds_per_step(self, tries: int = 12) -> float:
        """Time of a step as the usual one of some passes: optimiser and validation come on top."""
        times = [self.seconds_of_pass(step) for step in range(1, tries + 1)]
        return OVERHEAD * statistics.median(times[tries // 2 :])  # first ones are slow

    def seconds_of_pass(self, step: int) -> float:
        """Time of a forward and backward pass of a batch, measured without a step; to be called by all processes."""
        began = time.perf_counter()
        float(self.backward(global_batch(len(self.corpus.train), self.config.batch, self.config.seed, step), step))
        seconds = time.perf_counter() - began  # float() has waited for the device
        self.optimizer.zero_grad(set_to_none=True)
        return seconds

    # -- a run ----------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Go back to the newest complete checkpoint, or stay at step 0."""
        found = self.checkpoints.load()
        if found is None:
            self.accelerator.print("no complete checkpoint: starting at step 0")
        else:
            state, ema = found
            if self.ema is not None:
                self.ema = {k: v.to(self.accelerator.device) for k, v in ema.items()}
            self.state = {k: state[k] for k in self.state}
            self.saved = self.state["step"]
            epoch = self.saved * self.config.batch / len(self.corpus.train)
            self.accelerator.print(f"resumed at step {self.saved} (epoch {epoch:.2f})")
        on_main(self.accelerator, self.metrics.rewind, self.state["step"])

    def finished(self, steps: int) -> bool:
        """Whether nothing is left to do."""
        return self.state["step"] == steps or self.state["stopped"]

    def run(self, steps: int, warmup: int) -> dict[str, Any]:
        """Train until `steps`; see `gpt.training.train.train`."""
        c, a = self.config, self.accelerator
        self._announce(steps)
        self.trained = True
        tokens, began = 0, time.perf_counter()
        with Interrupt() as interrupt:
            for step in range(self.state["step"] + 1, steps + 1):
                rate = learning_rate(step, steps=steps, warmup=warmup, top=c.lr, least=c.least_lr)
                values = self.step(step, rate, interrupt)
                stop, tokens = values.pop("stop"), tokens + values.pop("tokens")
                self.state["step"] = step
                if step % c.log_every == 0 or step == steps:
                    self._log(values, tokens / (time.perf_counter() - began), steps)
                    tokens, began = 0, time.perf_counter()
                if step % c.eval_every == 0 or step == steps:
                    pause = time.perf_counter()
                    self.validate(step)
                    began += time.perf_counter() - pause
                if step % (c.save_every or c.eval_every) == 0 or step == steps or stop or self.state["stopped"]:
                    self.save(step)
                if stop:
                    a.print(f"interrupted after step {step}; the same command goes on from there")
                    raise KeyboardInterrupt
                if self.state["stopped"]:
                    a.print(f"stopped at step {step}: no improvement in {c.patience} validations")
                    break
            return self.finish()

    def finish(self) -> dict[str, Any]:
        """Final pictures, if they are not there yet; to be called by all processes."""
        if self.trained or (self.config.samples and not (self.config.out / "samples.png").is_file()):
            on_main(self.accelerator, self._finish)
        return self.summary()

    def validate(self, step: int) -> None:
        """Measure, keep the best, draw; to be called by all processes."""
        model, c = self.usable(), self.config
        bits = self.validator.measure(model, self.accelerator, self.micro)
        if bits is not None:
            better = self.state["best"] is None or bits.bits_per_field < self.state["best"]["bits_per_field"]
            self.state["last"] = {"step": step, **bits.to_dict()}
            self.state["stale"] = 0 if better else self.state["stale"] + 1
            self.state["stopped"] = c.patience is not None and self.state["stale"] >= c.patience
            if better:
                self.state["best"] = self.state["last"]
                on_main(self.accelerator, self._save_model, "best", model)
            self._log_bits(step, bits, better)
        count = step // c.eval_every
        if c.sample_every and c.samples and count and count % c.sample_every == 0:
            on_main(self.accelerator, self._draw, c.out / "samples" / f"step-{step:07d}.png", model)
        on_main(self.accelerator, self._draw_curves)

    def save(self, step: int) -> None:
        """A checkpoint and last/, once per step; to be called by all processes."""
        if self.saved != step:
            self.checkpoints.save(step, self.state, self.ema)
            on_main(self.accelerator, self._save_model, "last", self.usable())
            self.saved = step

    def usable(self, ema: bool = True) -> GPT:
        """A bare float32 copy of the model (of its moving average, if there is one), to measure, draw and save."""
        copy = GPT(self.model.config).to(self.accelerator.device)
        copy.load_state_dict(self.ema if ema and self.ema is not None else self.model.state_dict())
        return copy.eval()

    def summary(self) -> dict[str, Any]:
        """Where the run stands."""
        return {k: self.state[k] for k in ("step", "best", "last", "stopped")}

    # -- what it writes and says ----------------------------------------------------------------------------------

    def _save_model(self, name: str, model: GPT) -> None:
        info = {
            **self.corpus.info(),
            "step": self.state["step"],
            "validation": self.state["last"],
            "ema": self.config.ema,
        }
        save_model(self.config.out / name, model, self.corpus.tokenizer, info)

    def _draw(self, path: Path, model: GPT) -> bool:
        draws = sample_ids(model, self.config.samples, seed=self.config.seed)
        weights = self.corpus.tokenizer.decode(draws.codes[draws.complete])
        c = self.corpus
        return save_samples_sheet(path, c.data.config, weights, c.info()["size"], None if c.streamed else c.data)

    def _draw_curves(self) -> None:
        per_field = self.corpus.train.targets(torch.tensor([0]))
        to_bits = per_field / math.log(2) / self.corpus.data.config.size
        draw_curves(self.config.out / "training.png", self.metrics.read(), to_bits)

    def _finish(self) -> None:
        self._draw_curves()
        if self.config.samples:
            self._draw(self.config.out / "samples.png", load_model(self.config.out)[0])
        b = self.state["best"]
        if b:
            self.accelerator.print(
                f"best: step {b['step']}, {b['bits_per_weight']:.4f} bits/weight "
                f"(unigram {b['unigram_bits_per_weight']:.4f}); "
                f"model in {self.config.out}/best, samples in {self.config.out}/samples.png"
            )

    def _announce(self, steps: int) -> None:
        c, a, train = self.config, self.accelerator, self.corpus.train
        a.print(
            f"{len(train):,} fields of {self.corpus.tokenizer.tokens_per_field} tokens, {self.corpus.vocab.size} ids; "
            f"GPT of {self.model.size():,} weights; {steps} steps of {c.batch} fields "
            f"({a.num_processes} processes, {self.micro} per forward pass), {steps * c.batch / len(train):.1f} epochs"
        )
        if self.corpus.held_out is None:
            a.print("no validation fields: no best/, no early stop; last/ is the model")

    def _log(self, values: dict[str, Any], speed: float, steps: int) -> None:
        a = self.accelerator
        a.print(
            f"step {values['step']:>6}/{steps}  loss {values['loss']:7.4f} nats/token  lr {values['lr']:.2e}  "
            f"grad {values['grad_norm']:8.3f}  {speed:>9,.0f} tokens/s"
        )
        if a.is_main_process:
            self.metrics.add(**values, tokens_per_second=round(speed, 1))
        if self.config.tracker:
            a.log({k: v for k, v in values.items() if k != "batch"}, step=values["step"])

    def _log_bits(self, step: int, bits: Bits, better: bool) -> None:
        a = self.accelerator
        a.print(
            f"step {step:>6}  validation {bits.bits_per_weight:.4f} bits/weight "
            f"({bits.bits_per_field:,.1f} bits/field); "
            f"unigram {bits.unigram_bits_per_weight:.4f} ({bits.unigram_bits_per_field:,.1f})"
            f"{'  best' if better else ''}"
        )
        if a.is_main_process:
            self.metrics.add(step=step, **bits.to_dict())
        if self.config.tracker:
            a.log(bits.to_dict(), step=step)


def make_optimizer(config: Any, model: GPT) -> torch.optim.Optimizer:
    """AdamW with decay on matrices only (gates are scales, not matrices), or plain SGD."""
    scales = {id(p) for p in model.gates} if model.config.gates else set()
    matrices = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in scales]
    others = [p for p in model.parameters() if p.ndim < 2 or id(p) in scales]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr)
    fused = next(model.parameters()).device.type in ("cpu", "cuda")  # one pass over the weights
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)
