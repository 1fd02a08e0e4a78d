"""Pictures fitted per second: one at a time, plainly batched, and by `fit_fields`."""

import resource
import time
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from fields.fitting.engine import Points, quality
from fields.fitting.fit import architecture_for
from fields.fitting.memory import fit_from
from fields.fitting.options import FitConfig
from fields.fitting.starts import make_reference, random_rows, schedule_for
from fields.model import FieldConfig, forward
from fields.module import from_module, to_module
from fields.runtime.launch import cores
from fields.signals.images import grid
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from scripts.benchmarks.options import FitBenchmark


def one_at_a_time(
    config: FieldConfig, coords: Tensor, targets: Tensor, seed: int, goal: float, batches: Iterable[Tensor], every: int
) -> tuple[float, float]:
    """A field as an `nn.Module` from random weights, one batch of points per step of Adam, until `goal`: (seconds, quality).

    Args:
        coords, targets: (M, d) and (M, C), all points and their values.
        batches: positions of the points of each step.
        every: steps between two looks at the quality.
    """
    module = to_module(config, random_rows(config, [seed])[0])
    adam = torch.optim.Adam(module.parameters(), lr=4e-3)
    began, reached = time.perf_counter(), 0.0
    for step, batch in enumerate(batches, 1):
        adam.zero_grad()
        F.binary_cross_entropy(module(coords[batch]).clamp(1e-6, 1 - 1e-6), targets[batch]).backward()
        adam.step()
        if step % every == 0:
            reached = float(quality(config, from_module(module)[None], targets[None], coords))
            if reached >= goal:
                break
    return time.perf_counter() - began, reached


def one_picture(config: FieldConfig, image: Tensor, seed: int) -> tuple[float, float]:
    """Mini-batches of 64 pixels, until 33 dB: (seconds, dB)."""
    coords, epoch = grid(config, *image.shape[:2]), -(-image.shape[0] * image.shape[1] // 64)
    batches = (batch for _ in range(1000) for batch in torch.randperm(len(coords)).split(64))
    return one_at_a_time(config, coords, image.flatten(0, 1), seed, 33.0, batches, 5 * epoch)


def plainly_batched(config: FieldConfig, start: Tensor, images: Tensor) -> Tensor:
    """250 fields in one autograd graph, 100 Adam steps at 1e-2 over all pixels."""
    coords, rows = grid(config, *images.shape[1:3]), []
    for batch in images.flatten(1, 2).split(250):  # (n, M, C)
        weights = start.expand(len(batch), -1).clone().requires_grad_()
        adam = torch.optim.Adam([weights], lr=1e-2)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 100)
        for _ in range(100):
            adam.zero_grad()
            loss = F.binary_cross_entropy_with_logits(forward(config, weights, coords), batch, reduction="none")
            loss.mean((1, 2)).sum().backward()
            adam.step()
            cosine.step()
        rows.append(weights.detach())
    return torch.cat(rows)


def fit(config: FitBenchmark) -> None:
    """Print the table of fitting: wall seconds, and CPU seconds, which other work on the machine does not change."""
    threads = config.threads or cores()
    torch.set_num_threads(threads)
    signals = load_signals(SignalsConfig(config.signals, config.data_root))
    train = signals.subset(signals.indices("train")[: max(config.n, config.learn)])
    held_out = signals.subset(signals.indices("validation")[: config.n])
    architecture = architecture_for(train)
    starts = {name: FitConfig(start=name, seed=config.seed, fits=1, threads=threads) for name in ("meta", "amortised")}
    bases = {}
    plain = FitConfig(start="meta", seed=config.seed, betas=(0.9, 0.999), pixels=1.0)
    for name, options in {"plain": plain, **starts}.items():
        cpu, wall = time.process_time(), time.perf_counter()
        bases[name] = make_reference(architecture, train, options, quiet=True)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(f"start {name}: {cpu:.1f} CPU s, {wall:.1f} s, learnt from {len(train):,} signals", flush=True)
    torch.manual_seed(config.seed)
    coords = Points(architecture, grid(architecture, *train.extent[0].tolist()), 1.0, 0).coords
    cpu, wall = time.process_time(), time.perf_counter()
    singles = [one_picture(architecture, held_out.images([i])[0], i)[1] for i in range(config.single)]
    lines = [("one at a time, 64-pixel batches", *spent(cpu, wall), len(singles), sum(singles) / len(singles))]
    few = held_out.images(list(range(max(1, len(held_out) // 4))))
    cpu, wall = time.process_time(), time.perf_counter()
    rows = plainly_batched(architecture, bases["plain"].row, few)
    took = spent(cpu, wall)
    lines.append(
        (
            "plainly batched, 100 steps",
            *took,
            len(few),
            float(quality(architecture, rows, few.flatten(1, 2), coords).mean()),
        )
    )
    fit_from(architecture, held_out.subset(torch.arange(1)), starts["meta"], bases["meta"], quiet=True)  # imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, options in starts.items():
        cpu, wall = time.process_time(), time.perf_counter()
        reached = fit_from(architecture, held_out, options, bases[name], quiet=True).quality("validation")
        steps = schedule_for(options, train).steps
        lines.append((f"fit_fields, {name}, {steps} steps", *spent(cpu, wall), len(held_out), float(reached.mean())))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"\n{architecture}; held-out {signals.name}, {threads} threads, seed {config.seed}")
    print(f"{'':34} {'fields':>7} {'fields/CPU s':>13} {'fields/s':>9} {'mean dB':>8} {'ratio':>7}")
    for name, cpu, wall, n, mean in lines:
        ratio = n / cpu * lines[0][1] / lines[0][3]
        print(f"{name:34} {n:7,} {n / cpu:13.1f} {n / wall:9.1f} {mean:8.2f} {ratio:7.1f}")
    print(
        f"peak memory grew by {grown:.0f} MiB during fit_fields; its rows take {len(held_out) * architecture.size / 2**18:.0f}"
    )


def spent(cpu: float, wall: float) -> tuple[float, float]:
    """CPU and wall seconds since then."""
    return time.process_time() - cpu, time.perf_counter() - wall
