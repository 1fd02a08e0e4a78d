"""Where fits begin: random weights, one fitted field, a start learnt over many signals, or a row predicted from each.

Nothing held out is looked at.
"""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields import layout
from fields.activations import ACTIVATIONS
from fields.fitting.amortised import check_shared, learn_encoder
from fields.fitting.engine import Points, Schedule, fit_block, quality
from fields.fitting.options import FitConfig, Start
from fields.fitting.subspace import learn_subspace
from fields.kinds.registry import kind_of
from fields.model import FieldConfig
from fields.runtime.console import bar
from fields.signals.base import Signals
from fields.signals.seen import HELD_OUT, refuse_held_out, sample_of, seen_by
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference

REFERENCE_SCHEDULE = Schedule(steps=1000, lr=1e-2, betas=(0.9, 0.999))
"""The one field of `conditioned` is fitted long and carefully: it is fitted once."""

BATCH, INNER = 32, 20
"""Signals of an outer step of Reptile, and Adam steps on them."""
SEEN = 2048
"""Most points of a signal that a step of Reptile sees: of larger pictures, and of signals of several sizes, other points are
drawn at each outer step, as many of each, so that a step's cost has a bound and every size counts alike."""


def random_rows(config: FieldConfig, seeds: list[int]) -> Tensor:
    """Random fields, each a function of its own seed.

    PyTorch's default for linear layers, uniform in +-1/sqrt(fan_in); for sine SIREN's (arXiv:2006.09661, section 3.2).

    Returns:
        (N, P) float32.
    """
    rows = []
    for seed in seeds:
        generator, layers = torch.Generator().manual_seed(seed % 2**63), []
        for i, (fan_in, fan_out) in enumerate(zip(config.widths, config.widths[1:], strict=False)):
            bound = ACTIVATIONS[config.activation].bound(i, fan_in, config.w0)
            uniform = torch.rand(1, fan_out, fan_in + 1, generator=generator) * 2 - 1
            layers.append((uniform[..., :-1] * bound, uniform[..., -1] * bound))
        rows.append(layout.join(layers))
    return torch.cat(rows)


STEPS = {"unconditioned": 3.2, "conditioned": 3.2, "meta": 1.0, "amortised": 0.75, "subspace": 0.5}
"""Steps from each start, relative to those of its signals. On MNIST and the 8 x 8 digits 64 steps from random weights or from one
fitted field come to 14 to 16 dB, 200 to more than 30 dB, as 64 from a learnt start do, and 48 of half as many points from
a row that an encoder predicts."""


def default_steps(signals: Signals, start: str) -> int:
    """Default number of Adam steps of a fit."""
    return round(STEPS[start] * signals.steps())


def schedule_for(config: FitConfig, signals: Signals) -> Schedule:
    """The optimiser's schedule for these signals."""
    share = config.pixels if config.pixels is not None else signals.share()
    if config.pixels is None and config.start == "amortised" and share < 1:
        share /= 2  # three quarters of the steps, each of half the points, come as close from a predicted row
    steps = config.steps or default_steps(signals, config.start)
    return Schedule(steps, config.lr, config.betas, share, config.target_psnr)


def make_reference(
    field: FieldConfig,
    signals: Signals,
    config: FitConfig,
    *,
    quiet: bool = False,
    device: torch.device | str = "cpu",
) -> Reference:
    """The row that fits begin from.

    Args:
        field: the architecture.
        signals: all signals; only the training split is used.
        config: the start, its seed and steps, and what it is taken over from (`reference`); of the fits to come the rate, the
            betas and the share of the points, which Reptile's inner loop uses.
        quiet: no progress bar.
        device: where Reptile computes; one field alone is fitted on the CPU.
    Raises:
        ValueError: for a reference of another architecture, or fitted to a signal that is held out.
    """
    start, given, seed, device = config.start, config.reference, config.seed, torch.device(device)
    if start == "unconditioned":
        return Reference()
    if given is not None and start not in ("conditioned", "amortised", "subspace"):
        raise ValueError(f"--reference belongs to --start conditioned, amortised or subspace, got --start {start}.")
    if start == "amortised":
        check_shared(signals)
    if start in ("amortised", "subspace") and given is not None:
        return _learnt_for(field, signals, given, start)
    if start == "conditioned":
        if given is not None and (Path(given) / "field.json").is_file():
            return _taken_over(field, signals, given)
        return _fitted(field, signals, seed, given)
    learning: dict[str, Any] = {"seed": seed, "quiet": quiet, "device": device}
    if start == "subspace":
        train, random = _most_frequent(signals), random_rows(field, [seed])[0]
        learning |= {"dimensions": config.dimensions, "steps": config.subspace_steps}
        row, basis = learn_subspace(field, signals, train, random, **learning)
        how = f"a row and {len(basis)} directions learnt over {len(train):,} training signals, {config.subspace_steps} steps, seed {seed}"
        return Reference.subspace(how, row, basis)
    schedule = schedule_for(config, signals)
    how, row = _reptile(field, signals, schedule, config.meta_steps, **learning)
    if start == "meta":
        return Reference("meta", how, row)
    share, steps = schedule.pixels, config.encoder_steps
    encoder = learn_encoder(field, signals, _most_frequent(signals), row, share=share, steps=steps, **learning)
    how = f"a row predicted from each signal by an encoder, learnt in {steps} steps from: {how}"
    return Reference.amortised(how, encoder.state_dict())


def _same_fields(config: FieldConfig, folder: str) -> WeightDataset:
    """The dataset that a start is taken from; refused if its fields are others."""
    data = WeightDataset.load(folder)
    if data.config != config:
        raise ValueError(
            f"--reference {folder} holds fields {data.config}, the fits are to be {config} ({data.config.against(config)}). "
            "Give a dataset of the same architecture."
        )
    return data


def _learnt_for(config: FieldConfig, signals: Signals, folder: str, start: Start) -> Reference:
    """The encoder or subspace of another dataset; refused if it has learnt from what is held out."""
    data = _same_fields(config, folder)
    if data.reference.tensors is None or data.reference.start != start:
        what = "encoder" if start == "amortised" else "subspace"
        raise ValueError(f"--reference {folder} has no {what}: its fields started from {data.reference.start}.")
    return replace(data.reference, seen=_beyond(signals, seen_by(data), folder))


def _most_frequent(signals: Signals) -> Tensor:
    """Positions of the training signals of the most frequent size."""
    train = signals.indices("train")
    sizes = signals.extent[train]
    common = max(map(tuple, sizes.unique(dim=0).tolist()), key=lambda s: int((sizes == torch.tensor(s)).all(1).sum()))
    return train[(sizes == torch.tensor(common)).all(1)]


def _taken_over(config: FieldConfig, signals: Signals, folder: str) -> Reference:
    """The reference of another dataset, or its first training row; refused if it has learnt from what is held out."""
    data = _same_fields(config, folder)
    if data.reference.row is not None:
        how = f"the reference of dataset {data.fingerprint}, there: {data.reference.how}"
        row, seen = data.reference.row, seen_by(data)
    else:
        split = next(iter(data.splits))
        how, row = f"row 0 of split {split} of dataset {data.fingerprint}", data.weights(split, [0])[0]
        seen = sample_of(data.signals.get("name"), data.rows(split, [0]).ids, data.reference.seen)
    return Reference("conditioned", how, row, seen=_beyond(signals, seen, folder))


def _beyond(signals: Signals, seen: str, folder: str) -> str:
    """What a start has seen beyond the training signals; refused if it has learnt from what is held out."""
    for split in HELD_OUT:
        ids = (name for name, s in zip(signals.ids, signals.split, strict=True) if s == split)
        refuse_held_out(f"the start of --reference {folder}", seen, signals.name, ids, split)
    train = (name for name, s in zip(signals.ids, signals.split, strict=True) if s == "train")
    return "" if seen == sample_of(signals.name, train) else seen


def _fitted(config: FieldConfig, signals: Signals, seed: int, given: str | None) -> Reference:
    """One training signal, fitted from random weights: by the engine itself, as `fit_from` begins where this ends."""
    train = signals.indices("train")
    if given is None:
        index = int(train[torch.randint(len(train), (1,), generator=torch.Generator().manual_seed(seed))])
    else:
        index = int(signals.find([given])[0])
        if signals.split[index] != "train":
            raise ValueError(
                f"--reference {given} is in the held-out split {signals.split[index]}. Choose a training signal."
            )
    coords, targets = signals.points(config, [index]), signals.values([index])  # (M, d) or (1, M, d); (1, M, C)
    points = Points(config, coords, 1.0, seed, kind_of(config, signals.describe()))
    row = fit_block(config, random_rows(config, [seed]), targets, points, REFERENCE_SCHEDULE)
    if not row.isfinite().all():
        raise RuntimeError(f"the reference fit to {signals.ids[index]} diverged. Choose another --reference or --seed.")
    found = quality(config, row, targets, coords, points.kind)
    if bool(points.kind.failed(found).any()):
        raise RuntimeError(
            f"the reference fit to {signals.ids[index]} {points.kind.failure}. Choose another --reference or --seed."
        )
    reached = points.kind.measure.text(float(found))
    how = f"{signals.ids[index]} fitted from random weights (seed {seed}), {REFERENCE_SCHEDULE.steps} steps, {reached}"
    return Reference("conditioned", how, row[0])


def _reptile(
    config: FieldConfig,
    signals: Signals,
    schedule: Schedule,
    steps: int,
    *,
    seed: int,
    quiet: bool,
    device: torch.device,
) -> tuple[str, Tensor]:
    """Reptile (arXiv:1803.02999): move the start towards what a few steps on a batch of signals lead to; how, and where."""
    train = signals.indices("train")
    batch, kind = min(BATCH, len(train)), kind_of(config, signals.describe())
    extents = signals.extent[train]
    counts = torch.tensor([signals.count(extent) for extent in extents.tolist()])
    alike = len(extents.unique(dim=0)) == 1
    most = round(SEEN / schedule.pixels)

    def points_of(coords: Tensor) -> Points:
        return Points(config, coords.to(device), schedule.pixels, seed, kind)

    @lru_cache(64 if signals.shared else 1)
    def coords_of(extent: tuple[int, ...], own: int | None) -> Tensor:
        first = int((extents == torch.tensor(extent)).all(1).nonzero()[0]) if own is None else own
        found = signals.points(config, train[first : first + 1])
        return found if found.ndim == 2 else found[0]

    def all_points(generator: torch.Generator) -> tuple[Tensor, Points]:
        chosen = train[torch.randperm(len(train), generator=generator)[:batch]]
        return signals.values(chosen).to(device), shared or points_of(signals.points(config, chosen))

    def some_points(generator: torch.Generator) -> tuple[Tensor, Points]:
        chosen = torch.randperm(len(train), generator=generator)[:batch]
        parts = []
        for i in chosen.tolist():  # one after the other: a batch of large pictures would fill the memory
            places = _spread(int(counts[i]), number, generator)
            coords = coords_of(tuple(extents[i].tolist()), i if not signals.shared else None)
            parts.append((signals.values(train[i : i + 1])[0, places], coords[places]))
        targets, coords = (torch.stack(column) for column in zip(*parts, strict=True))
        return targets.to(device), points_of(coords)

    draw, said = all_points, ""
    if alike and int(counts[0]) <= most:
        shared = points_of(signals.points(config, train[:1])) if signals.shared else None
    else:
        number = min(int(counts.median()), most)
        draw, said = some_points, f" of {number:,} points each"
    generator, row = torch.Generator().manual_seed(seed), random_rows(config, [seed]).to(device)
    loop = Schedule(INNER, schedule.lr, schedule.betas, schedule.pixels, constant=True)
    for step in bar(range(steps), desc="meta start", unit="step", quiet=quiet, leave=False):
        targets, points = draw(generator)
        reached = fit_block(config, row.expand(len(targets), -1), targets, points, loop)
        reached = reached[reached.isfinite().all(1)]
        if len(reached):
            row = row + (1 - step / steps) * (reached.mean(0, keepdim=True) - row)
    how = (
        f"Reptile over {len(train):,} training signals{said}: {steps} outer steps of {batch} signals, "
        f"{INNER} Adam steps at {schedule.lr:g}, seed {seed}"
    )
    return how, row[0].cpu()


def _spread(count: int, number: int, generator: torch.Generator) -> Tensor:
    """(number,) of `count` places in order, one in each of as many stretches of equal length."""
    at = (torch.arange(number) + torch.rand(number, generator=generator, dtype=torch.float64)) * count / number
    return at.long().clamp_max(count - 1)
