"""Shapes as signals: points around a surface, on which side of it they lie or how far from it they are.

`Shapes` is what meshes (a folder of them) and procedural solids have in common. Every shape has points of its own: some near
its surface, some anywhere in the cube [-1, 1]^3.
"""

import csv
import gzip
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fields.model import FIELDS, FieldConfig
from fields.runtime.console import bar
from fields.runtime.runs import digest, write_atomic
from fields.signals import meshes, solids
from fields.signals.base import Signals, positions, tenths
from fields.signals.folder import NAMED, find_files
from fields.signals.options import ShapeOptions, SignalsConfig

CACHE = Path("runs") / "downloads" / "shapes"
"""Points of meshes, by content; safe to delete."""
COUNT = 2500
"""Solids made where nobody asks for another number."""
VERSION = 1
"""Of what is kept in the cache."""
FRESH = {"near": 2048, "fine": 0, "uniform": 16384}
"""Points by which a field is measured; none of them was seen by its fit."""
KEPT = 1 << 30
"""Bytes of points of meshes held in memory; others are read again."""
REPAIR = 2
"""Of the repair of open meshes; what an older one closed is closed anew."""


class Around(Protocol):
    """Makes the points of one shape, and its surface."""

    def __call__(self, fresh: bool = False) -> np.ndarray:
        """(M, 4) float32 of x, y, z, signed distance; `fresh`: of other points, by which fields are measured."""
        ...

    def surface(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Vertices (V, 3) and faces (F, 3), closed; None where the shape has none of its own."""
        ...

    def volume(self, size: int) -> np.ndarray:
        """(size + 1,) * 3 float32 signed distances on a grid over [-1, 1]^3, about right far from the surface."""
        ...


class Shapes(Signals):
    """N shapes; their points are made when they are asked for, and kept.

    Attributes:
        extent: (N, 1) int64 of points.
        options: which points, and what is said of them.
    """

    kind = "shapes"
    shared, fresh = False, True
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
        placed: N of scale, offset and how, for meshes; and of licence, where meshes have their own.
        recipe: what the points come from, for `describe`.
        about: labels, label_names, channels, skipped, split_seed of `Signals`.
        """
        self.options, self.recipe = options.counted(placed is not None), recipe
        extent = torch.full((len(ids), 1), self.options.total)
        super().__init__(name, ids, split, extent, **about)
        self.placed = None if placed is None else list(placed)
        self._around = list(around)
        self._made: dict[int, Tensor] = {}
        self._lock = Lock()

    def around(self, index: int) -> Tensor:
        """(M, 4) float32 of x, y, z, signed distance of one shape."""
        made = self._made.get(index)
        if made is None:
            made = torch.from_numpy(self._around[index]())
            with self._lock:
                if self.placed is not None and (len(self._made) + 1) * made.nbytes > KEPT:
                    self._made.clear()
                self._made[index] = made
        return made

    def points(self, config: FieldConfig, indices: Tensor | Sequence[int]) -> Tensor:
        """(n, M, 3) float32."""
        config.expect("a shape", 3)
        return torch.stack([self.around(i)[:, :3] for i in positions(indices, len(self)).tolist()])

    def surface(self, index: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The closed surface of one shape: vertices (V, 3) float64 in [-1, 1]^3 and faces (F, 3) int64.

        None for procedural solids, which are known by their distances (`volume`).
        """
        return self._around[index].surface()

    def volume(self, index: int, size: int = 96) -> Tensor:
        """(size + 1,) * 3 float32 signed distances of one shape on a grid over [-1, 1]^3, for pictures."""
        return torch.from_numpy(self._around[index].volume(size))

    def values(self, indices: Tensor | Sequence[int]) -> Tensor:
        """(n, M, 1) float32: 1 inside and 0 outside, or the clamped distance in [-1, 1], negative inside."""
        return self._said(torch.stack([self.around(i)[:, 3:] for i in positions(indices, len(self)).tolist()]))

    def measured(self, config: FieldConfig, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """(n, K, 3) points that no fit has seen, near the surface and anywhere in the cube, and (n, K, 1) values there."""
        at = positions(indices, len(self)).tolist()
        found = torch.stack([torch.from_numpy(self._around[i](fresh=True)) for i in at])
        return found[..., :3], self._said(found[..., 3:])

    def _said(self, distance: Tensor) -> Tensor:
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
        """`shape-small` for solids, `shape-medium` for meshes, with a logit for occupancy and tanh for distance."""
        suited = FIELDS["shape-small" if self.placed is None else "shape-medium"]
        return replace(suited, output="logit" if self.options.target == "occupancy" else "tanh")

    def steps(self) -> int:
        """Shapes have edges and points of their own: they take longer than pictures, thin parts of meshes longer still."""
        return 400 if self.placed is None else 3000

    def share(self) -> float:
        """About 512 points a step, 1,024 of meshes."""
        return min(1.0, (512 if self.placed is None else 1024) / self.options.total)

    def describe(self) -> dict:
        """Plain values for JSON, with what the points are."""
        inside = "above 0" if self.options.target == "occupancy" else "below 0"
        said = super().describe() | {"inside": inside, "points": self.options.to_dict(), "recipe": self.recipe}
        said |= {"measured": "fresh points"}
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
    n, options, seed, split_seed = config.count or COUNT, config.shape.counted(False), 0, config.split_seed
    made = [solids.solid(seed, i) for i in range(n)]
    return Shapes(
        "solids",
        [f"solids/{seed}/{i}" for i in range(n)],
        tenths(n, split_seed),
        [_Solid(item, options, seed, i) for i, item in enumerate(made)],
        options=options,
        recipe=f"procedural solids, version {solids.VERSION}, seed {seed}",
        labels=torch.tensor([solids.FAMILIES.index(item.family) for item in made]),
        label_names=solids.FAMILIES,
        split_seed=split_seed,
    )


@dataclass(frozen=True)
class _Solid:
    """A procedural solid."""

    item: solids.Solid
    options: ShapeOptions
    seed: int
    number: int

    def __call__(self, fresh: bool = False) -> np.ndarray:
        # the solid's own numbers are from a generator of three
        generator, o = np.random.default_rng([solids.VERSION, self.seed, self.number, 1 + fresh]), self.options
        points = FRESH if fresh else {"near": o.near or 0, "fine": o.fine or 0, "uniform": o.uniform or 0}
        return solids.sample_points(self.item, generator, spread=o.spread, **points)

    def surface(self) -> None:
        return None

    def volume(self, size: int) -> np.ndarray:
        return self.item.distance(meshes.corners(size)).reshape((size + 1,) * 3).astype(np.float32)


def load_meshes(
    root: Path,
    options: ShapeOptions,
    *,
    split_seed: int = 0,
    strict: bool = False,
    cache: Path | None = None,
    name: str | None = None,
    files: Sequence[str] | None = None,
    classes: Mapping[str, str] | None = None,
    licences: Mapping[str, str] | None = None,
    skipped: Sequence[tuple[str, str]] = (),
) -> Shapes:
    """All meshes of a folder, closed and normalised (`fields.signals.meshes`), with points kept on disk by content.

    Args:
        strict: refuse the folder if any mesh cannot be used.
        cache: where points are kept; None = `CACHE`.
        name: of the signals; None = the folder's.
        files: those to read, by their paths in the folder; None = all.
        classes: class of each file; None = its first sub-folder, where all have one and no `files` are given.
        licences: of each file, where they differ.
        skipped: files that are left out already, and why.
    Raises:
        ValueError: if there is no usable mesh; with `strict`, naming every bad file.
    """
    root, kept, skipped, options = Path(root), [], list(skipped), options.counted(True)
    found, unusable = find_files(root, meshes.EXTENSIONS) if files is None else (files, [])
    skipped += unusable
    for relative in bar(found, desc="meshes", unit="mesh", leave=False):
        try:
            kept.append((relative, sample_mesh(root / relative, options, cache=cache or CACHE)["placed"]))
        except Exception as error:  # trimesh raises nearly any type on a broken file; one must not end the reading
            skipped.append((relative, " ".join(str(error).split())[:200] or type(error).__name__))
    skipped.sort()
    listed = "; ".join(f"{name}: {reason}" for name, reason in skipped[:NAMED])
    if not kept:
        kinds = ", ".join(sorted(meshes.EXTENSIONS))
        raise ValueError(f"{root}: no mesh can be used ({listed or f'no file ends in {kinds}'}).")
    if skipped:
        if strict:
            raise ValueError(f"{root}: {len(skipped)} files cannot be used: {listed}.")
        print(f"{root}: {len(skipped)} of {len(kept) + len(skipped)} files left out: {listed}", file=sys.stderr)
    repaired = [(n, one["how"]) for n, one in kept if one["how"] != "closed"]
    if repaired:
        first = "; ".join(f"{n}: {how}" for n, how in repaired[:3])
        print(
            f"{root}: {len(repaired)} of {len(kept)} meshes had to be repaired: {first}{' ...' * (len(repaired) > 3)}"
        )
    names, name = [n for n, _ in kept], name or root.resolve().name or "root"
    if classes is None and files is None and all("/" in n for n in names):
        classes = {n: n.split("/")[0] for n in names}
    known = None if classes is None else sorted({classes[n] for n in names})
    return Shapes(
        name,
        [f"{name}/{n}" for n in names],
        tenths(len(names), split_seed),
        [_File(root / n, options, cache or CACHE) for n in names],
        options=options,
        placed=[placed | ({} if licences is None else {"licence": licences[n]}) for n, placed in kept],
        recipe="meshes, closed and scaled into the cube",
        labels=None if classes is None or known is None else torch.tensor([known.index(classes[n]) for n in names]),
        label_names=known,
        skipped=skipped,
        split_seed=split_seed,
    )


@dataclass(frozen=True)
class _File:
    """A mesh in a file."""

    path: Path
    options: ShapeOptions
    cache: Path

    def __call__(self, fresh: bool = False) -> np.ndarray:
        return sample_mesh(self.path, self.options, cache=self.cache)["fresh" if fresh else "points"]

    def surface(self) -> tuple[np.ndarray, np.ndarray]:
        closed = _prepared(self.path)
        return closed.vertices, closed.faces

    def volume(self, size: int) -> np.ndarray:
        closed = _prepared(self.path)
        inside = closed.inside(meshes.corners(size)).reshape((size + 1,) * 3)
        return meshes.distances_of(inside, 2 / size, closed.distance)


@lru_cache(2)
def _prepared(path: Path) -> meshes.Surface:
    return meshes.prepare(*meshes.read_mesh(path))


def sample_mesh(path: Path, options: ShapeOptions, *, cache: Path) -> dict:
    """Points around the mesh of a file, from the cache if they are there.

    Returns:
        `points` (M, 4) float32 of x, y, z, signed distance; `fresh` (K, 4) others, by which fields are measured;
        `placed` with scale, offset and how.
    Raises:
        ValueError: saying why the mesh cannot be used.
    """
    content, options = path.read_bytes(), options.counted(True)
    asked = (options.near, options.uniform, options.spread, *((options.fine,) if options.fine else ()))
    key = digest(VERSION, path.suffix.lower(), content, *asked)
    file = cache / f"{key}.npz"
    try:
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as old:
            how = bytes(old["how"]).decode()
            if "open:" in how and int(old["repair"]) != REPAIR:
                raise ValueError("closed by an older repair")
            placed = {"scale": float(old["scale"]), "offset": tuple(old["offset"].tolist()), "how": how}
            return {"points": old["points"], "fresh": old["fresh"], "placed": placed}
    except Exception:  # not there, older, or damaged: whatever a damaged file raises
        pass
    surface = meshes.prepare(*meshes.read_mesh(path))
    seed = int(key[:8], 16)
    made = {"points": around_surface(surface, options, seed=seed)}
    near, fine, uniform = FRESH.values()
    others = replace(options, near=near, fine=fine, uniform=uniform)
    made["fresh"] = around_surface(surface, others, seed=seed + 1)
    with write_atomic(file) as temporary:
        text = np.frombuffer(surface.how.encode(), np.uint8)
        offset = np.array(surface.offset)
        np.savez(
            temporary,
            points=made["points"],
            fresh=made["fresh"],
            scale=surface.scale,
            offset=offset,
            how=text,
            repair=REPAIR,
        )
    return made | {"placed": {"scale": surface.scale, "offset": surface.offset, "how": surface.how}}


def around_surface(surface: meshes.Surface, options: ShapeOptions, *, seed: int = 0) -> np.ndarray:
    """(M, 4) float32 of x, y, z, signed distance: points near the surface, then points anywhere in the cube."""
    from fields.metrics.clouds import on_surface

    generator = np.random.default_rng(seed)
    close, fine = options.near or 0, options.fine or 0
    near = on_surface(surface.vertices, surface.faces, close + fine, seed=seed) if close + fine else np.empty((0, 3))
    spread = np.repeat([options.spread, options.spread / solids.FINE], [close, fine])[:, None]
    near = (near + spread * generator.normal(size=near.shape)).clip(-1, 1)
    points = np.concatenate([near, generator.uniform(-1, 1, (options.uniform or 0, 3))]).astype(np.float32)
    return np.concatenate([points, surface.distance(points)[:, None].astype(np.float32)], 1)


# -- collections: meshes that their users fetch themselves and lay in a folder, each in the layout of its own download ---------------

EXPECTED = {
    "abo": "the folder 3dmodels of abo-3dmodels.tar, with .glb files; listings/ of abo-listings.tar beside or in it names classes",
    "thingi10k": "the folder raw_meshes, and input_summary.csv with the columns ID and License",
    "shapenet": "folders SYNSET/MODEL/models/model_normalized.obj (v2) or SYNSET/MODEL/model.obj (v1); taxonomy.json names classes",
}
"""What lies under `--data-root`."""


def load_abo(config: SignalsConfig) -> Shapes:
    """Amazon Berkeley Objects (arXiv:2110.06199): household products; classes are product types, where listings are there."""
    root = _root(config)
    files = find_files(root, {".glb"})[0]
    kinds = dict(_products(root))
    classes = {name: kinds.get(Path(name).stem, "unknown") for name in files} if kinds else None
    return _load(config, root, files, classes=classes)


def load_thingi10k(config: SignalsConfig) -> Shapes:
    """Thingi10K (arXiv:1605.04797): models for 3-D printing, each under a licence of its own, which stays with it."""
    root = _root(config)
    lists = sorted(root.rglob("input_summary.csv"))
    if not lists:
        raise FileNotFoundError(
            f"{root} has no input_summary.csv: the licence of each mesh is not known. Put the file there, {EXPECTED['thingi10k']}."
        )
    with lists[0].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    known = {str(row.get("ID", "")).strip(): str(row.get("License") or "").strip() for row in rows}
    files = find_files(root, meshes.EXTENSIONS)[0]
    licences = {name: known[Path(name).stem] for name in files if known.get(Path(name).stem)}
    without = [(name, "no licence in input_summary.csv") for name in files if name not in licences]
    return _load(config, root, list(licences), licences=licences, skipped=without)


def load_shapenet(config: SignalsConfig) -> Shapes:
    """ShapeNetCore (arXiv:1512.03012): classes are synsets. Its terms forbid to pass on what is made of it."""
    root = _root(config)
    files = [name for name in find_files(root, {".obj"})[0] if Path(name).stem in ("model_normalized", "model")]
    synsets = {name: _synset(root, name) for name in files}
    names = _synset_names(root)
    return _load(config, root, files, classes={name: names.get(own, own) for name, own in synsets.items()})


def _root(config: SignalsConfig) -> Path:
    """The folder of `--data-root`."""
    expected = EXPECTED[config.signals]
    if config.data_root is None:
        raise FileNotFoundError(
            f"--signals {config.signals} is read from a folder that you provide: --data-root DIR, {expected}."
        )
    root = Path(config.data_root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"--data-root {root} is not a folder. Give {expected}.")
    return root


def _load(config: SignalsConfig, root: Path, files: list[str], **about) -> Shapes:
    """The meshes of these files, as signals with the collection's name."""
    if not files:
        raise FileNotFoundError(
            f"--data-root {root} contains no mesh of {config.signals}. Give {EXPECTED[config.signals]}."
        )
    return load_meshes(
        root,
        config.shape,
        split_seed=config.split_seed,
        strict=config.strict,
        name=config.signals,
        files=files,
        **about,
    )


def _products(root: Path) -> Iterator[tuple[str, str]]:
    """(model, product type) of the listings that lie in a folder or beside it."""
    for folder in (root / "listings" / "metadata", root.parent / "listings" / "metadata"):
        for path in sorted([*folder.glob("listings_*.json"), *folder.glob("listings_*.json.gz")]):
            with (
                gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file
            ):
                for line in filter(str.strip, file):
                    item = json.loads(line)
                    kind = item.get("product_type")
                    if item.get("3dmodel_id") and kind:
                        yield str(item["3dmodel_id"]), str(kind[0].get("value", "unknown"))


def _synset(root: Path, name: str) -> str:
    """The synset of a model's file: the folder above its model; the root itself where that is one class."""
    above = Path(name).parts[:-1]
    above = above[:-1] if above and above[-1] == "models" else above
    return above[-2] if len(above) >= 2 else root.resolve().name


def _synset_names(root: Path) -> dict[str, str]:
    """Synset -> its first name, from taxonomy.json where that lies in the folder or above it."""
    path = next((p for p in (root / "taxonomy.json", root.parent / "taxonomy.json") if p.is_file()), None)
    if path is None:
        return {}
    return {str(e["synsetId"]): str(e["name"]).split(",")[0] for e in json.loads(path.read_text("utf-8"))}
