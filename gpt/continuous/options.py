"""What can be set of a rectified flow. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass, field
from pathlib import Path

from fields.runtime.flags import Overwrites, Precision, check_numbers
from gpt.options import LoopConfig


@dataclass(frozen=True)
class FlowModelConfig:
    """Size of the transformer."""

    n_layer: int = 4
    """Blocks."""
    n_head: int = 4
    """Attention heads."""
    n_embd: int = 128
    """Width."""
    dropout: float = 0.0
    """On residual branches."""


@dataclass(frozen=True)
class TrainFlowConfig(LoopConfig, Overwrites):
    """Train a rectified flow over the weights of a dataset, or over a tokenizer's latents, and draw new fields from it.

    For example:
        python scripts/train_flow.py --fields runs/mnist/fields --labels --steps 4000 --out runs/mnist/flow
        python scripts/train_flow.py --fields runs/mnist/fields --tokenizer runs/mnist/regions --labels --out runs/mnist/flow-regions
    """

    fields: str
    """Weight dataset: a folder, or user/name on the Hub. Its fields should share a start."""
    out: Path | None = field(default=None, kw_only=True)
    """Folder for checkpoints, the model (best/, last/) and samples/, a weight dataset; default: flow beside the fields, or, where
    that was trained otherwise, a name with what differs."""
    tokenizer: str | None = None
    """Move the latents of this tokenizer (a folder, or user/name on the Hub) in place of the weights: what it would round to
    codes. Samples are rounded and decoded by it. None = the weights, a vector per neuron."""
    labels: bool = False
    """Tell the model each field's label, so that samples can be asked for by class."""
    unlabelled: float = 0.1
    """Share of fields whose label is hidden in training, which --guidance needs."""
    model: FlowModelConfig = field(default_factory=FlowModelConfig)
    steps: int = 4000
    """Optimiser steps."""
    ema: float | None = field(default=0.999, kw_only=True)
    """Decay of a moving average of the weights, which is validated and saved."""
    n: int = 1000
    """Fields drawn at the end; with labels as many of each class."""
    integration: int = 30
    """Steps of the integration when sampling; each evaluates the model twice."""
    guidance: float = 1.0
    """Scale of classifier-free guidance when sampling; 1 = none. Needs --labels."""
    precision: Precision = "auto"
    """auto = bf16 on a GPU, or on a CPU with AMX, else fp32 (onednn on AMD CPUs with AVX-512); launcher = what accelerate says."""
    threads: int | None = None
    """CPU threads per process; default: cores / processes."""

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, least={"steps": 1, "n": 1, "integration": 1})
        if not 0 <= self.unlabelled < 1:
            raise ValueError(f"--unlabelled is a share in [0, 1), got {self.unlabelled}.")
        if not 0 <= self.guidance <= 100 or (self.guidance != 1 and not self.labels):
            raise ValueError(f"--guidance must lie in [0, 100] and needs --labels unless it is 1, got {self.guidance}.")
