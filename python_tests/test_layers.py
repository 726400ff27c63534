"""Who may import whom: the layers of docs/architecture.md, and no circle between modules.

Every import counts, also one inside a function or under TYPE_CHECKING: what is only typed is still known.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import ddarts_ext

PACKAGE = Path(ddarts_ext.__file__).parent

LAYERS = (
    ("ops", "spaces", "runs", "drawing"),
    ("info", "genotype"),
    ("nn", "data", "tables"),
    ("training", "timm_models", "costs"),
    ("distance", "export", "transfer"),
    ("search",),
    ("plot", "benchmark", "comparison"),
    ("acceleration", "reporting"),
    ("commands",),
    ("cli",),
)
"""From the bottom to the top: a room may import those below it, and none beside it."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if "_benchmarks" in path.parts:
            continue  # of an installed package: the files of benchmarks/, which no module imports
        parts = ("ddarts_ext", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in inner)


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports(path, known)) - {name} for name, path in known.items()}


def room(module: str) -> str:
    name = module.split(".")[1] if "." in module else ""
    # It loads the kernels of the ops when these are defined; the other is the command by another name.
    return {"_extension": "ops", "__main__": "cli"}.get(name, name)


def test_every_room_has_its_place() -> None:
    placed = [name for layer in LAYERS for name in layer]
    assert len(placed) == len(set(placed))
    assert {room(name) for name in modules()} - {""} == set(placed)


def test_a_room_imports_only_what_lies_below() -> None:
    level = {name: height for height, layer in enumerate(LAYERS) for name in layer}
    wrong = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if room(module) and room(other) and room(other) != room(module) and level[room(other)] >= level[room(module)]
    ]
    assert not wrong, "\n".join(wrong)


def circle(edges: dict[str, set[str]]) -> list[str]:
    """A circle of modules, empty if there is none."""
    done: set[str] = set()
    for start in edges:
        stack: list[tuple[str, Iterator[str]]] = [(start, iter(sorted(edges[start])))] if start not in done else []
        path = [start]
        while stack:
            module, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                done.add(module)
                stack.pop()
                path.pop()
            elif following in path:
                return [*path[path.index(following) :], following]
            elif following not in done:
                stack.append((following, iter(sorted(edges[following]))))
                path.append(following)
    return []


def test_no_circle() -> None:
    # The top of the package names what users import; nothing in it is needed by what it names.
    edges = {name: {other for other in others if other != "ddarts_ext"} for name, others in graph().items()}
    found = circle({name: others for name, others in edges.items() if name != "ddarts_ext"})
    assert not found, " -> ".join(found)


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
