"""Weights encoded per second by scalar k-means, against scikit-learn, a binary search, and the memory's own speed.

Times are CPU seconds of the process, which other work on the machine does not change; the median of a few turns counts.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from fields.model import FieldConfig
from scripts.benchmarks.options import TokenizersBenchmark


def cpu_seconds(work: Callable[[], object], turns: int) -> float:
    """Median CPU time of a call, after one that is not counted."""
    times = []
    for _ in range(turns + 1):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return sorted(times[1:])[turns // 2]


def tokenizers(config: TokenizersBenchmark) -> None:
    """Print the table of encoding."""
    from sklearn.cluster import KMeans

    from tokenizers.classic.kmeans import KMeansTokenizer
    from tokenizers.classic.options import KMeansConfig

    torch.set_num_threads(config.threads)
    field = FieldConfig()
    weights = torch.randn(config.n, field.size, generator=torch.Generator().manual_seed(config.seed))
    count, out = weights.numel(), torch.empty(weights.shape, dtype=torch.int64)
    copied = cpu_seconds(lambda: out.copy_(weights), config.turns)
    print(f"{count:,} weights, {config.threads} thread(s), seed {config.seed}; million weights per CPU second")
    print(f"the memory's own speed: reading float32 and writing int64 {count / copied / 1e6:.0f}")
    print(
        f"{'codes':>6} {'predict':>9} {'searchsorted':>13} {'encode':>8} {'ratio':>7} {'of memory':>10} {'equal codes':>12}"
    )
    for size in config.vocab_sizes:
        tokenizer = KMeansTokenizer(KMeansConfig(field=field.to_dict(), vocab_size=size, standardize="none"))
        tokenizer.fit(weights[:1000])
        every = torch.arange(tokenizer.codes).repeat(field.size, 1).T
        centres = tokenizer.decode(every)[:, :1].double().numpy()
        theirs = KMeans(tokenizer.codes, n_init=1, max_iter=1, random_state=0).fit(centres)
        theirs.cluster_centers_, theirs._n_threads = centres, config.threads
        values = weights.reshape(-1, 1).numpy().astype(centres.dtype)
        bounds = ((centres[1:] + centres[:-1]) / 2)[:, 0]
        ids, expected = tokenizer.encode(weights), theirs.predict(values)
        agree = (torch.from_numpy(expected).view(ids.shape) == ids).double().mean()
        predict = cpu_seconds(lambda k=theirs, v=values: k.predict(v), 1)
        search = cpu_seconds(lambda b=bounds, v=values: np.searchsorted(b, v[:, 0]), 1)
        ours = cpu_seconds(lambda t=tokenizer: t.encode(weights), config.turns)
        speeds = [count / seconds / 1e6 for seconds in (predict, search, ours)]
        print(
            f"{tokenizer.codes:6} {speeds[0]:9.1f} {speeds[1]:13.1f} {speeds[2]:8.1f} {predict / ours:7.1f} "
            f"{100 * copied / ours:8.0f} % {100 * float(agree):10.4f} %",
            flush=True,
        )
