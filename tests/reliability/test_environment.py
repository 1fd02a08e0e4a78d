"""What launchers and clusters leave in the environment changes no result: it is left alone, or refused in a sentence."""

import pytest
import torch

from fields.runtime.launch import check_world, environment_number, start


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"])
def test_numbers_of_launchers(monkeypatch, name):
    monkeypatch.setenv(name, "")
    assert environment_number(name, 3) == 3 and start(threads=1, quiet=True).num_processes == 1
    for odd in ("two", "-1", "1.5"):
        monkeypatch.setenv(name, odd)
        with pytest.raises(ValueError, match=f"variable {name} must be a whole number, got '{odd}'. Unset it"):
            start(threads=1, quiet=True)
    monkeypatch.setenv("WORLD_SIZE", " 2 ")
    with pytest.raises(RuntimeError, match="2 processes were asked for"):
        check_world(1)


def test_the_launchers_accumulation_divides_no_loss(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator, number = start(threads=1, quiet=True), torch.ones(1, requires_grad=True)
    accelerator.backward(3 * number.sum())
    assert number.grad == 3


@pytest.mark.parametrize("name", ["DEEPSPEED", "FSDP", "MEGATRON_LM"])
def test_what_spreads_a_model_is_refused(monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ValueError, match=f"asks for {name}, but every process here holds the whole model"):
        start(threads=1, quiet=True)
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "false")
    assert start(threads=1, quiet=True).num_processes == 1
