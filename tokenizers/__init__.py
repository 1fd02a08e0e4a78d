"""Vocabularies for the weights of neural fields: rows of weights <-> rows of ids.

In memory, two lines:

    tokenizer = KMeansTokenizer.for_field(field, vocab_size=16).fit(weights)  # weights (N, P)
    ids = tokenizer.encode(weights)  # (N, T) int64; decode(ids) goes back

Names are imported on first use. This is not Hugging Face's package of the same name: code that expects that one, such as
`transformers` in the same process, fails with "cannot import name 'Encoding' from 'tokenizers'". See the main README, "Names".
"""

from fields.runtime.contents import contents

_HOMES = {
    "load_tokenizer": "registry",
    "make_tokenizer": "registry",
    "TOKENIZERS": "registry",
    "WeightTokenizer": "base",
    "TokenizerConfig": "options",
    "Standardizer": "standardizer",
    "Vocab": "vocab",
    "TokenDataset": "tokens",
    "TokenInfo": "tokens",
    "Refit": "refit",
    "RefitConfig": "options",
    "UniformConfig": "classic.options",
    "UniformTokenizer": "classic.uniform",
    "QuantileConfig": "classic.options",
    "QuantileTokenizer": "classic.quantile",
    "KMeansConfig": "classic.options",
    "KMeansTokenizer": "classic.kmeans",
    "PCAConfig": "classic.options",
    "PCATokenizer": "classic.pca",
    "VQVAEConfig": "learned.options",
    "VQVAETokenizer": "learned.vqvae",
    "GraphConfig": "learned.options",
    "GraphTokenizer": "learned.graph",
    "RegionsConfig": "learned.options",
    "RegionsTokenizer": "learned.regions",
}
"""Public name -> the module that defines it."""
__all__ = sorted(_HOMES)
__getattr__, __dir__ = contents(__name__, _HOMES)
