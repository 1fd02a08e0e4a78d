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
    """Fields fitted per second, and their mean PSNR: one at a time, plainly batched, and by `fit_fields` from two starts."""

    signals: str = "mnist"
    """Signals to fit: digits | mnist | fashion-mnist."""
    data_root: Path | None = None
    """Folder with the files of mnist or fashion-mnist (.gz or unpacked)."""
    n: int = 2000
    """Number of held-out fields fitted by `fit_fields`; the plainly batched loop fits a quarter of them."""
    learn: int = 20_000
    """Number of training signals the starts are learnt from."""
    single: int = 3
    """Number of fields for the loop that fits one at a time."""
    threads: int | None = None
    """CPU threads; None = all cores."""
    seed: int = 0
    """Random seed."""


@dataclass(frozen=True)
class TokenizersBenchmark(Counts):
    """Scalar k-means: encoding against `KMeans.predict` and `np.searchsorted` over the same values and centres."""

    n: int = 4000
    """Number of fields, of 593 weights each (random: the time does not depend on the values)."""
    vocab_sizes: tuple[int, ...] = (16, 32, 64, 256, 1024)
    """Numbers of codes, one table row each."""
    turns: int = 3
    """Measurements of each method; their median is reported."""
    threads: int = 1
    """CPU threads."""
    seed: int = 0
    """Random seed."""


@dataclass(frozen=True)
class ShapesBenchmark(Counts):
    """Solids: time and peak memory of each stage: fits batched and one at a time, vocabularies, surfaces, signs, evaluation."""

    n: int = 64
    """Number of held-out solids for the batched fit."""
    single: int = 1
    """Number of solids for the loop that fits one at a time."""
    train: int = 128
    """Number of solids the start is learnt from."""
    steps: int = 256
    """Adam steps of the batched fit from a learnt row."""
    meta_steps: int = 100
    """Steps in which this row is learnt."""
    learn: int = 600
    """Steps in which the directions of --start subspace are learnt; `fit_fields` takes 4,000 for 2,000 solids."""
    goal: float = 0.95
    """IoU at which the loop stops; it gives up after 4,000 steps."""
    threads: int | None = None
    """CPU threads; None = all cores."""
    seed: int = 0
    """Random seed."""


@dataclass(frozen=True)
class GPTBenchmark(Counts):
    """Training and sampling speed of a GPT against nanoGPT's model and loop, and against transformers' cached generation."""

    tokens: tuple[int, ...] = (49, 64, 594)
    """Numbers of tokens per field, T, one table row each."""
    codes: int = 512
    """Number of codes, V."""
    n_layer: int = 4
    """Number of transformer blocks."""
    n_head: int = 4
    """Attention heads per block."""
    n_embd: int = 128
    """Width of the embeddings."""
    per_step: int = 4096
    """Approximate number of tokens per training step: batch = per_step / T."""
    steps: int = 12
    """Steps measured on each side, three at a time in turn; the median is reported."""
    n: int = 1000
    """Number of fields drawn."""
    plain: int = 64
    """Number of fields drawn by the plain model without a cache, and by transformers with one; the time for the rest is
    extrapolated."""
    threads: int = 1
    """CPU threads of each side."""
    compile: bool = False
    """Compile the models of both sides with torch.compile for training."""
    python: Path | None = None
    """Python interpreter of an environment that has transformers; None = this one."""
    seed: int = 0
    """Random seed."""


@dataclass(frozen=True)
class ScaleBenchmark(Counts):
    """Time and memory as N grows (fit, encode and train, by their commands) and as T grows (a GPT's step), with slopes."""

    fits: tuple[int, ...] = (1, 4, 16)
    """Numbers of fits of each of the 1,797 digits: N = 1,797 x fits."""
    mapped: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Numbers of rows of the token sets that are mapped from disk."""
    tokens: tuple[int, ...] = (64, 256, 1024)
    """Numbers of tokens per field, T, for which a GPT's training step is measured."""
    batch: int = 8
    """Fields per training step."""
    n_layer: int = 4
    """Number of transformer blocks."""
    n_embd: int = 128
    """Width of the embeddings."""
    out: Path = Path("runs/scale.png")
    """Picture to write; the numbers are written beside it as JSON."""
