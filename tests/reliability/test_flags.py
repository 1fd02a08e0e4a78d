"""Every number of every command: what is no number, or fits no 64 bits, is refused by name and without a trace."""

import dataclasses
import typing

import pytest

from fields.fitting.align import AlignConfig
from fields.fitting.fit import FitConfig
from fields.formats.exporter import ExportConfig
from fields.formats.importer import ImportConfig
from fields.runtime.flags import checked
from gpt.evaluation.evaluate import EvaluateConfig
from gpt.sampling.sample import SampleConfig
from gpt.train_gpt import TrainConfig
from tokenizers.compare import CompareConfig
from tokenizers.registry import TOKENIZERS

CONFIGS = [AlignConfig, FitConfig, ExportConfig, ImportConfig, EvaluateConfig, SampleConfig, TrainConfig, CompareConfig]
CONFIGS += [config for config, _ in TOKENIZERS.values()]
REQUIRED = {str: "x", bool: False, int: 1, float: 0.5}


def numbers(config: type) -> list[tuple[str, type]]:
    """Flags that take an integer or a float."""
    hints, found = typing.get_type_hints(config), []
    for f in dataclasses.fields(config):
        kinds = {hints[f.name], *typing.get_args(hints[f.name])}
        if typing.get_origin(hints[f.name]) is not tuple:
            found += [(f.name, kind) for kind in (int, float) if kind in kinds]
    return found


CASES = [(config, name, kind) for config in CONFIGS for name, kind in numbers(config)]


@pytest.mark.parametrize(("config", "name", "kind"), CASES, ids=[f"{c.__name__}-{n}-{k.__name__}" for c, n, k in CASES])
def test_numbers_out_of_reach_are_refused(config, name, kind):
    needed = {}
    for f in dataclasses.fields(config):
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            needed[f.name] = REQUIRED.get(typing.get_type_hints(config)[f.name], "x")
    for value in (float("nan"), float("inf"), -float("inf")) if kind is float else (2**63, -(2**63) - 1, 10**40):
        with pytest.raises(ValueError):
            checked(config(**{**needed, name: value}))
