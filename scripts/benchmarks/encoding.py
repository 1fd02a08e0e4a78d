"""Weights encoded per second by scalar k-means, against scikit-learn."""

import time
from dataclasses import dataclass

import torch

from fields.model import FieldConfig
from fields.runtime.launch import cores


@dataclass(frozen=True)
class TokenizersBenchmark:
    """Scalar k-means: encoding against scikit-learn's `KMeans.predict` over the same values and centres."""

    n: int = 20_000
    """Fields of 593 weights (made up: the time does not depend on the values)."""
    vocab_size: int = 256
    """Codes."""
    threads: int | None = None
    """CPU threads; None = all cores."""
    seed: int = 0


def tokenizers(config: TokenizersBenchmark) -> None:
    """Print the table of encoding."""
    from sklearn.cluster import KMeans

    from tokenizers.classic.kmeans import KMeansConfig, KMeansTokenizer

    threads = config.threads or cores()
    torch.set_num_threads(threads)
    field = FieldConfig()
    weights = torch.randn(config.n, field.size, generator=torch.Generator().manual_seed(config.seed))
    tokenizer = KMeansTokenizer(KMeansConfig(field=field.to_dict(), vocab_size=config.vocab_size, standardize="none"))
    tokenizer.fit(weights)
    sample = weights[:100].reshape(-1, 1).numpy()
    theirs = KMeans(config.vocab_size, n_init=1, max_iter=1, random_state=0).fit(sample)
    theirs.cluster_centers_ = (
        tokenizer.decode(torch.arange(tokenizer.codes).repeat(field.size, 1).T)[:, :1].double().numpy()
    )
    values = weights.reshape(-1, 1).numpy().astype(theirs.cluster_centers_.dtype)
    theirs._n_threads = threads
    theirs.predict(values[:1000])
    began = time.perf_counter()
    expected = theirs.predict(values)
    sklearn_time = time.perf_counter() - began
    tokenizer.encode(weights[:10])
    began = time.perf_counter()
    ids = tokenizer.encode(weights)
    our_time = time.perf_counter() - began
    agree = (torch.from_numpy(expected).view(ids.shape) == ids).double().mean()
    count = weights.numel()
    print(f"{count:,} weights, {tokenizer.codes} codes, {threads} threads, seed {config.seed}")
    print(f"scikit-learn KMeans.predict {count / sklearn_time / 1e6:8.1f} million weights/s")
    print(f"tokenizers.kmeans encode    {count / our_time / 1e6:8.1f} million weights/s")
    print(f"ratio {sklearn_time / our_time:.1f}; equal codes {100 * float(agree):.4f} %")
