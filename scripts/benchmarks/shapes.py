"""Each stage of shapes: signs and distances, fits, vocabularies, surfaces, evaluation; CPU seconds, and peak memory."""

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.fitting.fit import architecture_for, schedule_for
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
    threads = config.threads or cores()
    torch.set_num_threads(threads)
    signals = load_signals(SignalsConfig("solids", count=config.train + config.n))
    train = signals.subset(torch.arange(config.train))
    held = signals.subset(torch.arange(config.train, config.train + config.n))
    train.split, held.split = ["train"] * config.train, ["test"] * config.n
    architecture = architecture_for(held)
    print(
        f"{architecture}; {threads} threads, seed {config.seed}; seconds are CPU seconds, peaks of the process so far"
    )
    rows = _fits(config, architecture, train, held)
    _vocabularies(architecture, rows, config.seed)
    mesh = _surfaces(architecture, rows[0])
    _signs(mesh.vertices, mesh.faces)
    _evaluation(architecture, rows)


def _fits(config: ShapesBenchmark, architecture: FieldConfig, train: Any, held: Any) -> Tensor:
    """Held-out solids fitted as `fit_fields` does, and one at a time; (n, P) rows of the last start."""
    for part in (train, held):
        part.values(torch.arange(len(part)))  # makes the points, which is not fitting
    began = time.process_time()
    single = [
        one_shape(architecture, held.points(architecture, [i])[0], held.values([i])[0], i, config.goal)
        for i in range(config.single)
    ]
    alone = (time.process_time() - began) / config.single
    reached = sum(quality for _, quality in single) / len(single)
    _say("fit, one at a time", 1 / alone, "shapes", f"IoU {reached:.3f} of the fitted points")
    for start in ("meta", "subspace"):
        options = FitConfig(
            "solids",
            start=start,
            steps=config.steps if start == "meta" else None,
            seed=config.seed,
            meta_steps=config.meta_steps,
            subspace_steps=config.learn,
        )
        began = time.process_time()
        base = make_reference(architecture, train, options, quiet=True)
        learnt, began, wall = time.process_time() - began, time.process_time(), time.perf_counter()
        data = fit_from(architecture, held, options, base, quiet=True)
        seconds, wall = (time.process_time() - began) / config.n, (time.perf_counter() - wall) / config.n
        rows = data.weights("test")
        _say(
            f"fit, --start {start}, {schedule_for(options, train).steps} steps",
            1 / seconds,
            "shapes",
            f"IoU {float(data.quality('test').mean()):.3f} at fresh points, {1 / wall:.1f} a second; "
            f"ratio {alone / seconds:.1f}; start {learnt:.0f} s",
        )
    return rows


def _vocabularies(architecture: FieldConfig, rows: Tensor, seed: int) -> None:
    """Each vocabulary, trained hardly or not at all, which its speed does not depend on."""
    from tokenizers.registry import class_of

    few: dict[str, tuple[str, dict]] = {
        "uniform, 64 codes": ("uniform", {"vocab_size": 64}),
        "quantile, 64 codes": ("quantile", {"vocab_size": 64}),
        "kmeans, 64 codes": ("kmeans", {"vocab_size": 64}),
        "kmeans, groups of 8": ("kmeans", {"vocab_size": 64, "group": 8}),
        "pca, 32 components": ("pca", {"components": min(32, len(rows) - 1), "vocab_size": 64}),
        "vqvae, 128 latents": ("vqvae", {"latents": min(128, len(rows) - 1), "vocab_size": 64, "steps": 1}),
        "regions, 4 x 4 x 4": ("regions", {"grid": (4, 4, 4), "vocab_size": 64, "steps": 1, "batch": 8}),
        "regions, 6 x 6 x 6": ("regions", {"grid": (6, 6, 6), "vocab_size": 64, "steps": 1, "batch": 8}),
        "graph, 120 latents": ("graph", {"latents": 120, "vocab_size": 64, "steps": 1, "taught": 8, "meta_steps": 1}),
    }
    for name, (kind, options) in few.items():
        tokenizer = class_of(kind).for_field(architecture, seed=seed, **options).fit(rows)
        many = rows.repeat(4, 1)
        encode, ids = _seconds(lambda t=tokenizer, r=many: t.encode(r))
        decode, _ = _seconds(lambda t=tokenizer, i=ids: t.decode(i))
        said = f"{ids.shape[1]:,} tokens; decoded {len(many) / decode:,.0f} a second"
        _say(f"encode, {name}", len(many) / encode, "fields", said)


def _surfaces(architecture: FieldConfig, row: Tensor) -> Any:
    """Marching cubes at three sizes, and a shaded view; the mesh at 128^3."""
    from fields.view.mesh import field_volume, mesh_volume
    from fields.view.shading import view

    made = {}
    for size in (64, 128, 256):
        values, volume = _seconds(lambda size=size: field_volume(architecture, row, size, below=False), 0)
        cubes, made[size] = _seconds(lambda volume=volume: mesh_volume(volume), 0)
        _say(f"surface at {size}^3", 1 / (values + cubes), "surfaces", f"field {values:.2f} s, cubes {cubes:.2f} s")
    small = field_volume(architecture, row, 64, below=False)
    _say("view of 128 x 128", 1 / _seconds(lambda: view(small, 128), 0)[0], "views", "")
    return made[128]


def _signs(vertices: np.ndarray, faces: np.ndarray) -> None:
    """Side of the surface and distance from it, by libigl."""
    from fields.signals.meshes import prepare

    surface = prepare(vertices, faces)
    points = np.random.default_rng(0).uniform(-1, 1, (20_000, 3))
    text = f"mesh of {len(surface.faces):,} faces"
    _say("signs (winding number)", len(points) / _seconds(lambda: surface.inside(points))[0], "points", text)
    _say("signed distances", len(points) / _seconds(lambda: surface.distance(points))[0], "points", text)


def _evaluation(architecture: FieldConfig, rows: Tensor) -> None:
    """Clouds of surfaces, Chamfer distances of all pairs, and the search for the nearest alone."""
    from fields.metrics.clouds import chamfer_matrix, nearest_matrix, on_surface, standardised
    from fields.view.mesh import mesh_field

    for points in (1024, 2048):

        def clouds(points: int = points) -> list[np.ndarray]:
            meshes = [mesh_field(architecture, row, 64, below=False) for row in rows]
            meshes = [mesh for mesh in meshes if mesh.outcome == "surface"]
            return [
                standardised(on_surface(mesh.vertices, mesh.faces, points, seed=i)) for i, mesh in enumerate(meshes)
            ]

        seconds, made = _seconds(clouds, 0)
        _say(f"clouds of {points:,} points", len(rows) / seconds, "clouds", "surfaces at 64^3")
        pairs = len(made) // 2 * (len(made) - len(made) // 2)
        both = made[: len(made) // 2], made[len(made) // 2 :]
        whole, _ = _seconds(lambda both=both: chamfer_matrix(*both), 0)
        near, _ = _seconds(lambda both=both: nearest_matrix(*both), 0)
        _say(
            f"Chamfer, {points:,} points",
            pairs / whole,
            "pairs",
            f"{pairs:,} pairs; nearest ones alone {pairs / near:,.0f} a second",
        )


def _seconds(work: Callable[[], Any], turns: int = 1) -> tuple[float, Any]:
    """CPU seconds of a call, after `turns` that are not counted, and what it returns."""
    for _ in range(turns):
        work()
    began = time.process_time()
    found = work()
    return max(time.process_time() - began, 1e-6), found


def _say(stage: str, speed: float, unit: str, about: str) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{stage:34} {speed:12,.2f} {unit + '/s':11} peak {peak:5.2f} GiB  {about}", flush=True)
