"""What the fits of a dataset began from: a row, an encoder that predicts rows, or a row with directions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fields.runtime.runs import digest, write_atomic

HINT = "A weight dataset is made with: python scripts/fit_fields.py --signals digits --out DIR"
ENCODER = "encoder.safetensors"
"""Beside field.json where fields began from an amortised start."""
SUBSPACE = "subspace.safetensors"
"""Beside field.json where fields moved in a subspace."""


@dataclass(frozen=True)
class Reference:
    """The row the fits began from."""

    start: str = "unconditioned"
    """unconditioned | conditioned | meta | amortised | subspace | unknown."""
    how: str = "each field from its own random weights"
    """How the row was made, in words."""
    row: Tensor | None = None
    """(P,) float32, None without a common start; for amortised the encoder's base row."""
    encoder: dict | None = None
    """For amortised and subspace: the file of the start's tensors and their digest."""
    tensors: Mapping[str, Tensor] | None = None
    """These tensors where they are at hand; see `fields.fitting.amortised` and `fields.fitting.subspace`."""
    seen: str = ""
    """Sample of the signals it has learnt from beyond those of its own dataset; see `fields.signals.seen`."""

    @classmethod
    def amortised(cls, how: str, tensors: Mapping[str, Tensor]) -> "Reference":
        """The start of an encoder, whose base row is `tensors["row"]`."""
        tensors = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
        about = {"file": ENCODER, "digest": digest(*tensors.values())}
        return cls("amortised", how, tensors["row"], about, tensors)

    @classmethod
    def subspace(cls, how: str, row: Tensor, basis: Tensor) -> "Reference":
        """A row (P,) and the (K, P) directions in which fields may move."""
        tensors = {"basis": basis.contiguous(), "row": row.contiguous()}
        return cls("subspace", how, row, {"file": SUBSPACE, "digest": digest(*tensors.values())}, tensors)

    @property
    def file(self) -> str:
        """Name of the file of the tensors; never what field.json says."""
        return SUBSPACE if self.start == "subspace" else ENCODER

    def to_dict(self) -> dict:
        """Plain values; float32 numbers survive JSON exactly. An encoder's tensors have a file of their own."""
        made: dict[str, Any] = {
            "start": self.start,
            "how": self.how,
            "row": None if self.row is None else self.row.tolist(),
        }
        made |= {} if self.encoder is None else {"encoder": self.encoder}
        return made | ({"seen": self.seen} if self.seen else {})

    @classmethod
    def from_dict(cls, values: dict, folder: Path | None = None) -> "Reference":
        """The reference `to_dict` wrote.

        Args:
            folder: where the encoder's file lies, if there is one.
        Raises:
            ValueError: if values or file are damaged.
        """
        try:
            start, how, row = str(values["start"]), str(values["how"]), values.get("row")
            row = None if row is None else torch.tensor(row, dtype=torch.float32)
            encoder = None if values.get("encoder") is None else dict(values["encoder"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"`reference` in field.json cannot be read ({type(error).__name__}: {error}). {HINT}"
            ) from None
        made = cls(start, how, row, encoder, seen=str(values.get("seen") or ""))
        return made if encoder is None or folder is None else made.with_file(folder)

    def with_file(self, folder: Path) -> "Reference":
        """The same with the encoder's tensors, where the folder has them.

        Raises:
            ValueError: if they are damaged, or another encoder's.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = folder / self.file
        if not path.is_file():
            return self
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read ({error}). Restore it, or fit the dataset again.") from None
        if digest(*(tensors[name] for name in sorted(tensors))) != (self.encoder or {}).get("digest"):
            what = "subspace" if self.start == "subspace" else "encoder"
            raise ValueError(f"{path} is not the {what} that field.json describes. Restore it, or fit again.")
        return replace(self, tensors=tensors)

    def save_encoder(self, folder: Path) -> None:
        """Write the encoder's tensors, if there are any, into a folder."""
        if self.tensors is not None:
            from safetensors.torch import save_file

            with write_atomic(folder / self.file) as temporary:
                save_file(dict(self.tensors), temporary)
