"""A field as a graph: neurons are nodes, weights are edges; messages over it on torch-geometric.

A message is the sender's state times the edge's weight, an update adds the neuron's bias and passes the field's own
activation. So states keep every symmetry of the field exactly (without a reference): they move with the hidden neurons, and a factor (ReLU) or a
sign (sine) that a neuron passes to the next layer cancels where its messages arrive. In each channel the states are what the
field computes for one made-up input; the inputs are learnt, as states of the input neurons, and need not be the encoding
of any coordinate (compare deep linear probing, arXiv:2410.10811; graphs of fields: arXiv:2403.12143, arXiv:2406.10685).
"""

import warnings

import torch
from torch import Tensor, nn

from fields import layout
from fields.model import FieldConfig, activate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch-geometric still scripts some of its functions
    from torch_geometric.data import Data
    from torch_geometric.nn import MessagePassing

SCALE = 0.7
"""Spread of the input neurons' first states: what sines and cosines have."""
BENDS = (2.0, 0.5, 0.125)
"""Scales of the tanh of pooled states, in standard deviations: far values, and the sign near zero."""


def node_offsets(config: FieldConfig) -> list[int]:
    """Number of the first node of each layer of nodes: input neurons, hidden ones, output neurons, and the end."""
    offsets = [0]
    for width in config.widths:
        offsets.append(offsets[-1] + width)
    return offsets


def edge_index(config: FieldConfig) -> Tensor:
    """(2, edges) int64, sender and receiver of each weight in the order of a row, biases left out. All fields share it."""
    at, parts = node_offsets(config), []
    for i, (fan_in, fan_out) in enumerate(zip(config.widths, config.widths[1:], strict=False)):
        receiver, sender = torch.meshgrid(torch.arange(fan_out), torch.arange(fan_in), indexing="ij")
        parts.append(torch.stack([sender.flatten() + at[i], receiver.flatten() + at[i + 1]]))
    return torch.cat(parts, 1)


def as_graph(config: FieldConfig, row: Tensor) -> Data:
    """One field for torch-geometric.

    Args:
        row: (P,).
    Returns:
        Data with x (nodes, 2): layer and bias (0 for input neurons); edge_index (2, edges); edge_attr (edges, 1): weights.
    """
    layers = layout.split(config, row[None])
    numbers = torch.arange(len(config.widths)).repeat_interleave(torch.tensor(config.widths))
    biases = torch.cat([row.new_zeros(config.encoded_dim), *(bias[0] for _, bias in layers)])
    weights = torch.cat([weight[0].flatten() for weight, _ in layers])
    return Data(
        x=torch.stack([numbers.to(row), biases], 1),
        edge_index=edge_index(config).to(row.device),
        edge_attr=weights[:, None],
    )


class Messages(MessagePassing):
    """The sum over incoming edges of weight times sender's state, for a batch of fields with the same edges.

    Layers of a field are complete: every neuron receives from every neuron below. There the sum is a matrix product (`dense`), many
    times faster than one message an edge; `forward` takes any edges and is what `dense` is tested against.
    """

    def __init__(self):
        super().__init__(aggr="sum", node_dim=-2)

    def forward(self, x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
        """States (N, nodes, D), edges (2, E), weights (N, E) -> (N, nodes, D)."""
        return self.propagate(edges, x=x, weight=weight[..., None], size=(x.shape[1], x.shape[1]))

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        """(N, E, D), (N, E, 1) -> (N, E, D)."""
        return weight * x_j

    def dense(self, x: Tensor, weight: Tensor) -> Tensor:
        """States of one layer (N, in, D) or (in, D), all edges to the next (N, out, in) -> (N, out, D)."""
        if x.ndim == 2:  # input neurons have the same states in every field: one product
            return (weight.flatten(0, 1) @ x).unflatten(0, weight.shape[:2])
        return torch.bmm(weight, x)


class Reader(nn.Module):
    """Message passing from the input neurons to the output neurons, and what is pooled from it.

    Args:
        config: the field.
        channels: D, numbers per state.
        reference: a row (P,) whose weights are the edges' second feature, or None.
        coordinates: (D, in_dim) to use their encoding as input states: the messages are then what the field renders there.
    """

    inputs: Tensor
    ones: Tensor
    reference: Tensor
    unit: Tensor

    def __init__(
        self, config: FieldConfig, channels: int, reference: Tensor | None = None, coordinates: Tensor | None = None
    ):
        super().__init__()
        from fields.model import fourier_encoding

        self.config, self.channels, self.layers = config, channels, len(config.hidden) + 1
        self.messages = Messages()
        if coordinates is None:
            self.inputs = nn.Parameter(torch.randn(config.encoded_dim, channels) * SCALE)
            self.ones = nn.Parameter(torch.ones(self.layers, channels))
        else:
            self.register_buffer("inputs", fourier_encoding(config, coordinates).T.contiguous())
            self.register_buffer("ones", torch.ones(self.layers, channels))
        if reference is not None:
            self.register_buffer("reference", reference.clone())
            self.share = nn.Parameter(0.1 * torch.randn(self.layers, channels))
        self.register_buffer("unit", torch.ones(self.layers, config.out_dim, 1))

    def states(self, weights: Tensor, reference: Tensor | None = None) -> list[Tensor]:
        """States of each layer's neurons.

        Args:
            weights: (N, P).
            reference: (N, P) in the order of each field's neurons; default: the one row for all.
        Returns:
            Hidden layers (N, width, D), and the output neurons (N, out, D) before any output function.
        """
        x, found = self.inputs.to(weights.dtype), []
        ones = self.ones.to(weights.dtype)
        others = self._others(weights, reference)
        for i, (weight, bias) in enumerate(layout.split(self.config, weights)):
            below, x = x, self.messages.dense(x, weight) + bias[..., None] * ones[i]
            if others is not None:  # an edge weighs w + share (w - reference), its own share in each channel
                other, other_bias = others[i]
                change = self.messages.dense(below, weight - other) + (bias - other_bias)[..., None] * ones[i]
                x = x + self.share[i].to(weights.dtype) * change
            if i < self.layers - 1:
                x = activate(self.config, x)
            found.append(x)
        return found

    def _others(self, weights: Tensor, reference: Tensor | None) -> list | None:
        if not hasattr(self, "share"):
            return None
        rows = self.reference[None] if reference is None else reference
        return layout.split(self.config, rows.to(weights.dtype).expand(len(weights), -1))

    def paths(self, weights: Tensor) -> list[Tensor]:
        """(N, out, width) of each layer: the weight of a neuron's state at the outputs, without activations."""
        matrices = [weight for weight, _ in layout.split(self.config, weights)]
        flow = [torch.eye(self.config.out_dim, dtype=weights.dtype, device=weights.device).expand(len(weights), -1, -1)]
        for matrix in reversed(matrices[1:]):
            flow.append(torch.bmm(flow[-1], matrix))
        return flow[::-1]

    def contributions(self, weights: Tensor) -> list[Tensor]:
        """(N, width, out, D) of each layer: each neuron's state times its weight at the outputs."""
        states, paths = self.states(weights), self.paths(weights)
        return [p.mT[..., None] * x[:, :, None] for x, p in zip(states, paths, strict=True)]

    def pools(self, weights: Tensor) -> list[Tensor]:
        """(N, out, D) of each layer: the sum of its neurons' contributions, whatever their order."""
        states, paths = self.states(weights), self.paths(weights)
        return [torch.bmm(p, x) for x, p in zip(states, paths, strict=True)]

    def features(self, pooled: Tensor, layer: int) -> Tensor:
        """(..., out, D) -> (..., 3 out D) in [-1, 1]."""
        unit = self.unit[layer].to(pooled.dtype)
        return torch.cat([torch.tanh(pooled / (unit * bend)).flatten(-2) for bend in BENDS], -1)

    def output_features(self, weights: Tensor) -> Tensor:
        """(N, 3 out D): features of the output neurons' states."""
        return self.features(self.states(weights)[-1], self.layers - 1)

    @property
    def width(self) -> int:
        """Numbers that `features` gives."""
        return len(BENDS) * self.config.out_dim * self.channels

    @torch.no_grad()
    def measure(self, weights: Tensor) -> None:
        """Set the units of pooled states: one for each layer and output, so that nothing depends on neurons' order."""
        for i, pooled in enumerate(self.pools(weights)):
            self.unit[i] = pooled.std((0, 2), correction=0)[:, None].clamp_min(1e-12)
