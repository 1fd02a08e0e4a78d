"""What can be set of each animation. Nothing here imports PyTorch or matplotlib, so that --help is there at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from fields.runtime.flags import check_numbers
from gpt.sampling.options import check_sampling

MOST = 12
"""Hidden neurons that can be told apart."""
LONGEST = 100_000
"""Steps of a fit that is shown."""
SHOWN = 3
"""Held-out fields drawn beside a vocabulary."""


@dataclass(frozen=True)
class Film:
    """Output file and look of an animation; every animation has these options."""

    out: Path | None = None
    """File to write, ending in .mp4 or .gif; default: runs/animations/NAME.mp4, or NAME.gif with --readme."""
    theme: Literal["light", "dark"] = "light"
    """light: dark text on white; dark: light text on a dark background."""
    readme: bool = False
    """Write a GIF for a README, 832 pixels wide and below 3 MB, instead of an MP4 for slides (1280 x 720)."""
    seconds: float | None = None
    """Length of the motion in seconds, not counting the still at the end; default: 12 to 15, and 7 or 8 with
    --readme."""
    fps: float | None = None
    """Frames per second; default: 25 for .mp4, 10 for .gif, 8 with --readme."""
    hold: float = 2.5
    """Seconds for which the last frame is shown."""
    seed: int = 0
    """Random seed; the same seed gives the same film."""
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
        if self.fps is not None and not 0.1 <= self.fps <= (50 if self.gif else 60):
            raise ValueError(f"--fps must lie in [0.1, 60] (up to 50 for a GIF), got {self.fps}.")
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
    """Signals to fit: digits | mnist | fashion-mnist | a folder of pictures."""
    data_root: Path | None = None
    """Folder with the files of mnist or fashion-mnist (.gz or unpacked)."""
    steps: int = 300
    """Adam steps per field."""
    lr: float = 1e-2
    """Initial learning rate; it falls to zero along a cosine."""

    def __post_init__(self):
        super().__post_init__()  # of the film, which every animation's config has as its second base
        check_numbers(self, least={"steps": 1}, above=("lr",))
        if self.steps > LONGEST:
            raise ValueError(
                f"--steps must be at most {LONGEST:,}: every step is kept for the film; got {self.steps:,}."
            )


@dataclass(frozen=True)
class AnimateFit(PictureFits, Film):
    """One field being fitted, from random weights and from another fitted field: weights, biases and the picture.

    Rows: the unconditioned fit, the conditioned fit, the field it starts from. Each weight is a cell (row: neuron, column: input).

    For example:
        python scripts/animate.py fit                                      # a digit of 8 x 8, fitted in a second
        python scripts/animate.py fit --signals mnist --data-root DIR --theme dark
        python scripts/animate.py fit --signals mnist --data-root DIR --readme --out fit.gif
    """

    target: str | None = None
    """Id of the training signal to fit, such as digits/17; default: drawn at random."""
    reference: str | None = None
    """Id of the training signal whose field the conditioned fit starts from; default: drawn at random."""


@dataclass(frozen=True)
class AnimateDelta(AnimateFit):
    """The same fits, shown as weights minus the conditioning field: all zero at first for the conditioned fit.

    For example:
        python scripts/animate.py delta
        python scripts/animate.py delta --signals mnist --data-root DIR --theme dark
    """


@dataclass(frozen=True)
class AnimatePermutation(PictureFits, Film):
    """Hidden neurons of a fitted field change places: the matrices become P W and W P^T, the output stays the same.

    For example:
        python scripts/animate.py permutation
        python scripts/animate.py permutation --signals mnist --data-root DIR --hidden 10 --theme dark
    """

    target: str | None = None
    """Id of the training signal to fit; default: drawn at random."""
    hidden: int = 8
    """Number of neurons in the only hidden layer, 3 to 12."""
    octaves: int = 2
    """Octaves of the Fourier encoding, 0 to 2; each adds four inputs to the drawing."""
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
    """A GPT draws a field token by token: the sequence, the probabilities of each token, the weights, and the picture or shape.

    A shape turns round once during the film. Weights whose tokens are not drawn yet are shown as the mean of the training
    fields, and a caption says so.

    For example:
        python scripts/train_gpt.py                  # makes runs/digits/gpt in some minutes
        python scripts/animate.py autoregressive --model runs/digits/gpt
        python scripts/animate.py autoregressive --model runs/mnist/gpt --label 3 --temperature 0.8 --readme
        python scripts/animate.py autoregressive --model runs/shapes/gpt --label torus    # a solid forms, and turns
    """

    model: str = "runs/digits/gpt"
    """Trained GPT: a training folder, a model folder, or user/name on the Hub."""
    label: str | None = None
    """Class to draw, by name or index, for models trained with --labels; without it such a model draws the label
    too."""
    number: int = 0
    """Index of the field to draw: the one scripts/sample.py --first NUMBER draws with the same seed, up to rounding."""
    temperature: float = 1.0
    """Below 1, likelier codes are drawn more often; at 0 always the likeliest."""
    top_p: float | None = None
    """Draw only from the likeliest codes that together reach this probability; None = all codes."""

    def __post_init__(self):
        super().__post_init__()
        check_sampling(self.temperature, None, self.top_p)
        check_numbers(self, least={"number": 0})


@dataclass(frozen=True)
class AnimateVocabulary(PictureFits, Film):
    """The distribution of the weights, and the codes of vocabularies of 2 to 64: quantile buckets beside k-means.

    Below them: held-out fields after encoding and decoding, with their PSNR against the original fields.

    For example:
        python scripts/animate.py vocabulary                              # digits, fitted first
        python scripts/animate.py vocabulary --fields runs/mnist/fields --theme dark
    """

    fields: str | None = None
    """Weight dataset to learn from (a folder, or user/name on the Hub); default: fields are fitted to --signals
    first."""
    limit: int = 600
    """Number of training fields the codes are learnt from."""
    held_out: int = 64
    """Number of held-out fields on which PSNR is measured."""
    steps: int = 64
    """Adam steps per field, if fields are fitted first."""
    slide_seconds: ClassVar[float] = 14.0

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, least={"limit": 2, "held_out": SHOWN})


@dataclass(frozen=True)
class AnimateInterpolate(PictureFits, Film):
    """Linear interpolation of weights from one fitted field to another: unconditioned, aligned, and with a common start.

    Below: the PSNR of the interpolated field against the blend of the two pictures, averaged over many pairs.

    For example:
        python scripts/animate.py interpolate
        python scripts/animate.py interpolate --signals mnist --data-root DIR --start conditioned --theme dark
    """

    a: str | None = None
    """Id of the training signal at the start of the path; default: drawn at random."""
    b: str | None = None
    """Id of the training signal at the end of the path; default: drawn at random."""
    start: Literal["conditioned", "meta"] = "meta"
    """Common start of the fields in the third column: conditioned: one fitted field; meta: a start learnt over the
    training signals."""
    pairs: int = 32
    """Number of pairs of fields over which the curves are averaged; the first pair is drawn."""

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, least={"pairs": 1})


@dataclass(frozen=True)
class AnimateRegression(Film):
    """Fields generated by regression transformers, one weight after another, from the first weight alone.

    Each picture shows the field when its first t weights are predicted; the others are set as --rest says.

    For example:
        python scripts/train_regression.py             # makes runs/digits/regression
        python scripts/animate.py regression --experiment runs/digits/regression
    """

    experiment: Path = Path("runs/digits/regression")
    """Folder written by scripts/train_regression.py, with its fields and its trained models."""
    starts: tuple[str, str] = ("unconditioned", "conditioned")
    """Ways of fitting shown on the left and on the right: unconditioned, conditioned, meta or aligned."""
    n: tuple[int, ...] = (1, 4, 32)
    """Numbers of memorised fields, one row of pictures each, at most four."""
    columns: int = 2
    """Number of fields shown for each seed (with --n 1 there is only one)."""
    rest: Literal["mean", "zero"] = "mean"
    """What stands for weights that are not predicted yet: their mean over the fields, or zero."""
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
