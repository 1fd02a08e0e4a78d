"""What can be set when fields are fitted or aligned. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fields.activations import ACTIVATIONS, OUTPUTS
from fields.runtime.flags import Overwrites, check_numbers
from fields.signals.options import SignalsConfig

Start = Literal["unconditioned", "conditioned", "meta", "amortised", "subspace"]
How = Literal["match", "sort"]
if TYPE_CHECKING:  # as in fields.model, which would import PyTorch
    Activation = str
    Output = str
else:
    Activation = Literal[tuple(ACTIVATIONS)]
    Output = Literal[tuple(OUTPUTS)]


@dataclass(frozen=True)
class AlignConfig(Overwrites):
    """Reorder (and rescale) the hidden neurons of every field so that equal neurons stand at equal places in all rows.

    The function of a field does not change. Fields fitted from random weights differ by the order of their neurons and,
    with ReLU, by scales. Aligned fields are closer in weight space: easier to interpolate, to quantise and to learn.

    For example:
        python scripts/fit_fields.py --start unconditioned --out runs/digits/unconditioned
        python scripts/align_fields.py --fields runs/digits/unconditioned
        python scripts/align_fields.py --fields runs/digits/unconditioned --how sort --out runs/digits/sorted
    """

    fields: str
    """Weight dataset to align: a folder, or user/name on the Hub."""
    out: Path | None = None
    """Output folder for the aligned dataset; default: aligned (with --how sort: sorted) beside the fields or, if that
    folder holds others, a name that adds what differs."""
    how: How = "match"
    """match: permute the hidden neurons of every field so that they match those of one field (see --reference). sort:
    order the neurons of each layer by the total weight of their paths to the output, lowest first. A sorted row depends
    on its own field alone, but a little noise can swap two of its neurons."""
    reference: str | None = None
    """For --how match: id of the training signal whose field all others are matched to; default: that of the training
    field with the highest PSNR."""
    threads: int | None = None
    """CPU threads; None = PyTorch's default."""

    def __post_init__(self):
        if self.reference is not None and self.how != "match":
            raise ValueError(
                "--reference is for --how match only: sorted neurons are not matched to any field. Leave it out."
            )
        check_numbers(self, least={"threads": 1})


@dataclass(frozen=True)
class Architecture:
    """Changes to an architecture, of fits and of imports; None keeps what it is. See `fields.model.FieldConfig`."""

    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers, such as 32 32. An import takes them from its files; files of other widths than given
    are refused."""
    octaves: int | None = None
    """Octaves of the Fourier encoding: sines and cosines of 1, 2, 4, ... times the coordinate; 0 = none. More of them
    capture finer detail."""
    in_dim: int | None = None
    """Number of coordinates of a point: 2 for pictures, 3 for shapes."""
    raw_input: bool | None = None
    """The network reads the coordinates themselves as well as their encoding."""
    use_pi: bool | None = None
    """The encoding's frequencies are 2^k pi (True) or 2^k (False)."""
    activation: Activation | None = None
    """Activation after every hidden layer."""
    w0: float | None = None
    """Frequency of the sine activation, sin(w0 z); unused by the others."""
    output: Output | None = None
    """How the last layer's output y becomes the value: logit: sigmoid(y); linear: y; tanh: tanh(y); offset:
    scale * y + shift."""
    coords: Literal["centres", "linspace", "corner"] | None = None
    """Where pixel i of W lies: centres: (2i+1)/W - 1; linspace: -1 + 2i/(W-1); corner: i/W."""


@dataclass(frozen=True)
class FieldOptions(Architecture):
    """Changes to the architecture that suits the signals; None keeps it."""

    preset: str | None = None
    """A named architecture in place of the suggested one: digits | default | shape-small | shape-medium | shape-large."""


@dataclass(frozen=True)
class FitConfig(SignalsConfig, Overwrites):
    """Fit one neural field to every signal and write a weight dataset.

    For example:
        python scripts/fit_fields.py                                  # the digits that come with scikit-learn
        python scripts/fit_fields.py --signals mnist --data-root DIR  # MNIST's files lie in DIR, no download
        python scripts/fit_fields.py --signals photos/ --field.hidden 32 32 --steps 500
        python scripts/fit_fields.py --signals user/name --image-column image --label-column label --resize 32 --crop
    """

    out: Path | None = None
    """Output folder; default: runs/SIGNALS/fields or, if that folder holds fits made with other settings, a name that
    adds what differs."""
    start: Start = "meta"
    """The weights every fit starts from. unconditioned: random weights, different for each field. conditioned: the
    weights of one fitted field. meta: one row of weights learnt over the training signals (Reptile). amortised: a row
    predicted from each signal by an encoder learnt on the training signals. subspace: a row and a few directions learnt
    over the training signals; all fits move along these directions only."""
    reference: str | None = None
    """Take the start from existing data instead of making it. conditioned: the id of a training signal, or a weight
    dataset whose reference row is used. amortised: a weight dataset whose encoder is used. subspace: a weight dataset
    whose row and directions are used."""
    steps: int | None = None
    """Adam steps per field; None = 64 for pictures and 400 for shapes, 3.2 times as many if the start is not learnt,
    three quarters if it is amortised."""
    lr: float = 1e-2
    """Initial learning rate; it falls to zero along a cosine."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Adam's decay rates of the gradient's mean and square. The defaults suit short fits: 3 dB better than (0.9,
    0.999), and the weights move half as far."""
    pixels: float | None = None
    """Share of the pixels used in each step, 0 to 1; None = half for pictures of 256 pixels or more (a quarter with
    --start amortised), otherwise all."""
    target_psnr: float | None = None
    """Stop fitting a field once it reaches this PSNR in dB; None = always take all steps."""
    align: bool = False
    """After fitting, match the neurons of all fields to those of the best field, which brings fields of --start
    unconditioned closer together without changing the function of any of them. scripts/align_fields.py does the same to
    an existing dataset."""
    fits: int | None = None
    """Fits per signal, each with its own seed; None = 4 for the digits, which are few, otherwise 1."""
    jitter: float = 0.01
    """Standard deviation of the noise added to the start of every fit after a signal's first, so that its fits
    differ."""
    limit: int | None = None
    """Use only the first LIMIT signals of each split, for a quick trial; None = all."""
    seed: int = 0
    """Random seed of the starts and of the pixels drawn in each step."""
    meta_steps: int = 300
    """For --start meta: outer steps of Reptile."""
    encoder_steps: int = 3000
    """For --start amortised: optimiser steps of the encoder."""
    dimensions: int = 128
    """For --start subspace: number of directions."""
    subspace_steps: int = 4000
    """For --start subspace: optimiser steps in which the row and the directions are learnt."""
    threads: int | None = None
    """CPU threads per process; None = cores / processes."""
    field: FieldOptions = field(default_factory=FieldOptions)
    """Changes to the architecture. None keeps what suits the signals."""

    def __post_init__(self):
        from fields.signals.registry import LOADERS

        super().__post_init__()
        if self.fits is None:
            object.__setattr__(self, "fits", LOADERS[self.signals].fits if self.signals in LOADERS else 1)
        counts = ("steps", "fits", "meta_steps", "encoder_steps", "dimensions", "subspace_steps", "limit")
        check_numbers(self, least=dict.fromkeys(counts, 1), above=("lr",))
        if self.pixels is not None and not 0 < self.pixels <= 1:
            raise ValueError(f"--pixels must be a share in (0, 1], got {self.pixels}.")
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"--betas must lie in [0, 1), got {self.betas}.")

    @property
    def folder(self) -> Path:
        """The default output folder."""
        return self.out or Path("runs") / Path(self.signals).resolve().name / "fields"
