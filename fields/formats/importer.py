"""Other people's weight files as a weight dataset:  python scripts/import_fields.py SOURCE PATH --out DIR"""

import hashlib
import re
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from fields.activations import ActivationName, OutputName
from fields.formats.collect import Batch, collect, dataset_of, prove, save
from fields.formats.readers import NETWORK
from fields.formats.sidecars import SIDECAR, Beside, load_field, look_beside
from fields.formats.sources import SOURCES
from fields.runtime import runs
from fields.signals import folder
from fields.signals.base import SignalsConfig
from fields.signals.origin import remember
from fields.signals.registry import load_signals

if TYPE_CHECKING:  # a checker cannot know what stands in the registry
    Name = str
else:
    Name = Literal[tuple(SOURCES)]
NAMED = 20
"""Bad files named one by one; all of them stand in import.json."""


@dataclass(frozen=True)
class Conventions:
    """What the fields are, where it differs from what the source says; None keeps it. See `fields.model.FieldConfig`."""

    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers: files with others are refused. Default: what the files hold."""
    octaves: int | None = None
    """Octaves of the Fourier encoding, 0 = none."""
    in_dim: int | None = None
    """Coordinates of a point: 2 for pictures, 3 for shapes."""
    out_dim: int | None = None
    """Channels. Default: what the files hold."""
    raw_input: bool | None = None
    """Put the raw coordinate before the encoding."""
    use_pi: bool | None = None
    """Frequencies 2^k pi (True) or 2^k (False)."""
    activation: ActivationName | None = None
    """After every hidden layer."""
    w0: float | None = None
    """Frequency of the sine activation."""
    output: OutputName | None = None
    """From the last layer's y to the value: sigmoid(y), y, tanh(y), output_scale * y + output_shift."""
    output_scale: tuple[float, ...] | None = None
    """Scale of `offset`: one number, or one per channel."""
    output_shift: tuple[float, ...] | None = None
    """Shift of `offset`: one number, or one per channel."""
    coords: Literal["centres", "linspace", "corner"] | None = None
    """Where pixel i of W lies: (2i+1)/W - 1, -1 + 2i/(W-1), or i/W."""
    axes: Literal["xy", "yx"] | None = None
    """Which coordinate stands first: the column's (xy) or the row's (yx)."""

    def given(self) -> dict[str, Any]:
        """What is not None, with a single number as a number."""
        values = {k: v for k, v in asdict(self).items() if v is not None}
        return {k: v[0] if k.startswith("output_") and len(v) == 1 else v for k, v in values.items()}


@dataclass(frozen=True)
class ImportConfig(runs.Overwrites):
    """Turn other people's neural-field weights into a weight dataset, and prove by rendering that they are read rightly.

    A source says how its project lays fields down: keys, orientation of matrices, frequencies, coordinates, offset, and
    what paths mean. Where the pictures are at hand (--signals) every field's PSNR is measured; below --min-psnr the
    import is refused, and the convention that fits better is named. Else look at preview.png. Nothing in a file is run.

    For example:
        python scripts/import_fields.py nefgpt field.pth --signals mnist --data-root DIR --out runs/nefgpt
        python scripts/import_fields.py dwsnets mnist-inrs/ --out runs/dwsnets       # preview.png instead of PSNR
        python scripts/import_fields.py u2ni thingi10k/ --out runs/u2ni
        python scripts/import_fields.py generic nets/ --field.octaves 0 --field.activation sine --field.output linear \\
            --size 28 28 --out runs/nets
    """

    source: Annotated[Name, tyro.conf.Positional]
    """Whose files they are; generic: any state dicts (.pth, .pt, .ckpt, .safetensors), described by --field.*."""
    path: Annotated[Path, tyro.conf.Positional]
    """A file, or a folder whose files of the source's kind are read, in all subfolders."""
    out: Path
    """Folder of the dataset. Fields of several architectures go to OUT/ARCHITECTURE each."""
    signals: str | None = None
    """The pictures they were fitted to: mnist, fashion-mnist, digits, or a folder of images."""
    data_root: Path | None = None
    """Folder with the files of mnist or fashion-mnist, .gz or raw; the network is not touched then."""
    min_psnr: float = 20.0
    """Mean PSNR in dB below which the conventions look wrong and nothing is written."""
    force: bool = False
    """Import although the PSNR is below --min-psnr."""
    size: tuple[int, int] | None = None
    """Height and width of the pictures, where neither signals nor source say it."""
    field_file: Path | None = None
    """A field.json (or the folder of a weight dataset) whose architecture and conventions the fields have."""
    field: Conventions = field(default_factory=Conventions)
    """Changes to the source's conventions."""

    def __post_init__(self):
        if self.data_root is not None and self.signals is None:
            raise ValueError("--data-root says where pictures lie; say which with --signals mnist or fashion-mnist.")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"--size needs a height and a width of at least 1, got {self.size}.")


def main(config: ImportConfig) -> None:
    """The command; exits with 1 when files had to be skipped, after writing the others."""
    report = import_fields(config)
    skipped = report["skipped"]
    if skipped:
        named = "; ".join(f"{name}: {reason}" for name, reason in skipped[:NAMED])
        raise RuntimeError(
            f"{len(skipped):,} of {report['files']:,} files (or rows) are not in the dataset: {named}"
            f"{' ...' if len(skipped) > NAMED else ''}. All are in {config.out / 'import.json'}."
        )


def import_fields(config: ImportConfig) -> dict:
    """Read, prove and save.

    Returns:
        What import.json holds.
    Raises:
        ValueError: if there is nothing to import, or the fields do not show their signals.
    """
    source, (files, left_out) = SOURCES[config.source], find_files(config)
    extra = look_beside(config.path if config.path.is_dir() else config.path.parent)
    files = in_order(files, extra)
    given = _given(config, extra)
    claimed, parents = _identity(config, given), {"files": _digest(files, extra, config.path)}
    free = ("min_psnr", "force")
    claim = partial(runs.claim, config.out, claimed, parents=parents, free=free, kind="import", parts=True)
    made_before = config.out.exists() and not config.overwrite and claim()
    if made_before and (config.out / "import.json").is_file():
        print(f"{config.out} is complete.")
        return runs.read_json(config.out / "import.json", "Delete the folder and run the command again.", dict)
    signals = None
    if config.signals is not None:
        signals = load_signals(SignalsConfig(config.signals, config.data_root))
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
    if config.signals is not None:
        remember(config.out, config.signals, config.data_root)
    report = {"source": config.source, "title": source.title, "files": total, "beside": extra.read}
    report |= {"groups": save(groups, datasets, proofs, batch, config.out), "skipped": skipped}
    runs.write_json(config.out / "import.json", report)
    return report


# -- reading ----------------------------------------------------------------------------------------------------------


def find_files(config: ImportConfig) -> tuple[list[tuple[Path, str]], list[tuple[str, str]]]:
    """The files to read with their names below the folder.

    Returns:
        (file, name) of each, and (name, reason) of those that are not to be read: links that lead elsewhere, and so on.
    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: if no file has an ending of the source's.
    """
    path, suffixes = config.path, SOURCES[config.source].suffixes
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


def in_order(files: list[tuple[Path, str]], extra: Beside) -> list[tuple[Path, str]]:
    """As our own sidecar lists them, else by name with numbers as numbers."""
    rank = {name: i for i, name in enumerate(extra.columns)}

    def key(pair: tuple[Path, str]) -> tuple:
        numbers = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", pair[1])]
        return rank.get(pair[1], len(rank)), numbers, pair[1]

    return sorted(files, key=key)


def _given(config: ImportConfig, extra: Beside) -> dict[str, Any]:
    """`FieldConfig` values that stand above the source's: of our own sidecar, of --field-file, of --field.*."""
    given = dict(extra.stated or {})
    if extra.stated:
        print(f"conventions, ids and splits are taken from {SIDECAR} beside the files")
    if config.field_file is not None:
        given |= load_field(config.field_file)
    return given | config.field.given()


def _identity(config: ImportConfig, given: dict[str, Any]) -> dict:
    """What the output depends on."""
    values = {**asdict(config), "out": None, "path": None, "data_root": None, "field_file": None, "field": given}
    return runs.plain(values)


def _digest(files: list[tuple[Path, str]], extra: Beside, path: Path) -> str:
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
