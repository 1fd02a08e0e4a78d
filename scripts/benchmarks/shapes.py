"""Solids fitted per second, surfaces, views and distances."""

import resource
import time

import torch
from torch import Tensor

from fields.fitting.fit import architecture_for
from fields.fitting.memory import fit_from
from fields.fitting.options import FitConfig
from fields.fitting.starts import make_reference
from fields.model import FieldConfig
from fields.runtime.launch import cores
from fields.signals.options import SignalsConfig
from fields.signals.registry import load_signals
from scripts.benchmarks.fitting import one_at_a_time
from scripts.benchmarks.options import ShapesBenchmark


def one_shape(config: FieldConfig, coords: Tensor, targets: Tensor, seed: int, goal: float) -> tuple[float, float]:
    """512 points a step, until `goal`: (seconds, IoU)."""
    generator = torch.Generator().manual_seed(seed)
    batches = (torch.randint(len(coords), (512,), generator=generator) for _ in range(4000))
    return one_at_a_time(config, coords, targets, seed, goal, batches, 50)


def shapes(config: ShapesBenchmark) -> None:
    """Print the tables of shapes."""
    from fields.metrics.clouds import chamfer_matrix, on_surface, standardised
    from fields.view.mesh import field_volume, mesh_volume
    from fields.view.shading import view

    threads = config.threads or cores()
    torch.set_num_threads(threads)
    signals = load_signals(SignalsConfig("solids", count=config.train + config.n))
    train = signals.subset(torch.arange(config.train))
    held = signals.subset(torch.arange(config.train, config.train + config.n))
    train.split, held.split = ["train"] * config.train, ["test"] * config.n
    architecture, options = (
        architecture_for(held),
        FitConfig("solids", steps=config.steps, seed=config.seed, meta_steps=100),
    )
    for part in (train, held):
        part.values(torch.arange(len(part)))  # makes the points, which is not fitting
    began = time.perf_counter()
    start = make_reference(architecture, train, options)
    print(f"meta start: {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    data = fit_from(architecture, held, options, start, quiet=True)
    ours = (time.perf_counter() - began) / config.n
    rows, reached = data.weights("test"), data.quality("test").mean()
    single = [
        one_shape(architecture, held.points(architecture, [i])[0], held.values([i])[0], i, config.goal)
        for i in range(config.single)
    ]
    alone = sum(seconds for seconds, _ in single) / len(single)
    print(f"{architecture}; {threads} threads, seed {config.seed}")
    print(f"one at a time            {1 / alone:8.2f} shapes/s, IoU {sum(q for _, q in single) / len(single):.3f}")
    print(
        f"batched, {config.steps:4} steps      {1 / ours:8.2f} shapes/s, IoU {float(reached):.3f}; ratio {alone / ours:.1f}"
    )
    for size in (64, 128, 256):
        began = time.perf_counter()
        volume = field_volume(architecture, rows[0], size, below=False)
        sampled = time.perf_counter()
        mesh = mesh_volume(volume)
        ended = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"surface at {size:3}^3         {sampled - began:6.2f} s field, {ended - sampled:5.2f} s cubes, peak {peak:.2f} GiB"
        )
    began = time.perf_counter()
    view(field_volume(architecture, rows[0], 64, below=False), 128)
    print(f"view of 128 x 128        {time.perf_counter() - began:8.2f} s")
    clouds = [standardised(on_surface(mesh.vertices, mesh.faces, 2048, seed=i)) for i in range(8)]
    began = time.perf_counter()
    chamfer_matrix(clouds, clouds[:4])
    print(f"Chamfer, 2,048 points    {32 / (time.perf_counter() - began):8.0f} pairs/s on one core")
