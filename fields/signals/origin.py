"""Where the signals of a dataset's fields lie on this machine: noted when they are fitted, looked up by every later command."""

from dataclasses import dataclass
from pathlib import Path

from fields.runtime.runs import read_json, write_json
from fields.signals.hub import is_hub_name
from fields.signals.options import HUB_OPTIONS, ShapeOptions, SignalsConfig
from fields.signals.registry import LOADERS

ORIGIN = "signals.json"
"""Beside a weight dataset, never published: where on this machine the signals of its fields were read from."""


def remember(folder: Path, config: SignalsConfig) -> None:
    """Note in a dataset's folder where its signals lie and how they were read, so that no later command need be told again."""
    signals, root = config.signals, config.data_root
    name = signals if signals in LOADERS or is_hub_name(signals) else str(Path(signals).expanduser().resolve())
    origin = {"signals": name, "data_root": None if root is None else str(Path(root).expanduser().resolve())}
    origin |= {option: getattr(config, option) for option in ("resize", "crop", *HUB_OPTIONS)}
    if read_origin(folder) != origin:
        write_json(Path(folder) / ORIGIN, origin)


def read_origin(folder: Path) -> dict | None:
    """What `remember` noted, or None."""
    path = Path(folder) / ORIGIN
    return read_json(path, "Delete it.", Origin) if path.is_file() else None


@dataclass
class Origin:
    """`signals.json`."""

    signals: str
    data_root: str | None = None
    resize: int | None = None
    crop: bool = False
    image_column: str | None = None
    label_column: str | None = None
    split: str | None = None
    rows: int | None = None
    stream: bool | None = None


def locate(
    described: dict, origin: dict | None, signals: str | None, data_root: Path | None
) -> tuple[SignalsConfig | None, str]:
    """Where the signals of a dataset's fields are: what a flag says, else what was noted when they were fitted.

    Args:
        described: `signals` of the dataset.
        origin: what `remember` noted.
        signals, data_root: the flags.
    Returns:
        What to load, and nothing; or None, and the reason with what to do.
    """
    name, origin = signals or described.get("name") or "", origin or {}
    if signals is None and data_root is None and origin:
        name = origin["signals"]
        folder, flag = (name, "--signals FOLDER") if name not in LOADERS else (origin["data_root"], "--data-root DIR")
        if folder is not None and not is_hub_name(folder) and not Path(folder).is_dir():
            return None, f"the signals were read from {folder}, which is gone; give {flag}"
    if data_root is None and origin.get("signals") == name and origin.get("data_root"):
        data_root = Path(origin["data_root"])
    if signals is None and not origin and name not in LOADERS:
        return None, f"signals {name!r} of the dataset are not at hand; give --signals PATH"
    how = {} if name in LOADERS else {"resize": origin.get("resize"), "crop": origin.get("crop", False)}
    how |= {k: origin[k] for k in HUB_OPTIONS if origin.get(k) is not None} if origin.get("signals") == name else {}
    shape = ShapeOptions.of(described)
    return SignalsConfig(name, data_root, described.get("split_seed") or 0, shape=shape, **how), ""
