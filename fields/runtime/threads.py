"""When not to use all cores."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run short operations on one thread: waking the others takes longer, on a busy machine many times longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def share(work: Callable[[int], None], jobs: Sequence[int], threads: int) -> None:
    """Call `work` for each job, on several threads where there is enough to do; each computes on one thread alone."""
    if threads < 2 or len(jobs) < 2 * threads:
        for job in jobs:
            work(job)
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(work, jobs))
