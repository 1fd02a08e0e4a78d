"""What can be set of the demo. Nothing here imports PyTorch, so that --help is there at once."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from fields.hub.options import Publish
from fields.runtime.flags import Revision, check_numbers
from fields.storage.fetch import HubName


@dataclass(frozen=True)
class DemoConfig:
    """Explore a model in a browser: new fields at any size, their weights and tokens, completions and interpolations.

    For example:
        python scripts/demo.py --model runs/digits/gpt
        python scripts/demo.py --model user/name --fields user/name-fields
    """

    model: str
    """Trained GPT: a training folder, a model folder, or user/name on the Hub."""
    fields: str | None = None
    """Weight dataset the model was trained on (a folder, or user/name on the Hub), for nearest training fields and
    held-out fields; default: the one named by the training run, if it still exists."""
    revision: Revision = None
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 makes the page available to other machines."""
    port: int = 7860
    """Port to listen on; 0 = any free one."""
    threads: int = 1
    """CPU threads."""

    def __post_init__(self):
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port must lie between 0 and 65535, got {self.port}.")
        check_numbers(self, least={"threads": 1})


@dataclass(frozen=True)
class PublishDemo(Publish):
    """The demo of a published model as a Space: app.py, requirements.txt, the code, a card.

    For example:
        python scripts/publish.py demo user/mnist-gpt user/mnist-demo --fields user/mnist-fields --dry-run
        python runs/hub/user/mnist-demo/app.py    # the Space on this machine
    """

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]  # type: ignore[assignment]  # no folder
    """user/name of the published model."""
    fields: str | None = None
    """user/name of the weight dataset it was trained on, for nearest training fields and held-out fields."""

    def __post_init__(self):
        super().__post_init__()
        for text in (self.path, *([self.fields] if self.fields else [])):
            HubName.parse(str(text))
