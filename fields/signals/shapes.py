"""Shapes as signals: points around a surface, on which side of it they lie or how far from it they are.

`Shapes` is what meshes (a folder of them) and procedural solids have in common. Every shape has points of its own: some near
its surface, some anywhere in the cube [-1, 1]^3.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fields.model import FIELDS, FieldConfig
from fields.runtime.console import bar
from fields.runtime.runs import digest, write_atomic
from fields.signals import meshes, solids
from fields.signals.base import Signals, held_out, positions
from fields.signals.folder import SMALLEST_SPLIT, find_files
from fields.signals.options import ShapeOptions, SignalsConfig

CACHE = Path("runs") / "downloads" / "shapes"
"""Points of meshes, by content; safe to delete."""
COUNT = 2500
"""Solids made where nobody asks for another number."""
VERSION = 1
"""Of what is kept in the cache."""


class Around(Protocol):
    """Makes the points of one shape."""

    def __call__(self) -> np.ndarray:
        """(M, 4) float32 of x, y, z, signed distance."""


class Shapes(Signals):
    """N shapes; their points are made when they are asked for, and kept.

    Attributes:
        extent: (N, 1) int64 of points.
        options: which points, and what is said of them.
    """

    kind = "shapes"
    shared = False
    in_dim = 3

    def __init__(
        self,
        name: str,
        ids: Sequence[str],
        split: Sequence[str],
        around: Sequence[Around],
        *,
        options: ShapeOptions,
        placed: Sequence[dict] | None = None,
        recipe: str = "",
        **about: Any,
    ):
        """Args:
        around: N makers of points.
        placed: N of scale, offset and how, for meshes.
        recipe: what the points come from, for `describe`.
        about: labels, label_names, channels, skipped, split_seed of `Signals`.
        """
        extent = torch.full((len(ids), 1), options.near + options.uniform)
        super().__init__(name, ids, split, extent, **about)
        self.options, self.recipe = options, recipe
        self.placed = None if placed is None else list(placed)
        self._around = list(around)
        self._made: dict[int, Tensor] = {}

    def around(self, index: int) -> Tensor:
        """(M, 4) float32 of x, y, z, signed distance of one shape."""
        if index not in self._made:
            self._made[index] = torch.from_numpy(self._around[index]())
        return self._made[index]

    def points(self, config: FieldConfig, indices: Tensor | Sequence[int]) -> Tensor:
        """(n, M, 3) float32."""
        if config.in_dim != 3:
            raise ValueError(f"a shape needs a field of 3 coordinates, this one has {config.in_dim}: {config}.")
        return torch.stack([self.around(i)[:, :3] for i in positions(indices, len(self)).tolist()])

    def values(self, indices: Tensor | Sequence[int]) -> Tensor:
        """(n, M, 1) float32: 1 inside and 0 outside, or the clamped distance in [-1, 1], negative inside."""
        distance = torch.stack([self.around(i)[:, 3:] for i in positions(indices, len(self)).tolist()])
        if self.options.target == "occupancy":
            return (distance < 0).float()
        return (distance / self.options.clamp).clamp(-1, 1)

    def count(self, extent: Sequence[int]) -> int:
        """Points of a shape."""
        return extent[0]

    def contents(self, indices: Sequence[int]) -> Iterator[Any]:
        """Points of meshes; of solids, whose points follow from their numbers, the recipe."""
        for i in indices:
            yield np.frombuffer(self.recipe.encode(), np.uint8) if self.placed is None else self._around[i]()

    def architecture(self) -> FieldConfig:
        """`shape-small`, with a logit for occupancy and tanh for distance."""
        return replace(FIELDS["shape-small"], output="logit" if self.options.target == "occupancy" else "tanh")

    def steps(self) -> int:
        """Shapes have edges and points of their own: they take longer than pictures."""
        return 400

    def share(self) -> float:
        """About 512 points a step."""
        return min(1.0, 512 / (self.options.near + self.options.uniform))

    def describe(self) -> dict:
        """Plain values for JSON, with what the points are."""
        inside = "above 0" if self.options.target == "occupancy" else "below 0"
        points = {k: getattr(self.options, k) for k in ("target", "near", "uniform", "spread", "clamp")}
        said = super().describe() | {"inside": inside, "points": points, "recipe": self.recipe}
        if self.placed is not None:  # so that an export stands where its mesh stood
            said["placed"] = dict(zip(self.ids, self.placed, strict=True))
        return said

    def _chosen(self, chosen: Tensor) -> dict[str, Any]:
        at = chosen.tolist()
        placed = None if self.placed is None else [self.placed[i] for i in at]
        around = [self._around[i] for i in at]
        return {"around": around, "options": self.options, "placed": placed, "recipe": self.recipe}


def load_solids(config: SignalsConfig) -> Shapes:
    """Procedural solids (`fields.signals.solids`): `config.count` of them, 80 % train, 10 % validation, 10 % test.

    Solid number i is the same however many are made; `split_seed` splits them, it does not change them.
    """
    n, options, seed, split_seed = config.count or COUNT, config.shape, 0, config.split_seed
    made = [solids.solid(seed, i) for i in range(n)]
    held = n // 10 if n >= SMALLEST_SPLIT else 0
    return Shapes(
        "solids",
        [f"solids/{seed}/{i}" for i in range(n)],
        held_out(n, split_seed, held, held),
        [partial(_around_solid, item, options, seed, i) for i, item in enumerate(made)],
        options=options,
        recipe=f"procedural solids, version {solids.VERSION}, seed {seed}",
        labels=torch.tensor([solids.FAMILIES.index(item.family) for item in made]),
        label_names=solids.FAMILIES,
        split_seed=split_seed,
    )


def _around_solid(item: solids.Solid, options: ShapeOptions, seed: int, number: int) -> np.ndarray:
    generator = np.random.default_rng([solids.VERSION, seed, number, 1])  # the solid's own took 3 numbers
    return solids.sample(item, generator, near=options.near, uniform=options.uniform, spread=options.spread)


def load_meshes(
    root: Path, options: ShapeOptions, *, split_seed: int = 0, strict: bool = False, cache: Path | None = None
) -> Shapes:
    """All meshes of a folder, closed and normalised (`fields.signals.meshes`), with points kept on disk by content.

    Args:
        strict: refuse the folder if any mesh cannot be used.
        cache: where points are kept; None = `CACHE`.
    Raises:
        ValueError: if there is no usable mesh; with `strict`, naming every bad file.
    """

    root, kept = Path(root), []
    files, skipped = find_files(root, meshes.EXTENSIONS)
    for relative in bar(files, desc="meshes", unit="mesh", leave=False):
        try:
            kept.append((relative, sample_mesh(root / relative, options, cache=cache or CACHE)))
        except Exception as error:  # trimesh raises nearly any type on a broken file; one must not end the reading
            skipped.append((relative, " ".join(str(error).split())[:200] or type(error).__name__))
    skipped.sort()
    listed = "; ".join(f"{name}: {reason}" for name, reason in skipped[:20])
    if not kept:
        kinds = ", ".join(sorted(meshes.EXTENSIONS))
        raise ValueError(f"{root}: no mesh can be used ({listed or f'no file ends in {kinds}'}).")
    if skipped:
        if strict:
            raise ValueError(f"{root}: {len(skipped)} files cannot be used: {listed}.")
        print(f"{root}: {len(skipped)} of {len(files)} files left out: {listed}", file=sys.stderr)
    names, name = [n for n, _ in kept], root.resolve().name or "root"
    held = len(names) // 10 if len(names) >= SMALLEST_SPLIT else 0
    classes = sorted({n.split("/")[0] for n in names}) if all("/" in n for n in names) else None
    return Shapes(
        name,
        [f"{name}/{n}" for n in names],
        held_out(len(names), split_seed, held, held),
        [partial(_kept, sampled["points"]) for _, sampled in kept],
        options=options,
        placed=[sampled["placed"] for _, sampled in kept],
        recipe="meshes, closed and scaled into the cube",
        labels=None if classes is None else torch.tensor([classes.index(n.split("/")[0]) for n in names]),
        label_names=classes,
        skipped=skipped,
        split_seed=split_seed,
    )


def _kept(points: np.ndarray) -> np.ndarray:
    return points


def sample_mesh(path: Path, options: ShapeOptions, *, cache: Path) -> dict:
    """Points around the mesh of a file, from the cache if they are there.

    Returns:
        `points` (M, 4) float32 of x, y, z, signed distance; `placed` with scale, offset and how.
    Raises:
        ValueError: saying why the mesh cannot be used.
    """
    content = path.read_bytes()
    key = digest(VERSION, path.suffix.lower(), content, options.near, options.uniform, options.spread)
    file = cache / f"{key}.npz"
    try:
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as old:
            how = bytes(old["how"]).decode()
            placed = {"scale": float(old["scale"]), "offset": tuple(old["offset"].tolist()), "how": how}
            return {"points": old["points"], "placed": placed}
    except Exception:  # not there, or damaged: whatever a damaged file raises
        pass
    surface = meshes.prepare(*meshes.read_mesh(path))
    points = around_surface(surface, options, seed=int(key[:8], 16))
    with write_atomic(file) as temporary:
        text = np.frombuffer(surface.how.encode(), np.uint8)
        np.savez(temporary, points=points, scale=surface.scale, offset=np.array(surface.offset), how=text)
    return {"points": points, "placed": {"scale": surface.scale, "offset": surface.offset, "how": surface.how}}


def around_surface(surface: meshes.Surface, options: ShapeOptions, *, seed: int = 0) -> np.ndarray:
    """(M, 4) float32 of x, y, z, signed distance: points near the surface, then points anywhere in the cube."""
    from fields.metrics.clouds import on_surface

    generator = np.random.default_rng(seed)
    near = on_surface(surface.vertices, surface.faces, options.near, seed=seed) if options.near else np.empty((0, 3))
    near = (near + generator.normal(0, options.spread, near.shape)).clip(-1, 1)
    points = np.concatenate([near, generator.uniform(-1, 1, (options.uniform, 3))]).astype(np.float32)
    return np.concatenate([points, surface.distance(points)[:, None].astype(np.float32)], 1)
