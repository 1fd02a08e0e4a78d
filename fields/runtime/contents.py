"""Things by the place where they stand, imported when they are used: names of a package's contents page, functions of commands."""

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, Union


def find(place: str) -> Any:
    """What a text such as `fields.view.render:sheet` names; its module is imported now."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def contents(package: str, homes: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its `__name__`.
        homes: public name -> its module below the package, as `module` or, where it has another name there, `module:name`.
    """
    names = sorted(homes)

    def named(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it offers {', '.join(names)}.")
        module, _, other = homes[name].partition(":")
        return find(f"{package}.{module}:{other or name}")

    return named, lambda: names


Commands = dict[str, tuple[type, Any]]
"""Name of a subcommand -> its config, and the place of the function that takes one."""


def subcommands(table: Commands) -> Any:
    """The configs of a table as what tyro parses: one subcommand each."""
    import tyro

    return Union[tuple(Annotated[config, tyro.conf.subcommand(name)] for name, (config, _) in table.items())]  # noqa: UP007


def work_of(table: Commands, options: Any) -> tuple[str, Any]:
    """The name of the subcommand whose config `options` is, and its function."""
    return next((name, find(place)) for name, (config, place) in table.items() if type(options) is config)
