"""The code of an architecture as one Python file that imports nothing but torch.

It is the code of ``ddarts_ext.nn.plain`` itself, as far as it is needed, with the architecture as its arguments.
"""

from __future__ import annotations

import ast
import inspect
from pprint import pformat
from types import ModuleType
from typing import cast

from ddarts_ext.nn import DiscreteNetwork, NASBench201Network
from ddarts_ext.nn.plain import fold as fold_module
from ddarts_ext.nn.plain import layers, network
from ddarts_ext.runs.losses import CLASSES, MULTI_LABEL, VALUES
from ddarts_ext.training import TrainedNetwork

_WIDTH = 116

_TEMPLATE = '''"""{title}

    network = load()  # in evaluation mode
    {outputs} = network((pixels - mean) / std)  # pixels between 0 and 1, [N, {channels}, {height}, {width}]

It needs torch alone.
"""

from __future__ import annotations

from pathlib import Path
{imports}
CLASSES = {classes}
SIZE = {size}
MEAN, STD = {mean}, {std}

ARGUMENTS: dict[str, Any] = {arguments}

{definitions}


def build() -> nn.Module:
    """The network with new weights."""
    return {build}


def load(weights: str | Path = Path(__file__).with_name({weights!r})) -> nn.Module:
    """The network with its weights, in evaluation mode."""
    found = build()
    found.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return found.eval()
'''


def source(trained: TrainedNetwork, *, fold: bool, weights: str) -> str:
    """The text of the file. weights: the name of the file with the weights, beside it. fold: norms are folded."""
    model = cast("DiscreteNetwork | NASBench201Network", trained.network)
    if own := sorted(model.genotype.ops & set(layers.OWN)):
        raise ValueError(f"export: to must be another than python, as the code of op {own[0]} is not this package's")
    arguments = model.plain_arguments()
    if isinstance(model, DiscreteNetwork):
        arguments |= {"auxiliary": None, "drop_path": 0.0}
    name = "PlainNetwork" if isinstance(model, DiscreteNetwork) else "PlainStagedNetwork"
    imports, definitions = _needed({name, *(["folded"] if fold else [])})
    found = trained.description
    cells = len(trained.network.cells)  # type: ignore[arg-type]
    what = f"A network of {cells} cells for {len(found.classes)} {_OUTPUTS[found.task]}, made by ddarts_ext."
    build = f"{name}(**ARGUMENTS)"
    return _TEMPLATE.format(
        title=what,
        outputs="values" if found.task == VALUES else "logits",
        channels=found.in_channels,
        height=found.size[0],
        width=found.size[1],
        imports=imports,
        classes=pformat(found.classes, width=_WIDTH, compact=True),
        size=found.size,
        mean=found.mean,
        std=found.std,
        arguments=pformat(arguments, width=_WIDTH, compact=True, sort_dicts=False),
        definitions=definitions,
        build=f"folded({build})" if fold else build,
        weights=weights,
    )


_OUTPUTS = {CLASSES: "classes", MULTI_LABEL: "labels, several at once", VALUES: "numbers"}


def _needed(wanted: set[str]) -> tuple[str, str]:
    """The imports, and the definitions that ``wanted`` are made of, in the order in which they stand."""
    parts: list[tuple[str, str, set[str]]] = []
    imports: dict[str, set[str]] = {}
    for module in (layers, network, fold_module):
        text = inspect.getsource(module)
        for node in ast.parse(text).body:
            _read(module, text, node, parts, imports)
    names = set(wanted)
    while more := {used for name, _, uses in parts if name in names for used in uses} - names:
        names |= more
    definitions = [text for name, text, _ in parts if name in names]
    lines = sorted(line for line, bound in imports.items() if bound & names or "Any" in bound)
    plain = [line for line in lines if "torch" not in line]
    return "\n".join([*plain, "", *(line for line in lines if "torch" in line), ""]), "\n\n\n".join(definitions)


def _read(
    module: ModuleType,
    text: str,
    node: ast.stmt,
    parts: list[tuple[str, str, set[str]]],
    imports: dict[str, set[str]],
) -> None:
    """Take up one statement of a module: what it defines and what that uses, or what it imports."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        origin = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if origin != "__future__" and not origin.startswith("ddarts_ext"):
            imports[ast.unparse(node)] = {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    elif isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.Assign)):
        first = node.targets[0] if isinstance(node, ast.Assign) else None
        name = first.id if isinstance(first, ast.Name) else getattr(node, "name", "")
        decorators = getattr(node, "decorator_list", [])
        begin = min([node.lineno, *(found.lineno for found in decorators)])
        segment = "\n".join(text.splitlines()[begin - 1 : node.end_lineno])
        uses = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
        parts.append((name, segment, uses))
