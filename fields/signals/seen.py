"""Which signals something has learnt from, so that it is not measured on those very signals.

A start, a vocabulary or a model records a sample of the signals it has seen: the least of their hashes, so that whatever
holds out a share of them is noticed, however many they are. The samples of two sets together give that of their union.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

SAMPLE = 256
"""Signals recorded: one that holds out a fiftieth of what was seen is missed in 6 of 1,000 cases."""
DIGITS = 12
"""Hexadecimal digits of a hash."""
HELD_OUT = ("validation", "test")


def sample_of(name: str | None, ids: Iterable[str], more: str = "") -> str:
    """A sample of signals.

    Args:
        name: of the set they are from.
        ids: their names in it.
        more: the sample of other ones seen.
    Returns:
        Hashes in ascending order, with spaces between.
    """
    hashes = {_hash(name, one) for one in set(ids) if one} | set(more.split())
    return " ".join(sorted(hashes)[:SAMPLE])


def seen_by(data: Any) -> str:
    """What has been seen by whatever learns from the training fields of a `WeightDataset`, or began from its start."""
    ids = data.ids("train") if "train" in data.splits else ()
    return sample_of(data.signals.get("name"), ids, f"{data.signals.get('seen') or ''} {data.reference.seen}")


def refuse_seen(what: str, seen: str, data: Any) -> None:
    """Refuse what has learnt from signals that a `WeightDataset` holds out; what recorded nothing passes.

    Args:
        what: the thing, with its flag, for the message.
        seen: its sample.
        data: the dataset whose held-out fields it is to be measured on.
    Raises:
        ValueError: naming split, number and the first signal.
    """
    if not seen:
        return
    for split in HELD_OUT:
        if split in data.splits:
            refuse_held_out(what, seen, data.signals.get("name"), data.ids(split), split)


def refuse_held_out(what: str, seen: str, name: str | None, ids: Iterable[str], split: str) -> None:
    """Refuse what has learnt from some of these signals, which are held out.

    Raises:
        ValueError: naming split, number and the first signal.
    """
    known = set(seen.split())
    found = sorted(one for one in set(ids) if one and _hash(name, one) in known)
    if found:
        raise ValueError(
            f"{what} was learnt from signals that are held out here: {found[0]} of split {split}, and so {len(found)} of the "
            f"{len(known)} compared. Use one made with the same --split-seed and the same signals, or make it again."
        )


def elsewhere(seen: str, data: Any) -> float:
    """Share of what something has learnt from, by its sample, that is not among the training signals of a `WeightDataset`.

    Args:
        seen: the sample; empty where nothing was recorded, which is 0.
        data: the dataset.
    """
    known = set(seen.split())
    if not known or "train" not in data.splits:
        return 0.0
    name = data.signals.get("name")
    there = {_hash(name, one) for one in set(data.ids("train")) if one} | set(seen_by(data).split())
    return len(known - there) / len(known)


def _hash(name: str | None, one: str) -> str:
    return hashlib.sha256(f"{name or ''}\0{one}".encode()).hexdigest()[:DIGITS]
