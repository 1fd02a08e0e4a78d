"""Trackers of training runs: numbers in the groups train/ and validation/, and pictures, to TensorBoard, Weights & Biases or Trackio.

The trackers themselves are accelerate's. One process opens one; the others have none.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fields.runtime.runs import plain

PROJECT = "neural-fields-as-data"
"""The project where none is named."""


class Tracking:
    """One run in one tracker.

    Args:
        name: a key of `TRACKERS`.
        out: folder of the run; TensorBoard's event files go to its `tensorboard`, the run is named by its last two parts.
        project: name of the project; TensorBoard has none.
        config: settings of the run.
        step: of the last numbers that stay, where a run goes on.

    Attributes:
        draw: logs a picture of what is being trained, given it and the step; None where there is no picture.
    """

    draw: Callable[[Any, int], None] | None = None

    def __init__(self, name: str, out: Path, project: str | None = None, config: Any = None, step: int = 0):
        from accelerate import PartialState, tracking

        PartialState()  # accelerate's trackers ask which process this is
        run, values = "/".join(Path(out).resolve().parts[-2:]), plain(config) if config is not None else {}
        kind = tracking.LOGGER_TYPE_TO_CLASS[name]
        if name == "tensorboard":
            self.tracker = kind("tensorboard", str(out), purge_step=step + 1 if step else None)
        else:
            self.tracker = kind(project or PROJECT, name=run, **({"dir": str(out)} if name == "wandb" else {}))
        self.name = name
        self.tracker.start()
        if name == "tensorboard":
            self.tracker.log({"config": json.dumps(values, indent=1)}, step=0)
        else:
            self.tracker.store_init_configuration({k: str(v) for k, v in values.items()})

    def log(self, group: str, values: dict[str, Any], step: int) -> None:
        """Numbers of a group; what is no number is left out.

        Args:
            group: train or validation.
        """
        numbers = {f"{group}/{k}": v for k, v in values.items() if k != "step" and isinstance(v, (int, float))}
        self.tracker.log(numbers, step=step)

    def picture(self, name: str, path: Path, step: int) -> None:
        """A PNG file."""
        if self.name == "trackio":
            import trackio

            self.tracker.log({name: trackio.Image(str(path))}, step=step)
            return
        with Image.open(path, formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("RGB"))
        if self.name == "tensorboard":
            self.tracker.log_images({name: pixels[None]}, step=step, dataformats="NHWC")
        else:
            self.tracker.log_images({name: [pixels]}, step=step)

    def close(self) -> None:
        """End the run."""
        self.tracker.finish()
