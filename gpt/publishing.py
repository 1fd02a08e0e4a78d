"""What can be published, and the options of each kind. Nothing here imports PyTorch."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from fields.hub.options import Publish, PublishFields
from fields.runtime.contents import Commands, subcommands, work_of
from gpt.demo.options import PublishDemo
from tokenizers.options import PublishTokenizer, PublishTokens


@dataclass(frozen=True)
class PublishModel(Publish):
    """A trained GPT: its safetensors and configuration, its tokenizer, and a card with its evaluation and samples.

    PATH is the folder of a training run (its best/ is published) or of a model.

    For example:
        python scripts/publish.py model runs/mnist/gpt user/mnist-gpt --evaluation runs/mnist/evaluation
        python scripts/sample.py --model user/mnist-gpt --n 64 --out runs/samples
    """

    evaluation: Path | None = None
    """Folder written by scripts/evaluate.py for this model; default: `evaluation` in or beside the model's folder, if
    it belongs to this model."""
    fields: str | None = None
    """user/name of the weight dataset it was trained on, to be named on the card."""
    tokenizer: str | None = None
    """user/name of its tokenizer, to be named on the card; the repository contains a copy of it anyway."""


PUBLISH: Commands = {
    "fields": (PublishFields, "fields.hub.publish:publish_fields"),
    "tokens": (PublishTokens, "tokenizers.hub:publish_tokens"),
    "tokenizer": (PublishTokenizer, "tokenizers.hub:publish_tokenizer"),
    "model": (PublishModel, "gpt.hub:publish_model"),
    "demo": (PublishDemo, "gpt.demo.space:publish_demo"),
}


def parse(args: list[str] | None = None) -> Publish:
    """The command line as options."""
    said = (
        "Publish a weight dataset, tokens, a tokenizer, a model or its demo on the Hugging Face Hub.\n\n"
        "Token, permission and repository are checked first. Run the same command again to continue an interrupted "
        "push; files that the Hub already has are not sent. --dry-run writes the whole repository to a local folder."
    )
    return tyro.cli(subcommands(PUBLISH), args=args, description=said, prog="scripts/publish.py")


def run(options: Publish) -> None:
    """The command."""
    if not isinstance(options, PublishDemo) and not options.path.is_dir():
        raise FileNotFoundError(f"{options.path} is not a folder. Give the folder to publish.")
    work_of(PUBLISH, options)[1](options)
