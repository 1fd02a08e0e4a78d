"""What is known of foreign fields from their names and from the files beside them: ids, labels, splits, PSNR."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fields.formats.weight_formats import WeightFormat
from fields.model import FieldConfig
from fields.runtime.runs import read_json
from fields.signals.folder import SPLIT_NAMES
from fields.storage.dataset import SPLITS

SIDECAR = "fields.json"
"""Written by `fields.formats.exporter` beside its files: what the format itself has no place for."""
COLUMNS: dict[str, Any] = {"split": "train", "signal_id": "", "label": -1, "seed": 0, "quality": math.nan, "extent": ()}
"""What is known of each row, with the value that says unknown."""
LARGEST = 2**31 - 1


@dataclass
class Sidecars:
    """What lies beside the weight files."""

    stated: dict[str, Any] | None = None
    """`FieldConfig` values of our own sidecar."""
    signals: dict = field(default_factory=dict)
    reference: dict | None = None
    """The row the fits began from, of our own sidecar."""
    columns: dict[str, dict] = field(default_factory=dict)
    """File -> its rows' columns."""
    splits: dict[str, str] = field(default_factory=dict)
    """Last three parts of a file's path, or a signal's name -> split."""
    psnr: dict[str, float] = field(default_factory=dict)
    """Signal's name -> dB."""
    read: list[str] = field(default_factory=list)
    """Names of the files used."""


def known_of_rows(
    source: WeightFormat, file: Path, relative: str, n: int, channels: int, extra: Sidecars, set_name: str | None
) -> dict[str, list]:
    """What is known of each of a file's N rows.

    Args:
        file: the file.
        relative: its name below the folder that is imported.
        extra: what lies beside the files.
        set_name: the signals at hand, None for what the source says.
    Returns:
        N entries for each key of `COLUMNS`.
    """
    if relative in extra.columns:
        return _given_columns(extra.columns[relative], n)
    tail = "/".join(file.parts[-3:])
    match = re.search(source.path, tail)
    groups = match.groupdict() if match else {}
    pictures = source.pictures_of(channels)
    made = {name: [value] * n for name, value in COLUMNS.items()}
    if groups.get("label") is not None:
        made["label"] = [int(groups["label"])] * n
    for i in range(n):
        split, part, name, seed = _place(source, groups, i, channels)
        made["split"][i] = extra.splits.get(tail) or extra.splits.get(name) or split
        made["seed"][i] = seed
        called = set_name or groups.get("set") or (pictures.name if pictures else source.dataset)
        if not name:
            name, part, called = f"{Path(relative).with_suffix('').as_posix()}{f'/{i}' if n > 1 else ''}", "", ""
        made["signal_id"][i] = "/".join(p for p in (called, "" if called == "digits" else part, name) if p)
        made["quality"][i] = extra.psnr.get(name, math.nan)
    return made


def _place(source: WeightFormat, groups: dict, i: int, channels: int) -> tuple[str, str, str, int]:
    """(split, part, name, seed) of a file's row i."""
    seed, pictures = int(groups.get("seed") or 0), source.pictures_of(channels)
    if groups.get("index") is not None and pictures:
        more, index = divmod(int(groups["index"]) + i, pictures.total)  # the next seed begins where the pictures end
        low, high = source.validation.get(channels, (pictures.train, pictures.train))
        split = "train" if index < low else "validation" if index < high else "test"
        if index < pictures.train:
            return split, "train", str(index), seed + more
        return split, "test", str(index - pictures.train), seed + more
    name = groups.get("id") or groups.get("index") or ""
    part = SPLIT_NAMES.get(groups.get("part") or "", "train" if pictures else "")
    return part or "train", part, str(int(name)) if name.isdigit() and pictures else name, seed


def _given_columns(values: dict, n: int) -> dict[str, list]:
    made = {}
    if "quality" not in values and "psnr" in values:  # written by an older version
        values = values | {"quality": values["psnr"]}
        if isinstance(values.get("height"), list) and isinstance(values.get("width"), list):
            values["extent"] = [list(pair) for pair in zip(values["height"], values["width"], strict=False)]
    for name, unknown in COLUMNS.items():
        column = values.get(name, [unknown] * n)
        if not isinstance(column, list) or len(column) != n:
            raise ValueError(f"{SIDECAR} has no {n} entries of {name} for it")
        kind = type(unknown)
        made[name] = [unknown if v is None else kind(v) for v in column]
    for extent in made["extent"]:
        if not all(isinstance(side, int) and 0 <= side <= LARGEST for side in extent):
            raise ValueError(f"{SIDECAR} says extent {list(extent)} for it, expected whole numbers up to {LARGEST}")
    wrong = sorted(set(made["split"]) - set(SPLITS))  # a split becomes a file's name
    if wrong:
        raise ValueError(f"{SIDECAR} says split {wrong[0]!r} for it, expected one of {', '.join(SPLITS)}")
    return made


def look_for_sidecars(root: Path) -> Sidecars:
    """Split lists (DWSNets' JSON, HyperDiffusion's .lst), PSNRs (Implicit-Zoo's JSON) and our own sidecar.

    Raises:
        ValueError: naming a file that is of such a kind but not as it should be.
    """
    found = Sidecars()
    for path in sorted(p for p in root.iterdir() if p.is_file() and p.suffix in (".json", ".lst")):
        try:
            if _look(path, found):
                found.read.append(path.name)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} cannot be used ({error}). Repair it, or move it to another folder.") from None
    return found


def _look(path: Path, found: Sidecars) -> bool:
    """Take what one neighbouring file says; False if it says nothing of use."""
    listed = re.fullmatch(r"(train|val|test)_split\.lst", path.name)
    if listed:
        found.splits |= {line.strip(): SPLIT_NAMES[listed[1]] for line in path.read_text().splitlines() if line.strip()}
        return True
    values = read_json(path) if path.suffix == ".json" else None
    if not isinstance(values, dict):
        return False
    if path.name == SIDECAR and "field" in values:
        found.stated = FieldConfig.from_dict(values["field"]).to_dict()
        found.signals, found.columns = dict(values.get("signals") or {}), dict(values.get("files") or {})
        found.reference = values.get("reference")
        return True
    if any(isinstance(v, dict) and isinstance(v.get("path"), list) for v in values.values()):
        for split in set(values) & set(SPLIT_NAMES):
            found.splits |= {"/".join(Path(p).parts[-3:]): SPLIT_NAMES[split] for p in values[split]["path"]}
        return True
    if re.fullmatch(r"\d+_-?\d+\.json", path.name):
        found.psnr |= {str(k): float(v) for k, v in values.items()}
        return True
    return False


def load_field(path: Path) -> dict[str, Any]:
    """`FieldConfig` values from a field.json, a fields.json, or a folder with one of them.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it holds no field.
    """
    if path.is_dir():
        path = next((path / n for n in ("field.json", SIDECAR) if (path / n).is_file()), path / "field.json")
    values = read_json(path, "It is the field.json of a weight dataset, or a JSON file of the field's values alone.")
    values = values.get("field", values) if isinstance(values, dict) else None
    if not isinstance(values, dict):
        raise ValueError(f"{path} describes no field. Give the field.json of a weight dataset.")
    return FieldConfig.from_dict(values).to_dict()
