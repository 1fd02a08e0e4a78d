"""JSON artefacts changed by hand, as somebody does on purpose: without the checksums that would refuse them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARKS = ("checksum", "files", "fingerprint")


def unmarked(path: Path, marks: tuple[str, ...] = MARKS) -> dict[str, Any]:
    """What a file says, without what tells its own or its neighbours' content."""
    return {key: value for key, value in json.loads(path.read_text()).items() if key not in marks}


def edit(path: Path, change: Callable[[dict[str, Any]], Any], marks: tuple[str, ...] = ("checksum",)) -> None:
    """Change a file in place; `change` edits the object, or gives another."""
    values = unmarked(path, marks)
    changed = change(values)
    path.write_text(json.dumps(values if changed is None else changed))
