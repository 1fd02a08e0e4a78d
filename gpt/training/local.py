"""The part of an `accelerate.Accelerator` that a trainer uses, for one process without launcher: many of them can work
side by side in threads, and nothing global is touched."""

from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class Local:
    """One process alone.

    Args:
        device: where models live.
        precision: "no" or "bf16", as accelerate names them.
        say: receives the log lines; None = silence.
    """

    num_processes, process_index, is_main_process = 1, 0, True

    def __init__(self, device: torch.device | str = "cpu", precision: str = "no", say: Any = None):
        self.device, self.mixed_precision, self.say = torch.device(device), precision, say

    def prepare(self, *things: Any) -> tuple[Any, ...]:
        """The things themselves."""
        return things

    def no_sync(self, model: nn.Module):
        """Nothing is ever synchronised."""
        return nullcontext()

    @contextmanager
    def autocast(self):
        """bfloat16 for matrix products where asked for."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision == "bf16"):
            yield

    def backward(self, loss: Tensor) -> None:
        """Gradients."""
        loss.backward()

    def reduce(self, value: Tensor, how: str = "sum") -> Tensor:
        """The value itself."""
        return value

    def clip_grad_norm_(self, parameters: Any, most: float) -> Tensor:
        """Norm of the gradient before it is cut to `most`."""
        return torch.nn.utils.clip_grad_norm_(parameters, most)

    def print(self, text: str) -> None:
        """A log line."""
        if self.say is not None:
            self.say(text)

    def wait_for_everyone(self) -> None:
        """There is nobody to wait for."""
