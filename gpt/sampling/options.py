"""What can be set of samples and pictures. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fields.runtime.flags import Overwrites, check_numbers
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
    """Training folder, model folder, or user/name on the Hub."""
    out: Path
    """Folder for the new weight dataset."""
    n: int = 64
    """Fields."""
    first: int = 0
    """Number of the first field: field i is the same in every set of one seed."""
    label: str | None = None
    """Class name or index, for models trained with --labels; without it such a model draws the label too."""
    temperature: float = 1.0
    """Below 1: likelier codes; 0: always the likeliest, so all fields are equal."""
    top_k: int | None = None
    """Only the k likeliest codes."""
    top_p: float | None = None
    """Only the likeliest codes that together reach this probability."""
    guidance: float = 1.0
    """How much the label counts, for models trained with --label-dropout: 1 = as learnt, above 1 more, 0 not at all."""
    seed: int = 0
    """Of all draws."""
    grammar: bool = True
    """Allow at each place only what belongs there; --no-grammar shows what the model has learnt."""
    cache: bool = True
    """Key-value cache; without it the same fields, slowly."""
    block: int = 64
    """Fields computed together; memory grows with it, not with --n."""
    size: tuple[int, int] | None = None
    """Height and width of the pictures that the fields are, instead of the training signals'; a field has any."""
    fields: str | None = None
    """Training dataset (folder or user/name): each sample is drawn beside its nearest neighbour, and the reference row is copied."""
    tokenizer: str | None = None
    """Tokenizer (folder or user/name) to decode with instead of the model's copy; any other than the one it was trained with is refused."""
    revision: str | None = None
    """Branch, tag or commit of the Hub names given; one alone may have its own: user/name@v1."""
    precision: Literal["fp32", "onednn"] = "fp32"
    """onednn: float32 as well, faster on AMD CPUs with AVX-512; its other roundings change some four fields in a thousand."""
    threads: int = 1
    """CPU threads per block of fields; the order of float sums depends on it, so it is fixed. A process draws as many blocks
    at a time as it has cores for."""

    def __post_init__(self):
        check_sampling(self.temperature, self.top_k, self.top_p, self.guidance)
        check_numbers(self, least={"n": 1, "first": 0, "seed": 0, "block": 1, "threads": 1})
        if self.size is not None and not all(1 <= side <= LONGEST for side in self.size):
            raise ValueError(f"--size takes two numbers of pixels from 1 to {LONGEST}, got {self.size}.")


@dataclass(frozen=True)
class ShowConfig:
    """Draw what a folder holds.

    For example:
        python scripts/show.py runs/digits/fields --n 100
        python scripts/show.py runs/digits/fields --rows 7 --size 512 512
        python scripts/show.py runs/digits/gpt --out new.png
        python scripts/show.py runs/digits/regions --codebook
        python scripts/show.py user/mnist-fields --split test
    """

    path: Annotated[str, tyro.conf.Positional]
    """Weight dataset, samples, tokens, tokenizer, model, evaluation or comparison: a folder, or user/name on the Hub."""
    size: tuple[int, int] | None = None
    """Height and width in pixels; default: the size of the signals. A field can be drawn at any size."""
    n: int = 64
    """Fields at most, spread evenly over the split."""
    rows: tuple[int, ...] | None = None
    """Positions in the split, instead of N spread over it."""
    split: str | None = None
    """Split of a dataset; default: test, else validation, else the first there is."""
    tokenizer: str | None = None
    """Tokenizer (folder or user/name) of tokens that lie apart from it."""
    codebook: bool = False
    """Of a tokenizer of regions: what each code stands for, the most frequent first, instead of fields."""
    seed: int = 0
    """Of what a model draws."""
    out: Path | None = None
    """The PNG to write; default runs/show/NAME.png."""

    def __post_init__(self):
        check_numbers(self, least={"n": 1})
        if self.size is not None and not all(1 <= side <= LONGEST for side in self.size):
            raise ValueError(f"--size takes two numbers of pixels from 1 to {LONGEST}, got {self.size}.")
        if self.rows is not None and min(self.rows, default=0) < 0:
            raise ValueError(f"--rows are positions from 0 on, got {min(self.rows)}.")
        if self.out is not None and self.out.suffix.lower() != ".png":
            raise ValueError(f"--out must name a .png file, got {self.out}.")

    @property
    def file(self) -> Path:
        """Where the picture goes."""
        name = "-".join(Path(self.path).parts[-2:]) if is_local(self.path) else self.path.replace("/", "-")
        return self.out or Path("runs/show") / f"{file_name(name)}.png"
