"""How close surfaces are to one another: points on them, Chamfer distances, F-score, and matrices between sets.

The convention of sets is HyperDiffusion's (arXiv:2303.17015): 2,048 points by area, each cloud minus its mean per axis and
divided by one standard deviation over all its coordinates; the Chamfer distance is the sum of the mean squared distances
to the nearest point in both directions.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from torch import Tensor, from_numpy

POINTS = 2048
"""Points of a cloud."""
FEW = 400
"""Pairs below which processes are not worth their start."""
CELL = 0.2
"""Edge of the cells of lower bounds, in standard deviations of a cloud."""
CELLS = 8000
"""About as many cells hold points of many clouds."""
ROUNDING = 1e-5
"""What float32 may add to a lower bound."""
TIED = 2e-5
"""Distances this close to the nearest one (absolute below 1, else relative) are exact, too: scores take them as equal."""


def is_closed(faces: np.ndarray) -> bool:
    """Whether every directed edge occurs as often as its opposite, and no edge stands alone.

    Args:
        faces: (F, 3).
    """
    if not len(faces):
        return False
    edges = edges_of(faces).astype(np.int64)
    top = int(edges.max()) + 1
    forward_, back = (np.unique(e[:, 0] * top + e[:, 1], return_counts=True) for e in (edges, edges[:, ::-1]))
    return np.array_equal(forward_[0], back[0]) and np.array_equal(forward_[1], back[1])


def edges_of(faces: np.ndarray) -> np.ndarray:
    """(3 F, 2) directed edges of (F, 3) triangles."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def signed_volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume by the divergence theorem; negative for faces that look inwards."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def on_surface(vertices: np.ndarray, faces: np.ndarray, n: int = POINTS, *, seed: int = 0) -> np.ndarray:
    """Random points on a surface, as likely everywhere.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
    Returns:
        (n, 3) float64.
    Raises:
        ValueError: for a surface without area.
    """
    generator = np.random.default_rng(seed)
    a, b, c = (np.asarray(vertices, np.float64)[faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).cumsum()
    if not len(area) or not area[-1] > 0:
        raise ValueError(
            "points can only be drawn from faces with an area, and this surface has none; count it as a failure."
        )
    chosen = np.searchsorted(area, generator.uniform(0, area[-1], n)).clip(0, len(area) - 1)
    u, v = np.sqrt(generator.random((n, 1))), generator.random((n, 1))
    return (1 - u) * a[chosen] + u * (1 - v) * b[chosen] + u * v * c[chosen]


def standardised(cloud: np.ndarray) -> np.ndarray:
    """(M, 3) minus the mean per axis, divided by one standard deviation over all coordinates."""
    moved = cloud - cloud.mean(0)
    return moved / max(moved.std(), 1e-12)


def chamfer(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared distance to the nearest point, from a to b plus from b to a.

    Args:
        a: (M, 3).
        b: (K, 3).
    """
    return _chamfer(a, _tree(a), b, _tree(b))


def _tree(cloud: np.ndarray) -> Any:
    """For the nearest point."""
    from scipy.spatial import cKDTree  # takes half as long to import as torch

    return cKDTree(cloud)


def _chamfer(a: np.ndarray, tree_a: Any, b: np.ndarray, tree_b: Any) -> float:
    return float((tree_b.query(a)[0] ** 2).mean() + (tree_a.query(b)[0] ** 2).mean())


def f_score(a: np.ndarray, b: np.ndarray, radius: float) -> float:
    """Harmonic mean of the shares of points that have one of the other cloud within `radius`, in [0, 1]."""
    precision = float((_tree(b).query(a)[0] < radius).mean())
    recall = float((_tree(a).query(b)[0] < radius).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def chamfer_matrix(
    a: Sequence[np.ndarray],
    b: Sequence[np.ndarray] | None = None,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Chamfer distances of all pairs, one process per worker.

    Args:
        a: N clouds.
        b: M clouds; None = a, where each pair is computed once.
        workers: processes; 1 = this one.
        progress: called with the pairs done so far.
    Returns:
        (N, M) float32.
    """
    both = a if b is None else b
    rows = [(i, i + 1 if b is None else 0) for i in range(len(a))]  # (row, first column)
    out, done = np.zeros((len(a), len(both)), np.float32), 0
    for (i, first), row in zip(rows, _mapped(_row, rows, _prepare, (a, both), workers), strict=True):
        out[i, first:], done = row, done + len(row)
        if progress is not None:
            progress(done)
    return from_numpy(out + out.T if b is None else out)


def nearest_matrix(
    a: Sequence[np.ndarray],
    b: Sequence[np.ndarray] | None = None,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Chamfer distances, exact where a cloud has its nearest ones; elsewhere lower bounds, which are larger than those.

    Rows and columns have the same smallest entries, at the same places, as those of `chamfer_matrix`, from few distances.

    Args:
        a: N clouds.
        b: M clouds; None = a, where no cloud is compared with itself.
        workers: processes; 1 = this one.
        progress: called with the rows and columns done so far, N, and M more where `b` is given.
    Returns:
        (N, M) float32.
    """
    a, b = list(map(np.asarray, a)), None if b is None else list(map(np.asarray, b))  # of a tensor, rows that stay
    first, place = _distinct(a)
    if len(first) < len(a):
        few = nearest_matrix([a[i] for i in first], b, workers=workers, progress=progress)
        return few[place] if b is not None else few[place][:, place]
    out, done = _bounds(a, b), 0
    known = np.zeros(out.shape, bool)
    turns = [(a, b, out, known)] + ([] if b is None else [(b, a, out.T, known.T)])
    for rows, columns, view, exact in turns:
        jobs, state = range(len(rows)), (rows, columns, view.copy(), exact.copy())
        for i, (places, values) in zip(
            jobs, _mapped(_nearest_row, jobs, _prepare_nearest, state, workers), strict=True
        ):
            view[i, places], exact[i, places] = values, True
            if b is None:
                view[places, i] = values
            done += 1
            if progress is not None:
                progress(done)
    return from_numpy(out)


def nearest_chamfer(a: Sequence[np.ndarray], pool: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The nearest cloud of a large set.

    Args:
        a: N clouds.
        pool: M clouds.
    Returns:
        (N,) Chamfer distances and (N,) positions in the pool.
    """
    bounds = _bounds(a, pool)
    state = _nearest_state(a, pool, bounds, np.zeros(bounds.shape, bool))
    distances, found = np.zeros(len(a)), np.zeros(len(a), np.int64)
    for i in range(len(a)):
        places, values = _one_nearest(state, i)
        distances[i], found[i] = values.min(), places[values.argmin()]
    return distances, found


def _distinct(a: Sequence[np.ndarray]) -> tuple[list[int], list[int]]:
    """Where each cloud stands first, and for every cloud which of those it is: one object may stand there several times."""
    first: dict[int, int] = {}
    place = [first.setdefault(id(cloud), len(first)) for cloud in a]
    return [place.index(i) for i in range(len(first))], place


def _bounds(a: Sequence[np.ndarray], b: Sequence[np.ndarray] | None) -> np.ndarray:
    """(N, M) float32 lower bounds of Chamfer distances, 0 on the diagonal where `b` is None."""
    if b is None:
        one = _one_way(a, a)
        return one + one.T
    return _one_way(a, b) + _one_way(b, a).T


def _one_way(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """(N, M) float32 lower bounds of the mean squared distance from the points of each of `a` to the nearest of each of `b`.

    Space is cut into cells. A point is as far from a cloud as the middle of its cell, less its own distance to the middle;
    the squares of a cell's points are at least their number times the square of what the mean of these distances leaves.
    """
    points = np.concatenate(a)
    at = np.floor(points / CELL).astype(np.int64)
    low = at.min(0)
    shape = at.max(0) - low + 1
    cells, place = np.unique(np.ravel_multi_index((at - low).T, shape), return_inverse=True)
    middles = (np.stack(np.unravel_index(cells, shape), 1) + low + 0.5) * CELL
    slack = np.linalg.norm(points - middles[place], axis=1)
    far = np.empty((len(cells), len(b)), np.float32)
    for j, cloud in enumerate(b):
        far[:, j] = _tree(cloud).query(middles)[0]
    out, ends = np.empty((len(a), len(b)), np.float32), np.cumsum([len(cloud) for cloud in a])
    for i, (end, cloud) in enumerate(zip(ends, a, strict=True)):
        own = slice(end - len(cloud), end)
        mine, inverse, counts = np.unique(place[own], return_inverse=True, return_counts=True)
        mean = np.bincount(inverse, slack[own]) / counts
        left = (far[mine] - (mean[:, None] + ROUNDING).astype(np.float32)).clip(0)
        out[i] = (counts / len(cloud)).astype(np.float32) @ np.square(left) * np.float32(1 - ROUNDING)
    return out


def seconds_for(a: np.ndarray, b: np.ndarray, n: int, m: int, *, workers: int = 1) -> float:
    """About how long `nearest_matrix` of n and m clouds takes, from one distance of such clouds that is computed here.

    Of shapes of several families, a cloud needs about the square root of m distances (1.1 times that of 50 and of 99 solids).
    """
    trees, began = (_tree(a), _tree(b)), time.perf_counter()
    _chamfer(a, trees[0], b, trees[1])
    pair = time.perf_counter() - began
    return pair * (1.1 * n * m**0.5 / max(workers, 1) + (n + m) * CELLS / (len(a) + len(b)))


_SHARED: tuple = ()
"""The clouds and their trees in a worker process."""


def _mapped(function: Callable, jobs: Sequence, prepare: Callable, state: tuple, workers: int) -> Iterator:
    """Results of the jobs in their order, by processes where that pays; `prepare` gets what all jobs share."""
    if workers > 1 and len(state[0]) * len(state[1] or state[0]) > FEW:
        context = multiprocessing.get_context("spawn")  # forks of a process with threads hang
        with ProcessPoolExecutor(workers, context, initializer=prepare, initargs=state) as pool:
            yield from pool.map(function, jobs, chunksize=max(1, len(jobs) // (8 * workers)))
    else:
        prepare(*state)
        yield from map(function, jobs)


def _state(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> tuple:
    trees = [_tree(cloud) for cloud in b]
    return a, trees if a is b else [_tree(cloud) for cloud in a], b, trees


def _prepare(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> None:
    global _SHARED
    _SHARED = _state(a, b)


def _row(job: tuple[int, int]) -> np.ndarray:
    return _one_row(_SHARED, *job)


def _one_row(state: tuple, i: int, first: int) -> np.ndarray:
    a, trees_a, b, trees_b = state
    return np.array([_chamfer(a[i], trees_a[i], b[j], trees_b[j]) for j in range(first, len(b))], np.float32)


def _nearest_state(
    a: Sequence[np.ndarray], b: Sequence[np.ndarray] | None, bounds: np.ndarray, known: np.ndarray
) -> tuple:
    return *_state(a, a if b is None else b), bounds, known, b is None


def _prepare_nearest(
    a: Sequence[np.ndarray], b: Sequence[np.ndarray] | None, bounds: np.ndarray, known: np.ndarray
) -> None:
    global _SHARED
    _SHARED = _nearest_state(a, b, bounds, known)


def _nearest_row(i: int) -> tuple[np.ndarray, np.ndarray]:
    return _one_nearest(_SHARED, i)


def _one_nearest(state: tuple, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the clouds that may be nearest to cloud i, in the order of their bounds, and their float32 distances.

    Where a distance is known, it is its own bound.
    """
    a, trees_a, b, trees_b, bounds, known, own = state
    places, values, best = [], [], np.inf
    for j in np.argsort(bounds[i], kind="stable").tolist():
        if own and i == j:
            continue
        if bounds[i, j] > best + TIED * max(best, 1.0):
            break
        places.append(j)
        values.append(bounds[i, j] if known[i, j] else np.float32(_chamfer(a[i], trees_a[i], b[j], trees_b[j])))
        best = min(best, float(values[-1]))
    return np.array(places, np.int64), np.array(values, np.float32)
