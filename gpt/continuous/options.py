"""What can be set of a rectified flow. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass, field
from pathlib import Path

from fields.runtime.flags import Overwrites, Precision, check_numbers
from gpt.options import LoopConfig, TransformerSize


@dataclass(frozen=True)
class FlowModelConfig(TransformerSize):
    """Size of the transformer."""

    dropout: float = 0.0
    """Dropout probability on residual branches."""


@dataclass(frozen=True)
class TrainFlowConfig(LoopConfig, Overwrites):
    """Train a rectified flow over the weights of a dataset, or over a tokenizer's latents, and draw new fields from it.

    For example:
        python scripts/train_flow.py --fields runs/mnist/fields --labels --steps 4000 --out runs/mnist/flow
        python scripts/train_flow.py --fields runs/mnist/fields --tokenizer runs/mnist/regions --labels --out runs/mnist/flow-regions
    """

    fields: str
    """Weight dataset to train on: a folder, or user/name on the Hub. Its fields should have a common start."""
    out: Path | None = field(default=None, kw_only=True)
    """Output folder for checkpoints, the model (best/, last/) and samples/, a weight dataset; default: flow beside the
    fields or, if that folder holds a flow trained with other settings, a name that adds what differs."""
    tokenizer: str | None = None
    """Learn the latents of this tokenizer (a folder, or user/name on the Hub) before they are rounded to codes, instead
    of the weights; samples are rounded and decoded by the tokenizer. None = learn the weights, one vector per
    neuron."""
    labels: bool = False
    """Give the model each field's label, so that samples of a given class can be drawn."""
    unlabelled: float = 0.1
    """Share of the fields whose label is hidden during training; --guidance needs it."""
    model: FlowModelConfig = field(default_factory=FlowModelConfig)
    steps: int = 4000
    """Number of optimiser steps."""
    ema: float | None = field(default=0.999, kw_only=True)
    """Decay per step of an exponential moving average of the weights, which is validated and saved. None = no
    average."""
    n: int = 1000
    """Number of fields drawn at the end; with --labels, equally many of each class."""
    integration: int = 30
    """Steps of the numerical integration when sampling; each evaluates the model twice. More steps are slower and more
    exact."""
    guidance: float = 1.0
    """Scale of classifier-free guidance when sampling: above 1 the label counts more; 1 = none. Needs --labels."""
    precision: Precision = "auto"
    """Number format of training. auto: bf16 on a GPU, or on a CPU with AMX; otherwise fp32 (computed by oneDNN on AMD
    CPUs with AVX-512). launcher: as accelerate is configured."""
    threads: int | None = None
    """CPU threads per process; default: cores / processes."""

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, least={"steps": 1, "n": 1, "integration": 1})
        if not 0 <= self.unlabelled < 1:
            raise ValueError(f"--unlabelled must be a share in [0, 1), got {self.unlabelled}.")
        if not 0 <= self.guidance <= 100 or (self.guidance != 1 and not self.labels):
            raise ValueError(f"--guidance must lie in [0, 100] and needs --labels unless it is 1, got {self.guidance}.")
