"""The contents page of a package: public names that are imported on first use."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def contents(package: str, homes: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its `__name__`.
        homes: public name -> its module below the package, as `module` or, where it has another name there, `module:name`.
    """
    names = sorted(homes)

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it offers {', '.join(names)}.")
        module, _, other = homes[name].partition(":")
        return getattr(import_module(f"{package}.{module}"), other or name)

    return find, lambda: names
