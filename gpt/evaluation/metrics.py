"""The measures of an evaluation, one entry each: distances between two signals, metrics of a set against another, features.

A new measure is one function and one line in `DISTANCES` or `SET_METRICS`; scores, search for copies, table and curves go
through these.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fields.metrics.clouds import nearest_matrix
from fields.metrics.distances import Nearest, dssim, l2, nearest
from fields.metrics.sets import Estimate, bootstrap_mean, coverage_scores, mmd_scores, one_nn_scores
from gpt.evaluation import features


@dataclass(frozen=True)
class Distance:
    """A distance between signals.

    Attributes:
        heading: in tables.
        label: in pictures.
        function: (N, ...) signals, and (M, ...) others or None for themselves -> (N, M).
        kinds: kinds of signals it is meant for.
        digits: shown of a mean distance.
        search: the nearest rows of a large set, with the arguments of `fields.metrics.distances.nearest`; None = it is too
            slow for that.
    """

    heading: str
    label: str
    function: Callable[..., Tensor]
    kinds: tuple[str, ...]
    digits: int
    search: Callable[..., Nearest] | None = None


@dataclass(frozen=True)
class SetMetric:
    """A metric of N samples against as many references, from their distances.

    Attributes:
        heading: in tables.
        direction: "lower" or "higher" is better, or the ideal value.
        scores: (samples x samples, samples x references, references x references) -> scores of points, whose mean it is.
        least: points a side that it needs.
        both: whether the scores are of samples and then of references, which are resampled apart.
        in_distance: whether it has the unit of the distance; otherwise it is a share.
    """

    heading: str
    direction: str
    scores: Callable[[Tensor, Tensor, Tensor], Tensor]
    least: int = 1
    both: bool = False
    in_distance: bool = False


DISTANCES: dict[str, Distance] = {
    "l2": Distance("L2", "L2", l2, ("images", "points"), 2, nearest),
    "ssim": Distance("SSIM", "(1-SSIM)/2", dssim, ("images",), 4),
    "chamfer": Distance("Chamfer", "Chamfer distance", nearest_matrix, ("shapes",), 4),
}
"""Key in metrics.json -> distance, in the table's order."""

SET_METRICS: dict[str, SetMetric] = {
    "mmd": SetMetric("MMD", "lower", lambda ss, sr, rr: mmd_scores(sr), in_distance=True),
    "cov": SetMetric("COV", "higher", lambda ss, sr, rr: coverage_scores(sr)),
    "1-nna": SetMetric("1-NNA", "0.5", one_nn_scores, least=2, both=True),
}
"""Key in metrics.json -> metric, in the table's order."""


@dataclass(frozen=True)
class Features:
    """The classifier behind FID and label accuracy: read from a file, learnt and kept, and told how accurate it is."""

    load: Callable[..., features.Classifier] = features.load_classifier
    cached: Callable[..., tuple[features.Classifier, Path]] = features.cached_classifier
    with_accuracy: Callable[..., features.Classifier] = features.with_accuracy


FEATURES: dict[str, Features] = {"images": Features()}
"""Kind of signals -> what gives FID and label accuracy; other kinds go without."""


@dataclass(frozen=True)
class Evaluation:
    """How fields to signals of a kind are evaluated.

    Attributes:
        n: signals on each side, where --n does not say.
        compute: place of the function (config, inputs) -> (result, pictures): all numbers, and what the report shows.
        report: place of the function (out, result, pictures) -> what the screen shows; it writes the files.
        name: of what makes such a folder, in run.json.
        signals: whether the signals are compared, not only their fields.
    """

    n: int = 1000
    compute: str = "gpt.evaluation.evaluate:compute"
    report: str = "gpt.evaluation.report:write_report"
    name: str = "evaluate"
    signals: bool = True


EVALUATIONS: dict[str, Evaluation] = {
    "shapes": Evaluation(
        200, "gpt.evaluation.shapes:compute", "gpt.evaluation.shapes:write_report", "evaluate_shapes", signals=False
    ),
}
"""Kind of signals -> its evaluation, where it is not the usual one."""


def distances_for(kind: str) -> dict[str, Distance]:
    """The distances meant for a kind of signals; of a kind that none is meant for those of points and values."""
    found = {name: distance for name, distance in DISTANCES.items() if kind in distance.kinds}
    return found or distances_for("points")


def search_of(kind: str) -> Distance:
    """The distance by which copies are looked for among all training fields."""
    every = [*distances_for(kind).values(), *distances_for("points").values()]
    return next(distance for distance in every if distance.search is not None)


def estimates(ss: Tensor, sr: Tensor, rr: Tensor, seed: int) -> dict[str, Estimate]:
    """All set metrics with their 95 % intervals.

    Args:
        ss: (N, N) distances among samples.
        sr: (N, N) from samples to references.
        rr: (N, N) among references.
        seed: of the bootstrap.
    Raises:
        ValueError: if the two sets differ in size: all metrics depend on N.
    """
    n, m = sr.shape
    if n != m or ss.shape != (n, n) or rr.shape != (m, m):
        raise ValueError(f"as many samples as references are needed, got {n} and {m}: the metrics depend on N.")
    found = {}
    for name, metric in SET_METRICS.items():
        if n == 0:
            found[name] = Estimate(None, note="N = 0")
        elif n < metric.least:
            found[name] = Estimate(None, note=f"N = {n}: {metric.heading} needs {metric.least} points a side")
        else:
            strata = {"strata": n} if metric.both else {}
            found[name] = bootstrap_mean(metric.scores(ss, sr, rr), seed=seed, **strata)
    return found
