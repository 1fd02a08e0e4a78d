"""The command that measures: one subcommand each, one config each."""

from typing import Annotated, Any, Union

import tyro

from scripts.benchmarks.encoding import TokenizersBenchmark, tokenizers
from scripts.benchmarks.fitting import FitBenchmark, fit
from scripts.benchmarks.gpt import GPTBenchmark, gpt
from scripts.benchmarks.scale import ScaleBenchmark, scale
from scripts.benchmarks.shapes import ShapesBenchmark, shapes

BENCHMARKS = {
    "fit": (FitBenchmark, fit),
    "tokenizers": (TokenizersBenchmark, tokenizers),
    "shapes": (ShapesBenchmark, shapes),
    "gpt": (GPTBenchmark, gpt),
    "scale": (ScaleBenchmark, scale),
}
"""name -> (config, function that measures and prints). To add one: a file, and a line here."""

Kind = Union[  # noqa: UP007
    tuple(Annotated[config, tyro.conf.subcommand(name)] for name, (config, _) in BENCHMARKS.items())
]


def parse(args: list[str] | None = None) -> Any:
    """The command line as options."""
    said = "Speed and memory, as ratios measured side by side in one run."
    return tyro.cli(Kind, args=args, description=said, prog="scripts/benchmark.py")


def run(options: Any) -> None:
    """The command."""
    for config, measure in BENCHMARKS.values():
        if type(options) is config:
            measure(options)
