"""The command that measures: one subcommand each, one config each."""

from typing import Any

import tyro

from fields.runtime.contents import Commands, subcommands, work_of
from scripts.benchmarks.options import FitBenchmark, GPTBenchmark, ScaleBenchmark, ShapesBenchmark, TokenizersBenchmark

BENCHMARKS: Commands = {
    "fit": (FitBenchmark, "scripts.benchmarks.fitting:fit"),
    "tokenizers": (TokenizersBenchmark, "scripts.benchmarks.encoding:tokenizers"),
    "shapes": (ShapesBenchmark, "scripts.benchmarks.shapes:shapes"),
    "gpt": (GPTBenchmark, "scripts.benchmarks.gpt:gpt"),
    "scale": (ScaleBenchmark, "scripts.benchmarks.scale:scale"),
}
"""name -> (config, function that measures and prints). To add one: a file, its config, and a line here."""


def parse(args: list[str] | None = None) -> Any:
    """The command line as options."""
    said = (
        "Speed and memory, as ratios measured side by side in one run.\n\n"
        "For example:\n"
        "    python scripts/benchmark.py tokenizers --vocab-sizes 16 64"
    )
    return tyro.cli(subcommands(BENCHMARKS), args=args, description=said, prog="scripts/benchmark.py")


def run(options: Any) -> None:
    """The command."""
    work_of(BENCHMARKS, options)[1](options)
