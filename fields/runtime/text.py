"""Names and texts that come from data, made safe for file names, Markdown, the terminal, and paths.

Whatever was read from a file, a folder or the network passes here before it becomes a path, a card or a message.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

SPLIT = re.compile(r"\w+(?:[.-]\w+)*")
"""Names of splits, which become file names; `datasets` allows no others."""
LONGEST = 120
"""Bytes of a file name, so that suffixes still fit."""
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
"""What Windows keeps for devices, with any suffix."""
SECRETS = (
    (re.compile(r"hf_[A-Za-z0-9_]{6,}"), "hf_***"),
    (re.compile(r"(?i)(bearer\s+)[A-Za-z0-9._~+/=-]{6,}"), r"\1***"),
    (re.compile(r"(://)[^/\s:@]+:[^/\s@]+@"), r"\1***@"),
    (re.compile(r"(?i)((?:token|password|secret|api[_-]?key)\s*[=:]\s*[\"']?)[^\s\"'&,;]{6,}"), r"\1***"),
)
MARKS = re.compile(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|(?<=\])\(|^(?:[#>=]|[+-](?!\d)))")
"""What means something in Markdown: anywhere, at the edge of a word, or at the beginning."""


def file_name(text: str) -> str:
    """A name that every system can store, from any text, such as a label or a signal's id."""
    name = "".join("_" if c in '<>:"/\\|?*' or not printable(c) else c for c in unicodedata.normalize("NFC", text))
    name = name.strip(" .") or "_"
    while len(name.encode(errors="replace")) > LONGEST:
        name = name[:-1].rstrip(" .") or "_"
    if name.split(".")[0].strip().lower() in RESERVED or name.startswith("-"):
        name = f"_{name}"
    return name


def unique(name: str, taken: set[str]) -> str:
    """The name, with -2, -3, ... where it is in use, also in another case; it is added to those that are."""
    found, number = name, 2
    while found.lower() in taken:
        found, number = f"{name}-{number}", number + 1
    taken.add(found.lower())
    return found


def check_split(name: str, where: str = "") -> str:
    """The name of a split, if it can be part of a file name.

    Raises:
        ValueError: if not.
    """
    if isinstance(name, str) and len(name) <= LONGEST and SPLIT.fullmatch(name):
        return name
    said = one_line(repr(name), 60)
    raise ValueError(
        f"{where + ': ' if where else ''}the name of a split is {said}; use only letters, digits and underscores."
    )


def inside(folder: Path, name: str) -> Path:
    """The path of a name below a folder.

    Raises:
        ValueError: if the path is outside the folder, by itself or through a symbolic link.
    """
    path = Path(folder) / name
    leads = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or "\\" in name
    if (
        leads
        or ".." in PurePosixPath(name).parts
        or "\0" in name
        or not path.resolve().is_relative_to(Path(folder).resolve())
    ):
        raise ValueError(f"{one_line(repr(name), 80)} is outside {folder}. Give names of files inside it.")
    return path


def printable(character: str) -> bool:
    """Whether a terminal and a file name can take a character: no controls, no changes of direction, no halves."""
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def one_line(text: str, width: int | None = None) -> str:
    """Text for a message: one line, control characters shown as escapes, at most `width` characters."""
    shown = "".join(c if printable(c) else f"\\x{ord(c):02x}" for c in " ".join(str(text).split()))
    return shown if width is None or len(shown) <= width else shown[: width - 3] + "..."


def escape_markdown(text: str, width: int = 2000) -> str:
    """Text for a Markdown document that shows as it is: no markup, no link, no HTML, no line break, no table cell."""
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", one_line(text, width)))
    return MARKS.sub(r"\\\1", line).replace("://", ":\u200b//").replace("www.", "www\u200b.")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]], align: Sequence[str] | None = None) -> str:
    """Cells of any text as a Markdown table.

    Args:
        head: names of the columns.
        rows: of as many cells.
        align: the rule below each heading; default: the first column to the left, numbers to the right.
    """
    rules = list(align or ["---"] + ["---:"] * (len(head) - 1))
    lines = [
        [escape_markdown(str(cell)) for cell in head],
        rules,
        *([escape_markdown(str(cell)) for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str, width: int = 400) -> str:
    """Text as inline code in a Markdown document, whatever backticks it holds."""
    line = one_line(text, width).replace("|", "\\|")
    ticks = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    return f"{ticks} {line} {ticks}" if "`" in line else f"`{line}`"


def scrub(text: str) -> str:
    """Text without access tokens: those of the environment, and what looks like one."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "WANDB_API_KEY"):
        if len(secret := os.environ.get(name, "")) >= 6:
            text = text.replace(secret, "***")
    for pattern, instead in SECRETS:
        text = pattern.sub(instead, text)
    return text
