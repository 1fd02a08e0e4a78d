"""The command that writes the surfaces of a dataset's fields, and a picture of all of them."""

import math
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from fields.formats.options import MeshConfig
from fields.kinds.shapes import ShapeKind
from fields.runtime import runs
from fields.runtime.console import bar, plural
from fields.runtime.resources import check_memory, check_room
from fields.storage.dataset import WeightDataset
from fields.storage.fetch import beside
from fields.view.mesh import field_volume, mesh_volume, save_mesh, single_precision
from fields.view.render import SHEET_LIMIT, save_gif, save_png, sheet
from fields.view.shading import turntable, view

SHOWN = 64
"""Cells along an edge of the volume that a turntable shows, at most."""


def main(config: MeshConfig) -> None:
    """The command; exits with 1 when fields have no surface, after writing all the others."""
    found, out = write_meshes(config)
    counts = Counter(item["outcome"] for item in found)
    closed = sum(item["closed"] for item in found)
    print(f"surfaces: {counts['surface']} of {plural(len(found), 'field')}, {closed} closed; wrote {out}")
    without = [item for item in found if item["outcome"] != "surface"]
    if without:
        said = ", ".join(f"{i['id']} is {i['outcome']} ({i['low']} .. {i['high']})" for i in without[:5])
        raise RuntimeError(
            f"{len(without)} of {len(found)} fields have no surface: {said}. All are in {out / 'meshes.json'}."
        )


POINT, FACES = 32, 200
"""Bytes of memory a point of the grid, and of a file a square cell of a face of the cube: 23 to 42 and 40 to 230 were measured."""


def write_meshes(config: MeshConfig) -> tuple[list[dict], Path]:
    """Meshes, `meshes.json` (one entry per field: outcome, closed, volume, range of values) and pictures.

    Returns:
        What is in `meshes.json`, and the folder.
    Raises:
        ValueError: for fields that are no shapes, or a split that is not there.
    """
    data = WeightDataset.load(config.fields)
    if not isinstance(data.kind, ShapeKind):
        raise ValueError(f"--fields {config.fields}: shapes are fields from 3 coordinates to 1, got {data.config}.")
    split = config.split or next(iter(data.splits))
    placed = data.signals.get("placed") or {}
    claimed = {**asdict(config), "out": None, "fields": None}
    ids, parents = data.ids(split)[: config.n], {"fields": data.fingerprint}
    long = [name for name in ids if not single_precision(*_place(placed, name))]
    if config.format == "stl" and long:
        raise ValueError(
            f"--format stl stores 7 digits, too few for {long[0]}, which is small and far from the origin "
            f"({len(long)} of {len(ids)} shapes are). Take --format glb, ply or obj."
        )
    about = {**claimed, "fields": str(config.fields)}
    out = config.out or runs.vacant(
        beside(config.fields, "meshes"), about, parents=parents, free=("fields",), kind="mesh"
    )
    check_memory(POINT * (config.size + 1) ** 3, f"volumes of {config.size}^3 cells", "cpu", "a smaller --size")
    check_room(out, FACES * config.size**2 * len(ids), "meshes")
    if runs.claim(out, claimed, parents=parents, kind="mesh") and runs.is_finished(out):
        return runs.read_json(out / "meshes.json", schema=list[dict]), out
    weights = data.weights(split, list(range(len(ids))))
    below = data.kind.below(data.config) if config.inside is None else config.inside == "below"
    found, pictures = [], []
    for i, name in enumerate(bar(ids, desc="meshes", unit="mesh", leave=False)):
        item, volume = _one(config, data, weights[i], below)
        file = f"{i:05d}-{re.sub(r'[^A-Za-z0-9]+', '-', name)[-60:].strip('-')}"  # names from data are not paths
        if item.outcome == "surface":
            scale, offset = _place(placed, name)
            save_mesh(out / f"{file}.{config.format}", item, scale=scale, offset=offset)
            if i < config.turntable:
                frames = list(turntable(_coarser(volume), config.picture or 192))
                save_gif(out / f"{file}.gif", frames, fps=12, scale=1)
        if config.picture and i < config.sheet:
            pictures.append(view(volume, config.picture))
        found.append(
            {
                "id": name,
                "file": f"{file}.{config.format}" if item.outcome == "surface" else None,
                "outcome": item.outcome,
                "closed": item.closed,
                "faces": len(item.faces),
                "volume": round(item.volume(), 6),
                "low": _plain(item.low),
                "high": _plain(item.high),
            }
        )
    runs.write_json(out / "meshes.json", found)
    if pictures:
        columns = min(len(pictures), max(1, round((len(pictures) * 1.6) ** 0.5)))
        large = 3 * len(pictures) * (config.picture + 4) ** 2 > SHEET_LIMIT
        save_png(out / "sheet.png", sheet(torch.stack(pictures), columns, scale=None if large else 1))
    runs.finish(out)
    return found, out


def _place(placed: dict, name: str) -> tuple[float, tuple[float, ...]]:
    """Scale and offset from the cube to where a signal stood.

    Raises:
        ValueError: for a field.json that was edited and says no place.
    """
    about = placed.get(name, {})
    scale, offset = about.get("scale", 1.0), about.get("offset", (0.0, 0.0, 0.0))
    numbers = [x for x in (scale, *offset) if isinstance(x, (int, float)) and math.isfinite(x)]
    if len(numbers) != 4 or not scale > 0:
        raise ValueError(
            f"field.json: signals.placed of {name} must have a scale above 0 and an offset of three numbers, got {about}."
        )
    return float(scale), tuple(offset)


def _one(config: MeshConfig, data: WeightDataset, row: Tensor, below: bool):
    """The surface of one field and the volume it came from."""
    if not bool(row.isfinite().all()):
        volume = torch.full((3, 3, 3), torch.nan)
    else:
        volume = field_volume(data.config, row, config.size, below=below, level=config.level)
    return mesh_volume(volume), volume


def _coarser(volume: Tensor) -> Tensor:
    """Fewer points, so that going round takes seconds."""
    step = max(1, (len(volume) - 1) // SHOWN)
    return volume[::step, ::step, ::step] if (len(volume) - 1) % step == 0 else volume


def _plain(value: float) -> float | None:
    """A number for JSON."""
    return round(value, 4) if value == value else None
