"""What can be set of each animation. Nothing here imports PyTorch or matplotlib, so that --help is there at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from fields.runtime.flags import check_numbers
from gpt.sampling.options import check_sampling

MOST = 12
"""Hidden neurons that can be told apart."""
SHOWN = 3
"""Held-out fields drawn beside a vocabulary."""


@dataclass(frozen=True)
class Film:
    """Where an animation goes and how it looks; every animation's config has these."""

    out: Path | None = None
    """File ending in .mp4 or .gif; default runs/animations/NAME.mp4, or NAME.gif with --readme."""
    theme: Literal["light", "dark"] = "light"
    """Dark text on white, or light text on dark."""
    readme: bool = False
    """A GIF 832 pixels wide and below 3 MB, instead of an MP4 for slides (1280 x 720)."""
    seconds: float | None = None
    """Of motion, the hold of the last frame not counted; default 12 to 15, and 7 or 8 with --readme."""
    fps: float | None = None
    """Frames per second; default 25 for .mp4, 10 for .gif, 8 with --readme."""
    hold: float = 2.5
    """Seconds for which the last frame stays."""
    seed: int = 0
    """Of everything random: the same seed, the same film."""
    slide_seconds: ClassVar[float] = 12.0
    readme_seconds: ClassVar[float] = 8.0

    def __post_init__(self):
        if self.out is not None and self.out.suffix.lower() not in (".mp4", ".gif"):
            raise ValueError(f"--out must end in .mp4 or .gif, got {self.out}.")
        if self.readme and self.out is not None and self.out.suffix.lower() != ".gif":
            raise ValueError(f"--readme makes a GIF, so --out must end in .gif, got {self.out}.")
        if not 0 < self.length <= 600 or not 0 <= self.hold <= 60:
            raise ValueError(
                f"--seconds must lie in (0, 600] and --hold in [0, 60], got {self.length} and {self.hold}."
            )
        if self.fps is not None and not 0 < self.fps <= (50 if self.gif else 60):
            raise ValueError(f"--fps must lie above 0 and not above 60 (50 for a GIF), got {self.fps}.")
        check_numbers(self, least={"seed": 0})

    @property
    def gif(self) -> bool:
        """Whether a GIF is made."""
        return self.readme if self.out is None else self.out.suffix.lower() == ".gif"

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.fps or (8.0 if self.readme else 10.0 if self.gif else 25.0)

    @property
    def length(self) -> float:
        """Seconds of motion."""
        return self.seconds if self.seconds is not None else self.readme_seconds if self.readme else self.slide_seconds

    @property
    def frames(self) -> int:
        """Frames of motion, the first and the last included."""
        return max(2, round(self.length * self.rate))

    def path(self, name: str) -> Path:
        """Where the film goes."""
        return self.out or Path("runs") / "animations" / f"{name}{'.gif' if self.gif else '.mp4'}"


@dataclass(frozen=True)
class PictureFits:
    """Which pictures an animation's fields are fitted to, and how: all pixels at every step."""

    signals: str = "digits"
    """digits | mnist | fashion-mnist | a folder of images."""
    data_root: Path | None = None
    """Folder with the files of mnist or fashion-mnist, .gz or raw."""
    steps: int = 300
    """Adam steps per field."""
    lr: float = 1e-2
    """Learning rate, at the start of the cosine."""

    def __post_init__(self):
        super().__post_init__()  # of the film, which every animation's config has as its second base
        check_numbers(self, least={"steps": 1}, above=("lr",))


@dataclass(frozen=True)
class AnimateFit(PictureFits, Film):
    """One field being fitted, from random weights and from another fitted field: weights, biases and the picture.

    Rows: unconditioned, conditioned, the conditioning field. Each weight is a cell (row: neuron, column: input).

    For example:
        python scripts/animate.py fit                                      # a digit of 8 x 8, fitted in a second
        python scripts/animate.py fit --signals mnist --data-root DIR --theme dark
        python scripts/animate.py fit --signals mnist --data-root DIR --readme --out fit.gif
    """

    target: str | None = None
    """Id of the training signal that is fitted, as digits/17; default: drawn by seed."""
    reference: str | None = None
    """Id of the training signal whose field is the start of the conditioned fit; default: drawn by seed."""


@dataclass(frozen=True)
class AnimateDelta(AnimateFit):
    """The same fits, shown as weights minus the conditioning field: all zero at first for the conditioned fit.

    For example:
        python scripts/animate.py delta
        python scripts/animate.py delta --signals mnist --data-root DIR --theme dark
    """


@dataclass(frozen=True)
class AnimatePermutation(PictureFits, Film):
    """Hidden neurons of a fitted field swap places with their edges; P W and W P^T move, the output does not.

    For example:
        python scripts/animate.py permutation
        python scripts/animate.py permutation --signals mnist --data-root DIR --hidden 10 --theme dark
    """

    target: str | None = None
    """Id of the training signal; default: drawn by seed."""
    hidden: int = 8
    """Neurons of the only hidden layer, 3 to 12."""
    octaves: int = 2
    """Octaves of the encoding, 0 to 2: each adds four inputs to draw."""
    steps: int = 1500
    """Adam steps of the fit."""
    slide_seconds: ClassVar[float] = 15.0

    def __post_init__(self):
        super().__post_init__()
        if not 3 <= self.hidden <= MOST:
            raise ValueError(f"--hidden must lie in 3 .. {MOST} (more cannot be told apart), got {self.hidden}.")
        if not 0 <= self.octaves <= 2:
            raise ValueError(f"--octaves must be 0, 1 or 2 (more inputs cannot be drawn), got {self.octaves}.")


@dataclass(frozen=True)
class AnimateAutoregressive(Film):
    """A GPT draws a field: the sequence of tokens, its odds for each, the weights filling in, the picture or shape forming.

    A shape turns once round in the length of the film. Weights whose tokens are not drawn yet are taken as the mean of the training fields, and the picture says so.

    For example:
        python scripts/train_gpt.py                  # makes runs/digits/gpt in some minutes
        python scripts/animate.py autoregressive --model runs/digits/gpt
        python scripts/animate.py autoregressive --model runs/mnist/gpt --label 3 --temperature 0.8 --readme
        python scripts/animate.py autoregressive --model runs/shapes/gpt --label torus    # a solid forms, and turns
    """

    model: str = "runs/digits/gpt"
    """Training folder, model folder, or user/name on the Hub."""
    label: str | None = None
    """Class name or index, for models trained with --labels; without it such a model draws the label too."""
    number: int = 0
    """Which field of the seed is drawn: that of scripts/sample.py --first NUMBER, up to rounding."""
    temperature: float = 1.0
    """Below 1: likelier codes; 0: always the likeliest."""
    top_p: float | None = None
    """Only the likeliest codes that together reach this probability."""

    def __post_init__(self):
        super().__post_init__()
        check_sampling(self.temperature, None, self.top_p)
        check_numbers(self, least={"number": 0})


@dataclass(frozen=True)
class AnimateVocabulary(PictureFits, Film):
    """The distribution of weights with the codes of a growing vocabulary, 2 to 64: quantile buckets beside k-means.

    Below: held-out fields after encoding and decoding, and their PSNR against the fields themselves.

    For example:
        python scripts/animate.py vocabulary                              # digits, fitted here and now
        python scripts/animate.py vocabulary --fields runs/mnist/fields --theme dark
    """

    fields: str | None = None
    """Weight dataset (folder or user/name on the Hub) to learn from; default: fields of --signals are fitted first."""
    limit: int = 600
    """Training fields that the codes are learnt from."""
    held_out: int = 64
    """Held-out fields that the PSNR is measured on."""
    steps: int = 64
    """Adam steps per field, where fields are fitted."""
    slide_seconds: ClassVar[float] = 14.0

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, least={"limit": 2, "held_out": SHOWN})


@dataclass(frozen=True)
class AnimateInterpolate(PictureFits, Film):
    """A straight walk in weight space from one fitted field to another: unconditioned, aligned, and with a common start.

    Below, the PSNR of the field on the way against the blend of the two pictures, as a mean over many pairs.

    For example:
        python scripts/animate.py interpolate
        python scripts/animate.py interpolate --signals mnist --data-root DIR --start conditioned --theme dark
    """

    a: str | None = None
    """Id of the training signal at the beginning; default: drawn by seed."""
    b: str | None = None
    """Id of the training signal at the end; default: drawn by seed."""
    start: Literal["conditioned", "meta"] = "meta"
    """The common start of the third column: one fitted field, or the start learnt over the training signals."""
    pairs: int = 32
    """Pairs over which the curves are averaged; the first one is drawn."""

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, least={"pairs": 1})


@dataclass(frozen=True)
class AnimateRegression(Film):
    """Fields generated by regression transformers, weight after weight, from the first weight alone.

    Each picture shows the field whose first t weights are predicted; the rest are the mean of the fields of that start.

    For example:
        python scripts/train_regression.py             # makes runs/digits/regression
        python scripts/animate.py regression --experiment runs/digits/regression
    """

    experiment: Path = Path("runs/digits/regression")
    """Folder of the experiment, with its fields and its finished cells."""
    starts: tuple[str, str] = ("unconditioned", "conditioned")
    """The ways of fitting at the left and at the right: unconditioned, conditioned, meta or aligned."""
    n: tuple[int, ...] = (1, 4, 32)
    """Numbers of memorised fields, one row of pictures each, at most four."""
    columns: int = 2
    """Fields shown of each seed (of N = 1 there is only one)."""
    rest: Literal["mean", "zero"] = "mean"
    """What the weights are that are not predicted yet."""
    slide_seconds: ClassVar[float] = 14.0
    readme_seconds: ClassVar[float] = 7.0

    def __post_init__(self):
        super().__post_init__()
        for name in ("starts", "n"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not 1 <= len(self.n) <= 4 or min(self.n) < 1:
            raise ValueError(f"--n takes one to four numbers of at least 1, got {self.n}.")
        if not 1 <= self.columns <= 8:
            raise ValueError(f"--columns must lie in 1 .. 8, got {self.columns}.")
