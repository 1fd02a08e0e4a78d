"""What can be set of samples and pictures. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fields.runtime.flags import LARGEST, Overwrites, Revision, check_numbers
from fields.runtime.text import file_name
from fields.storage.fetch import is_local

LONGEST = 4096
"""Pixels of a picture's longer side that --size may ask for."""


def check_sampling(temperature: float, top_k: int | None, top_p: float | None, guidance: float = 1.0) -> None:
    """Refuse settings that mean nothing.

    Raises:
        ValueError: naming the flag.
    """
    if not 0 <= guidance < float("inf"):
        raise ValueError(f"--guidance must be 0 (the label is not used) or more, got {guidance}.")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"--temperature must be 0 (greedy) or more, got {temperature}.")
    if top_k is not None and top_k < 0:
        raise ValueError(f"--top-k must be at least 1 (0 or None: off), got {top_k}.")
    if top_p is not None and not 0 <= top_p <= 1:
        raise ValueError(f"--top-p must lie in [0, 1], got {top_p}.")


@dataclass(frozen=True)
class SampleConfig(Overwrites):
    """Draw new fields from a trained GPT."""

    model: str
    """Trained GPT: a training folder, a model folder, or user/name on the Hub."""
    out: Path | None = None
    """Output folder for the new weight dataset; default: MODEL-samples beside the model or, if that folder holds fields
    drawn with other settings, a name that adds what differs."""
    n: int = 64
    """Number of fields to draw."""
    first: int = 0
    """Index of the first field. Field i of a seed is the same in every set, so --first 64 continues a set of 64
    fields."""
    label: str | None = None
    """Class to draw, by name or index, for models trained with --labels; without it such a model draws the labels
    too."""
    temperature: float = 1.0
    """Below 1, likelier codes are drawn more often; at 0 always the likeliest, so that all fields are equal. 1 samples
    the distribution the model has learnt."""
    top_k: int | None = None
    """Draw only from the TOP_K likeliest codes; None = all."""
    top_p: float | None = None
    """Draw only from the likeliest codes that together reach this probability; None = all codes."""
    guidance: float = 1.0
    """Strength of the label (classifier-free guidance), for models trained with --label-dropout: 1 = as learnt, above 1
    stronger, 0 = the label is ignored."""
    seed: int = 0
    """Random seed of all draws."""
    grammar: bool = True
    """Allow only tokens that are valid at each position. --no-grammar shows how far the model has learnt this
    itself."""
    cache: bool = True
    """Use a key-value cache; without it the same fields are drawn, more slowly."""
    block: int = 64
    """Number of fields drawn together; memory grows with this number, not with --n."""
    size: tuple[int, int] | None = None
    """Height and width, in pixels, at which the samples are meant to be rendered; default: the size of the training
    signals. A field can be rendered at any size."""
    fields: str | None = None
    """Weight dataset the model was trained on (a folder, or user/name on the Hub): each sample is then drawn beside its
    nearest training field, and the dataset's reference row is copied."""
    tokenizer: str | None = None
    """Tokenizer (a folder, or user/name on the Hub) to decode with instead of the copy stored with the model; it must
    be the one the model was trained with."""
    revision: Revision = None
    precision: Literal["fp32", "onednn"] = "fp32"
    """onednn: float32 too, but faster on AMD CPUs with AVX-512; its different rounding changes about four fields in a
    thousand."""
    threads: int = 1
    """CPU threads per block of fields. Sums of floating-point numbers depend on it, so keep it fixed to reproduce a
    set. A process draws as many blocks at once as it has cores for."""

    def __post_init__(self):
        check_sampling(self.temperature, self.top_k, self.top_p, self.guidance)
        check_numbers(self, least={"n": 1, "first": 0, "seed": 0, "block": 1, "threads": 1})
        if self.first + self.n >= LARGEST:
            raise ValueError(f"--first and --n must together be below 2^63, got {self.first} and {self.n}.")
        if self.size is not None and not all(1 <= side <= LONGEST for side in self.size):
            raise ValueError(f"--size takes two numbers of pixels from 1 to {LONGEST}, got {self.size}.")


@dataclass(frozen=True)
class ShowConfig:
    """Draw a picture of what a folder contains: fields, samples, the fields of tokens or a tokenizer, draws of a model, ...

    For example:
        python scripts/show.py runs/digits/fields --n 100
        python scripts/show.py runs/digits/fields --rows 7 --size 512 512
        python scripts/show.py runs/digits/gpt --out new.png
        python scripts/show.py runs/digits/regions --codebook
        python scripts/show.py user/mnist-fields --split test
    """

    path: Annotated[str, tyro.conf.Positional]
    """What to draw: a weight dataset, samples, tokens, a tokenizer, a model, an evaluation or a comparison; a folder,
    or user/name on the Hub."""
    size: tuple[int, int] | None = None
    """Height and width of each field in pixels; default: the size of the signals. A field can be drawn at any size."""
    n: int = 64
    """Largest number of fields, spread evenly over the split."""
    rows: tuple[int, ...] | None = None
    """Positions in the split of the fields to draw, such as 7 12, instead of --n fields spread over it."""
    split: str | None = None
    """Split of a dataset; default: test, else validation, else the first one."""
    tokenizer: str | None = None
    """Tokenizer (a folder, or user/name on the Hub) of tokens that are stored without it."""
    codebook: bool = False
    """For a tokenizer of regions: draw what each code stands for, the most frequent first, instead of fields."""
    seed: int = 0
    """Random seed of the fields drawn from a model."""
    out: Path | None = None
    """PNG file to write; default: runs/show/NAME.png."""

    def __post_init__(self):
        check_numbers(self, least={"n": 1})
        if self.size is not None and not all(1 <= side <= LONGEST for side in self.size):
            raise ValueError(f"--size takes two numbers of pixels from 1 to {LONGEST}, got {self.size}.")
        if self.rows == ():
            raise ValueError(
                "--rows needs at least one position, such as --rows 7 12. Leave the flag out for --n fields."
            )
        if self.rows is not None and min(self.rows, default=0) < 0:
            raise ValueError(f"--rows must be positions from 0 on, got {min(self.rows)}.")
        if self.out is not None and self.out.suffix.lower() != ".png":
            raise ValueError(f"--out must name a .png file, got {self.out}.")

    @property
    def file(self) -> Path:
        """Where the picture goes."""
        name = "-".join(Path(self.path).parts[-2:]) if is_local(self.path) else self.path.replace("/", "-")
        return self.out or Path("runs/show") / f"{file_name(name)}.png"
