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
    """An autoencoder of the weights with discrete latents, trained on the values of the decoded field."""

    vocab_size: int = 128
    """Number of codes asked for, V. With --quantizer fsq, more codes are spaced more finely: more bits, better
    pictures."""
    quantizer: Literal["fsq", "vq", "rvq", "lfq", "simvq"] = "fsq"
    """How a latent becomes a code. fsq: rounded to evenly spaced levels. vq: the nearest vector of its own codebook. rvq:
    several codebooks, each for the remainder left by the one before. lfq: the signs of its numbers. simvq: the nearest
    vector of one codebook that is a learnt map of fixed vectors."""
    latents: int = 192
    """Number of latents per field. Each becomes one token; with --quantizer rvq, --residual tokens."""
    width: int = 1
    """Numbers per latent, taken from neighbouring components; with lfq it is log2 V. All latents together have at most
    P numbers, P being the weights of a field."""
    levels: tuple[int, ...] = ()
    """For fsq: number of levels of each number of a latent; their product is at most V. Default: V^(1/width) each."""
    residual: int = 2
    """For rvq: number of codes per latent."""
    span: float = 4.0
    """For fsq: position of the outermost levels, in standard deviations of the first component."""
    hidden: int = 512
    """Width of the networks that are added to the linear encoder and decoder; 0 = linear only."""
    steps: int = 8000
    """Largest number of optimiser steps; 0 = keep the initialisation."""
    batch: int = 256
    """Fields per step."""
    points: int = 96
    """Random coordinates per step at which decoded and original fields are compared."""
    lr: float = 4e-4
    """Highest learning rate; it warms up over 200 steps and falls along a cosine."""
    rate: float | None = None
    """For fsq with --width 1: loss per bit of a field, estimated by a logistic model of each latent. Higher values give
    fewer bits and a larger error. Default: 2e-5 there, none elsewhere."""
    weight_loss: float = 0.001
    """Weight in the loss of the squared error of the standardised weights."""
    noise: float = 0.0
    """Standard deviation of the noise added to the encoder's standardised input during training; 0 = none."""
    eval_every: int = 250
    """Steps between evaluations on held-out fields. The best state is kept, by held-out PSNR or, with --rate, by the
    loss."""
    patience: int = 10
    """In the second half of the steps, stop after this many evaluations in a row without a better held-out PSNR (with
    --rate: loss)."""
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
    """An autoencoder of the graph of neurons, for fields without a common start: its codes do not depend on the neurons' order."""

    level: Literal["layer", "neuron"] = "layer"
    """layer: each layer has codes of its own, read off a sum over its neurons. neuron: each neuron has codes of its
    own, sorted within the layer."""
    messages: Literal["learnt", "coordinates"] = "learnt"
    """What the input neurons of the graph carry. learnt: learnt vectors. coordinates: encodings of the points of a
    grid, so that the encoder renders the field; not an encoder of weights, but an upper reference to compare with."""
    latents: int = 192
    """Number of latents per field, divided equally among its layers (or neurons). Each becomes one token; with
    --quantizer rvq, --residual tokens."""
    channels: int = 512
    """Size of a neuron's state vector, D."""
    rounds: int = 1
    """For --level layer: how many times the encoder compares the field with what its latents would decode to, and
    corrects them."""
    reference: bool = False
    """Give each edge the corresponding weight of the dataset's reference row as a second feature; for fields that
    started from that row and kept the order of their neurons."""
    taught: int = 10_000
    """Number of training fields that are fitted again from a common start; these representatives initialise the
    decoder."""
    meta_steps: int = 300
    """Outer steps of Reptile, which finds that common start."""
    hidden: int = 1024
    """Width of the encoder's networks; the decoder's are half as wide."""
    steps: int = 6000
    """Largest number of optimiser steps; 0 = keep the initialisation."""
    lr: float = 1e-3
    """Highest learning rate; it warms up over 200 steps and falls along a cosine."""
    noise: float = 0.03
    """Noise added to the weights during training, relative to each weight; the decoded field must also match the noisy
    field."""
    dropout: float = 0.1
    """Dropout probability on the input of the encoder's first heads."""
    decay: float = 0.05
    """Weight decay of the optimiser."""
    weight_loss: float = 0.02
    """Weight in the loss of the squared error between the latents and those of the fields' representatives."""
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
                f"--level neuron has no codebook per place, as --quantizer {self.quantizer} needs: the neurons of a layer "
                "share one codebook. Use fsq, lfq or simvq."
            )


@dataclass(frozen=True)
class RegionsConfig(TokenizerConfig):
    """One code for the field's values in each cell of a grid; a decoder from all codes to the weights, trained on these values."""

    later: ClassVar[tuple[str, ...]] = ("near", "symmetric", "merge", "tune", "adversarial", "representatives", "read")
    vocab_size: int = 512
    """Number of codes, V: one codebook for all regions. With --quantizer fsq there may be fewer."""
    grid: tuple[int, ...] = ()
    """Number of regions along each coordinate, for pictures rows and columns, such as 8 8. Default: 7 7 for pictures, 4
    4 4 for volumes."""
    side: int = 4
    """Points along each coordinate of a region at which the field is evaluated."""
    margin: int = 2
    """Points beyond the borders of a region, on each side, that its encoder also sees; 0 = none."""
    quantizer: Literal["vq", "fsq", "simvq"] = "vq"
    """How a latent becomes a code. vq: the nearest vector of a codebook, which k-means initialises and moving averages
    update. fsq: rounded to evenly spaced levels. simvq: the nearest vector of a codebook that is a learnt map of fixed
    vectors."""
    width: int = 16
    """Numbers per latent, at most the number of values of a region; with fsq one per entry of --levels."""
    levels: tuple[int, ...] = (8, 8, 8)
    """For fsq: number of levels of each number of a latent; their product is at most V."""
    encoder: int = 128
    """Width of the network that encodes a region; 0 = linear only (principal components of its values)."""
    hidden: int = 1024
    """Width of the network that is added to the linear decoder; 0 = linear only."""
    steps: int = 3000
    """Largest number of optimiser steps; 0 = keep the initialisation (k-means of principal components, and ridge
    regression as the decoder)."""
    batch: int = 256
    """Fields per step."""
    points: int = 196
    """Random coordinates per step at which decoded and original fields are compared."""
    near: float = 0.0
    """For fields of three coordinates: share of these points, 0 to 1, that lie where the field changes sign, which
    makes surfaces more exact."""
    lr: float = 1e-3
    """Highest learning rate; it warms up over 200 steps and falls along a cosine."""
    swap: float = 0.2
    """During training, up to this share of a field's codes is replaced before decoding, 70 % of them by one of the 8
    nearest codes and the others by another field's code of that region, so that the decoder tolerates a GPT's errors; 0
    = none."""
    weight_loss: float = 0.0
    """Weight in the loss of the squared error of the standardised weights; 0 = none."""
    read: Literal["function", "weights"] = "function"
    """What the encoder sees. function: values of the field, which do not depend on the order of its neurons. weights:
    the standardised row, read by a network with one output per region; only for fields with a common start."""
    representatives: bool | None = None
    """Initialise the decoder from training fields that are fitted again, each to its own values, from one common start;
    fields without a common start need this. None = only if the rows of the training fields point in different
    directions."""
    symmetric: tuple[int, ...] = ()
    """Coordinates (0 = x) that may change sign and be exchanged without making a field less likely: training also sees
    mirrored and turned fields. For shapes in any position about the z axis: 0 1."""
    merge: float = 0.0
    """Merge codes that lie closer together than this, in standard deviations of the codebook, into the one that is used
    more. Many codes lie close to that of empty regions; choosing between them costs bits and changes nothing. 0.2 loses
    no PSNR; 0 = none are merged."""
    tune: int = 0
    """Further steps after --steps in which only the decoder learns, its codes fixed, with the loss of --adversarial; 0
    = none. Makes samples of a GPT sharper."""
    adversarial: float = 0.03
    """Weight of the adversarial loss during --tune: a small network learns to tell decoded from fitted fields. Higher
    values give sharper fields for generation at a lower PSNR; 0 = none. For fields of one to three coordinates."""
    eval_every: int = 250
    """Steps between evaluations on held-out fields. The best state is kept, by held-out PSNR."""
    patience: int = 10
    """In the second half of the steps, stop after this many evaluations in a row without a better held-out PSNR."""
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
            field.one_each(self.grid, "--grid")
            if math.prod(self.grid) > MOST:
                raise ValueError(f"--grid may have at most {MOST} regions, got {math.prod(self.grid)}.")
        try:
            turns(field, self.symmetric)
        except ValueError as error:
            raise ValueError(f"--symmetric: {error}") from None
        if self.symmetric and field.coords == "corner":
            raise ValueError(
                "--symmetric needs fields whose coordinates are symmetric about 0, but these are at the corners of pixels."
            )

    @property
    def codes(self) -> int:
        """Codes that will be made, V."""
        return math.prod(self.levels) if self.quantizer == "fsq" else self.vocab_size

    @property
    def bit_loss(self) -> float:
        """Loss per bit of a field: bits have no price here."""
        return 0.0
