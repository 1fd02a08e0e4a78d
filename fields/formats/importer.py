"""Weight files of other projects as a weight dataset:  python scripts/import_fields.py SOURCE PATH --out DIR"""

import hashlib
import re
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fields.formats.collect import Batch, collect, dataset_of, prove, save
from fields.formats.options import ImportConfig
from fields.formats.readers import NETWORK
from fields.formats.sidecars import SIDECAR, Sidecars, load_field, look_for_sidecars
from fields.formats.weight_formats import WEIGHT_FORMATS
from fields.runtime import runs
from fields.signals import folder
from fields.signals.options import SignalsConfig
from fields.signals.origin import remember
from fields.signals.registry import load_signals


def main(config: ImportConfig) -> None:
    """The command; exits with 1 when files had to be skipped, after writing the others."""
    report = import_fields(config)
    skipped = report["skipped"]
    if skipped:
        named = "; ".join(f"{name}: {reason}" for name, reason in skipped[: folder.NAMED])
        raise RuntimeError(
            f"{len(skipped):,} of {report['files']:,} files (or rows) are not in the dataset: {named}"
            f"{' ...' if len(skipped) > folder.NAMED else ''}. All are in {config.out / 'import.json'}."
        )


def import_fields(config: ImportConfig) -> dict:
    """Read, prove and save.

    Returns:
        What import.json holds.
    Raises:
        ValueError: if there is nothing to import, or the fields do not show their signals.
    """
    source, (files, left_out) = WEIGHT_FORMATS[config.source], weight_files(config)
    extra = look_for_sidecars(config.path if config.path.is_dir() else config.path.parent)
    files = sorted_files(files, extra)
    given = _given(config, extra)
    claimed, parents = _identity(config, given), {"files": _digest(files, extra, config.path)}
    free = ("min_psnr", "force")
    claim = partial(runs.claim, config.out, claimed, parents=parents, free=free, kind="import", parts=True)
    made_before = config.out.exists() and not config.overwrite and claim()
    if made_before and (config.out / "import.json").is_file():
        print(f"{config.out} is complete.")
        return runs.read_json(config.out / "import.json", "Delete the folder and run the command again.", dict)
    where = None if config.signals is None else SignalsConfig(config.signals, config.data_root)
    signals = None if where is None else load_signals(where)
    batch = Batch(config.source, source, extra, given, signals)
    groups, skipped = collect(batch, files)
    skipped, total = left_out + skipped, len(left_out) + len(files)
    if not groups:
        if config.path.is_file() and len(skipped) == 1:
            raise ValueError(f"{config.path}: {skipped[0][1]}.")
        named = "; ".join(f"{name}: {reason}" for name, reason in skipped[:5])
        raise ValueError(f"none of {total:,} files in {config.path} could be imported: {named}.")
    for group in groups:
        group.look_up(batch, config.size)
    proofs = [prove(group, signals, config.min_psnr, config.force) for group in groups]
    datasets = [dataset_of(group, batch) for group in groups]  # all that can fail comes before anything is written
    claim()
    if where is not None:
        remember(config.out, where)
    report = {"source": config.source, "title": source.title, "files": total, "beside": extra.read}
    report |= {"groups": save(groups, datasets, proofs, batch, config.out), "skipped": skipped}
    runs.write_json(config.out / "import.json", report)
    return report


# -- reading ----------------------------------------------------------------------------------------------------------


def weight_files(config: ImportConfig) -> tuple[list[tuple[Path, str]], list[tuple[str, str]]]:
    """The files to read with their names below the folder.

    Returns:
        (file, name) of each, and (name, reason) of those that are not to be read: links that lead elsewhere, and so on.
    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: if no file has an ending of the source's.
    """
    path, suffixes = config.path, WEIGHT_FORMATS[config.source].suffixes
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise ValueError(
                f"{path}: {config.source} fields are files ending in {' or '.join(suffixes)}, got {path.name}. "
                "Give such a file or a folder of them."
            )
        return [(path, path.name)], []
    if not path.is_dir():
        raise FileNotFoundError(f"{path} not found. Give a file or folder of {config.source} fields.")
    names, left_out = folder.find_files(path, suffixes)
    if not names and not left_out:
        raise ValueError(
            f"{path} holds no file ending in {' or '.join(suffixes)}, as {config.source} fields do. "
            "Give the folder that holds them."
        )
    return [(path / name, name) for name in names], left_out


def sorted_files(files: list[tuple[Path, str]], extra: Sidecars) -> list[tuple[Path, str]]:
    """As our own sidecar lists them, else by name with numbers as numbers."""
    rank = {name: i for i, name in enumerate(extra.columns)}

    def key(pair: tuple[Path, str]) -> tuple:
        numbers = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", pair[1])]
        return rank.get(pair[1], len(rank)), numbers, pair[1]

    return sorted(files, key=key)


def _given(config: ImportConfig, extra: Sidecars) -> dict[str, Any]:
    """`FieldConfig` values that stand above the source's: of our own sidecar, of --field-file, of --field.*."""
    given = dict(extra.stated or {})
    if extra.stated:
        print(f"conventions, ids and splits are read from {SIDECAR} beside the files")
    if config.field_file is not None:
        given |= load_field(config.field_file)
    return given | config.field.given()


def _identity(config: ImportConfig, given: dict[str, Any]) -> dict:
    """What the output depends on."""
    values = {**asdict(config), "out": None, "path": None, "data_root": None, "field_file": None, "field": given}
    return runs.plain(values)


def _digest(files: list[tuple[Path, str]], extra: Sidecars, path: Path) -> str:
    """16 digits of names and contents of all that is read."""
    state = hashlib.sha256()
    root = path if path.is_dir() else path.parent
    for file, name in [*files, *((root / n, n) for n in (*extra.read, *NETWORK) if (root / n).is_file())]:
        try:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:  # named when it is read
            content = "unreadable"
        state.update(f"{name}\0{content}\0".encode("utf-8", "backslashreplace"))
    return state.hexdigest()[:16]
