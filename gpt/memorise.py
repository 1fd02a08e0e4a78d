"""The experiment the regression transformer is here for: how many fields can it recite, and which ones?

The same digits are fitted to the same quality in four ways (from random weights, from one fitted field, from a learnt
start, and from random weights with the neurons matched afterwards). For every way, number of fields and seed one model
is trained, a cell, and then has to write down each field from its first weight alone. Cells are independent, as many run
at once as there are threads, and finished ones are not repeated.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from fields import launch, runs
from fields.dataset import Reference, WeightDataset
from fields.fit import FitConfig, architecture_for, fit_fields, schedule_for
from fields.init import Start, make_reference
from fields.metrics import psnr
from fields.render import render
from fields.signals import Signals, SignalsConfig, load_signals
from fields.symmetry import align
from gpt.data import global_batch
from gpt.memorise_report import write_report
from gpt.processes import Interrupt, alike, on_main
from gpt.regression import RegressionConfig, RegressionTransformer
from gpt.schedule import learning_rate, warmup_steps

Way = Literal["unconditioned", "conditioned", "meta", "aligned"]
WINDOW = 16
EXPLODED = 0.1
"""A roll-out has exploded where the mean error of WINDOW weights in a row exceeds this (a weight's deviation is .3 to .7)."""
PREFIX = 16
"""Weights given to a second roll-out, which shows whether a model failed to name the field or to remember it."""
RECITED = ("rolled", "prefixed", "teacher")
FLOOR = 1e-2
"""Least deviation that --standardize divides by: with one field every deviation is zero."""


@dataclass(frozen=True)
class ModelOptions:
    """Size of the transformer."""

    n_layer: int = 2
    """Blocks."""
    n_head: int = 2
    """Attention heads."""
    n_embd: int = 128
    """Width, a multiple of the heads."""


@dataclass(frozen=True)
class MemoriseConfig:
    """Train regression transformers (each weight of a field predicted from those before it, L1 loss, no tokens) to recite
    N fields, for fields that were fitted from random weights, from one fitted field, from a learnt start, and aligned.

    Ends with table.md, roll-outs.png and curves.png in OUT. May be interrupted; finished cells are kept.

    For example:
        accelerate launch scripts/train_regression.py                                   # the embedded digits
        accelerate launch scripts/train_regression.py --signals mnist --data-root DIR   # the table of the README
        accelerate launch scripts/train_regression.py --starts conditioned --n 4 --between --seeds 1
    """

    signals: str = "digits"
    """digits | mnist | fashion-mnist | a folder of images."""
    data_root: Path | None = None
    """Folder with the files of mnist or fashion-mnist, .gz or raw."""
    out: Path | None = None
    """Folder for fields, models, table and figures; default runs/SIGNALS/regression."""
    starts: tuple[Way, ...] = ("unconditioned", "conditioned", "meta", "aligned")
    """Ways of fitting that are compared; aligned = unconditioned with the neurons matched to one of them."""
    n: tuple[int, ...] = (1, 4, 32)
    """Numbers of fields to memorise, with all seeds."""
    between: tuple[int, ...] = (8, 16)
    """Numbers of fields tried with the first seed only."""
    seeds: int = 3
    """Seeds: each has its own digits and its own initial model."""
    target_psnr: float = 33.0
    """dB at which every fit stops, so that all ways render equally well."""
    steps: int = 1600
    """Optimiser steps of a cell, the same for all."""
    batch: int = 2
    """Fields per step. With N = 1 the field stands in the batch repeatedly: all cells see as many weights."""
    lr: float = 4e-3
    """Highest learning rate."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: orthogonalised momentum on the blocks' matrices (Jordan 2024), AdamW on the rest; adamw needs several times
    the steps."""
    loss: Literal["l1", "mse"] = "l1"
    """Absolute or squared error of the next weight."""
    scale: float = 0.5
    """Raw weights are divided by this one number, whatever the start."""
    standardize: bool = False
    """Standardise each position by the mean and deviation of the N fields instead: then every start looks alike."""
    model: ModelOptions = field(default_factory=ModelOptions)
    """Size of the transformer."""
    precision: launch.Precision = "auto"
    """auto = bf16 where it is fast, else fp32. Roll-outs are always computed in fp32."""
    threads: int | None = None
    """Cells at once, one CPU thread each; None = cores / processes. On a GPU one at a time."""
    seed: int = 0
    """Of the digits chosen, of the fits and of the models."""

    def __post_init__(self):
        for name in ("starts", "n", "between"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("steps", "batch", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}.")
        if not self.starts or not (self.n or self.between) or min(*self.n, *self.between, 1) < 1:
            raise ValueError(
                f"--starts and --n need at least one entry, counts of at least 1; got {self.starts}, {self.n}."
            )
        if not self.lr > 0 or not self.scale > 0:
            raise ValueError(f"--lr and --scale must be above 0, got {self.lr} and {self.scale}.")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {self.threads}.")

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.out or Path("runs") / Path(self.signals).resolve().name / "regression"

    @property
    def most(self) -> int:
        """Fields per seed."""
        return max(*self.n, *self.between, 1)


@dataclass(frozen=True, order=True)
class Cell:
    """One model of the experiment."""

    n: int
    seed: int
    start: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.start}-n{self.n}-seed{self.seed}"


def cells(config: MemoriseConfig) -> list[Cell]:
    """All cells, small ones first, so that the table fills from the left."""
    sizes = [(n, s) for n in config.n for s in range(config.seeds)] + [(n, 0) for n in config.between]
    return sorted({Cell(n, seed, start) for n, seed in sizes for start in config.starts})


def memorise(config: MemoriseConfig) -> dict[str, Any]:
    """The command: fields, cells, table and figures.

    Returns:
        What results.json holds: per cell its numbers.
    Raises:
        ValueError: if there are too few training signals, or the folder was made otherwise.
        KeyboardInterrupt: after Ctrl-C; finished cells are kept.
    """
    accelerator = launch.start(threads=config.threads, precision=config.precision)
    out, signals = config.folder, load_signals(SignalsConfig(config.signals, config.data_root))
    claimed = {**asdict(config), "out": None, "data_root": None, "signals": signals.name}
    free = ("threads", "starts", "n", "between", "seeds")  # more cells may be added to what is there
    on_main(accelerator, lambda: runs.claim(out, claimed, seed=config.seed, free=free))
    pool = alike(accelerator, choose_signals, signals, config)
    data = {way: _fields(config, way, signals, pool, accelerator) for way in _needed(config.starts)}
    if "aligned" in config.starts:
        data["aligned"] = _aligned(data["unconditioned"])
    accelerator.wait_for_everyone()
    todo = [c for c in cells(config) if not (out / "cells" / c.name / "cell.json").is_file()]
    accelerator.wait_for_everyone()  # everyone has looked before anyone writes
    _run_cells(config, todo, data, pool, accelerator)
    accelerator.wait_for_everyone()
    return on_main(accelerator, write_report, out, cells(config), data, pool, config)


# -- fields -----------------------------------------------------------------------------------------------------------


def choose_signals(signals: Signals, config: MemoriseConfig) -> Signals:
    """The training signals that are memorised, `config.most` for each seed, drawn by `config.seed`."""
    train, wanted = signals.indices("train"), config.seeds * config.most
    if len(train) < wanted:
        raise ValueError(
            f"{config.seeds} seeds of {config.most} fields need {wanted} training signals, {signals.name} has {len(train)}."
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(config.seed))
    return signals.subset(train[order[:wanted]])


def rows_of(config: MemoriseConfig, cell: Cell) -> slice:
    """A cell's fields among those chosen: N = 4 is the beginning of N = 32."""
    return slice(cell.seed * config.most, cell.seed * config.most + cell.n)


def _needed(starts: tuple[str, ...]) -> list[str]:
    """Ways that are fitted; the aligned fields are made from the unconditioned ones."""
    wanted = {"unconditioned" if way == "aligned" else way for way in starts}
    return [way for way in ("unconditioned", "conditioned", "meta") if way in wanted]


def _fields(config: MemoriseConfig, way: str, signals: Signals, pool: Signals, accelerator) -> WeightDataset:
    """The chosen signals fitted until `target_psnr`; the start may be learnt from all training signals."""
    folder = config.folder / "fields" / f"{way}-{len(pool)}"
    if (folder / "field.json").is_file():
        return WeightDataset.load(folder)
    architecture = architecture_for(signals)
    how = FitConfig(
        signals=config.signals, start=way, steps=1000, fits=1, target_psnr=config.target_psnr, seed=config.seed
    )
    reference = on_main(accelerator, _reference, architecture, signals, way, config.seed)
    return fit_fields(architecture, pool, how, out=folder, accelerator=accelerator, reference=reference)


def _reference(architecture, signals: Signals, way: Start, seed: int) -> Reference:
    return make_reference(architecture, signals, way, schedule=schedule_for(FitConfig(start=way), signals), seed=seed)


def _aligned(data: WeightDataset) -> WeightDataset:
    """All fields matched to the best fitted one."""
    best = int(data.psnr("train").argmax())
    rows = data.weights("train")
    columns = {
        "weights": align(data.config, rows, rows[best]),
        "psnr": data.psnr("train"),
        "labels": data.labels("train"),
        "signal_id": data.ids("train"),
        "sizes": data.sizes("train"),
    }
    return WeightDataset.from_rows(data.config, {"train": columns}, None, data.signals)


# -- cells ------------------------------------------------------------------------------------------------------------


def _run_cells(config: MemoriseConfig, todo: list[Cell], data: dict, pool: Signals, accelerator) -> None:
    """This process' share of the cells, as many at once as it has threads."""
    mine = todo[accelerator.process_index :: accelerator.num_processes]
    workers = torch.get_num_threads() if accelerator.device.type == "cpu" else 1
    done, cut = len(cells(config)) - len(todo), threading.Event()
    if done:
        accelerator.print(f"{done} of {len(cells(config))} cells are there already")
    bar = tqdm(
        total=len(mine) * config.steps, unit="step", desc=f"{len(mine)} cells", disable=not accelerator.is_main_process
    )

    def work(cell: Cell) -> None:
        rows = data[cell.start].weights("train")[rows_of(config, cell)]
        model = train_cell(config, cell, rows.to(accelerator.device), accelerator, cut, bar.update)
        found = measure(model.cpu(), data[cell.start], pool, rows_of(config, cell))
        save_cell(config.folder / "cells" / cell.name, cell, model, found)
        bar.write(f"{cell.name}: {found['psnr_own'].mean():.2f} dB against the field itself, L1 {found['l1']:.4f}")

    with (
        Interrupt() as interrupt,
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool_,
    ):
        waiting = [pool_.submit(work, cell) for cell in mine]
        try:
            for future in waiting:
                while not future.done():
                    if interrupt.requested:
                        raise KeyboardInterrupt
                    threading.Event().wait(0.2)
                future.result()
        except BaseException:
            cut.set()
            for future in waiting:
                future.cancel()
            raise
        finally:
            bar.close()


class Cut(Exception):
    """The run is ending; a cell that is not finished is thrown away."""


_BIRTH = threading.Lock()
"""A fresh model borrows the global random state, which threads share."""


def train_cell(
    config: MemoriseConfig, cell: Cell, rows: Tensor, accelerator, cut: threading.Event, tick=lambda n: None
) -> RegressionTransformer:
    """One model that has seen `rows` (N, P) for `config.steps` steps.

    Raises:
        RuntimeError: if the loss is not finite.
    """
    mean, scale = torch.zeros(()), torch.tensor(config.scale)
    if config.standardize:
        mean, scale = rows.mean(0), rows.std(0, correction=0).clamp_min(FLOOR)
    sizes = RegressionConfig(rows.shape[1], **asdict(config.model))
    with _BIRTH:
        model = RegressionTransformer.create(sizes, mean, scale, config.seed + cell.seed).to(rows.device)
    optimizers = make_optimizers(model, config)
    warmup = warmup_steps(None, config.steps)
    for step in range(1, config.steps + 1):
        if cut.is_set():
            raise Cut
        rate = learning_rate(step, steps=config.steps, warmup=warmup, top=config.lr, least=config.lr / 100)
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=accelerator.mixed_precision == "bf16"):
            loss = model.loss(rows[global_batch(len(rows), config.batch, cell.seed, step)], config.loss)
        if not bool(loss.isfinite()):
            raise RuntimeError(f"{cell.name} diverged at step {step} (loss {float(loss)}). Lower --lr.")
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        tick(1)
    return model.eval()


def make_optimizers(model: RegressionTransformer, config: MemoriseConfig) -> list[torch.optim.Optimizer]:
    """AdamW for all, or Muon for the blocks' matrices and AdamW for the rest; no decay, for nothing is held out."""
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2] if config.optimizer == "muon" else []
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    made = [torch.optim.AdamW(others, lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=fused)]
    if matrices:
        muon = torch.optim.Muon(matrices, lr=config.lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
        made.append(muon)
    return made


def measure(model: RegressionTransformer, data: WeightDataset, pool: Signals, rows: slice) -> dict[str, Any]:
    """What a model recites.

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
    recited = {
        "rolled": model.roll_out(weights[:, :1]),
        "prefixed": model.roll_out(weights[:, :PREFIX]),
        "teacher": model.teacher_forced(weights),
    }
    own, mean, rolled, prefixed, teacher = (
        render(data.config, w, *images.shape[1:3]) for w in (weights, weights.mean(0, keepdim=True), *recited.values())
    )
    return {
        **recited,
        "l1": float((recited["teacher"] - weights)[:, 1:].abs().mean()),
        "exploded": explosion((recited["rolled"] - weights).abs()),
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


def save_cell(folder: Path, cell: Cell, model: RegressionTransformer, found: dict[str, Any]) -> None:
    """The model, what it recited (rows.safetensors) and, last, cell.json."""
    from safetensors.torch import save_file

    with runs.replace_folder(folder) as temporary:
        model.save_pretrained(temporary / "model")
        save_file({k: found[k].contiguous() for k in RECITED}, temporary / "rows.safetensors")
        numbers = {k: v for k, v in found.items() if k not in RECITED}
        runs.write_json(temporary / "cell.json", {**asdict(cell), **numbers})
