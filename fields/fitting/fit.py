"""Fit thousands of fields: blocks that fill the cache, one thread a block, parts that survive an interruption.

The work is cut into blocks by the global order of the jobs alone, so that neither the number of threads, nor the number of
processes, nor an interruption changes a single weight. Finished parts lie under OUT/parts until all are there; then they
become the weight dataset.
"""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields import layout
from fields.fitting.align import save_aligned
from fields.fitting.amortised import Encoder
from fields.fitting.engine import Points, fit_block, quality
from fields.fitting.options import FieldOptions, FitConfig
from fields.fitting.parts import PART, FitBlock, assemble, cut, part_file, read_part
from fields.fitting.starts import default_steps, make_reference, random_rows, schedule_for
from fields.kinds.preview import preview_dataset
from fields.kinds.registry import kind_of
from fields.model import FIELDS, FieldConfig
from fields.runtime import launch, runs
from fields.runtime.console import bar, plural, say
from fields.runtime.processes import on_main
from fields.runtime.resources import check_room
from fields.signals.base import Signals
from fields.signals.origin import remember
from fields.signals.registry import load_signals
from fields.signals.shapes import Shapes
from fields.storage.dataset import WeightDataset, summary
from fields.storage.reference import Reference

SOFTENED = 0.3
"""Factor of the last layer of a start for a field that has failed: outputs of a saturated start get gradients again, and
the neurons stay those that the other fields began with."""


def fit(config: FitConfig, *, stream: bool = False) -> WeightDataset:
    """The command: signals -> weight dataset in `config.out`. Finished work is found again and not repeated.

    Args:
        config: what to fit, and how; without `out` the folder is `config.folder`, or one beside it.
        stream: leave the rows on disk, see `WeightDataset.load`.
    """
    return _fit(config, stream)[0]


def _fit(config: FitConfig, stream: bool) -> tuple[WeightDataset, Path]:
    """The dataset, and where it lies."""
    accelerator = launch.start(threads=config.threads, precision="fp32")
    signals = _limited(load_signals(config), config.limit)
    architecture = architecture_for(signals, config.field)
    paths = {"out": None, "data_root": None}
    config = replace(config, steps=config.steps or default_steps(signals, config.start))
    claimed = {**asdict(config), **paths, "signals": signals.name, "field": architecture.to_dict()}
    claimed["content"] = f"{len(signals):,} signals, digest {signals.digest()}"
    del claimed["stream"]  # the pictures are the same
    for name in ("align", "resize", "crop", "image_column", "label_column", "split", "rows"):
        if not claimed[name]:
            del claimed[name]  # folders made before there was a choice
    if config.start != "amortised":
        del claimed["encoder_steps"]
    if config.start != "subspace":
        del claimed["dimensions"], claimed["subspace_steps"]
    if isinstance(signals, Shapes):
        claimed["shape"] = signals.options.to_dict()
    else:
        del claimed["shape"], claimed["count"]  # of solids and meshes alone
    older = {"content": claimed["content"]}  # folders of before do not say it
    how: dict[str, Any] = {"free": ("threads", "strict"), "upgrade": lambda made: {**older, **made}, "kind": "fit"}
    default = partial(runs.vacant, config.folder, claimed, **how)
    out = config.out or on_main(accelerator, default)
    if accelerator.is_main_process:
        runs.claim(out, claimed, seed=config.seed, **how)
        remember(out, config)
    accelerator.wait_for_everyone()
    fitted, done = ((out / name).is_file() for name in ("field.json", "align.json" if config.align else "field.json"))
    accelerator.wait_for_everyone()  # everyone has looked before anyone writes
    if done:
        data = WeightDataset.load(out, stream=stream)
        accelerator.print(f"{out} is complete: {summary(data)}")
        if accelerator.is_main_process:  # what a kill after the marker left undone
            shutil.rmtree(out / "parts", ignore_errors=True)
            preview_dataset(out / "preview.png", data)
        return data, out
    accelerator.print(f"field {architecture}; {plural(len(signals), 'signal')} of {signals.name}")
    if not fitted:
        fit_fields(architecture, signals, config, out=out, accelerator=accelerator, stream=stream)
    if accelerator.is_main_process:
        if config.align:
            save_aligned(WeightDataset.load(out), None, out)
        _report(WeightDataset.load(out, stream=stream), signals, out)
    accelerator.wait_for_everyone()
    return WeightDataset.load(out, stream=stream), out


def main(config: FitConfig) -> None:
    """The command; exits with 1 when images had to be skipped or fields left out, after writing all the others."""
    _, out = _fit(config, True)
    failed = out / "failed.json"
    if failed.is_file():
        names = runs.read_json(failed, "Delete it.", list[str])
        raise RuntimeError(
            f"{plural(len(names), 'signal')} could not be fitted: {', '.join(names[:5])}{' ...' * (len(names) > 5)}. All are in {failed}."
        )


def fit_fields(
    architecture: FieldConfig,
    signals: Signals,
    config: FitConfig,
    *,
    out: Path,
    accelerator,
    reference: Reference | None = None,
    stream: bool = False,
) -> WeightDataset:
    """Fit every signal `config.fits` times and save the dataset to `out`.

    Args:
        reference: where the fits begin, if it was made before (from more signals, say); None = as `config` says.
        stream: leave the rows on disk, see `WeightDataset.load`.
    Raises:
        ValueError: for channels that do not match.
        RuntimeError: if no field could be fitted.
    """
    signals.check(architecture)
    out.mkdir(parents=True, exist_ok=True)
    # parts, mapped rows and dataset stand side by side for a moment
    size = 3 * 4 * (architecture.size + 4) * len(signals) * (config.fits or 1)
    on_main(accelerator, check_room, out, size, "fields")
    schedule = schedule_for(config, signals)
    reference = reference or _reference(architecture, signals, config, out, accelerator)
    jobs = cut(architecture, signals, config.fits or 1, accelerator.device, schedule.pixels)
    _fit_parts(Worker(architecture, signals, config, schedule, reference, accelerator.device), jobs, out, accelerator)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        assemble(architecture, signals, reference, jobs, out, partial(field_seed, config.seed))
    accelerator.wait_for_everyone()
    return WeightDataset.load(out, stream=stream)


def architecture_for(signals: Signals, options: FieldOptions | None = None) -> FieldConfig:
    """The field that suits the signals, with the changes asked for; a preset changes its hidden layers and encoding."""
    changes = {k: v for k, v in asdict(options or FieldOptions()).items() if v is not None}
    preset = changes.pop("preset", None)
    if preset is not None:
        if preset not in FIELDS:
            raise ValueError(f"--field.preset is one of {', '.join(FIELDS)}, got {preset!r}.")
        named = FIELDS[preset]
        changes = {k: getattr(named, k) for k in ("hidden", "octaves", "in_dim", "use_pi")} | changes
    return replace(signals.architecture(), **changes)


def field_seed(seed: int, signal: str, number: int) -> int:
    """The seed of one fit: a function of the run's seed, the signal's id and the number of the fit."""
    return int(runs.digest(seed, signal, number), 16) >> 1  # 63 bits


# -- the work --------------------------------------------------------------------------------------------------------


def _fit_parts(work: "Worker", parts: list[list[FitBlock]], out: Path, accelerator) -> None:
    """Fit this process's share of the parts that are not there yet."""
    rank, world, width = accelerator.process_index, accelerator.num_processes, work.architecture.size
    counts = [sum(len(b.indices) for b in part) for part in parts]
    mine = [i for i in range(rank, len(parts), world) if read_part(out, i, counts[i], width) is None]
    accelerator.wait_for_everyone()  # everyone has looked before anyone writes
    total = sum(counts[rank::world])
    left = sum(counts[i] for i in mine)
    if left < total and accelerator.is_main_process:
        print(f"resuming: {total - left:,} of {plural(total, 'field')} of this process are already fitted", flush=True)
    threads = torch.get_num_threads() if accelerator.device.type == "cpu" else 1
    shown = bar(total=total, initial=total - left, unit="field", desc="fit", quiet=rank > 0)
    seen, done, began, told = 0.0, 0, time.perf_counter(), left < 4 * PART
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for i in mine:
            pieces = []
            for rows, reached in pool.map(work, parts[i]):
                pieces.append((rows, reached))
                shown.update(len(rows))
                seen, done = seen + float(reached.nansum()), done + int(reached.isfinite().sum())
                shown.set_postfix_str(f"mean {work.kind.measure.text(seen / max(done, 1))}", refresh=False)
            weights, quality = (torch.cat(columns).numpy() for columns in zip(*pieces, strict=True))
            with runs.write_atomic(part_file(out, i)) as temporary:
                np.savez(temporary, weights=weights, quality=quality)
            if not told and accelerator.is_main_process:
                told = True
                minutes = (time.perf_counter() - began) / counts[i] * left / 60
                size = sum(counts) * width * 4 / 2**20
                shown.write(f"estimate: {minutes:.1f} minutes for {plural(left, 'field')}, {size:,.0f} MiB on disk")
    shown.close()


class Worker:
    """Fits one block; called from several threads, each on its own block."""

    def __init__(self, architecture, signals, config, schedule, reference, device):
        self.architecture, self.signals, self.config = architecture, signals, config
        self.schedule, self.reference, self.device = schedule, reference, device
        self.kind, self.points = kind_of(architecture, signals.describe()), {}
        self.encoder = None
        self.basis = None
        if reference.encoder is not None:
            if reference.tensors is None:
                raise FileNotFoundError(
                    f"{reference.file} of the start is missing, so no fit can start from it. Restore it beside "
                    f"field.json, or learn another with --start {reference.start}."
                )
            if reference.start == "subspace":
                self.basis = reference.tensors["basis"].to(device)
                return
            self.encoder = Encoder.of(reference.tensors).check(architecture, signals).to(device)

    def __call__(self, block: FitBlock) -> tuple[Tensor, Tensor]:
        """(n, P) rows and their (n,) quality, on the CPU."""
        targets = self.signals.values(list(block.indices)).to(self.device)  # (n, M, C)
        points = self._points(block)
        rows = fit_block(self.architecture, self._start(block), targets, points, self.schedule, basis=self.basis)
        reached = self._quality(block, rows, targets, points)
        diverged, failed = ~(rows.isfinite().all(1) & reached.isfinite()), self.kind.failed(reached)
        for bad in (diverged | failed).nonzero().flatten().tolist():
            alone, its = (
                replace(block, indices=(block.indices[bad],)),
                points.pick(torch.tensor([bad], device=self.device)),
            )
            rows[bad], reached[bad] = self._again(alone, targets[bad : bad + 1], its, not bool(diverged[bad]))
        return rows.cpu(), reached.cpu()

    def _quality(self, block: FitBlock, rows: Tensor, targets: Tensor, points: Points) -> Tensor:
        """(n,) how close rows are to their signals, at other points than the fitted ones where the signals have such."""
        if not self.signals.fresh:
            return quality(self.architecture, rows, targets, points.coords, self.kind)
        reached = []
        for i, row in zip(block.indices, rows, strict=True):
            coords, wanted = (t.to(self.device) for t in self.signals.measured(self.architecture, [i]))
            reached.append(quality(self.architecture, row[None], wanted, coords, self.kind))
        return torch.cat(reached)

    def _points(self, block: FitBlock) -> Points:
        key = (block.extent, block.number)
        if key in self.points:
            return self.points[key]
        coords = self.signals.points(self.architecture, list(block.indices)).to(self.device)
        seed = self.config.seed + block.number
        made = Points(self.architecture, coords, self.schedule.pixels, seed, self.kind)
        if self.signals.shared:
            self.points[key] = made
        return made

    def _start(self, block: FitBlock) -> Tensor:
        """(n, P): random weights, the reference or the encoder's rows, with a little noise on every fit after the first."""
        seeds = [field_seed(self.config.seed, self.signals.ids[i], block.number) for i in block.indices]
        if self.reference.row is None:
            return random_rows(self.architecture, seeds).to(self.device)
        if self.encoder is None:
            rows = self.reference.row.expand(len(seeds), -1).clone()
        else:
            rows = self.encoder(self.signals.values(list(block.indices)).to(self.device), block.extent).cpu()
        if block.number and self.config.jitter:
            numbers = rows.shape[1] if self.basis is None else len(self.basis)
            noise = torch.stack([torch.randn(numbers, generator=torch.Generator().manual_seed(s)) for s in seeds])
            rows += self.config.jitter * (noise if self.basis is None else noise @ self.basis.cpu())
        return rows.to(self.device)

    def _again(self, block: FitBlock, target: Tensor, points: Points, failed: bool) -> tuple[Tensor, Tensor]:
        """Refit one field, slower each time, and if it `failed` first from a softened start; NaN if nothing helps.

        Args:
            failed: the field was finite, but its kind said that it shows nothing of its signal; otherwise it diverged.
        """
        name, lr = self.signals.ids[block.indices[0]], self.schedule.lr
        what = self.kind.failure if failed else "diverged"
        tries = [(lr / 3, 1.0), (lr / 30, 1.0)]
        if failed and self.basis is None:  # with a basis, a softened start would leave the subspace
            tries.insert(0, (lr, SOFTENED))
        for rate, factor in tries:
            start = _softened(self.architecture, self._start(block), factor)
            slower = replace(self.schedule, lr=rate)
            row = fit_block(self.architecture, start, target, points, slower, basis=self.basis)
            reached = self._quality(block, row, target, points)
            if row.isfinite().all() and reached.isfinite().all() and not self.kind.failed(reached).any():
                said = self.kind.measure.text(float(reached))
                how = f"refitted at {rate:g}" + (f" from its start with {factor:g} of the last layer" * (factor != 1))
                say(f"{name} {what} at --lr {lr:g}; {how}, {said}")
                return row[0], reached[0]
        say(f"{name} {what} at every learning rate tried and is left out")
        return torch.full_like(row[0], float("nan")), torch.full_like(reached[0], float("nan"))


def _softened(config: FieldConfig, rows: Tensor, factor: float) -> Tensor:
    """(N, P) rows whose last layer is multiplied: the same neurons, an output that is less saturated."""
    if factor == 1:
        return rows
    layers = layout.split(config, rows)
    weight, bias = layers[-1]
    return layout.join([*layers[:-1], (weight * factor, bias * factor)])


# -- beginning and end ------------------------------------------------------------------------------------------------


def _limited(signals: Signals, limit: int | None) -> Signals:
    if limit is None:
        return signals
    return signals.subset(torch.cat([signals.indices(s)[:limit] for s in ("train", "validation", "test")]))


def _reference(architecture, signals, config, out: Path, accelerator) -> Reference:
    """Made once by the main process, kept beside the parts, read by all."""
    path = out / "parts" / "reference.json"
    if accelerator.is_main_process and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = make_reference(architecture, signals, config, device=accelerator.device)
        made.save_encoder(path.parent)
        runs.write_json(path, made.to_dict())
    accelerator.wait_for_everyone()
    reference = Reference.from_dict(runs.read_json(path, "Delete it and run the command again.", dict), path.parent)
    accelerator.print(f"start {reference.start}: {reference.how}")
    return reference


def _report(data: WeightDataset, signals: Signals, out: Path) -> None:
    """What came out, where; and a non-zero exit when something had to be left out."""
    for split in data.splits:
        reached, measure = data.quality(split), data.kind.measure
        mean, worst = measure.text(float(reached.mean())), measure.text(measure.worst(reached))
        print(f"{split}: {plural(len(reached), 'field')}, {measure.name} mean {mean}, worst {worst}")
        if measure.poor is not None and not measure.reached(reached.mean(), measure.poor):
            print(
                f"warning: the mean {measure.name} of {split} is below {measure.text(measure.poor, 2)}: these fields hardly show "
                "their signals. Raise --steps, use --start meta, or give a larger field (--field.hidden)."
            )
    preview_dataset(out / "preview.png", data)
    print(f"wrote {out} (fingerprint {data.fingerprint})")
