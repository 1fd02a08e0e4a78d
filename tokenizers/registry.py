"""Which tokenizers there are. Command line, tests and `load_tokenizer` iterate over this table."""

from pathlib import Path
from typing import Any

from tokenizers.base import WeightTokenizer, is_local, read_config
from tokenizers.kmeans import KMeansConfig, KMeansTokenizer
from tokenizers.pca import PCAConfig, PCATokenizer
from tokenizers.quantile import QuantileConfig, QuantileTokenizer

TOKENIZERS: dict[str, tuple[type, type[WeightTokenizer]]] = {
    "kmeans": (KMeansConfig, KMeansTokenizer),
    "quantile": (QuantileConfig, QuantileTokenizer),
    "pca": (PCAConfig, PCATokenizer),
}
"""kind -> (config, class). To add a tokenizer: one file, and one line here."""


def load_tokenizer(path: str | Path, **kwargs: Any) -> WeightTokenizer:
    """The tokenizer in a folder, or `user/name` on the Hub, of whatever kind it is.

    Raises:
        FileNotFoundError: if there is none, with the command that makes one.
        ValueError: if its kind is unknown or its files are damaged.
    """
    where = Path(path) if is_local(path) else Path(_fetch_config(str(path), **kwargs)).parent
    kind = read_config(where)["kind"]
    if kind not in TOKENIZERS:
        raise ValueError(f"{path} holds a tokenizer of kind {kind!r}; this code knows {', '.join(TOKENIZERS)}.")
    return TOKENIZERS[kind][1].from_pretrained(path, **kwargs)


def make_tokenizer(config: Any) -> WeightTokenizer:
    """An unfitted tokenizer of a config."""
    return TOKENIZERS[config.kind][1](config)


def _fetch_config(name: str, **kwargs: Any) -> str:
    from huggingface_hub import hf_hub_download

    known = ("revision", "token", "cache_dir", "force_download", "local_files_only")
    return hf_hub_download(name, "config.json", **{k: v for k, v in kwargs.items() if k in known})
