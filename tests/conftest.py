"""Small fields for all tests."""

import signal

import loopback_env  # noqa: F401  first: the libraries read the Hub's address once
import pytest
import torch
from made import rows
from warm import Warm

from fields.model import FieldConfig
from fields.storage.dataset import WeightDataset
from fields.storage.reference import Reference

for number in (
    signal.SIGINT,
    signal.SIGHUP,
):  # a job in the background ignores them, and so would the commands under test
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def one_thread():
    """Small products are fastest on one thread, and tests may run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def warm():
    """Runs commands without the seconds that imports take, see `warm.Warm`."""
    process = Warm()
    yield process
    process.close()


@pytest.fixture
def on_cpu(monkeypatch):
    """Commands compute on the CPU, also where there is a GPU: for what is compared with other processes there, bit by bit.

    Accelerate keeps the device of its first use in the process; it is forgotten before and afterwards.
    """
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def tiny() -> FieldConfig:
    """49 weights."""
    return FieldConfig(hidden=(6,), octaves=1)


@pytest.fixture
def dataset(tiny) -> WeightDataset:
    """40 training, 10 validation and 10 test fields of two classes, pictures of 4 x 5."""
    weights, splits, at = rows(tiny, 60), {}, 0
    for split, n in (("train", 40), ("validation", 10), ("test", 10)):
        ids = [f"made/{i}" for i in range(at, at + n)]
        splits[split] = {"weights": weights[at : at + n], "labels": torch.arange(n) % 2, "signal_id": ids}
        splits[split]["psnr"] = torch.full((n,), 30.0)
        at += n
    signals = {"name": "made", "label_names": ["even", "odd"], "shape": [4, 5], "channels": 1}
    return WeightDataset.from_rows(tiny, splits, Reference("conditioned", "made", weights.mean(0)), signals)
