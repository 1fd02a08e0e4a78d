"""One field as an ordinary PyTorch module, and back."""

from torch import Tensor, nn

from fields.layout import from_state_dict, to_state_dict
from fields.model import FieldConfig, activate, fourier_encoding, to_values


class FieldModule(nn.Module):
    """One field as an ordinary module: coords (M, in_dim) -> values (M, out_dim)."""

    def __init__(self, config: FieldConfig):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(config.widths, config.widths[1:], strict=False))

    def forward(self, coords: Tensor) -> Tensor:
        """(M, in_dim) -> (M, out_dim)."""
        h = fourier_encoding(self.config, coords)
        for layer in self.layers[:-1]:
            h = activate(self.config, layer(h))
        return to_values(self.config, self.layers[-1](h))


def to_module(config: FieldConfig, row: Tensor) -> FieldModule:
    """A row (P,) as an `nn.Module`."""
    module = FieldModule(config)
    module.load_state_dict(to_state_dict(config, row))
    return module


def from_module(module: FieldModule) -> Tensor:
    """The row (P,) of a module."""
    return from_state_dict(module.config, module.state_dict())
