"""What can be set of the learned vocabularies. Nothing here imports PyTorch, so that --help is there at once."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from tyro.conf import Suppress

from fields.runtime.flags import check_numbers
from tokenizers.options import TokenizerConfig

MOST_NUMBERS = 4096
"""Numbers of a latent; a code of more is a mistake."""
MOST = 4096
"""Regions at most."""


@dataclass(frozen=True)
class VQVAEConfig(TokenizerConfig):
    """An autoencoder of the weights with discrete latents, trained by the decoded field's values."""

    vocab_size: int = 128
    """Codes asked for, V. With fsq, more codes lie closer together: more bits, better pictures."""
    quantizer: Literal["fsq", "vq", "rvq", "lfq", "simvq"] = "fsq"
    """fsq: evenly spaced levels. vq: a codebook per latent. rvq: several, each for what the last left. lfq: signs. simvq:
    one codebook for all latents, a learnt map of fixed vectors."""
    latents: int = 192
    """Latents per field, T: tokens, except with rvq, where each latent gives `--residual` tokens."""
    width: int = 1
    """Numbers per latent, neighbouring components; lfq has log2 V. All latents together have at most P numbers."""
    levels: tuple[int, ...] = ()
    """fsq: levels of each number of a latent, their product at most V. Default: V^(1/width) each."""
    residual: int = 2
    """rvq: codes per latent."""
    span: float = 4.0
    """fsq: where the outermost levels lie, in standard deviations of the first component."""
    hidden: int = 512
    """Width of the networks added to the linear maps; 0 = none."""
    steps: int = 8000
    """Optimiser steps at most; 0 = the start as it is."""
    batch: int = 256
    """Fields per step."""
    points: int = 96
    """Random coordinates per step at which decoded and original fields are compared."""
    lr: float = 4e-4
    """Highest learning rate; warms up over 200 steps and falls as a cosine."""
    rate: float | None = None
    """fsq with one number a latent: loss per bit of a field, by a logistic model of each latent. Default: 2e-5 there, and
    nothing elsewhere."""
    weight_loss: float = 0.001
    """Share of the squared error of standardised weights in the loss."""
    noise: float = 0.0
    """Standard deviation of noise on the encoder's standardised input while training."""
    eval_every: int = 250
    """Steps between evaluations on held-out fields; the best state is kept, by held-out PSNR or, with --rate, by the loss."""
    patience: int = 10
    """Evaluations without a better held-out PSNR (with --rate: loss) in the second half of the steps after which training stops."""
    kind: Suppress[Literal["vqvae", "graph"]] = "vqvae"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "levels", tuple(int(n) for n in self.levels))
        counts = ("latents", "width", "residual", "batch", "points", "eval_every", "patience")
        least = dict.fromkeys(counts, 1) | dict.fromkeys(("hidden", "steps", "weight_loss", "noise"), 0)
        check_numbers(self, least=least, above=("lr", "span"))
        if not self.bit_loss >= 0:
            raise ValueError(f"--rate must be at least 0, got {self.bit_loss}.")
        if self.width > MOST_NUMBERS:
            raise ValueError(f"--width must be at most {MOST_NUMBERS:,}, got {self.width}.")
        if self.quantizer == "lfq" and 2 ** round(math.log2(self.vocab_size)) != self.vocab_size:
            raise ValueError(f"--quantizer lfq needs a --vocab-size that is a power of 2, got {self.vocab_size}.")
        if self.quantizer == "simvq" and self.width < 2:
            raise ValueError("--quantizer simvq needs --width of at least 2: its codes are directions.")
        if self.bit_loss and (self.quantizer != "fsq" or self.width > 1):
            raise ValueError("--rate is for --quantizer fsq with --width 1.")
        if self.quantizer == "fsq":
            self._check_levels()

    def _check_levels(self) -> None:
        levels = self.fsq_levels
        if len(levels) != self.width or min(levels) < 3 or math.prod(levels) > self.vocab_size:
            raise ValueError(
                f"--quantizer fsq needs {self.width} --levels (one per number of a latent) of at least 3 whose product is "
                f"at most --vocab-size {self.vocab_size}, got {list(levels)}."
            )

    @property
    def bit_loss(self) -> float:
        """`rate`, or its default."""
        plain = self.quantizer == "fsq" and self.width == 1
        return (2e-5 if plain else 0.0) if self.rate is None else self.rate

    @property
    def fsq_levels(self) -> tuple[int, ...]:
        """Levels of each number of a latent."""
        each = int(self.vocab_size ** (1 / self.width) + 1e-9)
        return self.levels or (each,) * self.width

    @property
    def codes(self) -> int:
        """Codes that will be made, V."""
        return math.prod(self.fsq_levels) if self.quantizer == "fsq" else self.vocab_size

    @property
    def numbers(self) -> int:
        """Numbers per latent, D."""
        return round(math.log2(self.vocab_size)) if self.quantizer == "lfq" else self.width

    @property
    def depth(self) -> int:
        """Codes per latent."""
        return self.residual if self.quantizer == "rvq" else 1


@dataclass(frozen=True)
class GraphConfig(VQVAEConfig):
    """An autoencoder of the graph of neurons, for fields without a common start: codes do not depend on the neurons' order."""

    level: Literal["layer", "neuron"] = "layer"
    """layer: codes per layer, read off a sum over its neurons. neuron: codes per neuron, sorted within each layer."""
    messages: Literal["learnt", "coordinates"] = "learnt"
    """learnt: states of the input neurons are learnt. coordinates: they are encodings of a grid, so that the encoder renders
    the field: an upper reference to compare with, no encoder of weights."""
    latents: int = 192
    """Latents per field, T, in equal shares of the layers, or of the neurons; with rvq each gives `--residual` tokens."""
    channels: int = 512
    """Numbers per neuron's state, D."""
    rounds: int = 1
    """layer: how often the encoder compares the field with what its latents would decode to, and corrects them."""
    reference: bool = False
    """Give edges the weight of the dataset's reference row as a second feature: for fields that started from it and kept
    their neurons' order."""
    taught: int = 10_000
    """Training fields whose representatives initialise the decoder."""
    meta_steps: int = 300
    """Outer steps of Reptile, which finds the start of those representatives."""
    hidden: int = 1024
    """Width of the encoder's networks; the decoder's has half of it."""
    steps: int = 6000
    """Optimiser steps at most; 0 = the start as it is."""
    lr: float = 1e-3
    """Highest learning rate; warms up over 200 steps and falls as a cosine."""
    noise: float = 0.03
    """Noise on the weights while training, relative to each; the noisy field is also what the decoded one must match."""
    dropout: float = 0.1
    """Of what the encoder's first heads see."""
    decay: float = 0.05
    """Weight decay."""
    weight_loss: float = 0.02
    """Share of the squared error of latents against those of the fields' representatives in the loss."""
    standardize: Suppress[Literal["position"]] = "position"
    kind: Suppress[Literal["graph"]] = "graph"

    def __post_init__(self):
        super().__post_init__()
        least = {"channels": 1, "taught": 1, "meta_steps": 1, "hidden": 2, "rounds": 0, "decay": 0}
        check_numbers(self, least=least)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"--dropout must lie in [0, 1), got {self.dropout}.")
        if self.level == "neuron" and self.quantizer in ("vq", "rvq"):
            raise ValueError(
                f"--level neuron has no codebook per place, as --quantizer {self.quantizer} learns them: neurons of a layer "
                "share one. Use fsq, lfq or simvq."
            )


@dataclass(frozen=True)
class RegionsConfig(TokenizerConfig):
    """Codes of what the field says in each cell of a grid; a decoder from all codes to weights, trained by function."""

    later: ClassVar[tuple[str, ...]] = ("near", "symmetric", "merge", "tune", "adversarial", "representatives", "read")
    vocab_size: int = 512
    """Codes, V: one codebook for all regions. With fsq at most as many."""
    grid: tuple[int, ...] = ()
    """Regions along each coordinate, for pictures rows and columns: as many numbers as the field has coordinates. Default:
    7 7 for pictures, 4 4 4 for volumes."""
    side: int = 4
    """Points of a region along each coordinate, at which the field is evaluated."""
    margin: int = 2
    """Points beyond its borders that the encoder of a region sees, too; 0 = none."""
    quantizer: Literal["vq", "fsq", "simvq"] = "vq"
    """vq: k-means, then moving averages. fsq: evenly spaced levels. simvq: a learnt map of fixed vectors."""
    width: int = 16
    """Numbers of a latent, at most as many as a region has values; with fsq one per level."""
    levels: tuple[int, ...] = (8, 8, 8)
    """fsq: levels of each number of a latent, their product at most V."""
    encoder: int = 128
    """Width of the network that reads a region; 0 = only the linear map: principal components of its values."""
    hidden: int = 1024
    """Width of the decoder's network beside its linear map; 0 = only that."""
    steps: int = 3000
    """Optimiser steps at most; 0 = k-means of principal components and the ridge regression."""
    batch: int = 256
    """Fields per step."""
    points: int = 196
    """Random coordinates per step at which decoded and original fields are compared."""
    near: float = 0.0
    """Share of them that lie where a field of three coordinates changes sign, each field's own."""
    lr: float = 1e-3
    """Highest learning rate; warms up over 200 steps and falls as a cosine."""
    swap: float = 0.2
    """While training, up to this share of a field's codes is replaced before they are decoded: seven in ten by one of the
    8 nearest codes, the others by another field's code of that region."""
    weight_loss: float = 0.0
    """Share of the squared error of standardised weights in the loss."""
    read: Literal["function", "weights"] = "function"
    """What the encoder sees. function: values of the field, whatever the order of its neurons. weights: the standardised row, by a
    network with one output per region, for fields with a common start."""
    representatives: bool | None = None
    """Initialise the decoder by training fields that are fitted again from one start, to their own values, as fields without a
    common start need. None = where the rows of training fields point in different directions."""
    symmetric: tuple[int, ...] = ()
    """Coordinates (0 = x) that may change sign and places with each other without making a field less likely: training
    sees mirrored and turned fields, too. 0 1 suits shapes in any position about z."""
    merge: float = 0.0
    """Codes that lie nearer to each other than this, in standard deviations of the codebook, become one, the one used more: there
    are many beside the code of empty regions, whose choice says nothing and costs bits. .2 loses no PSNR; 0 = none."""
    tune: int = 0
    """Steps after the others in which only the decoder learns, its codes fixed; --adversarial then counts, too."""
    adversarial: float = 0.03
    """Share, in the loss of these steps, of what a small network says that learns to tell decoded from fitted fields. Sharper
    fields for generation, at a lower PSNR; 0 = none. Fields of one to three coordinates."""
    eval_every: int = 250
    """Steps between looks at held-out fields; the best state is kept, by held-out PSNR."""
    patience: int = 10
    """Looks without a better held-out PSNR in the second half of the steps after which training stops."""
    kind: Suppress[Literal["regions"]] = "regions"

    def __post_init__(self):
        super().__post_init__()
        for name in ("grid", "levels", "symmetric"):
            object.__setattr__(self, name, tuple(int(n) for n in getattr(self, name)))
        least = dict.fromkeys(("side", "width", "batch", "points", "eval_every", "patience", "grid"), 1)
        least |= dict.fromkeys(
            ("margin", "encoder", "hidden", "steps", "merge", "tune", "adversarial", "weight_loss"), 0
        )
        check_numbers(self, least=least, above=("lr",), shares=("swap", "near"))
        few = min(self.levels, default=0) < 3
        if few or (self.quantizer == "fsq" and math.prod(self.levels) > self.vocab_size):
            raise ValueError(
                f"--quantizer fsq needs --levels of at least 3 whose product is at most --vocab-size {self.vocab_size}, got "
                f"{list(self.levels)}."
            )
        if self.quantizer == "simvq" and self.width < 2:
            raise ValueError("--quantizer simvq needs --width of at least 2: its codes are directions.")
        if self.field:
            self._check_field()

    def _check_field(self) -> None:
        """What depends on the fields; without them (for --help) nothing of theirs is imported."""
        from fields.model import FieldConfig
        from fields.turned import turns

        field = FieldConfig.from_dict(self.field)
        if self.grid:
            self._check_grid(field.in_dim)
        try:
            turns(field.in_dim, self.symmetric)
        except ValueError as error:
            raise ValueError(f"--symmetric: {error}") from None
        if self.symmetric and field.coords == "corner":
            raise ValueError(
                "--symmetric needs fields whose coordinates lie evenly about 0, these are at the corners of pixels."
            )

    def _check_grid(self, dimensions: int) -> None:
        if len(self.grid) != dimensions:
            raise ValueError(
                f"--grid needs {dimensions} numbers, one per coordinate of the field, got {' '.join(map(str, self.grid))}."
            )
        if math.prod(self.grid) > MOST:
            raise ValueError(f"--grid may have at most {MOST} regions, got {math.prod(self.grid)}.")

    @property
    def codes(self) -> int:
        """Codes that will be made, V."""
        return math.prod(self.levels) if self.quantizer == "fsq" else self.vocab_size

    @property
    def bit_loss(self) -> float:
        """Loss per bit of a field: bits have no price here."""
        return 0.0
