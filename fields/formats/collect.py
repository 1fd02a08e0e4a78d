"""Foreign fields grouped by architecture: collected, looked up among the signals, proved, drawn and saved."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.formats import verify
from fields.formats.convert import Translated, differing, finite, name_of, translate
from fields.formats.readers import read
from fields.formats.sidecars import Sidecars, known_of_rows
from fields.formats.weight_formats import OCCUPANCY, SDF, WeightFormat
from fields.kinds.base import Kind
from fields.kinds.images import ImageKind
from fields.kinds.preview import SHOWN, spread
from fields.kinds.registry import kind_of
from fields.kinds.shapes import ShapeKind
from fields.model import FieldConfig
from fields.runtime import runs
from fields.runtime.console import bar, plural
from fields.signals.base import Signals
from fields.signals.images import Images
from fields.storage.dataset import KEPT, WeightDataset
from fields.storage.reference import Reference
from fields.storage.rows import Rows
from fields.view import volumes

BOUNDS = {"seed": (-(2**63), 2**63 - 1)}
"""What the columns of a dataset hold; paths and lists beside the files may say anything."""


@dataclass
class Batch:
    """What all files of one import share."""

    name: str
    source: WeightFormat
    extra: Sidecars
    given: dict[str, Any]
    """`FieldConfig` values that stand above the source's."""
    signals: Signals | None = None

    def label_names(self, config: FieldConfig) -> list[str] | None:
        """Class names of the signals, of our own sidecar, or of the source."""
        if self.signals is not None:
            return self.signals.label_names
        pictures = self.source.pictures_of(config.out_dim) if ImageKind.suits(config) else None
        return self.extra.signals.get("label_names") or (list(pictures.label_names) if pictures else None)

    def kind(self, config: FieldConfig) -> Kind:
        """What is known of the fields' kind: pictures, or shapes and which side of the surface is their inside."""
        stated = self.extra.signals.get("inside") or self.source.inside
        return kind_of(config, {"inside": stated})


@dataclass
class Group:
    """Fields of one architecture."""

    config: FieldConfig
    quantity: str
    """What the value of a 3-D field is."""
    weights: Tensor
    """(N, P)."""
    columns: dict[str, list]
    """N entries for each key of `fields.formats.sidecars.COLUMNS`."""
    at: Tensor
    """(N,) positions of the signals, -1 where there is none."""

    def look_up(self, batch: Batch, size: tuple[int, int] | None) -> None:
        """Find the signals, and with them labels and sizes."""
        known, signals = self.columns, batch.signals
        if not ImageKind.suits(self.config):
            return
        pictures = batch.source.pictures_of(self.config.out_dim)
        usual = size or ((pictures.size, pictures.size) if pictures else (0, 0))
        place = {name: i for i, name in enumerate(signals.ids)} if signals is not None else {}
        self.at = torch.tensor([place.get(name, -1) for name in known["signal_id"]])
        for i, at in enumerate(self.at.tolist()):
            if not known["extent"][i] or not min(known["extent"][i]):
                known["extent"][i] = usual
            if at >= 0 and signals is not None:
                known["extent"][i] = tuple(signals.extent[at].tolist())
                if signals.labels is not None:
                    known["label"][i] = int(signals.labels[at])

    def captions(self, chosen: list[int]) -> list[str]:
        """The ends of some fields' ids, with [label] and PSNR where they are known."""
        found = []
        for i in chosen:
            name, label, decibels = (self.columns[key][i] for key in ("signal_id", "label", "quality"))
            parts = [name.split("/")[-1] or str(i)] + [f"[{label}]"] * (label >= 0)
            found.append(" ".join(parts + [f"{decibels:.1f} dB"] * (decibels == decibels)))
        return found


def collect(batch: Batch, files: list[tuple[Path, str]]) -> tuple[list[Group], list[tuple[str, str]]]:
    """All files' rows by architecture, and (name, reason) of what could not be used."""
    parts: dict[tuple[FieldConfig, str], list[Translated]] = {}
    skipped: list[tuple[str, str]] = []
    for file, relative in bar(files, desc="reading", unit="file", leave=False):
        try:
            rows = _rows(batch, file, relative)
        except Exception as error:  # libraries raise nearly any type on a broken file; one file must not end the import
            skipped.append((relative, _reason(error)))
            continue
        skipped += rows.skipped
        if len(rows.weights):
            parts.setdefault((rows.config, _quantity(batch, rows)), []).append(rows)
    groups = []
    for (config, quantity), alike in parts.items():
        weights = torch.cat([r.weights for r in alike])
        known = {name: [value for r in alike for value in r.columns[name]] for name in alike[0].columns}
        groups.append(Group(config, quantity, weights, known, torch.full((len(weights),), -1)))
    return groups, skipped


def _quantity(batch: Batch, rows: Translated) -> str:
    """What a 3-D field's value is. Files of one project may hold either; a distance is never beyond the diagonal."""
    stated = batch.extra.signals.get("quantity") or batch.source.quantity
    if not ShapeKind.suits(rows.config) or stated != SDF or volumes.is_distance(rows.config, rows.weights):
        return stated
    return OCCUPANCY


def _rows(batch: Batch, file: Path, relative: str) -> Translated:
    """One file's fields."""
    raw = read(file)
    config, weights = translate(batch.source, raw, batch.given)
    name = None if batch.signals is None else batch.signals.name
    known = known_of_rows(batch.source, file, relative, len(weights), config.out_dim, batch.extra, name)
    if raw.labels is not None and relative not in batch.extra.columns:
        if len(raw.labels) != len(weights):
            raise ValueError(f"it has {len(raw.labels)} labels for {len(weights)} fields")
        known["label"] = raw.labels
    classes = len(batch.label_names(config) or range(2**31))
    for key, (low, high) in {**BOUNDS, "label": (-1, classes - 1)}.items():
        wrong = [value for value in known[key] if not low <= value <= high]
        if wrong:
            raise ValueError(f"its {key} is {wrong[0]}, expected {low} .. {high}")
    return finite(config, weights, known, relative)


def _reason(error: Exception) -> str:
    """Why a file was not used, in one line."""
    text = " ".join((str(error) or type(error).__name__).split())
    return text if type(error) is ValueError and len(text) < 400 else f"truncated or corrupt ({text[:120]})"


def prove(group: Group, signals: Signals | None, least: float, force: bool) -> dict:
    """Render against the signals.

    Returns:
        Mean, worst and number of PSNRs; empty without signals.
    Raises:
        ValueError: if they do not fit, naming the convention that would.
    """
    if signals is None:
        return {}
    if not ImageKind.suits(group.config):
        raise ValueError(
            f"--signals {signals.name}: no picture shows what fields {group.config} "
            "say. Leave --signals out and look at preview.png."
        )
    sample = (group.at >= 0).nonzero().flatten()
    if not len(sample):
        raise ValueError(
            f"none of the fields' signals ({group.columns['signal_id'][0]}, ...) is among the "
            f"{len(signals):,} signals of {signals.name}, which are called {signals.ids[0]} and so on. Leave --signals out, or name the files as the source does."
        )
    if group.config.out_dim != signals.channels:
        raise ValueError(f"the fields have {group.config.out_dim} channels, {signals.name} has {signals.channels}.")
    sample = sample[spread(len(sample), 8 * verify.TRIED)]
    mean = float(verify.decibels(group.config, group.weights[sample], signals, group.at[sample]).mean())
    other, better = verify.best_convention(group.config, group.weights[sample], signals, group.at[sample])
    hint = f"with {differing(group.config, other)} it would be {better:.1f} dB"
    better = mean if other == group.config else better
    if not mean >= least and not force:  # NaN too
        advice = f"A convention looks wrong: {hint}" if better > mean + 1 else "No other convention does better"
        raise ValueError(
            f"the fields ({group.config}) come to {mean:.1f} dB on average against {signals.name}, expected at least "
            f"--min-psnr {least:g}. {advice}. Nothing was written; --force imports them as they are."
        )
    measured = verify.decibels(group.config, group.weights, signals, group.at, quiet=False)
    group.columns["quality"] = measured.tolist()
    found = measured[measured.isfinite()]
    print(
        f"{plural(len(found), 'field')} against {signals.name}: PSNR mean {found.mean():.2f} dB, worst {found.min():.2f} dB"
    )
    if better > mean + 1:
        print(f"note: {hint}")
    if len(found) < len(measured):
        print(
            f"note: {plural(len(measured) - len(found), 'field')} without a signal of that id in {signals.name}, so without PSNR"
        )
    return {"mean": float(found.mean()), "worst": float(found.min()), "measured": len(found)}


# -- writing ----------------------------------------------------------------------------------------------------------


def save(groups: list[Group], datasets: list[WeightDataset], proofs: list[dict], batch: Batch, out: Path) -> list[dict]:
    """One weight dataset and preview per architecture.

    Returns:
        Per group its folder, rows, PSNR, and what the volumes of 3-D fields show.
    """
    made, several = [], len(groups) > 1
    taken: set[str] = set()
    if several:
        print(f"{len(groups)} architectures or quantities: one dataset each, never mixed, in {out}/ARCHITECTURE")
    for group, data, measured in zip(groups, datasets, proofs, strict=True):
        suffix = "-occupancy" if group.quantity == OCCUPANCY != batch.source.quantity else ""
        name = name_of(group.config, suffix, taken)
        folder = out / name if several else out
        if several:
            parents = {"rows": runs.digest(group.weights, group.columns["signal_id"])}
            runs.claim(folder, {"source": batch.name, "architecture": name}, parents=parents, kind="import")
        shown = _preview(folder / "preview.png", group, batch)
        data.save(folder, keep=(*KEPT, "preview.png"))
        counts = {split: len(rows) for split, rows in data.splits.items()}
        kind = batch.kind(group.config)
        what = f", {group.quantity}, inside {kind.inside(group.config)}" if isinstance(kind, ShapeKind) else ""
        print(
            f"{folder}: {plural(len(group.weights), 'field')} {group.config}{what}; {counts}; look at preview.png there"
        )
        made.append({"folder": name if several else ".", "rows": counts, "psnr": measured, "volumes": shown})
    return made


def dataset_of(group: Group, batch: Batch) -> WeightDataset:
    """The rows in their splits, with what is known of their origin."""
    source, known = batch.source, group.columns
    kind = batch.kind(group.config)
    extent = [list(e) or [0] * len(kind.axes) for e in known["extent"]]
    rows = Rows(
        group.weights, known["signal_id"], torch.tensor(known["label"]), torch.tensor(known["seed"]),
        torch.tensor(known["quality"]), torch.tensor(extent),
    )  # fmt: skip
    splits = {
        s: rows.pick(torch.tensor([s == other for other in known["split"]])) for s in dict.fromkeys(known["split"])
    }
    sizes = sorted(set(map(tuple, extent)))
    pictures = source.pictures_of(group.config.out_dim)
    described = {
        "name": batch.signals.name if batch.signals is not None else batch.extra.signals.get("name"),
        "label_names": batch.label_names(group.config) if max(known["label"]) >= 0 else None,
        "channels": group.config.out_dim,
        "shape": list(sizes[0]) if len(sizes) == 1 and min(sizes[0]) else None,
        "source": {"format": batch.name, "title": source.title, "kernels": f"({source.kernel}) in the files"},
    }
    described["name"] = described["name"] or (pictures.name if pictures else source.dataset or "fields")
    if isinstance(kind, ShapeKind):
        described |= {"quantity": group.quantity, "inside": kind.inside(group.config)}
    return WeightDataset.from_rows(group.config, splits, _reference(group, batch), described)


def _reference(group: Group, batch: Batch) -> Reference:
    """The start of the fits, which only our own sidecar can know."""
    extra = batch.extra
    if extra.reference is not None and FieldConfig.from_dict(extra.stated or {}).size == group.config.size:
        return Reference.from_dict(extra.reference)
    return Reference("unknown", f"imported from files of {batch.source.title}; they do not say how they were fitted")


def _preview(path: Path, group: Group, batch: Batch) -> list[dict]:
    """Draw preview.png of fields spread over the group; what the volumes of 3-D fields show."""
    chosen = spread(len(group.weights), SHOWN).tolist()
    kind = batch.kind(group.config)
    if isinstance(kind, ShapeKind):
        return _preview_shapes(path, group, chosen, below=kind.below(group.config))
    if not ImageKind.suits(group.config):
        return []
    sizes = [tuple(group.columns["extent"][i]) for i in chosen]
    chosen = [i for i, size in zip(chosen, sizes, strict=True) if size == sizes[0]]  # one sheet has one size
    size, beside = sizes[0], None
    if not size or not min(size):
        size = (64, 64)
        print(
            "note: the size of the pictures is unknown (give it with --size H W): they are drawn as 64 x 64, and their extent is stored as 0 x 0"
        )
    if isinstance(batch.signals, Images) and bool((group.at[chosen] >= 0).all()):
        beside = batch.signals.images(group.at[chosen])
    verify.preview_pictures(path, group.config, group.weights[chosen], size, group.captions(chosen), beside)
    return []


def _preview_shapes(path: Path, group: Group, chosen: list[int], *, below: bool) -> list[dict]:
    names = group.captions(chosen)
    with bar(total=len(chosen), desc="volumes", unit="field", leave=False) as shown:
        found = volumes.preview_shapes(path, group.config, group.weights[chosen], names, below=below, tick=shown.update)
    for name, facts in zip(names, found, strict=True):
        if not facts["bounds"] or facts["touches"]:
            what = "reaches the faces of the cube [-1, 1]^3" if facts["bounds"] else "has no inside in [-1, 1]^3"
            print(f"note: {name} {what}: check the sign and the bounds")
    return [{"name": name, **facts} for name, facts in zip(names, found, strict=True)]
