"""The command that makes explanatory animations: one subcommand each, one config each."""

from typing import Annotated, Union

import tyro

from scripts.animations.autoregressive import AnimateAutoregressive, animate_autoregressive
from scripts.animations.canvas import Film, save
from scripts.animations.fit import AnimateDelta, AnimateFit, animate_fit
from scripts.animations.interpolate import AnimateInterpolate, animate_interpolate
from scripts.animations.permutation import AnimatePermutation, animate_permutation
from scripts.animations.regression import AnimateRegression, animate_regression
from scripts.animations.vocabulary import AnimateVocabulary, animate_vocabulary

ANIMATIONS = {
    "fit": (AnimateFit, animate_fit),
    "delta": (AnimateDelta, animate_fit),
    "permutation": (AnimatePermutation, animate_permutation),
    "autoregressive": (AnimateAutoregressive, animate_autoregressive),
    "vocabulary": (AnimateVocabulary, animate_vocabulary),
    "interpolate": (AnimateInterpolate, animate_interpolate),
    "regression": (AnimateRegression, animate_regression),
}
"""name -> (config, function that makes the animation). To add one: a file, and a line here."""

Kind = Union[  # noqa: UP007
    tuple(Annotated[config, tyro.conf.subcommand(name)] for name, (config, _) in ANIMATIONS.items())
]


def parse(args: list[str] | None = None) -> Film:
    """The command line as options."""
    said = (
        "Explanatory animations from real fields, as MP4 for slides or (--readme) as a small GIF.\n\n"
        "Without options the embedded digits are used, and nothing has to be there before. See NAME --help.\n\n"
        "For example:\n"
        "    python scripts/animate.py fit                                  # runs/animations/fit.mp4\n"
        "    python scripts/animate.py permutation --theme dark\n"
        "    python scripts/animate.py interpolate --readme --out walk.gif"
    )
    return tyro.cli(Kind, args=args, description=said, prog="scripts/animate.py")


def run(options: Film) -> None:
    """The command."""
    for name, (config, make) in ANIMATIONS.items():
        if type(options) is config:
            save(make(options), options, name)
