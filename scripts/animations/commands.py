"""The command that makes explanatory animations: one subcommand each, one config each."""

import tyro

from fields.runtime.contents import Commands, find, subcommands, work_of
from fields.runtime.files import check_file
from scripts.animations.options import (
    AnimateAutoregressive,
    AnimateDelta,
    AnimateFit,
    AnimateInterpolate,
    AnimatePermutation,
    AnimateRegression,
    AnimateVocabulary,
    Film,
)

ANIMATIONS: Commands = {
    "fit": (AnimateFit, "scripts.animations.fit:animate_fit"),
    "delta": (AnimateDelta, "scripts.animations.fit:animate_fit"),
    "permutation": (AnimatePermutation, "scripts.animations.permutation:animate_permutation"),
    "autoregressive": (AnimateAutoregressive, "scripts.animations.autoregressive:animate_autoregressive"),
    "vocabulary": (AnimateVocabulary, "scripts.animations.vocabulary:animate_vocabulary"),
    "interpolate": (AnimateInterpolate, "scripts.animations.interpolate:animate_interpolate"),
    "regression": (AnimateRegression, "scripts.animations.regression:animate_regression"),
}
"""name -> (config, function that makes the animation). To add one: a file, its config, and a line here."""


def parse(args: list[str] | None = None) -> Film:
    """The command line as options."""
    said = (
        "Explanatory animations from real fields, as MP4 for slides or (--readme) as a small GIF.\n\n"
        "Without options, most of them use scikit-learn's digits and need no other files. Options: NAME --help.\n\n"
        "For example:\n"
        "    python scripts/animate.py fit                                  # runs/animations/fit.mp4\n"
        "    python scripts/animate.py permutation --theme dark\n"
        "    python scripts/animate.py interpolate --readme --out walk.gif"
    )
    return tyro.cli(subcommands(ANIMATIONS), args=args, description=said, prog="scripts/animate.py")


def run(options: Film) -> None:
    """The command."""
    name, make = work_of(ANIMATIONS, options)
    check_file(options.path(name), "--out")
    find("scripts.animations.canvas:save")(make(options), options, name)
