"""Which library multiplies float32 matrices on a CPU: PyTorch's own choice (MKL), or oneDNN.

MKL uses no AVX-512 on AMD's CPUs: a core that reaches 95 GFLOP/s with it reaches 200 with oneDNN, both in float32 and both to
its rounding, which differs. PyTorch hands float32 products to oneDNN only where it may round their factors to bfloat16;
oneDNN does that on CPUs with AMX alone, so there it is not used here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

_used = False  # read in compiled models, which cannot ask PyTorch

MATMUL = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch puts an object in the module's place
ROUNDING = 1e-5
"""Largest relative error of a product that counts as float32; with bfloat16 factors it is some 4e-3."""


def use_onednn(on: bool) -> None:
    """Switch this process's float32 products to oneDNN, or back.

    Raises:
        ValueError: as `check_onednn`.
    """
    if on:
        check_onednn()
    global _used
    _used = on
    MATMUL.fp32_precision = "bf16" if on else "none"


def check_onednn() -> None:
    """Refuse oneDNN's products where they are no faster, or not in float32.

    Raises:
        ValueError: saying where they are.
    """
    if not onednn_fits():
        raise ValueError(
            "--precision onednn is for AMD CPUs with AVX-512, where oneDNN's float32 products are twice as fast as MKL's; "
            "this machine has none. Use --precision fp32."
        )


@contextmanager
def products_put_back() -> Iterator[None]:
    """A stage's choice of products ends with it: what the process does next computes as it would alone."""
    try:
        yield
    finally:
        use_onednn(False)


def onednn_used() -> bool:
    """Whether float32 products are oneDNN's."""
    return _used


@cache
def onednn_fits() -> bool:
    """Whether oneDNN's products are faster here, and in float32, which one product shows."""
    info = Path("/proc/cpuinfo")
    said = info.read_text(errors="replace") if info.is_file() else ""
    if (
        "AuthenticAMD" not in said
        or "avx512f" not in said
        or "amx_" in said
        or not torch.backends.mkldnn.is_available()
    ):
        return False
    a = torch.linspace(0.5, 1.5, 128 * 128).view(128, 128)
    before, exact = MATMUL.fp32_precision, a.double() @ a.double()
    MATMUL.fp32_precision = "bf16"
    found = a @ a
    MATMUL.fp32_precision = before
    return float(((found - exact) / exact).abs().max()) < ROUNDING
