"""What can be set when fields are fitted or aligned. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fields.runtime.flags import Overwrites, check_numbers
from fields.signals.options import SignalsConfig

Start = Literal["unconditioned", "conditioned", "meta", "amortised", "subspace"]
How = Literal["match", "sort"]


@dataclass(frozen=True)
class AlignConfig(Overwrites):
    """Reorder (and rescale) the hidden neurons of every field to lie close to one another; no field computes another value.

    Fields fitted from random weights differ by permutations of their neurons and, with ReLU, by scales. What is left
    after alignment is closer in weight space: easier to interpolate, to quantise and to learn.

    For example:
        python scripts/fit_fields.py --start unconditioned --out runs/digits/unconditioned
        python scripts/align_fields.py --fields runs/digits/unconditioned --out runs/digits/aligned
        python scripts/align_fields.py --fields runs/digits/unconditioned --how sort --out runs/digits/sorted
    """

    fields: str
    """A weight dataset: a folder, or user/name on the Hub."""
    out: Path
    """Folder for the aligned one."""
    how: How = "match"
    """match: neurons matched to those of one field. sort: without any other field, each layer's neurons ascend by their
    weights on the output along all paths. A row then depends on its own field alone, but a little noise can swap two."""
    reference: str | None = None
    """Signal id of the training field that all are matched to (--how match); default: the training field with the highest PSNR."""
    threads: int | None = None
    """CPU threads; None = PyTorch's choice."""

    def __post_init__(self):
        if self.reference is not None and self.how != "match":
            raise ValueError("--reference belongs to --how match: nothing is matched when neurons are sorted.")
        check_numbers(self, least={"threads": 1})


@dataclass(frozen=True)
class FieldOptions:
    """Changes to the architecture that the signals suggest; None keeps it. See `fields.model.FieldConfig`."""

    preset: str | None = None
    """A named architecture instead of the suggested one: digits | default | shape-small | shape-large."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers."""
    octaves: int | None = None
    """Octaves of the Fourier encoding, 0 = none."""
    in_dim: int | None = None
    """Coordinates of a point; the signals say it."""
    raw_input: bool | None = None
    """Put the raw coordinate before the encoding."""
    use_pi: bool | None = None
    """Frequencies 2^k pi instead of 2^k."""
    activation: str | None = None
    """relu | sine | elu."""
    w0: float | None = None
    """Frequency of the sine activation."""
    output: str | None = None
    """logit | linear | tanh | offset."""
    coords: str | None = None
    """centres | linspace | corner."""


@dataclass(frozen=True)
class FitConfig(SignalsConfig, Overwrites):
    """Fit one neural field to every signal and write a weight dataset.

    For example:
        python scripts/fit_fields.py                                  # the embedded digits
        python scripts/fit_fields.py --signals mnist --data-root DIR  # files laid by hand, no network
        python scripts/fit_fields.py --signals photos/ --field.hidden 32 32 --steps 500
        python scripts/fit_fields.py --signals user/name --image-column image --label-column label --resize 32 --crop
    """

    out: Path | None = None
    """Output folder; default runs/SIGNALS/fields, or, where that was fitted otherwise, a name with what differs."""
    start: Start = "meta"
    """unconditioned: random weights; conditioned: one fitted field; meta: a start learnt over the training signals;
    amortised: a row predicted from each signal by an encoder learnt on the training signals; subspace:
    a row and directions learnt over the training signals, in which all fits move."""
    reference: str | None = None
    """For conditioned: the id of a training signal, or a weight dataset whose reference is taken over; for amortised: a
    weight dataset whose encoder is taken over, for subspace one whose row and directions are."""
    steps: int | None = None
    """Adam steps per field; None = 64 for pictures and 400 for shapes, 3.2 times as many where the start is not learnt,
    three quarters where it is amortised."""
    lr: float = 1e-2
    """Learning rate, at the start of the cosine."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Of Adam. Short memory suits short fits: better by 3 dB than (0.9, 0.999), and the weights move half as far."""
    pixels: float | None = None
    """Share of the pixels each step sees; None = half of a picture of 256 pixels or more (a quarter for amortised), else
    all."""
    target_psnr: float | None = None
    """Stop a field when it reaches this many dB."""
    align: bool = False
    """Afterwards match the neurons of all fields to those of the best one, which brings fields of --start unconditioned
    closer together; no field computes another value. As scripts/align_fields.py does with an existing dataset."""
    fits: int | None = None
    """Fits per signal, each with its own seed; None = 4 for the few embedded digits, else 1."""
    jitter: float = 0.01
    """Standard deviation of the noise on the start of every fit after the first."""
    limit: int | None = None
    """Only the first LIMIT signals of each split, for a trial."""
    seed: int = 0
    """Of starts and pixel subsets."""
    meta_steps: int = 300
    """Outer steps of Reptile."""
    encoder_steps: int = 3000
    """Steps of the encoder of amortised."""
    dimensions: int = 128
    """Directions of subspace."""
    subspace_steps: int = 4000
    """Steps in which subspace is learnt."""
    threads: int | None = None
    """CPU threads per process; None = cores / processes."""
    field: FieldOptions = field(default_factory=FieldOptions)
    """Changes to the architecture."""

    def __post_init__(self):
        from fields.signals.registry import LOADERS

        super().__post_init__()
        if self.fits is None:
            object.__setattr__(self, "fits", LOADERS[self.signals].fits if self.signals in LOADERS else 1)
        counts = ("steps", "fits", "meta_steps", "encoder_steps", "dimensions", "subspace_steps", "limit")
        check_numbers(self, least=dict.fromkeys(counts, 1), above=("lr",))
        if self.pixels is not None and not 0 < self.pixels <= 1:
            raise ValueError(f"--pixels is a share in (0, 1], got {self.pixels}.")
        if not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"--betas must lie in [0, 1), got {self.betas}.")

    @property
    def folder(self) -> Path:
        """Where the dataset goes."""
        return self.out or Path("runs") / Path(self.signals).resolve().name / "fields"
