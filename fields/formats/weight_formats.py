"""How other projects lay their fields down: one short description per source, data only.

Widths are never written here, they are read from the tensors. What a format does not store (frequencies, coordinates,
offset, normalisation) lives in the other project's code; each description states it, and `fields.formats.importer` proves it
by rendering. Nothing here reads a file.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from fields.signals.options import DIGITS

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Pictures:
    """A set of pictures that fields are fitted to, numbered through training and then test pictures."""

    name: str
    size: int
    train: int
    """Training pictures: position `train` is the first test picture."""
    total: int
    label_names: tuple[str, ...]


MNIST = Pictures("mnist", 28, 60_000, 70_000, DIGITS)
CIFAR10 = Pictures("cifar10", 32, 50_000, 60_000, CIFAR)


@dataclass(frozen=True)
class WeightFormat:
    """One project's files."""

    title: str
    suffixes: tuple[str, ...]
    """Endings of its files."""
    key: str
    """Pattern of a tensor's key, `{}` for what it is; its group is the layer's number, no number = the last layer."""
    example: str
    """A weight matrix's key, for messages."""
    names: tuple[str, str] = ("weight", "bias")
    """What weight matrices and biases are called."""
    unnumbered: float = math.inf
    """Place of a layer without a number: the last one, or 0 (Keras calls its first layer `dense`)."""
    nested: bool = False
    """Whether all numbers of a key count, as in lists inside lists: net.net.0.0.weight."""
    states: dict[str, Any] = field(default_factory=dict)
    """`FieldConfig` values that the format fixes."""
    kernel: str = "out, in"
    """Axes of a weight matrix: `out, in` (PyTorch) or `in, out` (Keras, Flax)."""
    by_key: tuple[tuple[str, dict[str, Any]], ...] = ()
    """`FieldConfig` values where a key matches the pattern."""
    by_meta: dict[str, str] = field(default_factory=dict)
    """`FieldConfig` key -> key of what the file or its folder says about the network."""
    by_channels: dict[int, dict[str, Any]] = field(default_factory=dict)
    """`FieldConfig` values by the number of outputs: how targets were normalised."""
    refused: tuple[tuple[str, str], ...] = ()
    """Patterns of keys that no field here can have, with the reason."""
    accepted: dict[str, tuple] = field(default_factory=dict)
    """Values that a file's metadata may have, where it has the key at all; not asked where the user gives the field."""
    ignored: str = r"(?!)"
    """Pattern of keys without weights."""
    path: str = r"(?!)"
    """Searched in a file's path. Groups: set, part (train or test), id, index (through train and test), label, seed."""
    dataset: str = ""
    """What the signals are called, where they are no `pictures`."""
    pictures: tuple[Pictures, ...] = ()
    """Sets of pictures, told apart by the number of channels."""
    validation: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By channels: positions (from, to) of the validation split; below is train, above is test."""
    quantity: str = ""
    """What a 3-D field's value is."""
    inside: str = ""
    """Which side of a 3-D field's surface is the object: `below 0` or `above 0` (of the last layer's output); empty = by the output."""

    def pictures_of(self, channels: int) -> Pictures | None:
        """The set with 1 (gray) or 3 channels, if the source has one."""
        gray = [p for p in self.pictures if (p is MNIST) == (channels == 1)]
        return gray[0] if gray else None


SIREN = {"octaves": 0, "activation": "sine", "w0": 30.0, "coords": "linspace"}
SDF, OCCUPANCY = "signed distance", "occupancy logit"

WEIGHT_FORMATS: dict[str, WeightFormat] = {
    "nefgpt": WeightFormat(
        title="NeF-GPT",
        suffixes=(".pth", ".pt"),
        key=r"layers\.(\d+)\.{}",
        example="layers.0.weight",
        states={"octaves": 4, "raw_input": False, "use_pi": False, "output": "logit", "coords": "corner", "axes": "xy"},
        by_meta={"octaves": "multires", "raw_input": "include_input", "in_dim": "input_dims"},
        accepted={"use_leaky_relu": (False,), "output_type": ("logits", "occ"), "input_dims": (2, 3)},
        path=r"(?:(?P<part>train|test)(?:ing)?(?:_|/(?:[a-z]+_)?))?(?P<id>\d+)\.\w+$",
        pictures=(MNIST,),
        quantity=OCCUPANCY,
        inside="above 0",
    ),
    "dwsnets": WeightFormat(
        title="DWSNets",
        suffixes=(".pth",),
        key=r"seq\.(\d+)\.{}",
        example="seq.0.weight",
        states={**SIREN, "output": "offset", "output_scale": 1.0, "output_shift": 0.5, "axes": "xy"},
        path=r"(?P<set>[\w-]+?)_png_(?P<part>training|testing)_(?P<label>-?\d+)_(?P<id>\d+)(?:-(?P<seed>\d+))?/",
        pictures=(MNIST,),
    ),
    "nfn": WeightFormat(
        title="NFN",
        suffixes=(".pth",),
        key=r"net\.(\d+)(?:\.linear)?\.{}",
        example="net.0.linear.weight",
        states={
            **SIREN,
            "output": "offset",
            "output_scale": 0.5,
            "output_shift": 0.5,
            "axes": "yx",
        },  # [-1, 1] -> [0, 1]
        path=r"(?:aug(?P<seed>\d+)_)?(?P<label>\d+)s/net(?P<index>\d+)\.\w+$",
        pictures=(MNIST, CIFAR10),
        validation={1: (45_000, 50_000), 3: (45_000, 50_000)},
    ),
    "arena": WeightFormat(
        title="fit-a-nef / Neural Field Arena",
        suffixes=(".hdf5",),
        key=r"(?:kernel_net_(\d+)\.linear|Dense_(\d+)|output_linear)\.{}",
        names=("kernel", "bias"),
        example="kernel_net_0.linear.kernel",
        kernel="in, out",
        states={"octaves": 0, "w0": 8.0, "output": "offset", "coords": "linspace", "axes": "xy"},
        by_key=((r"kernel_net_0\.", {"activation": "sine"}), (r"Dense_0\.", {"activation": "relu"})),
        by_meta={"w0": "omega_0"},
        by_channels={
            1: {"output_scale": 0.30810782, "output_shift": 0.13066047},
            3: {
                "output_scale": (0.24697122, 0.24338895, 0.2615926),
                "output_shift": (0.49186882, 0.48265392, 0.44717726),
            },
        },
        refused=((r"filters?_|linear_layers|coefficients", "a multiplicative filter or random Fourier network"),),
        accepted={"name": ("SIREN", "MLP"), "dataset": ("MNIST", "CIFAR10")},
        path=r"nefs_(?P<index>\d+)-\d+\.\w+$",
        pictures=(MNIST, CIFAR10),
        validation={1: (55_000, 60_000), 3: (45_000, 50_000)},
    ),
    "hyperdiffusion": WeightFormat(
        title="HyperDiffusion",
        suffixes=(".pth",),
        key=r"layers\.(\d+)\.{}",
        example="layers.0.weight",
        states={"in_dim": 3, "octaves": 4, "use_pi": False, "output": "logit"},
        path=r"occ_(?P<id>[^_/]+)_jitter_(?P<seed>\d+)",
        dataset="shapenet",
        quantity="occupancy logit (bounds +-0.475; its authors mesh at 1.386)",
        inside="above 0",
    ),
    "implicit-zoo": WeightFormat(
        title="Implicit-Zoo CIFAR-10",
        suffixes=(".ckpt",),
        key=r"seq\.(\d+)\.{}",
        example="seq.0.weight",
        states={**SIREN, "output": "offset", "axes": "xy"},
        by_channels={3: {"output_scale": (0.229, 0.224, 0.225), "output_shift": (0.485, 0.456, 0.406)}},
        path=r"(?P<label>\d\d)/(?P<index>\d{6})_(?P<seed>\d+)\.ckpt$",
        pictures=(CIFAR10,),
    ),
    "u2ni": WeightFormat(
        title="Weight-Encoded Neural Implicits",
        suffixes=(".h5",),
        key=r"(?:.*/)?dense(?:_(\d+))?/{}(?::0)?",
        names=("kernel", "bias"),
        example="dense/dense/kernel:0",
        unnumbered=0,
        kernel="in, out",
        states={"in_dim": 3, "octaves": 0, "activation": "relu", "output": "tanh"},
        path=r"(?P<id>\d+)_sf\.h5$",
        dataset="thingi10k",
        quantity=SDF,
        inside="below 0",
    ),
    "niq": WeightFormat(
        title="neural-implicit-queries",
        suffixes=(".npz",),
        key=r"(\d+)\.dense\.{}",
        names=("A", "b"),
        example="0000.dense.A",
        kernel="in, out",
        states={"in_dim": 3, "octaves": 0, "output": "linear"},
        by_key=(
            (r"\d+\.relu\._", {"activation": "relu"}),
            (r"\d+\.elu\._", {"activation": "elu"}),
            (r"\d+\.sin\._", {"activation": "sine", "w0": 1.0}),
        ),
        refused=((r".*(pow2_frequency_encode|spatial_transformation)", "an operation that no field here has"),),
        ignored=r"\d+\.(relu|elu|sin|squeeze_last)\._",
        path=r"(?P<id>[^/]+)\.npz$",
        dataset="niq",
        quantity=SDF,
        inside="below 0",
    ),
    "generic": WeightFormat(
        title="state dicts",
        suffixes=(".pth", ".pt", ".ckpt", ".safetensors"),
        key=r"(?:(?:.*\D)?(\d+)\D*|\D*){}",
        example="layers.0.weight",
        nested=True,
        quantity="as the field's output says",
    ),
}
