"""The table of tokenizers. Command line, tests and `load_tokenizer` iterate over this table."""

from pathlib import Path
from typing import Any

from fields.storage.fetch import fetch
from tokenizers.base import FILES, WeightTokenizer, read_config
from tokenizers.classic.kmeans import KMeansConfig, KMeansTokenizer
from tokenizers.classic.pca import PCAConfig, PCATokenizer
from tokenizers.classic.quantile import QuantileConfig, QuantileTokenizer
from tokenizers.classic.uniform import UniformConfig, UniformTokenizer
from tokenizers.learned.graph import GraphConfig, GraphTokenizer
from tokenizers.learned.regions import RegionsConfig, RegionsTokenizer
from tokenizers.learned.vqvae import VQVAEConfig, VQVAETokenizer

TOKENIZERS: dict[str, tuple[type, type[WeightTokenizer]]] = {
    "kmeans": (KMeansConfig, KMeansTokenizer),
    "quantile": (QuantileConfig, QuantileTokenizer),
    "uniform": (UniformConfig, UniformTokenizer),
    "pca": (PCAConfig, PCATokenizer),
    "vqvae": (VQVAEConfig, VQVAETokenizer),
    "graph": (GraphConfig, GraphTokenizer),
    "regions": (RegionsConfig, RegionsTokenizer),
}
"""kind -> (config, class). To add a tokenizer: one file, and one line here."""


def load_tokenizer(path: str | Path, *, revision: str | None = None, flag: str = "", **kwargs: Any) -> WeightTokenizer:
    """The tokenizer in a folder, or `user/name[@revision]` on the Hub, of whatever kind it is.

    Raises:
        FileNotFoundError: if there is none, with the command that makes one.
        ValueError: if its kind is unknown or its files are damaged.
    """
    where = fetch(path, "model", revision=revision, patterns=FILES, flag=flag)
    kind = read_config(where)["kind"]
    if kind not in TOKENIZERS:
        raise ValueError(f"{path} holds a tokenizer of kind {kind!r}; this code knows {', '.join(TOKENIZERS)}.")
    return TOKENIZERS[kind][1].from_pretrained(where, **kwargs)


def make_tokenizer(config: Any) -> WeightTokenizer:
    """An unfitted tokenizer of a config."""
    return TOKENIZERS[config.kind][1](config)
