"""The table of tokenizers, and the command line that is made of it. Nothing here imports PyTorch before it is needed."""

from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from fields.runtime.contents import find, subcommands
from fields.runtime.flags import Device, Overwrites, Threads, check_numbers, check_tracker
from fields.storage.fetch import fetch
from tokenizers.classic.options import KMeansConfig, PCAConfig, QuantileConfig, UniformConfig
from tokenizers.learned.options import GraphConfig, RegionsConfig, VQVAEConfig
from tokenizers.options import RefitConfig, ReportConfig, TokenizerConfig

if TYPE_CHECKING:
    from tokenizers.base import WeightTokenizer

TOKENIZERS: dict[str, tuple[type[TokenizerConfig], str | type]] = {
    "kmeans": (KMeansConfig, "tokenizers.classic.kmeans:KMeansTokenizer"),
    "quantile": (QuantileConfig, "tokenizers.classic.quantile:QuantileTokenizer"),
    "uniform": (UniformConfig, "tokenizers.classic.uniform:UniformTokenizer"),
    "pca": (PCAConfig, "tokenizers.classic.pca:PCATokenizer"),
    "vqvae": (VQVAEConfig, "tokenizers.learned.vqvae:VQVAETokenizer"),
    "graph": (GraphConfig, "tokenizers.learned.graph:GraphTokenizer"),
    "regions": (RegionsConfig, "tokenizers.learned.regions:RegionsTokenizer"),
}
"""kind -> (config, class, or where it stands: imported when it is used). To add a tokenizer: one file, and one line here."""
DIGITS = "runs/digits/fields"


def class_of(kind: str) -> type["WeightTokenizer"]:
    """The class of a kind."""
    place = TOKENIZERS[kind][1]
    return find(place) if isinstance(place, str) else place


def load_tokenizer(
    path: str | Path, *, revision: str | None = None, flag: str = "", **kwargs: Any
) -> "WeightTokenizer":
    """The tokenizer in a folder, or `user/name[@revision]` on the Hub, of whatever kind it is.

    Raises:
        FileNotFoundError: if there is none, with the command that makes one.
        ValueError: if its kind is unknown or its files are damaged.
    """
    from tokenizers.base import FILES, read_config

    where = fetch(path, "model", revision=revision, patterns=FILES, flag=flag)
    kind = read_config(where)["kind"]
    if kind not in TOKENIZERS:
        raise ValueError(f"{path} holds a tokenizer of kind {kind!r}; this code knows {', '.join(TOKENIZERS)}.")
    return class_of(kind).from_pretrained(where, **kwargs)


def make_tokenizer(config: Any) -> "WeightTokenizer":
    """An unfitted tokenizer of a config."""
    return class_of(config.kind)(config)


@dataclass(frozen=True)
class BuildConfig(Overwrites):
    """Learn a vocabulary from the training fields of a dataset; write the tokenizer, all tokens, and a report.

    Without arguments: k-means on the fields of scikit-learn's digits, which are fitted first if necessary.

    For example:
        python -m tokenizers.build
        python -m tokenizers.build kmeans --fields runs/mnist/fields --vocab-size 256 --out runs/mnist/kmeans-256
        python -m tokenizers.build quantile --fields runs/mnist/fields --sizes
        python -m tokenizers.build uniform --fields runs/mnist/fields --vocab-size 32 --span 3
        python -m tokenizers.build pca --fields user/mnist-fields --out runs/mnist/pca
        python -m tokenizers.build kmeans --vocab-size 16 --refit --fields runs/mnist/fields --data-root DIR
        python -m tokenizers.build vqvae --fields runs/mnist/fields --vocab-size 128
        python -m tokenizers.build graph --fields runs/mnist/unconditioned --out runs/mnist/graph
        python -m tokenizers.build pca --fields user/large-fields --stream --sizes --out runs/large/pca
    """

    tokenizer: Any = field(default_factory=KMeansConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    fields: str = DIGITS
    """Weight dataset to learn from: a folder, or user/name on the Hub."""
    out: Path | None = None
    """Output folder; default: a folder named after the kind of tokenizer, beside the fields (in runs/NAME for
    user/name) or, if that folder holds a tokenizer built with other settings, a name that adds what differs."""
    threads: Threads = None
    device: Device = "auto"
    """Device of the slow steps (--refit and the fit of learnt vocabularies): auto = a GPU if there is one. Encoding
    itself runs on the CPU in float64, so that ids do not depend on the device."""
    revision: str | None = None
    """Branch, tag or commit of a dataset on the Hub; user/name@v1 means the same."""
    stream: bool = False
    """Read the fields shard by shard instead of all at once, for datasets larger than memory. The data are read once to
    fit, once to encode, and once or twice for the report. A dataset on the Hub is not stored on disk."""
    refitting: RefitConfig = field(default_factory=RefitConfig)
    tracker: str | None = None
    """Log the training of a learnt vocabulary to tensorboard (event files in OUT/tensorboard), wandb or trackio."""
    project: str | None = None
    """Project name in the tracker; default: neural-fields-as-data. The run is named after the last two parts of OUT."""

    def __post_init__(self):
        check_tracker(self.tracker)
        check_numbers(self, least={"threads": 1})


def parse(args: list[str] | None = None) -> BuildConfig:
    """The command line as a config: a subcommand for every tokenizer that stands in the table by now."""
    tokenizer = ("tokenizer", subcommands(TOKENIZERS), field(default_factory=KMeansConfig))
    named = {"__doc__": BuildConfig.__doc__, "__module__": __name__}
    config = make_dataclass("BuildConfig", [tokenizer], bases=(BuildConfig,), frozen=True, namespace=named)
    options = (tyro.conf.CascadeSubcommandArgs, tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    given: Any = tyro.cli(config, args=args, config=options, prog="python -m tokenizers.build")
    return BuildConfig(**{name: getattr(given, name) for name in BuildConfig.__dataclass_fields__})
