"""Who imports whom in saelight, read from its source; imports in functions and under TYPE_CHECKING count.

python -m tests.support.import_graph        prints every module with what it imports, room by room
"""

import ast
import functools
import itertools
from collections.abc import Iterator, Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import saelight

PACKAGE = Path(saelight.__file__).parent
Graph = dict[str, set[str]]
"""Modules, without `saelight.`, to the modules that each imports; a room's `__init__` has the room's name."""


@functools.cache
def modules() -> dict[str, Path]:
    """All modules by name, `saelight.` left out."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph() -> Graph:
    """Every module of saelight with the modules of saelight that it imports."""
    known = modules()
    prefix = "saelight."
    graph: Graph = {}
    for module in known:
        names = {name.removeprefix(prefix) for name in imported_names(_parse(module)) if name.startswith(prefix)}
        graph[module] = {_owner(name, known.keys()) for name in names} - {module}
    return graph


def packages(module: str) -> set[str]:
    """The other packages that a module imports, anywhere in it."""
    return {name.partition(".")[0] for name in imported_names(_parse(module))} - {"saelight"}


def packages_loaded(module: str) -> set[str]:
    """The other packages that are there once a module is, whichever module of saelight has loaded them."""
    known, seen, todo, found = modules().keys(), set[str](), {module}, set[str]()
    while todo:
        name = todo.pop()
        seen.add(name)
        imported = set(imported_names(ast.Module([*_loaded(_parse(name).body)], [])))
        own = {other for other in imported if other.startswith("saelight.")}
        found |= {other.partition(".")[0] for other in imported - own}
        inner = {_owner(other.removeprefix("saelight."), known) for other in own}
        # With a module come the rooms that it is in.
        todo |= {part for other in inner | {name} for part in itertools.accumulate(other.split("."), "{}.{}".format)} - seen
    return found


def circle(graph: Mapping[str, Set[str]]) -> list[str]:
    """Nodes that import each other in a ring, or none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@functools.cache
def _parse(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


def _owner(name: str, known: Set[str]) -> str:
    """The module that `name`, which may be something in it, is of."""
    while name not in known and name:
        name = name.rpartition(".")[0]
    return name


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that is imported; `from a import b` gives a.b, which may be a module or something in one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "saelight's imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _loaded(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is loaded: neither those of functions, nor those for type checkers."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _loaded(node.orelse)
        elif isinstance(node, ast.ClassDef | ast.If | ast.Try | ast.With):
            yield from _loaded(node.body)
        else:
            yield node


if __name__ == "__main__":
    for name, imported in import_graph().items():
        print(name or "saelight", "→", ", ".join(sorted(imported)) or "nothing")
