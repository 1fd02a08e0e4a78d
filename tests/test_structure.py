"""The rooms: imports go one way, and nothing goes round in a circle, imports inside functions included."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fields", "tokenizers", "gpt")
MOST = 14
"""Modules of one folder, `__init__.py` aside."""
LONGEST = 800
"""Lines of one module."""

EXCEPTIONS = {
    ("fields.storage.dataset", "fields.hub.publish"): "WeightDataset.push_to_hub and its publisher",
    ("tokenizers.base", "tokenizers.hub"): "WeightTokenizer.push_to_hub and its publisher",
    ("tokenizers.tokens", "tokenizers.hub"): "TokenDataset.push_to_hub and its publisher",
    ("tokenizers.learned.vqvae", "tokenizers.learned.train"): "a class and its trainer",
    ("tokenizers.learned.graph", "tokenizers.learned.graph_train"): "a class and its trainer",
    ("tokenizers.learned.regions", "tokenizers.learned.regions_decoder"): "a class and its trainer",
    ("gpt.model", "gpt.hub"): "GPT.push_to_hub and its publisher",
}
"""(from, to) -> why this import, made inside a function, may lead back."""


SAME = {
    *("main", "run", "parse"),  # of a command
    *("fit", "sample", "evaluate", "compute"),  # with folders, and in memory; of each kind of signals
    *(
        "columns",
        "table",
        "screen",
        "markdown",
        "footnotes",
        "page",
        "write_report",
        "draw_curves",
        "summary",
    ),  # of a report
    *("features", "render", "reason"),  # of rows and of tokens; by torch and by numpy; of what failed
}
"""Functions that several modules have under one name, for the same purpose."""


ASKING = ("fields.model", "fields.symmetry", "fields.turned", "fields.signals", "fields.metrics", "fields.kinds")
"""Where the number of coordinates may be asked for: the field itself, its signals, what measures them, what draws them."""
NAMING = {"fields.formats.convert": "names architectures of foreign files, by flags and in folders' names"}


def modules() -> dict[str, Path]:
    """Dotted name -> file, packages by their own name."""
    found = {}
    for package in (*PACKAGES, "scripts"):
        for path in sorted((ROOT / package).rglob("*.py")):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def only_for_types(node: ast.stmt) -> bool:
    """Whether this is an `if TYPE_CHECKING:`, which never runs."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports() -> dict[str, set[str]]:
    """Module -> the modules of this project that it imports, anywhere in its text, exceptions left out."""
    known, found = modules(), defaultdict(set)
    for name, path in known.items():
        if path.name == "__init__.py":
            continue  # a contents page names what lies below it
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if not only_for_types(node)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in known}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found[name] |= {inner if inner in known else node.module} & set(known)
        found[name] -= {to for to in found[name] if (name, to) in EXCEPTIONS}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of names that reach each other (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph.get(name, ()):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in list(graph):
        if name not in index:
            visit(name)
    return found


def test_imports_go_one_way():
    order = {package: i for i, package in enumerate((*PACKAGES, "scripts"))}
    backward = [
        f"{a} imports {b}"
        for a, others in imports().items()
        for b in others
        if order[a.split(".")[0]] < order[b.split(".")[0]]
    ]
    assert not backward, backward


def test_no_circles_between_files():
    assert circles(imports()) == []


def test_no_circles_between_rooms():
    rooms = defaultdict(set)
    for name, others in imports().items():
        for other in others:
            a, b = (".".join(x.split(".")[:2]) for x in (name, other))
            if a != b:
                rooms[a].add(b)
    assert circles(rooms) == []


def test_exceptions_are_still_there():
    """An exception that is no longer needed is removed."""
    known = modules()
    for (a, b), why in EXCEPTIONS.items():
        assert why and a in known and b in known
        text = known[a].read_text(encoding="utf-8")
        assert f"from {b} import" in text or f"from {b.rpartition('.')[0]} import {b.rpartition('.')[2]}" in text


def test_rooms_stay_small():
    counts = defaultdict(int)
    for path in modules().values():
        counts[path.parent] += path.name != "__init__.py"
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST, path
    counts.pop(ROOT / "scripts")  # one file a command, and none imports another
    crowded = {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > MOST}
    assert not crowded, crowded


def test_nobody_else_asks_how_many_coordinates_a_field_has():
    asking = {
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "in_dim"
        if not name.startswith(ASKING)
    }
    assert asking == set(NAMING)


def test_public_names_have_one_meaning():
    """No class has the name of another; functions share one only where they do the same for different things."""
    homes = defaultdict(list)
    for name, path in modules().items():
        defined = ast.parse(path.read_text(encoding="utf-8")).body if name.split(".")[0] in PACKAGES else []
        classes = [node.name for node in defined if isinstance(node, ast.ClassDef)]
        functions = [n.name for n in defined if isinstance(n, ast.FunctionDef) and n.name not in SAME]
        for public in (public for public in classes + functions if not public.startswith("_")):
            homes[public].append(name)
    assert not {name: places for name, places in homes.items() if len(places) > 1}
