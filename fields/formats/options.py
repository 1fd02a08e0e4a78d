"""What can be set when fields are imported, exported or written as surfaces. Nothing here imports PyTorch."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from fields.fitting.options import Architecture
from fields.formats.weight_formats import WEIGHT_FORMATS
from fields.runtime.flags import Overwrites, check_numbers

if TYPE_CHECKING:  # a checker cannot know what stands in the registry
    Name = str
else:
    Name = Literal[tuple(WEIGHT_FORMATS)]
Format = Literal["state-dicts", "safetensors", "dwsnets", "arena"]


@dataclass(frozen=True)
class Conventions(Architecture):
    """Architecture and conventions of the fields, where they differ from the source's. See `fields.model.FieldConfig`."""

    out_dim: int | None = None
    """Number of channels. Default: what the files contain."""
    output_scale: tuple[float, ...] | None = None
    """Scale of the offset output: one number, or one per channel."""
    output_shift: tuple[float, ...] | None = None
    """Shift of the offset output: one number, or one per channel."""
    axes: Literal["xy", "yx"] | None = None
    """Which coordinate comes first: the column's (xy) or the row's (yx)."""

    def given(self) -> dict[str, Any]:
        """What is not None, with a single number as a number."""
        values = {k: v for k, v in asdict(self).items() if v is not None}
        return {k: v[0] if k.startswith("output_") and len(v) == 1 else v for k, v in values.items()}


@dataclass(frozen=True)
class ImportConfig(Overwrites):
    """Turn neural-field weights of other projects into a weight dataset, and check by rendering that they are read correctly.

    A source describes how its project stores fields: keys, orientation of matrices, frequencies, coordinates, offset, and
    the meaning of paths. If the pictures are available (--signals), every field's PSNR is measured; below --min-psnr the
    import is refused, and the convention that fits better is named. Otherwise look at preview.png. No code in a file is run.

    For example:
        python scripts/import_fields.py nefgpt field.pth --signals mnist --data-root DIR --out runs/nefgpt
        python scripts/import_fields.py dwsnets mnist-inrs/ --out runs/dwsnets       # preview.png instead of PSNR
        python scripts/import_fields.py u2ni thingi10k/ --out runs/u2ni
        python scripts/import_fields.py generic nets/ --field.octaves 0 --field.activation sine --field.output linear \\
            --size 28 28 --out runs/nets
    """

    source: Annotated[Name, tyro.conf.Positional]
    """The project that wrote the files. generic: any state dicts (.pth, .pt, .ckpt, .safetensors), described by
    --field.*."""
    path: Annotated[Path, tyro.conf.Positional]
    """A file, or a folder whose files of that format are read, subfolders included."""
    out: Path
    """Output folder for the dataset. Fields of several architectures are written to OUT/ARCHITECTURE each."""
    signals: str | None = None
    """The pictures the fields were fitted to, for measuring PSNR: mnist, fashion-mnist, digits, or a folder of
    pictures."""
    data_root: Path | None = None
    """Folder with the files of mnist or fashion-mnist (.gz or unpacked); nothing is downloaded then."""
    min_psnr: float = 20.0
    """Lowest mean PSNR in dB that is accepted; below it the conventions are probably wrong, and nothing is written."""
    force: bool = False
    """Import even if the PSNR is below --min-psnr."""
    size: tuple[int, int] | None = None
    """Height and width of the pictures in pixels, needed if neither the signals nor the files state them."""
    field_file: Path | None = None
    """A field.json, or the folder of a weight dataset, whose architecture and conventions the fields share."""
    field: Conventions = field(default_factory=Conventions)
    """Changes to the source's conventions. None keeps what the source says."""

    def __post_init__(self):
        if self.data_root is not None and self.signals is None:
            raise ValueError(
                "--data-root is the folder of the pictures of --signals mnist or fashion-mnist. Give --signals too."
            )
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"--size needs a height and a width of at least 1, got {self.size}.")


@dataclass(frozen=True)
class ExportConfig(Overwrites):
    """Write the fields of a weight dataset in formats that other projects read.

    state-dicts: SPLIT/SIGNAL.pth, each with layers.0.weight, layers.0.bias, ...; safetensors: SPLIT.safetensors with the
    same keys, all fields stacked along a first axis; dwsnets: folders and a split JSON like those of DWSNets' MNIST-INRs;
    arena: HDF5 files like those of fit-a-nef and the Neural Field Arena. What a format cannot hold (ids, seeds, quality,
    the field's conventions) goes to fields.json beside the files, which scripts/import_fields.py reads.

    For example:
        python scripts/export_fields.py runs/mnist/fields --format safetensors --out runs/mnist/stacked
        python scripts/export_fields.py runs/mnist/fields --format arena --out runs/mnist/arena
        python scripts/import_fields.py arena runs/mnist/arena --out runs/mnist/back      # the same rows
    """

    fields: Annotated[str, tyro.conf.Positional]
    """Weight dataset to export: a folder, or user/name on the Hub."""
    format: Format
    """File format to write; see above."""
    out: Path
    """Output folder."""


@dataclass(frozen=True)
class MeshConfig(Overwrites):
    """Write the surfaces of fields of three coordinates as mesh files, with a contact sheet.

    For example:
        python scripts/mesh.py --fields runs/solids/fields --out runs/solids/meshes --split test --n 100
        python scripts/mesh.py --fields runs/solids/samples --out runs/solids/new --size 256 --turntable 4
    """

    fields: Path
    """Folder of a weight dataset of fields with 3 coordinates."""
    out: Path | None = None
    """Output folder for the meshes and the contact sheet; default: meshes beside the fields or, if that folder holds
    meshes made otherwise, a name that adds what differs."""
    split: str | None = None
    """Split of the dataset; None = its first."""
    n: int | None = None
    """Export only the first N fields; None = all."""
    size: int = 128
    """Grid cells along an edge of the cube: more of them give finer meshes; memory and time grow with the third
    power."""
    format: Literal["glb", "ply", "obj", "stl", "off"] = "glb"
    """File format of the meshes."""
    level: float = 0.0
    """Output of the last layer at which the surface lies; HyperDiffusion meshes its logits at 1.386."""
    inside: Literal["above", "below"] | None = None
    """Whether the inside of the shape is where the output is above or below --level; None = as the dataset says."""
    picture: int = 192
    """Size in pixels of each view on the contact sheet; 0 = no contact sheet."""
    sheet: int = 100
    """Largest number of fields on the contact sheet."""
    turntable: int = 0
    """Number of fields for which a rotating view is written as a GIF."""

    def __post_init__(self):
        from fields.view.mesh import LARGEST

        if not 8 <= self.size <= LARGEST:
            raise ValueError(f"--size must lie in 8 .. {LARGEST} cells along an edge, got {self.size}.")
        check_numbers(self, least={"picture": 0, "turntable": 0, "sheet": 0, "n": 1})
