"""One reader for JSON: what lies in a file is JSON, and of the shape that its kind of file has.

A schema is a dataclass: its attributes are the keys, its annotations what they hold. Keys without a default must be there;
keys that the schema does not name pass, so that files of later versions are read.
"""

import dataclasses
import json
import math
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from fields.runtime.digests import of_json
from fields.runtime.files import FETCH, is_pointer
from fields.runtime.flags import LARGEST

CHECKSUM = "checksum"
"""Key of an object that holds the digest of all its other keys."""
WORDS = {
    int: "an integer",
    float: "a finite number",
    str: "a text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def read_json(path: Path, hint: str = "", schema: Any = None) -> Any:
    """Read JSON.

    Args:
        path: the file.
        hint: what to do when it is not there or not right.
        schema: a dataclass, whose defaults are filled in; or a type such as `dict`, `list[str]`.
    Raises:
        FileNotFoundError: with the hint, when the file is not there.
        ValueError: when it is not JSON, or not of the schema; file, key, expected and found are named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found. {hint}".rstrip())
    return parse_json(path, path.read_bytes(), hint, schema)


def parse_json(name: Path | str, text: bytes | str, hint: str = "", schema: Any = None) -> Any:
    """JSON that does not come from a file here; `name` is said in messages, all else as `read_json`."""
    try:
        values = json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)  # editors add a mark
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, numbers of thousands of digits
        if Path(name).is_file() and is_pointer(Path(name)):
            raise ValueError(f"{name} {FETCH}") from None
        raise ValueError(f"{name} is not readable JSON ({str(error)[:200]}). {hint}".rstrip()) from None
    values = unsealed(name, values)
    return values if schema is None else check_values(name, values, schema, hint)


def sealed(values: Any) -> Any:
    """Plain values with a checksum of their own, if they are an object."""
    if not isinstance(values, dict):
        return values
    rest = {key: value for key, value in values.items() if key != CHECKSUM}
    return {**rest, CHECKSUM: of_json(rest)}


def unsealed(path: Path | str, values: Any) -> Any:
    """Values read from a file without their checksum; files without one pass.

    Raises:
        ValueError: if the checksum is of other values.
    """
    if not isinstance(values, dict) or CHECKSUM not in values:
        return values
    rest = {key: value for key, value in values.items() if key != CHECKSUM}
    if (found := of_json(rest)) != values[CHECKSUM]:
        raise ValueError(
            f"{path} is damaged or was edited: its checksum is {found}, but the recorded one is {str(values[CHECKSUM])[:40]!r}. "
            f"Download or make it again; if you edited it on purpose, remove the line `{CHECKSUM}`."
        )
    return rest


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line; lines cut off by a crash are left out."""
    path, rows = Path(path), []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text.split("\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def add_line(path: Path, text: str) -> None:
    """Append a line; a last one that a crash cut off is ended first, so that it does not swallow this one."""
    with Path(path).open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(text.encode() + b"\n")


def check_values(path: Path | str, values: Any, schema: Any, hint: str = "") -> Any:
    """Values read from a file, if they are of the schema.

    Returns:
        The object, with the schema's defaults for keys that are not there.
    Raises:
        ValueError: naming the file, the key, what was expected and what was found.
    """
    problem = _problem("", values, schema)
    if problem:
        raise ValueError(f"{path}: {problem}. {hint or 'Make or download it again.'}")
    return _filled(values, schema) if isinstance(schema, type) and dataclasses.is_dataclass(schema) else values


def config_of(path: Path | str, values: dict[str, Any], cls: type, hint: str = "") -> Any:
    """A config dataclass from what a file says of it; other keys are left alone.

    Raises:
        ValueError: naming the file, for values of other types or that do not belong together.
    """
    known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
    check_values(path, known, cls, hint)
    try:
        return cls(**known)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{path}: {str(error)[:300]} {hint}".rstrip()) from None


@cache
def _keys(schema: type) -> dict[str, tuple[Any, bool]]:
    """key -> (annotation, whether it must be there)."""
    hints, missing = typing.get_type_hints(schema), dataclasses.MISSING
    return {
        f.name: (hints[f.name], f.default is missing and f.default_factory is missing)
        for f in dataclasses.fields(schema)
    }


def _filled(values: dict[str, Any], schema: type) -> dict[str, Any]:
    """With defaults."""
    filled = dict(values)
    for f in dataclasses.fields(schema):
        if f.name in filled:
            continue
        filled[f.name] = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
    return filled


def _problem(where: str, value: Any, wanted: Any) -> str | None:
    """What is wrong with a value, or None."""
    origin, inside = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return None
    if origin in (Union, types.UnionType):
        found = [_problem(where, value, one) for one in inside]
        return None if None in found else next(text for text in found if text)
    if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
        return _problem_of_object(where, value, wanted)
    if wanted in (None, type(None)):
        return None if value is None else _said(where, value, "nothing (null)")
    if origin is Literal:
        known = value in inside if isinstance(value, (str, int, float)) else False
        return None if known else _said(where, value, f"one of {', '.join(map(str, inside))}")
    if origin is dict or wanted is dict:
        if not isinstance(value, dict):
            return _said(where, value, WORDS[dict])
        pairs = value.items() if inside else ()
        return next((p for k, v in pairs if (p := _problem(_under(where, k), v, inside[1]))), None)
    if origin in (list, tuple) or wanted in (list, tuple):
        return _problem_of_list(where, value, origin, inside)
    checks = {
        int: lambda: isinstance(value, int) and not isinstance(value, bool) and -LARGEST <= value < LARGEST,
        float: lambda: isinstance(value, (int, float)) and not isinstance(value, bool) and _finite(value),
        str: lambda: isinstance(value, str),
        bool: lambda: isinstance(value, bool),
    }
    return None if wanted not in checks or checks[wanted]() else _said(where, value, WORDS[wanted])


def _problem_of_object(where: str, value: Any, schema: type) -> str | None:
    if not isinstance(value, dict):
        return _said(where, value, WORDS[dict])
    for name, (wanted, needed) in _keys(schema).items():
        if name not in value:
            if needed:
                return f"`{_under(where, name)}` is missing"
        elif problem := _problem(_under(where, name), value[name], wanted):
            return problem
    return None


def _problem_of_list(where: str, value: Any, origin: Any, inside: tuple) -> str | None:
    if not isinstance(value, list):
        return _said(where, value, WORDS[list])
    if origin is tuple and inside and inside[-1] is not Ellipsis:
        if len(value) != len(inside):
            return f"`{where}` has {len(value)} entries, expected {len(inside)}"
        kinds = inside
    else:
        kinds = (inside[:1] or (Any,)) * len(value)
    pairs = enumerate(zip(value, kinds, strict=True))
    return next((p for i, (v, kind) in pairs if (p := _problem(f"{where}[{i}]", v, kind))), None)


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _under(where: str, name: str) -> str:
    return f"{where}.{name}" if where else str(name)


def _said(where: str, value: Any, wanted: str) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"`{where}` is {shown}, expected {wanted}" if where else f"it holds {shown}, expected {wanted}"
