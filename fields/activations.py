"""Activations and outputs of a field, one entry each: all that any other file knows of them stands here.

A new activation is one entry in ACTIVATIONS, a new output one in OUTPUTS: flags, fitting, alignment, cards, imports and tests
go through these. Derivatives are given for the fitting engine, which writes gradients out by hand; the numpy text is what
dataset cards show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # flags name activations: PyTorch's seconds are not spent on --help
    from torch import Tensor

Symmetry = Literal["scale", "sign", "none"]
"""What a hidden neuron may pass on to the next layer without a change of the function: a factor above 0, its sign, nothing."""


def linear_bound(layer: int, fan_in: int, w0: float) -> float:
    """PyTorch's default for linear layers."""
    return fan_in**-0.5


def sine_bound(layer: int, fan_in: int, w0: float) -> float:
    """SIREN's (arXiv:2006.09661, section 3.2)."""
    return 1 / fan_in if layer == 0 else (6 / fan_in) ** 0.5 / w0


@dataclass(frozen=True)
class Activation:
    """A function of z and of the frequency w0, which most do not use."""

    function: Callable[[Tensor, float], Tensor]
    with_slope: Callable[[Tensor, float], tuple[Tensor, Tensor]]
    """The function and its derivative at z, or what `back` makes of it; z may be overwritten."""
    numpy: str
    """The function as an expression of `z`, `w0` and `np`."""
    symmetry: Symmetry = "none"
    bound: Callable[[int, int, float], float] = linear_bound
    """Random weights are uniform in +- this, given the layer's number, its inputs and w0."""
    uses_w0: bool = False
    back: Callable[[Tensor, Tensor], Tensor] = lambda d, slope: d.mul_(slope)
    """d loss / d z from d loss / d function(z), which may be overwritten, and the second of `with_slope`."""


def elu(z: Tensor) -> Tensor:
    """z above zero, e^z - 1 below."""
    from torch.nn import functional

    return functional.elu(z)


def _relu(z: Tensor, w0: float) -> tuple[Tensor, Tensor]:
    a = z.relu_()
    return a, a


def _relu_back(d: Tensor, a: Tensor) -> Tensor:
    """d where a is above zero, in one pass: with `a > 0` as a slope of its own a third of a fit goes into turning it to floats."""
    import torch

    return torch.ops.aten.threshold_backward.grad_input(d, a, 0, grad_input=d)


def _sine(z: Tensor, w0: float) -> tuple[Tensor, Tensor]:
    return (w0 * z).sin(), (w0 * z).cos().mul_(w0)


def _elu(z: Tensor, w0: float) -> tuple[Tensor, Tensor]:
    a = elu(z)  # e^z = a + 1 below zero
    return a, (a + 1).masked_fill_(z > 0, 1)


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(lambda z, w0: z.relu(), _relu, "np.maximum(z, 0)", "scale", back=_relu_back),
    "sine": Activation(lambda z, w0: (w0 * z).sin(), _sine, "np.sin(w0 * z)", "sign", sine_bound, uses_w0=True),
    "elu": Activation(lambda z, w0: elu(z), _elu, "np.where(z > 0, z, np.expm1(np.minimum(z, 0)))"),
}
"""Name -> activation."""


@dataclass(frozen=True)
class Output:
    """From the last layer's y, (..., C), to the value; most do not use scale and shift."""

    function: Callable[[Tensor, float | Tensor, float | Tensor], Tensor]
    slope: Callable[[Tensor, float | Tensor], float | Tensor] | None
    """Derivative by y, given the value and the scale; None where the loss is the cross entropy of a logit."""
    numpy: str
    """The function as an expression of `y`, `scale`, `shift` and `np`."""
    text: str
    """The value in words, for cards, where `scale` and `shift` are filled in."""
    usual: tuple[tuple[float, float], ...] = ()
    """Scales and shifts that other projects use; empty where the function uses neither."""

    @property
    def is_logit(self) -> bool:
        """Whether y is the logit of a probability."""
        return self.slope is None


OUTPUTS: dict[str, Output] = {
    "logit": Output(lambda y, scale, shift: y.sigmoid(), None, "1 / (1 + np.exp(-y))", "its sigmoid"),
    "linear": Output(lambda y, scale, shift: y, lambda v, scale: 1.0, "y", "as it is"),
    "offset": Output(
        lambda y, scale, shift: scale * y + shift,
        lambda v, scale: scale,
        "scale * y + shift",
        "{scale} times it plus {shift}",
        ((1.0, 0.5), (0.5, 0.5)),
    ),
    "tanh": Output(lambda y, scale, shift: y.tanh(), lambda v, scale: 1 - v.square(), "np.tanh(y)", "its tanh"),
}
"""Name -> output."""
