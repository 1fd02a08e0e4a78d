"""Training of a VQ-VAE tokenizer: start from principal components, minimise the functional distortion, keep the best held-out state.

The loss compares values of decoded and original fields at random coordinates. Every few hundred steps held-out fields are
encoded to ids and decoded again, and the PSNR of that is printed. The whole state is saved in one
safetensors file, so that a killed run resumes with the same result (on another device it resumes
too, with other random numbers).
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fields.activations import OUTPUTS
from fields.model import random_points, values
from fields.runtime.console import bar
from fields.runtime.digests import check_digest
from fields.runtime.records import parse_json
from fields.runtime.runs import digest, write_atomic
from fields.runtime.text import one_line
from tokenizers.base import RESUME_FILE, WeightTokenizer
from tokenizers.classic.components import principal_components
from tokenizers.distortion import distortion, errors_of
from tokenizers.learned import quantizers
from tokenizers.learned.vqvae import VQVAETokenizer
from tokenizers.selection import draw
from tokenizers.vocab import Counts

WATCHED, PROBES, COUNTED = 1000, 256, 4000
"""Held-out fields looked at, points of each, and training fields whose codes are counted."""
SLOW = 0.1
"""Learning rate of the linear maps and of the rest: relative to their size, and absolute."""
WARM = 200
"""Steps of warm-up."""
RARE = 0.1
"""Share of codes in use below which a run warns."""
Tokenizer = TypeVar("Tokenizer", bound=WeightTokenizer)


@dataclass(frozen=True)
class Components:
    """Principal components in the function's metric, in the units of the latents.

    Attributes:
        analysis: (P, K) from standardised rows to latents, float64.
        synthesis: (K, P) back, float64.
        spread: (K,) standard deviation of each latent.
    """

    analysis: Tensor
    synthesis: Tensor
    spread: Tensor

    @classmethod
    def of(cls, tokenizer: VQVAETokenizer, rows: Tensor) -> "Components | None":
        """Of rows (n, P) whose standardizer is fitted; None where they do not differ."""
        device, std = tokenizer.n_codes.device, tokenizer.standardizer.std
        z = tokenizer.standardizer(rows.to(device)).cpu().double()
        analysis, synthesis = principal_components(
            tokenizer.field, rows, z, std, tokenizer.components, tokenizer.config.seed, device=device
        )
        spread = (z @ analysis).std(0, correction=0).clamp_min(1e-30)  # (K,)
        if not bool(spread[0] > 1e-20):
            return None
        unit = units(tokenizer, spread)
        return cls(analysis / unit, synthesis * unit[:, None], spread / unit)


def start_from_components(tokenizer: VQVAETokenizer, rows: Tensor) -> bool:
    """Set encoder and decoder to principal components in the function's metric; False where fields do not differ."""
    found = Components.of(tokenizer, rows)
    if found is None:
        return False
    with torch.no_grad():
        tokenizer.analysis.copy_(found.analysis)
        lay_decoder(tokenizer, found)
    return True


def lay_decoder(tokenizer: VQVAETokenizer, found: Components) -> None:
    """Initialise the decoder as the linear map back; call it without gradients."""
    tokenizer.synthesis.copy_(found.synthesis)
    tokenizer.squash.copy_(1 / found.spread.clamp_min(0.3))


def units(tokenizer: VQVAETokenizer, spread: Tensor) -> Tensor:
    """(K,) the unit of each latent: for evenly spaced levels the same everywhere, else each latent's own size."""
    if tokenizer.config.quantizer == "fsq":
        return spread[0].expand_as(spread)
    if tokenizer.config.quantizer == "lfq":
        return spread.clamp_min(1e-9 * spread[0])
    groups = spread.unflatten(0, (-1, tokenizer.config.numbers))
    size = groups.square().mean(1, keepdim=True).sqrt().clamp_min(1e-9 * spread[0])
    return size.expand_as(groups).flatten()


class Rate(nn.Module):
    """Bits of evenly spaced codes under a logistic distribution of each number (arXiv:1611.01704, with noise)."""

    def __init__(self, latents: Tensor, gap: float):
        super().__init__()
        self.gap = gap
        y = latents.flatten(1) / gap
        self.centre = nn.Parameter(y.mean(0))
        self.scale = nn.Parameter((0.55 * y.std(0, correction=0)).clamp_min(0.15).log())

    def forward(self, latents: Tensor) -> Tensor:
        """(B, T, D) -> mean bits of a field."""
        y = latents.flatten(1) / self.gap
        far, scale = (y + torch.rand_like(y) - 0.5 - self.centre).abs(), self.scale.exp()
        share = torch.sigmoid((0.5 - far) / scale) - torch.sigmoid((-0.5 - far) / scale)
        return -share.clamp_min(1e-6).log2().sum(1).mean()


class Watch:
    """Evaluation on held-out fields at fixed points, encoded to ids and decoded."""

    def __init__(self, tokenizer: WeightTokenizer, rows: Tensor, held_out: Tensor, seed: int):
        self.tokenizer = tokenizer
        self.rows = held_out[draw(len(held_out), WATCHED, seed)].to(tokenizer.n_codes.device)
        self.train = rows[draw(len(rows), COUNTED, seed)].to(tokenizer.n_codes.device)
        self.coords = random_points(tokenizer.field, PROBES, seed).to(self.rows.device)
        self.wanted = values(tokenizer.field, self.rows, self.coords)
        self.peak = (
            1.0 if OUTPUTS[tokenizer.field.output].is_logit else float(self.wanted.max() - self.wanted.min()) or 1.0
        )

    @torch.no_grad()
    def evaluate(self) -> dict:
        """PSNR (dB, against the fields themselves), score, bits per field, codes used and their perplexity."""
        t = self.tokenizer
        ids = t._encode(self.rows)
        error, excess = errors_of(t.field, t._decode(ids), self.wanted, self.coords)
        psnr = float(-10 * (error / self.peak**2).clamp_min(1e-10).log10().mean())
        counts = Counts(len(t.slots), t.config.codes)
        counts.add(t._encode(self.train))
        bits = counts.position_bits(ids) * ids.shape[1]
        return {
            "psnr": psnr,
            "score": -float(excess.mean()) - t.config.bit_loss * bits if t.config.bit_loss else psnr,
            "bits": bits,
            "used": int((counts.per_code() > 0).sum()),
            "perplexity": 2.0 ** counts.marginal_bits(),
        }


class VocabularyTrainer:
    """One training run; `state` and `restore` are all of it."""

    tokenizer: Any
    """What is trained; of another kind than here where a subclass says so."""
    title = ""
    """Of the progress bar, if not the tokenizer's kind."""

    def __init__(self, tokenizer: VQVAETokenizer, rows: Tensor, varied: bool):
        c, device = tokenizer.config, tokenizer.n_codes.device
        self.tokenizer, self.rows, self.config = tokenizer, rows.to(device), c
        some = rows[draw(len(rows), quantizers.INIT_ROWS, c.seed)].to(device)
        latents = torch.cat([tokenizer.read(part).detach() for part in some.split(tokenizer.chunk)])
        self.quantizer = quantizers.make_quantizer(
            c.quantizer, tokenizer.latents, c.numbers, c.codes, levels=c.fsq_levels, residual=c.residual, span=c.span,
            batch=min(c.batch, len(rows)),
        ).to(device)  # fmt: skip
        if varied:
            self.quantizer.start(latents)
        self.rate = Rate(latents, c.span / (c.codes // 2)).to(device) if c.bit_loss else None
        answers = values(tokenizer.field, some[:WATCHED], random_points(tokenizer.field, PROBES, None, device))
        self.spread = float(answers.var()) or 1.0
        self.net = nn.ModuleDict({"tokenizer": tokenizer, "quantizer": self.quantizer})
        if self.rate is not None:
            self.net["rate"] = self.rate
        tokenizer.requires_grad_(True)
        self.optimizer = self._optimizer()
        self._begin()

    def _begin(self) -> None:
        self.step, self.worse, self.done = 0, 0, False
        self.history: list[dict] = []
        self.best: dict[str, Tensor] = {}

    def _optimizer(self) -> torch.optim.Optimizer:
        t = self.tokenizer
        linear = [t.analysis, t.synthesis]
        groups = [{"params": [p], "share": SLOW * max(float(p.detach().std()), 1e-6)} for p in linear]
        rest = [p for p in self.net.parameters() if all(p is not q for q in linear)]
        if rest:
            groups.append({"params": rest, "share": 1.0})
        return torch.optim.Adam(groups, lr=self.config.lr, betas=(0.9, 0.99))

    def advance(self) -> Tensor:
        """One step; returns (2,) the distortion and the bits (0 without a rate), on the tokenizer's device."""
        c = self.config
        warm = min(1.0, (self.step + 1) / WARM)
        for group in self.optimizer.param_groups:
            group["lr"] = c.lr * group["share"] * warm * 0.5 * (1 + math.cos(math.pi * self.step / c.steps))
        loss, function, bits = self.losses(self._rows().to(self.rows.device))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.clipped(), 1.0)
        self.optimizer.step()
        self.step += 1
        return torch.stack([function.detach(), bits.detach()])  # not read here, which would wait for the GPU

    def clipped(self) -> list[nn.Parameter]:
        """Parameters whose gradients are clipped together."""
        return list(self.net.parameters())

    def losses(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the training fields chosen: what is minimised, the distortion in it, and the bits (0 without a rate)."""
        c, t = self.config, self.tokenizer
        rows = self.rows[chosen]
        latents = t.read(rows, c.noise)
        quantised, extra = self.quantise(latents)
        decoded = t.to_rows(quantised)
        function = self.distortion(decoded, rows)
        bits = self.bits(latents)
        loss = function + c.weight_loss * F.mse_loss(decoded, t.standardizer(rows)) + c.bit_loss * bits + 0.1 * extra
        return loss, function, bits

    def quantise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised latents, with gradients, and what the quantiser adds to the loss."""
        self.quantizer.train()
        return self.quantizer(latents)

    def distortion(self, decoded: Tensor, rows: Tensor) -> Tensor:
        """Functional distortion between decoded standardised rows and fields, at random points."""
        t = self.tokenizer
        coords = random_points(t.field, self.config.points, None, rows.device)
        return distortion(t.field, t.standardizer.invert(decoded), rows, coords, self.spread)

    def bits(self, latents: Tensor) -> Tensor:
        """Bits of a field, 0 without a price for them."""
        return self.rate(latents) if self.rate is not None else latents.new_zeros(())

    def _rows(self) -> Tensor:
        """Which fields this step sees: epochs in seeded order; the last ones of an epoch join the next step's."""
        n, b = len(self.rows), min(self.config.batch, len(self.rows))
        epoch, at = divmod(self.step * b, n)
        last = [epoch + 1] if at + b > n else []
        return torch.cat([_order(n, self.config.seed + e) for e in [epoch, *last]])[at : at + b]

    def publish(self) -> None:
        """The quantiser's codebooks into the tokenizer."""
        self.tokenizer.books.copy_(quantizers.ordered(self.quantizer.books()))

    def score(self, found: dict) -> float:
        """By which states are compared, after a look at held-out fields; the highest is kept."""
        return found["score"]

    # -- all of it as tensors -----------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """All tensors that the rest of the run depends on."""
        out = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        out |= {f"best.{k}": v for k, v in self.best.items()} | {"rng": torch.get_rng_state()}
        if (device := self.tokenizer.n_codes.device).type == "cuda":
            out["rng.cuda"] = torch.cuda.get_rng_state(device)
        for i, slot in self.optimizer.state_dict()["state"].items():
            out |= {f"adam.{i}.{k}": torch.as_tensor(v) for k, v in slot.items()}
        return {k: v.detach().cpu().contiguous().clone() for k, v in out.items()}

    def restore(self, state: dict[str, Tensor], words: dict) -> None:
        """Continue from what `state` gave."""
        self.net.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("net.")})
        self.best = {k[5:]: v for k, v in state.items() if k.startswith("best.")}
        slots: dict[int, dict] = {}
        for name in (k for k in state if k.startswith("adam.")):
            _, i, key = name.split(".")
            slots.setdefault(int(i), {})[key] = state[name]
        plain = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": slots, "param_groups": plain["param_groups"]})
        torch.set_rng_state(state["rng"])
        if (device := self.tokenizer.n_codes.device).type == "cuda" and "rng.cuda" in state:
            torch.cuda.set_rng_state(state["rng.cuda"], device)
        self.step, self.worse, self.done = words["step"], words["worse"], words["done"]
        self.history = words["history"]

    def words(self, mark: str) -> dict:
        """What is not a tensor."""
        return {"mark": mark, "step": self.step, "worse": self.worse, "done": self.done, "history": self.history}


@lru_cache(maxsize=2)
def _order(n: int, seed: int) -> Tensor:
    """(n,) in which order an epoch sees the fields."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def train_vocabulary(
    tokenizer: Tokenizer,
    rows: Tensor,
    held_out: Tensor | None,
    *,
    begin: Callable[[Tokenizer, Tensor], bool],
    make: Callable[[Tokenizer, Tensor, bool], VocabularyTrainer],
    stage: str = "",
) -> None:
    """Fit a tokenizer in place, its standardizer being fitted; gradients must be enabled.

    Args:
        tokenizer: on any device.
        rows: (N, P) training fields, on the CPU.
        held_out: (M, P) fields to evaluate on, or None, on the CPU.
        begin: sets the initial state from training fields; returns whether they differ.
        make: the trainer of a tokenizer, its training fields, and whether they differ.
        stage: name of a later stage of the same fit, which is resumed from a file of its own.
    """
    c, device = tokenizer.config, tokenizer.n_codes.device
    rows, held_out = _held_out(rows, held_out, c.seed)
    mark = digest(
        c.settings(), tokenizer.standardizer.mean, tokenizer.standardizer.std, len(rows)
    )  # before `begin` changes it
    varied = begin(tokenizer, rows)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(c.seed)
        trainer = make(tokenizer, rows, varied)
        watch = Watch(tokenizer, rows, held_out, c.seed)
        name = f"{stage}-{RESUME_FILE}" if stage else RESUME_FILE
        path = None if tokenizer.resume_dir is None else Path(tokenizer.resume_dir) / name
        if not _resume(trainer, path, mark):
            _evaluate(trainer, watch)
        if trainer.config.steps and varied:
            _loop(trainer, watch, mark, path)
    if trainer.config.steps and not varied:
        what = "one training field" if len(rows) == 1 else f"{len(rows):,} training fields that do not differ"
        print(f"{what}: nothing to train; {c.kind} keeps its initialisation and skips its {c.steps:,} steps")
    if trainer.best:
        tokenizer.load_state_dict(trainer.best)
    tokenizer.history = [*(tokenizer.history if stage else []), *trainer.history]
    last = max(trainer.history, key=lambda h: h["score"])
    if varied and last["used"] < RARE * c.codes:
        print(f"warning: only {last['used']} of {c.codes} codes are used. Ask for fewer, or another --quantizer.")


def _held_out(rows: Tensor, held_out: Tensor | None, seed: int) -> tuple[Tensor, Tensor]:
    """Training rows, and rows to evaluate on: those given, else a twentieth of the training rows, else the training rows."""
    if held_out is not None and len(held_out):
        return rows, held_out
    if len(rows) < 40:
        return rows, rows
    away = torch.zeros(len(rows), dtype=torch.bool)
    away[draw(len(rows), len(rows) // 20, seed)] = True
    return rows[~away], rows[away]


def _loop(trainer: VocabularyTrainer, watch: Watch, mark: str, path: Path | None) -> None:
    c, seen = trainer.config, []
    shown = bar(total=c.steps, initial=trainer.step, unit="step", desc=trainer.title or c.kind)
    while trainer.step < c.steps and not trainer.done:
        seen.append(trainer.advance())
        shown.update(1)
        if trainer.step % c.eval_every and trainer.step < c.steps:
            continue
        loss = torch.stack(seen).mean(0).cpu()
        seen = []
        if not bool(loss.isfinite().all()):
            raise RuntimeError(f"training diverged at step {trainer.step}. Lower --lr.")
        found = _evaluate(trainer, watch, float(loss[0]))
        if (tracking := trainer.tokenizer.tracking) is not None:
            tracking.log("train", {"loss": found["loss"]}, trainer.step)
            tracking.log("validation", {k: v for k, v in found.items() if k not in ("loss", "score")}, trainer.step)
            if tracking.draw is not None:
                tracking.draw(trainer.tokenizer, trainer.step)
        shown.write(
            f"step {trainer.step:6d}  loss {loss[0]:.6f}  held-out {found['psnr']:.2f} dB at {found['bits']:.0f} bits  "
            f"codes {found['used']} of {c.codes}, perplexity {found['perplexity']:.1f}"
        )
        _save(trainer, mark, path)
    shown.close()


def _evaluate(trainer: VocabularyTrainer, watch: Watch, loss: float | None = None) -> dict:
    """Evaluate the state, and keep it if it is the best."""
    trainer.publish()
    found = {"step": trainer.step, "loss": loss, **watch.evaluate()}
    found["score"] = trainer.score(found)
    best = max((h["score"] for h in trainer.history), default=-math.inf)
    trainer.history.append(found)
    late = 2 * trainer.step > trainer.config.steps  # while the learning rate is high, the start may long be better
    trainer.worse = 0 if found["score"] > best else trainer.worse + late
    trainer.done = trainer.worse >= trainer.config.patience
    if found["score"] > best:
        trainer.best = {k: v.detach().clone() for k, v in trainer.tokenizer.state_dict().items()}
    return found


def _save(trainer: VocabularyTrainer, mark: str, path: Path | None) -> None:
    from safetensors.torch import save_file

    if path is not None:
        state, words = trainer.state(), json.dumps(trainer.words(mark))
        with write_atomic(path) as temporary:
            save_file(state, temporary, metadata={"words": words, "digest": _digest(state, words)})


def _digest(state: dict[str, Tensor], words: str) -> str:
    """Of everything in a training state's file."""
    return digest(words, *(part for name in sorted(state) for part in (name, state[name])))


def _resume(trainer: VocabularyTrainer, path: Path | None, mark: str) -> bool:
    """Continue from the file's state, if it is of this run."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    if path is None or not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
        state, text = load_file(path), meta.get("words", "{}")
        if "digest" in meta:
            check_digest(path, meta["digest"], _digest(state, text))
        words = parse_json(path, text, "", dict)
        if words.get("mark") != mark:
            return False
    except (SafetensorError, ValueError) as error:
        print(f"{path} is damaged ({one_line(str(error), 200)}); training starts again.")
        return False
    trainer.restore(state, words)
    print(f"resuming from step {trainer.step}")
    return True
