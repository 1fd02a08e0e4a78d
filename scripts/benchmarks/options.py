"""What can be set of each benchmark. Nothing here imports PyTorch, so that --help is there at once."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Counts:
    """Sizes and counts are at least 1; only a seed may be 0."""

    def __post_init__(self):
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            for one in value if isinstance(value, tuple) else (value,):
                if f.name != "seed" and isinstance(one, (int, float)) and not isinstance(one, bool) and not one > 0:
                    raise ValueError(f"--{f.name.replace('_', '-')} must be above 0, got {one}.")


@dataclass(frozen=True)
class FitBenchmark(Counts):
    """Fields fitted per second and their mean PSNR: one at a time, plainly batched, and by `fit_fields` from two starts."""

    signals: str = "mnist"
    """digits | mnist | fashion-mnist."""
    data_root: Path | None = None
    """Folder with the files of mnist or fashion-mnist."""
    n: int = 2000
    """Held-out fields for `fit_fields`; a quarter of them for the plainly batched loop."""
    learn: int = 20_000
    """Training signals that the starts are learnt from."""
    single: int = 3
    """Fields for the loop that fits one at a time."""
    threads: int | None = None
    """CPU threads; None = all cores."""
    seed: int = 0


@dataclass(frozen=True)
class TokenizersBenchmark(Counts):
    """Scalar k-means: encoding against `KMeans.predict` and `np.searchsorted` over the same values and centres."""

    n: int = 4000
    """Fields of 593 weights (made up: the time does not depend on the values)."""
    vocab_sizes: tuple[int, ...] = (16, 32, 64, 256, 1024)
    """Codes; one table row each."""
    turns: int = 3
    """Measurements of each, of which the median counts."""
    threads: int = 1
    """CPU threads."""
    seed: int = 0


@dataclass(frozen=True)
class ShapesBenchmark(Counts):
    """Solids: fields fitted per second against one at a time, surfaces, views and Chamfer distances, and peak memory."""

    n: int = 64
    """Held-out solids for the batched fit."""
    single: int = 1
    """Solids for the loop that fits one at a time."""
    train: int = 128
    """Solids that the start is learnt from."""
    steps: int = 256
    """Adam steps of the batched fit."""
    goal: float = 0.95
    """IoU at which the loop stops; it gives up after 4,000 steps."""
    threads: int | None = None
    """CPU threads; None = all cores."""
    seed: int = 0


@dataclass(frozen=True)
class GPTBenchmark(Counts):
    """Training and sampling of a GPT against nanoGPT's model and loop, and against transformers' cached generate."""

    tokens: tuple[int, ...] = (49, 64, 594)
    """Tokens of a field, T; one table row each."""
    codes: int = 512
    """V."""
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    per_step: int = 4096
    """Tokens of a training step, about: batch = per_step / T."""
    steps: int = 12
    """Steps measured on each side, in turns of three; the median turn counts."""
    n: int = 1000
    """Fields that are drawn."""
    plain: int = 64
    """Fields that the plain model draws without a cache, and transformers with one; the rest is extrapolated."""
    threads: int = 1
    """CPU threads of every side."""
    compile: bool = False
    """torch.compile the models of both sides for training."""
    python: Path | None = None
    """Python interpreter that has transformers; None = this one."""
    seed: int = 0


@dataclass(frozen=True)
class ScaleBenchmark(Counts):
    """Time and memory against N (fit, encode, train, by their commands) and against T (a GPT's step), with slopes."""

    fits: tuple[int, ...] = (1, 4, 16)
    """Fits of each of the 1,797 embedded digits: N = 1,797 x fits."""
    mapped: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Rows of token sets that are mapped from disk."""
    tokens: tuple[int, ...] = (64, 256, 1024)
    """T of a GPT whose step is measured."""
    batch: int = 8
    """Fields of such a step."""
    n_layer: int = 4
    n_embd: int = 128
    out: Path = Path("runs/scale.png")
    """The picture; the numbers stand beside it as JSON."""
