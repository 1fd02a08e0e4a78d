"""Where fits begin: random weights, one fitted field, a start learnt over many signals, or a row predicted from each.

Nothing held out is looked at.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from fields import layout
from fields.activations import ACTIVATIONS
from fields.fitting.amortised import check_shared, learn_encoder
from fields.fitting.engine import Points, Schedule, fit_block, quality
from fields.fitting.options import Start
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


def make_reference(
    config: FieldConfig,
    signals: Signals,
    start: Start,
    *,
    schedule: Schedule,
    seed: int = 0,
    given: str | None = None,
    meta_steps: int = 300,
    meta_batch: int = 32,
    inner_steps: int = 20,
    encoder_steps: int = 3000,
    dimensions: int = 128,
    subspace_steps: int = 4000,
    quiet: bool = False,
    device: torch.device | str = "cpu",
) -> Reference:
    """The row that fits begin from.

    Args:
        config: the architecture.
        signals: all signals; only the training split is used.
        start: unconditioned | conditioned | meta | amortised | subspace.
        schedule: of the fits to come; Reptile's inner loop uses its rate and betas.
        seed: of the random start and of the choice of signals.
        given: for `conditioned`: a training signal's id, or the folder of a weight dataset whose reference is taken over;
            for `amortised` and `subspace`: the folder of a weight dataset whose encoder or directions are taken over.
        meta_steps, meta_batch, inner_steps: of Reptile.
        encoder_steps: of the encoder of `amortised`, which begins from Reptile's row.
        dimensions, subspace_steps: of `subspace`, which begins from random weights.
        quiet: no progress bar.
        device: where Reptile computes; one field alone is fitted on the CPU.
    Raises:
        ValueError: for a reference of another architecture, or fitted to a signal that is held out.
    """
    if start == "unconditioned":
        return Reference()
    if given is not None and start not in ("conditioned", "amortised", "subspace"):
        raise ValueError(f"--reference belongs to --start conditioned, amortised or subspace, got --start {start}.")
    if start == "amortised":
        check_shared(signals)
        if given is not None:
            return _learnt_for(config, signals, given, start)
    if start == "subspace" and given is not None:
        return _learnt_for(config, signals, given, start)
    if start == "conditioned":
        if given is not None and (Path(given) / "field.json").is_file():
            return _taken_over(config, signals, given)
        return _fitted(config, signals, seed, given)
    if start == "subspace":
        train, device = _most_frequent(signals), torch.device(device)
        row, basis = learn_subspace(
            config, signals, train, random_rows(config, [seed])[0],
            dimensions=dimensions, steps=subspace_steps, seed=seed, quiet=quiet, device=device,
        )  # fmt: skip
        how = f"a row and {len(basis)} directions learnt over {len(train):,} training signals, {subspace_steps} steps, seed {seed}"
        return Reference.subspace(how, row, basis)
    how, row = _reptile(
        config, signals, schedule, seed, meta_steps, meta_batch, inner_steps, quiet, torch.device(device)
    )
    if start == "meta":
        return Reference("meta", how, row)
    train = _most_frequent(signals)
    encoder = learn_encoder(
        config,
        signals,
        train,
        row,
        share=schedule.pixels,
        steps=encoder_steps,
        seed=seed,
        quiet=quiet,
        device=device,
    )
    how = f"a row predicted from each signal by an encoder, learnt in {encoder_steps} steps from: {how}"
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
    seed: int,
    steps: int,
    batch: int,
    inner: int,
    quiet: bool,
    device: torch.device,
) -> tuple[str, Tensor]:
    """Reptile (arXiv:1803.02999): move the start towards what a few steps on a batch of signals lead to; how, and where."""
    train = signals.indices("train")
    batch, kind = min(batch, len(train)), kind_of(config, signals.describe())
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
    row = reptile(config, draw, schedule, seed=seed, steps=steps, inner=inner, quiet=quiet, device=device)
    how = (
        f"Reptile over {len(train):,} training signals{said}: {steps} outer steps of {batch} signals, "
        f"{inner} Adam steps at {schedule.lr:g}, seed {seed}"
    )
    return how, row.cpu()


def _spread(count: int, number: int, generator: torch.Generator) -> Tensor:
    """(number,) of `count` places in order, one in each of as many stretches of equal length."""
    at = (torch.arange(number) + torch.rand(number, generator=generator, dtype=torch.float64)) * count / number
    return at.long().clamp_max(count - 1)


def reptile(
    config: FieldConfig,
    draw: Callable[[torch.Generator], tuple[Tensor, Points]],
    schedule: Schedule,
    *,
    seed: int = 0,
    steps: int = 300,
    inner: int = 20,
    quiet: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A row from which a few steps lead far (Reptile, arXiv:1803.02999).

    Args:
        draw: targets (B, M, C) of a batch, drawn with the generator given, and their points; both on the device.
        schedule: its rate, betas and share of the points.
        seed: of the random start and of the draws.
        steps, inner: outer and inner steps.
        device: where it computes.
    Returns:
        (P,), on the device.
    """
    generator = torch.Generator().manual_seed(seed)
    loop = Schedule(inner, schedule.lr, schedule.betas, schedule.pixels, constant=True)
    row = random_rows(config, [seed]).to(device)
    for step in bar(range(steps), desc="meta start", unit="step", quiet=bool(quiet), leave=False):
        targets, points = draw(generator)
        reached = fit_block(config, row.expand(len(targets), -1), targets, points, loop)
        reached = reached[reached.isfinite().all(1)]
        if len(reached):
            row = row + (1 - step / steps) * (reached.mean(0, keepdim=True) - row)
    return row[0]
