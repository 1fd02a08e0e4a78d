"""How close surfaces are to one another: points on them, Chamfer distances, F-score, and matrices between sets.

The convention of sets is HyperDiffusion's (arXiv:2303.17015): 2,048 points by area, each cloud minus its mean per axis and
divided by one standard deviation over all its coordinates; the Chamfer distance is the sum of the mean squared distances
to the nearest point in both directions.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from torch import Tensor, from_numpy

POINTS = 2048
"""Points of a cloud."""
COARSE, SHORTLIST = 128, 8
"""Of a search for the nearest cloud: points by which the first choice is made, and clouds then compared by all points."""
FEW = 400
"""Pairs below which processes are not worth their start."""


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
    if workers > 1 and len(a) * len(both) > FEW:
        context = multiprocessing.get_context("spawn")  # forks of a process with threads hang
        with ProcessPoolExecutor(workers, context, initializer=_prepare, initargs=(a, both)) as pool:
            found = pool.map(_row, rows, chunksize=max(1, len(rows) // (8 * workers)))
            for (i, first), row in zip(rows, found, strict=True):
                out[i, first:], done = row, done + len(row)
                if progress is not None:
                    progress(done)
    else:
        state = _state(a, both)
        for i, first in rows:
            out[i, first:] = _one_row(state, i, first)
            done += len(both) - first
            if progress is not None:
                progress(done)
    return from_numpy(out + out.T if b is None else out)


def nearest_chamfer(
    a: Sequence[np.ndarray], pool: Sequence[np.ndarray], *, coarse: int = COARSE, shortlist: int = SHORTLIST
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest cloud of a large set: by few points of each first, then by all points of the nearest ones.

    Args:
        a: N clouds.
        pool: M clouds.
        coarse: points of each cloud by which the first choice is made.
        shortlist: clouds that are then compared by all points.
    Returns:
        (N,) Chamfer distances and (N,) positions in the pool.
    """
    few, many = [[cloud[:coarse] for cloud in side] for side in (a, pool)]
    trees = [_tree(cloud) for cloud in many]
    distances, places = np.zeros(len(a)), np.zeros(len(a), np.int64)
    for i, cloud in enumerate(a):
        tree = _tree(few[i])
        rough = [_chamfer(few[i], tree, other, its) for other, its in zip(many, trees, strict=True)]
        chosen = np.argsort(rough, kind="stable")[:shortlist]
        exact = [chamfer(cloud, pool[j]) for j in chosen]
        best = int(np.argmin(exact))
        distances[i], places[i] = exact[best], chosen[best]
    return distances, places


def seconds_for(clouds: Sequence[np.ndarray], pairs: int, *, workers: int = 1) -> float:
    """How long `pairs` distances take, from one that is computed here."""
    state = _state(clouds[:1], clouds[-1:])
    began = time.perf_counter()
    _one_row(state, 0, 0)
    return (time.perf_counter() - began) * pairs / max(workers, 1)


_SHARED: tuple = ()
"""The clouds and their trees in a worker process."""


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
