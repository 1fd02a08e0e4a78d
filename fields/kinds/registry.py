"""The kinds of signals, one entry each. A new kind is one file with a class, and one line here."""

from fields.kinds.base import Kind
from fields.kinds.images import ImageKind
from fields.kinds.shapes import ShapeKind
from fields.model import FieldConfig

KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in (ImageKind, ShapeKind, Kind)}
"""Name -> class; datasets that name none are of the first that suits their architecture."""


def kind_of(config: FieldConfig, signals: dict | None = None) -> Kind:
    """The kind of a dataset's signals.

    Args:
        config: the architecture of its fields.
        signals: what the dataset says of its signals.
    Raises:
        ValueError: for a kind that is unknown, or that does not suit the architecture.
    """
    signals = signals or {}
    name = signals.get("kind")
    if name is None:
        return next(kind for kind in KINDS.values() if kind.suits(config))(signals)
    if name not in KINDS:
        raise ValueError(f"signals of the kind {name!r} are unknown; known kinds are {', '.join(KINDS)}.")
    if not KINDS[name].suits(config):
        raise ValueError(f"signals of the kind {name} do not suit fields with {config.in_dim} coordinates: {config}.")
    return KINDS[name](signals)
