"""How new shapes compare with held-out ones: Chamfer distances of points on their surfaces, in HyperDiffusion's convention.

Samples and references are fields; each is meshed and 1,024 points are drawn on its surface. The row of training fields
against the same references says what a perfect generator reaches; further rows say what noise on training weights, means of
two of them, their mean and weights drawn one by one reach. Fields without a surface are counted, not dropped.
"""

import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.kinds.preview import spread
from fields.kinds.shapes import ShapeKind
from fields.metrics.clouds import CELLS, nearest_chamfer, on_surface, seconds_for, standardised
from fields.metrics.sets import mann_whitney
from fields.runtime import runs
from fields.runtime.console import bar, duration, text_table
from fields.runtime.launch import cores
from fields.runtime.resources import check_memory, gibibytes
from fields.runtime.text import markdown_table
from fields.signals.meshes import parts_of
from fields.storage.dataset import WeightDataset
from fields.view.mesh import field_volume, mesh_field
from fields.view.page import Cell, Page, estimate_tip
from fields.view.render import webp
from fields.view.shading import turntable
from gpt.evaluation.baselines import decode_batches, encode_batches
from gpt.evaluation.config import Inputs
from gpt.evaluation.items import reference_split
from gpt.evaluation.metrics import DISTANCES, SET_METRICS, estimates
from gpt.evaluation.report import in_short
from gpt.options import EvaluateConfig
from tokenizers.selection import draw

NOISE = 0.3
"""Standard deviations of the noise on training weights."""
COPY = 0.01
"""A sample is a copy where its nearest training shape is nearer than this share of the references have theirs."""
SHOWN = 6
"""Samples that turn on the report."""
TURNED = (88, 48, 12)
"""Pixels along an edge of a turning shape, cells along an edge of its volume, views of one turn."""
PICTURES = ("signals", "data_root", "references", "classifier", "protocol")
"""What says nothing of shapes."""
HELD_OUT = "held-out"
"""Validation and test fields together, as a split to refer to."""
Galleries = tuple[list[bytes], list[str]]
"""Shapes that turn, and what stands below each."""


@dataclass
class Clouds:
    """Surfaces of some fields as clouds, and what the others were."""

    clouds: list[np.ndarray]
    rows: list[int]
    """Where each cloud's field stands in its split."""
    outcomes: Counter
    closed: int
    apart: int = 0
    """Surfaces of more than one connected part."""

    @property
    def failed(self) -> int:
        """Fields without a surface."""
        return sum(self.outcomes.values()) - self.outcomes["surface"]

    def pick(self, most: int, seed: int) -> "Clouds":
        """At most so many of the clouds, at random: the first ones may all be of one class."""
        kept = draw(len(self.clouds), most, seed).tolist()
        return replace(self, clouds=[self.clouds[i] for i in kept], rows=[self.rows[i] for i in kept])


def compute(config: EvaluateConfig, inputs: Inputs) -> tuple[dict, Galleries]:
    """All numbers, and what turns in the report.

    Raises:
        ValueError: for samples that are no shapes, too few of them, or flags that say nothing of shapes.
    """
    own, sides = config.shapes, sides_of(config, inputs)
    n = min(config.n or 0, *(sum(len(data.ids(part)) for part in _parts(data, s)) for data, s in sides.values()))
    if n < 2:
        raise ValueError(f"at least 2 shapes on each side are needed, got {n}.")
    data = inputs.data
    made: dict[str, tuple[WeightDataset, Tensor, Tensor | None]]
    made = {name: _rows(config, *where, n) for name, where in sides.items()}
    if own.baselines:
        made |= {name: (data, rows, None) for name, rows in simple_rows(data.weights("train"), n, config.seed).items()}
    if inputs.tokenizer is not None:
        made |= _round_trip(config, inputs, n)
    _announce(config, made, n)
    found = {name: _clouds(config, *rows, name) for name, rows in made.items()}
    kept = min(len(found[name].clouds) for name in sides)
    if kept < 2:
        raise ValueError(
            f"fewer than 2 fields on one side have a surface ({ {k: dict(v.outcomes) for k, v in found.items()} })."
        )
    found = {name: side.pick(kept, config.seed) for name, side in found.items()}
    clouds = {name: side.clouds for name, side in found.items()}
    distances = _distances(config, {name: side for name, side in clouds.items() if len(side) == kept})
    pool = _clouds(config, *_rows(config, data, "train", own.pool, stream=1), "pool").clouds
    held = nearest_chamfer(clouds["references"], pool)[0]
    rows = []
    for name in (name for name in found if name != "references"):
        side = found[name]
        about: dict[str, Any] = {"name": name, "kind": name.replace(" ", "_"), "n": len(side.clouds)}
        about |= {"without_surface": side.failed / n, "outcomes": dict(side.outcomes), "closed": side.closed / n}
        about["in_parts"] = side.apart / n
        rows.append(about)
        if len(clouds[name]) < kept:  # every number depends on N
            continue
        among = distances["references", "references"]
        row = estimates(distances[name, name], distances[name, "references"], among, config.seed)
        about["chamfer"] = {key: estimate.to_dict() for key, estimate in row.items()}
        if name != "training fields":  # they are in the pool themselves
            novel = nearest_chamfer(clouds[name], pool)[0]
            z_u = mann_whitney(torch.from_numpy(novel), torch.from_numpy(held))
            about["novelty"] = {"z_u": z_u, "near_copies": float((novel < np.quantile(held, COPY)).mean())}
    result = {
        "protocol": f"Chamfer distance of {own.points:,} points of surfaces at {own.size}^3, as many samples as held-out fields",
        "n": kept,
        "seed": config.seed,
        "pool": len(pool),
        "references": {"name": f"{references_from(config, inputs)} fields", "n": kept},
        "fields": {"name": data.signals.get("name"), "fingerprint": data.fingerprint},
        "samples": None if inputs.source is None else inputs.source.describe(),
        "tokenizer": None if inputs.tokenizer is None else inputs.tokenizer.fingerprint,
        "classifier": None,
        "validation": inputs.bits,
        "rows": rows,
        "notes": inputs.notes,
    }
    if "samples" not in sides:
        return result, ([], [])
    chosen = spread(kept, SHOWN).tolist()
    shapes = {name: [(where, row) for row in found[name].rows] for name, where in sides.items()}
    nearest = distances["samples", "training fields"].min(1)
    pairs = [(shapes["samples"][i], shapes["training fields"][int(nearest.indices[i])]) for i in chosen]
    captions = [f"Chamfer distance x100: {100 * float(nearest.values[i]):.2f}" for i in chosen]
    return result, ([_turning(pair) for pair in bar(pairs, desc="turntables", unit="shape", leave=False)], captions)


POINT, POINTED = 32, 160
"""Bytes of memory of a point of a grid, and of a point of a cloud in a process, its tree with it."""


def _announce(config: EvaluateConfig, made: dict[str, tuple[WeightDataset, Tensor, Tensor | None]], n: int) -> None:
    """Say how long all surfaces and distances take and what they hold, from one of each; refuse what memory cannot hold."""
    own, workers = config.shapes, config.threads or cores()
    data, rows, _ = made["references"]
    pool = min(own.pool, len(data.ids("train")))
    surfaces, sides = sum(len(rows) for _, rows, _ in made.values()) + pool, len(made)
    held = POINT * (own.size + 1) ** 3 + POINTED * own.points * (surfaces + 2 * n * (workers if workers > 1 else 0))
    held += 4 * n * (CELLS + 4 * n)
    check_memory(held, f"surfaces of {surfaces:,} fields", "cpu", "a smaller --n, --shapes.pool or --shapes.points")
    for tried in (rows[:1], rows[:3]):  # the first loads libraries
        began = time.perf_counter()
        _clouds(config, data, tried, None, "time")
    seconds = surfaces * (time.perf_counter() - began) / len(tried)
    a, b = (np.random.default_rng(seed).standard_normal((own.points, 3)) for seed in (0, 1))
    seconds += 2 * sides * seconds_for(a, b, n, n, workers=workers) + (sides - 1) * seconds_for(a, b, n, pool)
    print(
        f"{surfaces:,} surfaces on grids of {own.size}^3 cells, and the nearest of their clouds of {own.points:,} points: about "
        f"{duration(seconds)}, {gibibytes(held)} of memory",
        flush=True,
    )


def sides_of(config: EvaluateConfig, inputs: Inputs) -> dict[str, tuple[WeightDataset, str]]:
    """Dataset and split of the samples, if there are any, of the training fields, and of the references."""
    usual = EvaluateConfig(config.fields)
    odd = [name for name in PICTURES if getattr(config, name) != getattr(usual, name)]
    if odd:
        raise ValueError(
            f"--{odd[0].replace('_', '-')} does not apply to shapes. Leave it out; see --shapes.* in --help."
        )
    sides = {"training fields": (inputs.data, "train"), "references": (inputs.data, references_from(config, inputs))}
    source = inputs.source
    if source is None:
        return sides
    if source.data is None or not isinstance(source.data.kind, ShapeKind):
        held = "pictures" if source.data is None else f"fields {source.data.config}"
        raise ValueError(f"--samples {config.samples}: shapes are fields from 3 coordinates to 1 value, got {held}.")
    return {"samples": (source.data, source.split), **sides}


def references_from(config: EvaluateConfig, inputs: Inputs) -> str:
    """The split that the references come from, or `HELD_OUT`."""
    both = config.reference_split == HELD_OUT
    found = reference_split(
        {s: len(rows) for s, rows in inputs.data.splits.items()}, None if both else config.reference_split
    )
    return HELD_OUT if both else found


def write_report(out: Path, result: dict, galleries: Galleries) -> str:
    """Write metrics.json, table.md and report.html; returns what the screen shows."""
    runs.write_json(out / "metrics.json", result)
    head, rows = columns(result)
    text = f"**{result['protocol']}**\n\n{markdown_table(head, rows)}\n\n{_said(result)}\n"
    with runs.write_atomic(out / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    source = result["samples"]
    made = Page(
        f"Evaluation of {source['name'] if source else 'shapes'}",
        f"Protocol {result['protocol']}. N = {result['n']}, seed {result['seed']}.",
    )
    made.notes(in_short(result, "chamfer"))
    cells: list[list[str | Cell]] = [list(row) for row in rows]
    for row, line in zip(result["rows"], cells, strict=True):
        for i, (name, metric) in enumerate(SET_METRICS.items()):
            if "chamfer" in row:
                factor, digits = (100, 2) if metric.in_distance else (1, 3)
                part = {k: v * factor if isinstance(v, float) else v for k, v in row["chamfer"][name].items()}
                line[1 + i] = Cell(str(line[1 + i]), estimate_tip(part, digits))
    made.table(head, cells, main=[i for i, row in enumerate(result["rows"]) if row["kind"] == "samples"])
    made.text("Point at a heading, a name or a number, or touch it, to see what stands behind it.")
    made.text(_said(result))
    if galleries[0]:
        made.heading("Samples")
        made.text("Each sample turning at the left, and the nearest of the training shapes at the right.")
        made.gallery(*galleries)
    made.notes(result["notes"])
    made.made_by(out / "run.json")
    made.write(out / "report.html")
    return "\n".join([result["protocol"], text_table(head, rows), _said(result), *result["notes"]])


def columns(result: dict) -> tuple[list[str], list[list[str]]]:
    """The headings of the table, and the texts of its lines."""
    head = ["", *(f"{m.heading} x100" if m.in_distance else m.heading for m in SET_METRICS.values())]
    rows = []
    for row in result["rows"]:
        cells = [row["name"]]
        for name, metric in SET_METRICS.items():
            value = row["chamfer"][name]["value"] if "chamfer" in row else None
            cells.append("-" if value is None else f"{100 * value:.2f}" if metric.in_distance else f"{value:.3f}")
        new = row.get("novelty")
        cells += [f"{row[share]:.1%}" for share in ("closed", "in_parts", "without_surface")]
        rows.append([*cells, *([f"{new['z_u']:+.2f}", f"{new['near_copies']:.1%}"] if new else ["-", "-"])])
    return [*head, "closed", "in parts", "no surface", "Z_U", "copies"], rows


def _said(result: dict) -> str:
    bits = result["validation"] or {}
    own = bits.get("model_bits_per_field")
    return (
        f"Z_U: how each sample's distance to its nearest of {result['pool']} training fields ranks among those of the "
        f"references ({result['references']['name']}, N = {result['n']}); negative = copies. A row without numbers has fewer "
        f"surfaces than N.{'' if own is None else f' Validation: {own:.1f} bits per field by the model.'}"
    )


def _round_trip(config: EvaluateConfig, inputs: Inputs, n: int) -> dict[str, tuple[WeightDataset, Tensor, None]]:
    """Held-out fields that are no references after the tokenizer's round trip, where there are as many."""
    references = references_from(config, inputs)
    others = [s for s in ("validation", "test") if s != references != HELD_OUT and s in inputs.data.splits]
    if not others or len(inputs.data.ids(others[0])) < n:
        inputs.notes.append(f"no round trip: no {n} held-out fields beside the references")
        return {}
    data, rows, _ = _rows(config, inputs.data, others[0], n)
    tokenizer = inputs.tokenizer
    return {
        f"{others[0]} fields after round trip": (data, decode_batches(tokenizer, encode_batches(tokenizer, rows)), None)
    }


def _turning(pair: tuple) -> bytes:
    """Two shapes that turn side by side, as WebP; each is ((dataset, split), position)."""
    volumes = []
    for (data, split), i in pair:
        row = data.weights(split, torch.tensor([i]))[0]
        volumes.append(field_volume(data.config, row, TURNED[1], below=data.kind.below(data.config)))
    turns = [turntable(v, TURNED[0], TURNED[2], smooth=1) for v in volumes]
    return webp([torch.cat(views, 1) for views in zip(*turns, strict=True)], fps=6)


def _rows(
    config: EvaluateConfig, data: WeightDataset, split: str, n: int, stream: int = 0
) -> tuple[WeightDataset, Tensor, Tensor]:
    """The dataset, (n, P) rows of a split, drawn by seed, and where they stand."""
    generator = torch.Generator().manual_seed(config.seed + 1000 * stream)
    parts = _parts(data, split)
    sizes = [len(data.ids(part)) for part in parts]
    chosen = torch.randperm(sum(sizes), generator=generator)[:n].sort().values
    if len(parts) == 1:
        return data, data.weights(parts[0], chosen), chosen
    return data, torch.cat([data.weights(part) for part in parts])[chosen], chosen


def _parts(data: WeightDataset, split: str) -> list[str]:
    """The splits that a name stands for."""
    return [s for s in ("validation", "test") if s in data.splits] if split == HELD_OUT else [split]


def simple_rows(weights: Tensor, n: int, seed: int) -> dict[str, Tensor]:
    """What simple generators make of (N, P) training rows, n of each, by name."""
    generator = torch.Generator().manual_seed(seed + 1)
    pick = torch.randperm(len(weights), generator=generator)[:n]
    spread, shift = weights.std(0, correction=0), int(torch.randint(1, max(len(weights), 2), (), generator=generator))
    each = torch.randint(len(weights), (len(pick), weights.shape[1]), generator=generator)
    return {
        f"training weights + {NOISE} sd noise": weights[pick]
        + NOISE * spread * torch.randn(len(pick), weights.shape[1], generator=generator),
        "mean of two training fields": (weights[pick] + weights[(pick + shift) % len(weights)]) / 2,
        "the mean field": weights.mean(0).expand(len(pick), -1),
        "weights drawn one by one": weights.gather(0, each),
    }


def _clouds(config: EvaluateConfig, data: WeightDataset, rows: Tensor, chosen: Tensor | None, name: str) -> Clouds:
    """Standardised points on the surfaces of fields, (n, P) rows that stand at `chosen` in their split."""
    below = isinstance(data.kind, ShapeKind) and data.kind.below(data.config)
    side = Clouds([], [], Counter(), 0)
    before = cloud = None
    for i, row in enumerate(bar(rows, desc=name, unit="mesh", leave=False)):
        if before is None or not torch.equal(row, before):  # the mean field is there n times
            mesh, cloud, before = mesh_field(data.config, row, config.shapes.size, below=below), None, row
        side.outcomes[mesh.outcome] += 1
        side.closed += mesh.closed
        if mesh.outcome == "surface":
            side.apart += int(parts_of(mesh.faces).max()) > 0
            if cloud is None:
                points = on_surface(mesh.vertices, mesh.faces, config.shapes.points, seed=config.seed + i)
                cloud = standardised(points)
            side.clouds.append(cloud)
            side.rows.append(i if chosen is None else int(chosen[i]))
    return side


def _distances(config: EvaluateConfig, clouds: dict[str, list[np.ndarray]]) -> dict[tuple[str, str], Tensor]:
    """Matrices of all pairs of sides that are needed."""
    needed = [(a, a) for a in clouds] + [(a, "references") for a in clouds if a != "references"]
    if "samples" in clouds:
        needed.append(("samples", "training fields"))
    found = {}
    for a, b in bar(needed, desc="distances", unit="comparison", leave=False):
        both = (clouds[a], None if a == b else clouds[b])
        found[a, b] = DISTANCES["chamfer"].function(*both, workers=config.threads or cores())
    return found
