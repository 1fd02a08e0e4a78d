"""Which signals there are by name: one entry each. Anything else that a user names is a folder of pictures or of meshes."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fields.signals.base import Signals
from fields.signals.digits import load_digits
from fields.signals.folder import find_files, load_folder
from fields.signals.hub import is_hub_name, load_hub
from fields.signals.meshes import EXTENSIONS as MESHES
from fields.signals.mnist import load_mnist
from fields.signals.options import HUB_OPTIONS, SignalsConfig
from fields.signals.shapes import load_abo, load_meshes, load_shapenet, load_solids, load_thingi10k


@dataclass(frozen=True)
class Loader:
    """Signals with a name of their own."""

    load: Callable[[SignalsConfig], Signals]
    """Reads them into memory."""
    licence: str
    """The Hub's identifier of their licence."""
    source: str
    """Who made them, for cards."""
    terms: str = ""
    """Why nothing that is made of them may be published; empty where it may."""
    fits: int = 1
    """Fits per signal where nobody asks for another number: several where signals are few."""


LOADERS: dict[str, Loader] = {
    "digits": Loader(
        load_digits, "cc-by-4.0",
        "scikit-learn's digits: the test part of UCI's Optical Recognition of Handwritten Digits (E. Alpaydin and "
        "C. Kaynak, 1998), CC BY 4.0", fits=4,
    ),
    "mnist": Loader(load_mnist, "cc-by-sa-3.0", "MNIST (Y. LeCun, C. Cortes and C. Burges), CC BY-SA 3.0"),
    "fashion-mnist": Loader(
        load_mnist, "mit", "Fashion-MNIST (H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747), MIT"
    ),
    "solids": Loader(load_solids, "mit", "procedural solids of this project, MIT"),
    "abo": Loader(load_abo, "cc-by-4.0", "Amazon Berkeley Objects (J. Collins et al., arXiv:2110.06199), CC BY 4.0"),
    "thingi10k": Loader(
        load_thingi10k, "other", "Thingi10K (Q. Zhou and A. Jacobson, arXiv:1605.04797), each mesh under its own licence"
    ),
    "shapenet": Loader(
        load_shapenet, "other", "ShapeNet (A. Chang et al., arXiv:1512.03012)",
        terms="ShapeNet's terms forbid to pass on its models and what is derived from them",
    ),
}  # fmt: skip
"""Name -> loader."""


def refuse_others(recorded: dict, ids: Iterable[str], signals: Signals) -> None:
    """Refuse signals other than those that fields were fitted to; datasets of before recorded no digest and pass.

    Args:
        recorded: a dataset's description of its signals.
        ids: of the dataset's rows.
        signals: those that were found under its signals' name.
    Raises:
        ValueError: if ids are missing, or contents differ.
    """
    names = sorted({name for name in ids if name})
    signals.find(names)
    wanted, count = recorded.get("digest"), recorded.get("digest_of")
    if wanted is None or count not in (len(names), len(signals)):
        return  # some rows of a dataset: what all of its signals were cannot be told from them
    tried = [names] * (count == len(names)) + [None] * (count == len(signals))
    if wanted not in (found := [signals.digest(chosen) for chosen in tried]):
        raise ValueError(
            f"the signals of {signals.name} are not the ones the fields were fitted to: digest {found[0]} of "
            f"{count:,} signals now, {wanted} then. Give those with --signals, or fit again."
        )


def load_signals(config: SignalsConfig) -> Signals:
    """The signals that the config names, read into memory.

    Raises:
        FileNotFoundError: if a folder or file does not exist.
        ValueError: if files are unreadable.
        RuntimeError: if a download fails.
    """
    if config.signals in LOADERS:
        return LOADERS[config.signals].load(config)
    if is_hub_name(config.signals):
        return load_hub(config)
    if given := [f"--{name.replace('_', '-')}" for name in HUB_OPTIONS if getattr(config, name)]:
        raise ValueError(
            f"{', '.join(given)}: for image datasets of the Hub, user/name, only; got --signals {config.signals}."
        )
    path = Path(config.signals).expanduser()
    if not path.is_dir():
        close = difflib.get_close_matches(config.signals, LOADERS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        what = "a file, not a folder" if path.exists() else "not found"
        raise FileNotFoundError(
            f"--signals {config.signals}: {what}. Give {', '.join(LOADERS)} or a folder of pictures or meshes, or user/name on the Hub.{hint}"
        )
    if not find_files(path)[0] and find_files(path, MESHES)[0]:
        if config.resize is not None or config.crop:
            raise ValueError(f"--resize and --crop are for pictures, {path} holds meshes. Leave them out.")
        return load_meshes(path, config.shape, split_seed=config.split_seed, strict=config.strict)
    how: dict[str, Any] = {"resize": config.resize, "crop": config.crop}
    return load_folder(path, split_seed=config.split_seed, strict=config.strict, **how)
