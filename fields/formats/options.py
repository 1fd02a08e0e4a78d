"""What can be set when fields are imported, exported or written as surfaces. Nothing here imports PyTorch."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from fields.activations import ACTIVATIONS, OUTPUTS
from fields.formats.weight_formats import WEIGHT_FORMATS
from fields.runtime.flags import Overwrites, check_numbers

if TYPE_CHECKING:  # a checker cannot know what stands in the registry
    Name = str
else:
    Name = Literal[tuple(WEIGHT_FORMATS)]
Format = Literal["state-dicts", "safetensors", "dwsnets", "arena"]

if TYPE_CHECKING:  # as in fields.model, which would import PyTorch
    Activation = str
    Output = str
else:
    Activation = Literal[tuple(ACTIVATIONS)]
    Output = Literal[tuple(OUTPUTS)]


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
    activation: Activation | None = None
    """After every hidden layer."""
    w0: float | None = None
    """Frequency of the sine activation."""
    output: Output | None = None
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
class ImportConfig(Overwrites):
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


@dataclass(frozen=True)
class ExportConfig(Overwrites):
    """Write the fields of a weight dataset as other projects' code reads them.

    state-dicts: SPLIT/SIGNAL.pth, each with layers.0.weight, layers.0.bias, ...; safetensors: SPLIT.safetensors with the
    same keys, all fields stacked along a first axis; dwsnets: folders and a split JSON as DWSNets' MNIST-INRs have them;
    arena: HDF5 files as fit-a-nef and the Neural Field Arena have them. What a format has no place for (ids, seeds,
    quality, the field's conventions) goes to fields.json beside the files; fields.formats.importer reads it again.

    For example:
        python scripts/export_fields.py runs/mnist/fields --format safetensors --out runs/mnist/stacked
        python scripts/export_fields.py runs/mnist/fields --format arena --out runs/mnist/arena
        python scripts/import_fields.py arena runs/mnist/arena --out runs/mnist/back      # the same rows
    """

    fields: Annotated[str, tyro.conf.Positional]
    """A weight dataset: a folder, or user/name on the Hub."""
    format: Format
    """What to write."""
    out: Path
    """Folder to write."""


@dataclass(frozen=True)
class MeshConfig(Overwrites):
    """Write the surfaces of 3-D fields as meshes, with a contact sheet.

    For example:
        python scripts/mesh.py --fields runs/solids/fields --out runs/solids/meshes --split test --n 100
        python scripts/mesh.py --fields runs/solids/samples --out runs/solids/new --size 256 --turntable 4
    """

    fields: Path
    """Weight dataset of fields with 3 coordinates."""
    out: Path
    """Output folder."""
    split: str | None = None
    """Split of the dataset; None = its first."""
    n: int | None = None
    """Only the first N fields; None = all."""
    size: int = 128
    """Cells along an edge of the cube; memory and time grow with its third power."""
    format: Literal["glb", "ply", "obj", "stl", "off"] = "glb"
    """File format."""
    level: float = 0.0
    """Value of the last layer at the surface; HyperDiffusion meshes its logits at 1.386."""
    inside: Literal["above", "below"] | None = None
    """Side of the level on which the inside lies; None = as the dataset says."""
    picture: int = 192
    """Pixels along an edge of each view on the contact sheet; 0 = no sheet."""
    sheet: int = 100
    """Most fields on the contact sheet."""
    turntable: int = 0
    """Fields of which a GIF is made that goes round them."""

    def __post_init__(self):
        from fields.view.mesh import LARGEST

        if not 8 <= self.size <= LARGEST:
            raise ValueError(f"--size must lie in 8 .. {LARGEST} cells along an edge, got {self.size}.")
        check_numbers(self, least={"picture": 0, "turntable": 0, "sheet": 0, "n": 1})
