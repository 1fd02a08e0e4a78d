"""Signals given as points and values, in memory: any number of coordinates and channels, any range of values."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fields.model import FieldConfig
from fields.signals.base import Signals, positions


class Samples(Signals):
    """N signals, each known at M points: the same for all, or M of its own for each."""

    def __init__(
        self,
        name: str,
        ids: Sequence[str],
        split: Sequence[str],
        points: Tensor,
        values: Tensor,
        *,
        kind: str = "points",
        **about: Any,
    ):
        """Args:
        points: (M, d), or (N, M, d).
        values: (N, M, C).
        kind: how fields of these signals are measured and drawn, a key of `fields.kinds.registry.KINDS`.
        about: labels, label_names, skipped, split_seed of `Signals`.
        """
        points, values = torch.as_tensor(points, dtype=torch.float32), torch.as_tensor(values, dtype=torch.float32)
        wanted = values.shape[1:2] if points.ndim == 2 else values.shape[:2]
        if points.ndim not in (2, 3) or values.ndim != 3 or points.shape[:-1] != wanted:
            raise ValueError(
                f"points must have shape (M, d) or (N, M, d) and values (N, M, C), got {tuple(points.shape)} and "
                f"{tuple(values.shape)}."
            )
        if not bool(points.isfinite().all() and values.isfinite().all()):
            raise ValueError("points and values must be finite; leave out the signals that are not.")
        about = {**about, "channels": values.shape[2]}
        super().__init__(name, ids, split, torch.full((len(values), 1), values.shape[1]), **about)
        self.kind, self.shared, self.in_dim = kind, points.ndim == 2, points.shape[-1]
        self._points, self._values = points, values

    def values(self, indices: Tensor | Sequence[int]) -> Tensor:
        """(n, M, C)."""
        return self._values[positions(indices, len(self))]

    def points(self, config: FieldConfig, indices: Tensor | Sequence[int]) -> Tensor:
        """(M, d) or (n, M, d)."""
        return self._points if self.shared else self._points[positions(indices, len(self))]

    def count(self, extent: Sequence[int]) -> int:
        """M."""
        return extent[0]

    def contents(self, indices: Sequence[int]) -> Iterator[Any]:
        """Points, once if they are shared, and values."""
        if self.shared:
            yield self._points
        yield from (
            self._values[i] if self.shared else torch.cat([self._points[i], self._values[i]], 1) for i in indices
        )

    def architecture(self) -> FieldConfig:
        """The default field; its output is a logit where all values lie in [0, 1], else the value itself."""
        inside = bool((self._values >= 0).all() and (self._values <= 1).all())
        return replace(super().architecture(), output="logit" if inside else "linear")

    def _chosen(self, chosen: Tensor) -> dict[str, Any]:
        points = self._points if self.shared else self._points[chosen]
        return {"points": points, "values": self._values[chosen], "kind": self.kind}
