"""The one named classifier behind FID and label accuracy: a small convolutional net over the signals' own classes.

It is given as a file or learnt here from labelled training signals, seeded, and cached by what it was learnt from. Its
features are the 128 numbers after the ReLU before the last layer. Channel rule: a net for one channel sees colour
pictures as their luma (.299 R + .587 G + .114 B); a net for three sees gray ones repeated. Pictures of another size
are resized bilinearly, which is noted.
"""

import json
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fields.formats.readers import check_views, torch_reason
from fields.runtime.console import bar
from fields.runtime.records import parse_json
from fields.runtime.runs import digest, write_atomic

FEATURES = 128
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
"""The normalisation of a given state dict that does not say: that of nearly every MNIST classifier."""

NET = "conv32-pool-conv64-pool-fc128-fc"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassifierConfig:
    """What a classifier is and how it was learnt."""

    height: int = 28
    width: int = 28
    channels: int = 1
    classes: int = 10
    mean: float = MNIST_MEAN
    std: float = MNIST_STD
    name: str = "classifier"
    """What it was learnt from, in words."""
    held_out: float | None = None
    """Accuracy on held-out signals; None where nobody measured it."""
    held_out_n: int = 0
    label_names: list[str] | None = field(default=None)


class Classifier(nn.Module):
    """conv 32 - pool - conv 64 - pool - fc 128 - fc classes, 3 x 3 windows, ReLU between."""

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        self.features = nn.Sequential(  # ceil_mode: sides of one pixel pass
            *(nn.Conv2d(config.channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
        )
        inner = 64 * -(-config.height // 4) * -(-config.width // 4)
        self.classifier = nn.Sequential(nn.Linear(inner, FEATURES), nn.ReLU(), nn.Linear(FEATURES, config.classes))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits.

        Args:
            images: (N, H, W, C) in [0, 1], any size, 1 or 3 channels.
        Returns:
            (N, 128) after the ReLU, (N, classes).
        """
        x = match_channels(images, self.config.channels).permute(0, 3, 1, 2)
        size = (self.config.height, self.config.width)
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
        x = self.features((x - self.config.mean) / self.config.std).flatten(1)
        x = self.classifier[1](self.classifier[0](x))
        return x, self.classifier[2](x)

    @torch.no_grad()
    def read(self, images: Tensor, batch: int = 512) -> tuple[Tensor, Tensor]:
        """Features (N, 128) and predicted classes (N,) of finite pictures, in batches."""
        self.eval()
        parts = [self(images[i : i + batch]) for i in range(0, len(images), batch)]
        if not parts:
            return torch.zeros(0, FEATURES), torch.zeros(0, dtype=torch.int64)
        return torch.cat([p[0] for p in parts]), torch.cat([p[1].argmax(1) for p in parts])

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of weights, sizes and normalisation: equal ones give equal features."""
        keys = ("height", "width", "channels", "classes", "mean", "std")
        config = asdict(self.config)
        return digest({k: config[k] for k in keys}, *(v for _, v in sorted(self.state_dict().items())))

    def describe(self) -> dict:
        """For JSON: the fingerprint and the config."""
        return {"fingerprint": self.fingerprint, **asdict(self.config)}


def match_channels(images: Tensor, channels: int) -> Tensor:
    """(N, H, W, C) with 1 or 3 channels: luma of colour, or gray repeated."""
    have = images.shape[-1]
    if have == channels:
        return images
    if have == 3 and channels == 1:
        return images @ images.new_tensor([[0.299], [0.587], [0.114]])
    if have == 1 and channels == 3:
        return images.expand(*images.shape[:-1], 3)
    raise ValueError(f"pictures must have 1 or 3 channels, got {have}; the classifier needs {channels}.")


def load_classifier(path: Path) -> Classifier:
    """A classifier from a safetensors file of ours, or from a state dict (.safetensors, or .pth with weights_only).

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"--classifier {path} not found. Leave the flag out to train one from the signals.")
    state, config = _read(path)
    names = ("features.0.weight", "features.3.weight", "classifier.0.weight", "classifier.2.weight")
    missing = [n for n in names if not isinstance(state.get(n), Tensor)]
    if missing:
        raise ValueError(f"{path} has no {missing[0]!r}; a classifier is {NET} with the keys {', '.join(names)}.")
    if config is None:
        side = round((state[names[2]].shape[1] / 64) ** 0.5)
        config = ClassifierConfig(
            *(side * 4, side * 4, state[names[0]].shape[1], state[names[3]].shape[0]), name=path.stem
        )
    model = Classifier(config)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {NET}: {str(error).splitlines()[-1].strip()}") from None
    return model.eval()


def _config(path: Path, words: str) -> ClassifierConfig:
    known = parse_json(path, words, "Train the classifier again.", ClassifierConfig)
    return ClassifierConfig(**{name: known[name] for name in ClassifierConfig.__dataclass_fields__})


def _read(path: Path) -> tuple[dict[str, Tensor], ClassifierConfig | None]:
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
            with safe_open(path, "pt") as file:
                words = (file.metadata() or {}).get("classifier")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from None
        return state, _config(path, words) if words else None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch errors: one kind of bad file for a caller
        raise ValueError(f"{path} could not be read as plain tensors: {torch_reason(error)}.") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} holds a {type(state).__name__}, expected a state dict of tensors alone.")
    check_views(state)
    return state, None


def train_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    name: str,
    seed: int = 0,
    label_names: list[str] | None = None,
    held_out: tuple[Tensor, Tensor] | None = None,
    steps: int = 900,
    batch: int = 128,
) -> Classifier:
    """Learn a classifier: Adam, one cycle to 3e-3, a pixel of random shift; 25 s for 28 x 28 on two cores.

    Args:
        images: (N, H, W, C) in [0, 1] of TRAINING signals.
        labels: (N,) int64.
        name: what it is learnt from.
        seed: of weights and batches.
        label_names: the classes.
        held_out: (images, labels) its accuracy is measured on.
        steps: of the optimiser.
        batch: pictures per step.
    Raises:
        ValueError: without pictures, or with one class only.
    """
    known = labels >= 0
    images, labels = images[known], labels[known]
    if len(labels.unique()) < 2:
        seen = labels.unique().tolist()
        raise ValueError(f"a classifier needs at least two classes, got {len(labels)} pictures of {seen}.")
    height, width, channels = images.shape[1:]
    classes = max(len(label_names or []), int(labels.max()) + 1)
    std = float(images.std())
    config = ClassifierConfig(
        *(height, width, channels, classes, float(images.mean()), std if std > 1e-3 else 1.0, name),
        label_names=label_names,
    )
    with torch.random.fork_rng(devices=[]):  # the weights' seed is nobody else's business
        torch.manual_seed(seed)
        model = Classifier(config)
    _fit(model, images, labels, torch.Generator().manual_seed(seed), steps, batch)
    return model if held_out is None else with_accuracy(model, *held_out, label_names)


def with_accuracy(
    model: Classifier, images: Tensor, labels: Tensor, label_names: list[str] | None = None
) -> Classifier:
    """The classifier with its accuracy on held-out pictures in its config; unchanged where the classes are others."""
    theirs = model.config.label_names or label_names
    if not len(images) or theirs != label_names or int(labels.max()) >= model.config.classes:
        return model
    accuracy = float((model.read(images)[1] == labels).float().mean())
    model.config = replace(model.config, held_out=accuracy, held_out_n=len(images), label_names=label_names)
    return model


def _fit(model: Classifier, images: Tensor, labels: Tensor, generator: torch.Generator, steps: int, batch: int) -> None:
    """The training loop of `train_classifier`."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    model.train()
    for _ in bar(range(steps), desc=f"classifier for {model.config.name}", unit="step", leave=False):
        pick = torch.randint(len(images), (min(batch, len(images)),), generator=generator)
        x = images[pick]
        if min(x.shape[1:3]) >= 16:  # small pictures have no margin to move in
            x = torch.roll(x, torch.randint(-1, 2, (2,), generator=generator).tolist(), dims=(1, 2))
        loss = F.cross_entropy(model(x)[1], labels[pick])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()


def save_classifier(model: Classifier, path: Path) -> None:
    """Write weights and config as one safetensors file, atomically."""
    with write_atomic(path) as temporary:
        state = {k: v.contiguous() for k, v in model.state_dict().items()}
        save_file(state, temporary, metadata={"classifier": json.dumps(asdict(model.config))})


def cached_classifier(root: Path, images: Tensor, labels: Tensor, **settings) -> tuple[Classifier, Path]:
    """`train_classifier`, or what it wrote before to ROOT/NAME-HASH/model.safetensors for these data and settings."""
    plain = {k: v for k, v in settings.items() if k != "held_out"}
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in settings["name"])
    path = root / f"{name}-{digest(images, labels, plain)}" / "model.safetensors"
    if path.is_file():
        try:
            return load_classifier(path), path
        except ValueError as error:
            logger.warning("%s Training it again.", error)
    model = train_classifier(images, labels, **settings)
    save_classifier(model, path)
    return model, path
