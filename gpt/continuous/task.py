"""The regression transformer as a task of the trainer: whole rows of weights, each number predicted from those before it."""

from typing import Any, Literal

import torch
from torch import Tensor

from gpt.continuous.regression import RegressionTransformer
from gpt.training.task import Task


class RegressionTask(Task[RegressionTransformer]):
    """Rows of weights to be memorised; nothing is held out.

    Args:
        model: fresh.
        rows: (N, P) raw weights, on the model's device.
        kind: l1 = absolute, mse = squared error.
        optimizer: muon = orthogonalised momentum on the blocks' matrices (Jordan 2024) and AdamW on the rest, or adamw.
    """

    unit = "per weight"

    def __init__(
        self,
        model: RegressionTransformer,
        rows: Tensor,
        kind: Literal["l1", "mse"] = "l1",
        optimizer: Literal["muon", "adamw"] = "muon",
    ):
        self.model, self.rows, self.kind, self.optimizer = model, rows, kind, optimizer

    def __len__(self) -> int:
        return len(self.rows)

    def loss(self, model: RegressionTransformer, rows: Tensor, seed: int) -> Tensor:
        """Mean error of a weight, times the number of rows. Nothing is drawn."""
        rows = rows[rows >= 0]
        return self.model.loss(self.rows[rows], self.kind) * len(rows)

    def optimizers(self, config: Any) -> list[torch.optim.Optimizer]:
        """No decay, for nothing is held out."""
        fused = self.rows.device.type in ("cpu", "cuda")
        matrices = [p for p in self.model.blocks.parameters() if p.ndim == 2] if self.optimizer == "muon" else []
        known = {id(p) for p in matrices}
        others = [p for p in self.model.parameters() if id(p) not in known]
        made: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=fused)
        ]
        if matrices:
            muon = torch.optim.Muon(matrices, lr=config.lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
            made.append(muon)
        return made
