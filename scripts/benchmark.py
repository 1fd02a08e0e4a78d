"""Speed and memory, as ratios measured side by side in one run:  python scripts/benchmark.py fit --data-root DIR"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # our `tokenizers`, not Hugging Face's (README, "Names")

from fields.runtime.processes import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import resource
import time
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from fields import layout
from fields.fitting.engine import Points, Schedule, fit_block, quality
from fields.fitting.fit import FitConfig, architecture_for, schedule_for
from fields.fitting.memory import fit_from
from fields.fitting.starts import make_reference, random_rows
from fields.model import FieldConfig, forward
from fields.runtime.launch import cores, run_cli
from fields.signals.base import SignalsConfig
from fields.signals.images import grid
from fields.signals.registry import load_signals


@dataclass(frozen=True)
class FitBenchmark:
    """Fields fitted per second and their mean PSNR: one at a time, plainly batched, and by `fit_fields`."""

    signals: str = "mnist"
    """digits | mnist | fashion-mnist."""
    data_root: Path | None = None
    """Folder with the files of mnist or fashion-mnist."""
    n: int = 4000
    """Fields for `fit_fields`; a quarter of them for the plainly batched loop."""
    single: int = 3
    """Fields for the loop that fits one at a time."""
    threads: int | None = None
    """CPU threads; None = all cores."""
    seed: int = 0


@dataclass(frozen=True)
class TokenizersBenchmark:
    """Scalar k-means: encoding against scikit-learn's `KMeans.predict` over the same values and centres."""

    n: int = 20_000
    """Fields of 593 weights (made up: the time does not depend on the values)."""
    vocab_size: int = 256
    """Codes."""
    threads: int | None = None
    """CPU threads; None = all cores."""
    seed: int = 0


@dataclass(frozen=True)
class ShapesBenchmark:
    """Solids: fields fitted per second against one at a time, surfaces, views and Chamfer distances, and peak memory."""

    n: int = 64
    """Held-out solids for the batched fit."""
    single: int = 1
    """Solids for the loop that fits one at a time."""
    train: int = 128
    """Solids that the start is learnt from."""
    steps: int = 256
    """Adam steps of the batched fit."""
    goal: float = 0.95
    """IoU at which the loop stops; it gives up after 4,000 steps."""
    threads: int | None = None
    """CPU threads; None = all cores."""
    seed: int = 0


def one_at_a_time(config: FieldConfig, image: Tensor, seed: int, goal: float = 33.0) -> tuple[float, float]:
    """A field as an `nn.Module`, Adam, mini-batches of 64 pixels, until the picture reaches `goal` dB: (seconds, dB)."""
    coords, targets = grid(config, *image.shape[:2]), image.flatten(0, 1)
    module = layout.to_module(config, random_rows(config, [seed])[0])
    adam = torch.optim.Adam(module.parameters(), lr=4e-3)
    began, reached = time.perf_counter(), 0.0
    for epoch in range(1000):
        for batch in torch.randperm(len(coords)).split(64):
            adam.zero_grad()
            F.binary_cross_entropy(module(coords[batch]).clamp(1e-6, 1 - 1e-6), targets[batch]).backward()
            adam.step()
        if epoch % 5 == 4:
            reached = float(quality(config, layout.from_module(module)[None], targets[None], coords))
            if reached >= goal:
                break
    return time.perf_counter() - began, reached


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
    """Print the table of fitting."""
    threads = config.threads or cores()
    torch.set_num_threads(threads)
    signals = load_signals(SignalsConfig(config.signals, config.data_root))
    train = signals.subset(signals.indices("train")[: max(config.n, 4000)])
    architecture, options = architecture_for(train), FitConfig(seed=config.seed, fits=1, threads=threads)
    old = Schedule(100, 1e-2, (0.9, 0.999))
    bases = {}
    for name, schedule in (("plain", old), ("ours", schedule_for(options, train))):
        began = time.perf_counter()
        bases[name] = make_reference(architecture, train, "meta", schedule=schedule, seed=config.seed)
        print(f"meta start ({name}): {time.perf_counter() - began:.1f} s")
    torch.manual_seed(config.seed)
    chosen = train.subset(torch.arange(min(config.n, len(train))))
    coords = Points(architecture, grid(architecture, *train.sizes[0].tolist()), 1.0, 0).coords
    singles = [one_at_a_time(architecture, chosen.images([i])[0], i) for i in range(config.single)]
    few = chosen.images(list(range(max(250, len(chosen) // 4))))
    began = time.perf_counter()
    rows = plainly_batched(architecture, bases["plain"].row, few)
    batched = len(few) / (time.perf_counter() - began)
    decibels = quality(architecture, rows, few.flatten(1, 2), coords)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    reached = fit_from(architecture, chosen, options, bases["ours"], quiet=True).quality("train")
    speed = len(chosen) / (time.perf_counter() - began)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    single = len(singles) / sum(seconds for seconds, _ in singles)
    lines = [
        ("one at a time, 64-pixel batches", config.single, single, sum(d for _, d in singles) / len(singles)),
        ("plainly batched, 100 steps", len(few), batched, float(decibels.mean())),
        (f"fit_fields, {options.steps or train.steps()} steps", len(chosen), speed, float(reached.mean())),
    ]
    print(f"\n{architecture}; {signals.name}, {threads} threads, seed {config.seed}")
    print(f"{'':34} {'fields':>7} {'fields/s':>9} {'mean dB':>8} {'ratio':>7}")
    for name, n, rate, mean in lines:
        print(f"{name:34} {n:7,} {rate:9.1f} {mean:8.2f} {rate / single:7.1f}")
    print(
        f"peak memory grew by {grown:.0f} MiB during fit_fields; its rows take {len(chosen) * architecture.size / 2**18:.0f}"
    )


def tokenizers(config: TokenizersBenchmark) -> None:
    """Print the table of encoding."""
    from sklearn.cluster import KMeans

    from tokenizers.classic.kmeans import KMeansConfig, KMeansTokenizer

    threads = config.threads or cores()
    torch.set_num_threads(threads)
    field = FieldConfig()
    weights = torch.randn(config.n, field.size, generator=torch.Generator().manual_seed(config.seed))
    tokenizer = KMeansTokenizer(KMeansConfig(field=field.to_dict(), vocab_size=config.vocab_size, standardize="none"))
    tokenizer.fit(weights)
    sample = weights[:100].reshape(-1, 1).numpy()
    theirs = KMeans(config.vocab_size, n_init=1, max_iter=1, random_state=0).fit(sample)
    theirs.cluster_centers_ = (
        tokenizer.decode(torch.arange(tokenizer.codes).repeat(field.size, 1).T)[:, :1].double().numpy()
    )
    values = weights.reshape(-1, 1).numpy().astype(theirs.cluster_centers_.dtype)
    theirs._n_threads = threads
    theirs.predict(values[:1000])
    began = time.perf_counter()
    expected = theirs.predict(values)
    sklearn_time = time.perf_counter() - began
    tokenizer.encode(weights[:10])
    began = time.perf_counter()
    ids = tokenizer.encode(weights)
    our_time = time.perf_counter() - began
    agree = (torch.from_numpy(expected).view(ids.shape) == ids).double().mean()
    count = weights.numel()
    print(f"{count:,} weights, {tokenizer.codes} codes, {threads} threads, seed {config.seed}")
    print(f"scikit-learn KMeans.predict {count / sklearn_time / 1e6:8.1f} million weights/s")
    print(f"tokenizers.kmeans encode    {count / our_time / 1e6:8.1f} million weights/s")
    print(f"ratio {sklearn_time / our_time:.1f}; equal codes {100 * float(agree):.4f} %")


def one_shape(config: FieldConfig, coords: Tensor, targets: Tensor, seed: int, goal: float) -> tuple[float, float]:
    """A field as an `nn.Module` from random weights, Adam, 512 points a step, until `goal`: (seconds, IoU)."""
    module = layout.to_module(config, random_rows(config, [seed])[0])
    adam = torch.optim.Adam(module.parameters(), lr=4e-3)
    generator, began, reached = torch.Generator().manual_seed(seed), time.perf_counter(), 0.0
    for step in range(1, 4001):
        chosen = torch.randint(len(coords), (512,), generator=generator)
        adam.zero_grad()
        F.binary_cross_entropy(module(coords[chosen]).clamp(1e-6, 1 - 1e-6), targets[chosen]).backward()
        adam.step()
        if step % 50 == 0:
            reached = float(quality(config, layout.from_module(module)[None], targets[None], coords))
            if reached >= goal:
                break
    return time.perf_counter() - began, reached


def shapes(config: ShapesBenchmark) -> None:
    """Print the tables of shapes."""
    from fields.metrics.clouds import chamfer_matrix, on_surface, standardised
    from fields.view.mesh import field_volume, mesh_volume
    from fields.view.shading import view

    threads = config.threads or cores()
    torch.set_num_threads(threads)
    signals = load_signals(SignalsConfig("solids", count=config.train + config.n))
    train = signals.subset(torch.arange(config.train))
    train.split = ["train"] * config.train
    held = signals.subset(torch.arange(config.train, config.train + config.n))
    architecture, options = architecture_for(held), FitConfig("solids", steps=config.steps, seed=config.seed)
    schedule = schedule_for(options, train)
    for part in (train, held):
        part.values(torch.arange(len(part)))  # makes the points, which is not fitting
    began = time.perf_counter()
    start = make_reference(architecture, train, "meta", schedule=schedule, seed=config.seed, meta_steps=100)
    print(f"meta start: {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    points = Points(architecture, held.points(architecture, torch.arange(config.n)), schedule.pixels, config.seed)
    rows = fit_block(
        architecture, start.row.expand(config.n, -1), held.values(torch.arange(config.n)), points, schedule
    )
    ours = (time.perf_counter() - began) / config.n
    reached = quality(architecture, rows, held.values(torch.arange(config.n)), points.coords).mean()
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


def main(config: FitBenchmark | TokenizersBenchmark | ShapesBenchmark) -> None:
    """Call the benchmark asked for."""
    work = {FitBenchmark: fit, TokenizersBenchmark: tokenizers, ShapesBenchmark: shapes}
    work[type(config)](config)


Command = (
    Annotated[FitBenchmark, tyro.conf.subcommand("fit")]
    | Annotated[TokenizersBenchmark, tyro.conf.subcommand("tokenizers")]
    | Annotated[ShapesBenchmark, tyro.conf.subcommand("shapes")]
)

if __name__ == "__main__":
    run_cli(main, lambda: tyro.cli(Command, description=__doc__), alone="python scripts/benchmark.py")
