"""How new shapes compare with held-out ones: Chamfer distances of points on their surfaces, in HyperDiffusion's convention.

Samples and references are fields; each is meshed and 1,024 points are drawn on its surface. The row of training fields
against the same references says what a perfect generator reaches; further rows say what noise on training weights, means of
two of them, their mean and weights drawn one by one reach. Fields without a surface are counted, not dropped.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fields.kinds.preview import spread
from fields.kinds.shapes import ShapeKind
from fields.metrics.clouds import nearest_chamfer, on_surface, seconds_for, standardised
from fields.metrics.sets import mann_whitney
from fields.runtime import runs
from fields.runtime.console import bar
from fields.storage.dataset import WeightDataset
from fields.view.mesh import mesh_field
from fields.view.page import Cell, Page, estimate_tip
from fields.view.render import webp
from fields.view.shading import turntable
from fields.view.volumes import volume
from gpt.evaluation.metrics import DISTANCES, estimates
from gpt.options import ShapeEvaluation

NOISE = 0.3
"""Standard deviations of the noise on training weights."""
COPY = 0.01
"""A sample is a copy where its nearest training shape is nearer than this share of the references have theirs."""
SHOWN = 6
"""Samples that turn on the report."""
TURNED = (88, 49, 12)
"""Pixels along an edge of a turning shape, points along an edge of its volume, views of one turn."""


@dataclass
class Clouds:
    """Surfaces of some fields as clouds, and what the others were."""

    clouds: list[np.ndarray]
    rows: list[int]
    """Where each cloud's field stands in its split."""
    outcomes: Counter
    closed: int

    @property
    def failed(self) -> int:
        """Fields without a surface."""
        return sum(self.outcomes.values()) - self.outcomes["surface"]


def evaluate_shapes(config: ShapeEvaluation) -> dict:
    """The command: `metrics.json` and `report.html` in `config.out`, and a table.

    Raises:
        ValueError: for fields that are no shapes, or too few of them.
    """
    data, new = WeightDataset.load(config.fields), WeightDataset.load(config.samples)
    for flag, given in (("--fields", data), ("--samples", new)):
        if not isinstance(given.kind, ShapeKind):
            raise ValueError(f"{flag}: shapes are fields from 3 coordinates to 1 value, got {given.config}.")
    parents = {"fields": data.fingerprint, "samples": new.fingerprint}
    splits = {"samples": (new, next(iter(new.splits))), "training fields": (data, "train")}
    splits["references"] = (data, config.reference)
    n = min(config.n, *(len(source.ids(split)) for source, split in splits.values()))
    if n < 2:
        raise ValueError(f"at least 2 shapes a side are needed, got {n}.")
    asked = {**asdict(config), "samples": None, "fields": None, "out": None}
    runs.claim(config.out, asked, parents=parents, kind="evaluate_shapes")
    made: dict[str, tuple[WeightDataset, Tensor, Tensor | None]]
    made = {name: _rows(config, *where, n) for name, where in splits.items()}
    if config.baselines:
        made |= {name: (data, rows, None) for name, rows in baselines(data.weights("train"), n, config.seed).items()}
    found = {name: _clouds(config, *rows, name) for name, rows in made.items()}
    kept = min(len(found[name].clouds) for name in splits)
    if kept < 2:
        raise ValueError(
            f"fewer than 2 fields of a side have a surface ({ {k: dict(v.outcomes) for k, v in found.items()} })."
        )
    clouds = {name: side.clouds[:kept] for name, side in found.items()}
    distances = _distances(config, {name: side for name, side in clouds.items() if len(side) == kept})
    pool = _clouds(config, *_rows(config, data, "train", config.pool, stream=1), "pool").clouds
    held = nearest_chamfer(clouds["references"], pool)[0]
    metrics: dict[str, Any] = {"n": kept, "points": config.points, "size": config.size, "pool": len(pool), "rows": []}
    for name in (name for name in found if name != "references"):
        side = found[name]
        about: dict[str, Any] = {
            "name": name,
            "without_surface": side.failed / n,
            "outcomes": dict(side.outcomes),
            "closed": side.closed / n,
        }
        metrics["rows"].append(about)
        if len(clouds[name]) < kept:  # every number depends on N
            continue
        among = distances["references", "references"]
        row = estimates(distances[name, name], distances[name, "references"], among, config.seed)
        about |= {key: estimate.to_dict() for key, estimate in row.items()}
        if name != "training fields":  # they are in the pool themselves
            novel = nearest_chamfer(clouds[name], pool)[0]
            about["z_u"] = mann_whitney(torch.from_numpy(novel), torch.from_numpy(held))
            about["copies"] = float((novel < np.quantile(held, COPY)).mean())
    metrics["z_u"] = metrics["rows"][0]["z_u"]
    runs.write_json(config.out / "metrics.json", metrics)
    report = page(metrics)
    report.heading("Samples")
    report.text("Each sample turning at the left, and the nearest of the training shapes at the right.")
    chosen = spread(kept, SHOWN).tolist()
    shapes = {name: [(where, row) for row in found[name].rows[:kept]] for name, where in splits.items()}
    nearest = distances["samples", "training fields"].min(1)
    pairs = [(shapes["samples"][i], shapes["training fields"][int(nearest.indices[i])]) for i in chosen]
    captions = [f"Chamfer distance x100: {100 * float(nearest.values[i]):.2f}" for i in chosen]
    report.gallery([_turning(pair) for pair in bar(pairs, desc="turntables", unit="shape", leave=False)], captions)
    report.made_by(config.out / "run.json")
    report.write(config.out / "report.html")
    print(table(metrics))
    return metrics


def page(metrics: dict) -> Page:
    """The table of a comparison of shapes as the beginning of a report."""
    made = Page(
        "Evaluation of shapes",
        f"Chamfer distance, N = {metrics['n']}, {metrics['points']:,} points of surfaces at {metrics['size']}^3.",
    )
    head = ["", "MMD x100", "COV", "1-NNA", "closed", "no surface", "Z_U", "copies"]
    rows = []
    for row in metrics["rows"]:
        cells: list[str | Cell] = [row["name"]]
        for name, digits, factor in (("mmd", 2, 100), ("cov", 3, 1), ("1-nna", 3, 1)):
            if name not in row:
                cells.append("-")
                continue
            part = {k: v * factor if isinstance(v, float) else v for k, v in row[name].items()}
            cells.append(Cell(f"{part['value']:.{digits}f}", estimate_tip(part, digits)))
        novel = [f"{row['z_u']:+.2f}", f"{row['copies']:.1%}"] if "z_u" in row else ["-", "-"]
        rows.append([*cells, f"{row['closed']:.1%}", f"{row['without_surface']:.1%}", *novel])
    made.table(head, rows, main=[0])
    made.text(
        f"Z_U: how each sample's distance to its nearest of {metrics['pool']} training fields ranks among those of the "
        "references; negative = copies. A row without numbers has fewer surfaces than N."
    )
    return made


def _turning(pair: tuple) -> bytes:
    """Two shapes that turn side by side, as WebP; each is ((dataset, split), position)."""
    volumes = []
    for (data, split), i in pair:
        row = data.weights(split, torch.tensor([i]))[0]
        volumes.append(volume(data.config, row, below=data.kind.below(data.config), side=TURNED[1]))
    turns = [turntable(v, TURNED[0], TURNED[2], smooth=1) for v in volumes]
    return webp([torch.cat(views, 1) for views in zip(*turns, strict=True)], fps=6)


def _rows(
    config: ShapeEvaluation, data: WeightDataset, split: str, n: int, stream: int = 0
) -> tuple[WeightDataset, Tensor, Tensor]:
    """The dataset, (n, P) rows of a split, drawn by seed, and where they stand."""
    generator = torch.Generator().manual_seed(config.seed + 1000 * stream)
    chosen = torch.randperm(len(data.ids(split)), generator=generator)[:n].sort().values
    return data, data.weights(split, chosen), chosen


def baselines(weights: Tensor, n: int, seed: int) -> dict[str, Tensor]:
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


def _clouds(config: ShapeEvaluation, data: WeightDataset, rows: Tensor, chosen: Tensor | None, name: str) -> Clouds:
    """Standardised points on the surfaces of fields, (n, P) rows that stand at `chosen` in their split."""
    below = isinstance(data.kind, ShapeKind) and data.kind.below(data.config)
    side = Clouds([], [], Counter(), 0)
    for i, row in enumerate(bar(rows, desc=name, unit="mesh", leave=False)):
        mesh = mesh_field(data.config, row, config.size, below=below)
        side.outcomes[mesh.outcome] += 1
        side.closed += mesh.closed
        if mesh.outcome == "surface":
            points = on_surface(mesh.vertices, mesh.faces, config.points, seed=config.seed + i)
            side.clouds.append(standardised(points))
            side.rows.append(i if chosen is None else int(chosen[i]))
    return side


def _distances(config: ShapeEvaluation, clouds: dict[str, list[np.ndarray]]) -> dict[tuple[str, str], Tensor]:
    """Matrices of all pairs of sides that are needed, with an estimate first."""
    needed = [(a, a) for a in clouds] + [(a, "references") for a in clouds if a != "references"]
    needed.append(("samples", "training fields"))
    n = len(clouds["references"])
    pairs = len(clouds) * n * (n + 1) // 2 + len(clouds) * n * n
    seconds = seconds_for(clouds["references"], pairs, workers=config.workers)
    print(f"{pairs:,} Chamfer distances of {config.points:,} points: about {seconds / 60:.1f} min")
    found = {}
    with bar(total=pairs, desc="distances", unit="pair", leave=False) as shown:
        for a, b in needed:
            before = shown.n
            found[a, b] = DISTANCES["chamfer"].function(
                clouds[a],
                None if a == b else clouds[b],
                workers=config.workers,
                progress=lambda done, before=before: shown.update(before + done - shown.n),
            )
    return found


def table(metrics: dict) -> str:
    """The rows as text."""
    lines = [f"Chamfer distance, N = {metrics['n']}, {metrics['points']:,} points of surfaces at {metrics['size']}^3"]
    lines.append(f"{'':34}{'MMD x100':>9}{'COV':>7}{'1-NNA':>7}{'closed':>8}{'none':>7}{'Z_U':>8}{'copies':>8}")
    for row in metrics["rows"]:
        numbers = f"{'-':>9}{'-':>7}{'-':>7}"
        if "mmd" in row:
            numbers = f"{100 * row['mmd']['value']:9.2f}{row['cov']['value']:7.3f}{row['1-nna']['value']:7.3f}"
        novel = f"{row['z_u']:+8.2f}{row['copies']:8.1%}" if "z_u" in row else f"{'-':>8}{'-':>8}"
        lines.append(f"{row['name']:34}{numbers}{row['closed']:8.1%}{row['without_surface']:7.1%}{novel}")
    lines.append(
        f"none: no surface. Z_U against {metrics['pool']} training fields: below 0 = copies. A row without numbers has fewer "
        "surfaces than N."
    )
    return "\n".join(lines)
