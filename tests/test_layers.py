"""Imports point one way, and what must start quickly or run without the training code does."""

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
PACKAGE = "manyhead"

FAMILIES = (
    "encoder",
    "heads",
    "objectives",
    "pretraining",
    "regularisers",
    "balancing",
    "optimizers",
    "rates",
    "schedules",
    "trackers",
)

# From the bottom up. A component, a module or a package with all its modules, may import its own layer and lower ones.
# Of `recipe`, the schema lies at the bottom, because the families' options are written in it, and all else above them.
LAYERS = (
    ("errors", "faults", "recipe.schema", "packed", "perceptron", "hub", "files", "device"),
    (*FAMILIES, "data", "batching"),
    ("recipe", "model"),
    ("inference", "evaluation"),
    ("training",),
    ("evidence", "report", "export", "tracking", "inference.bulk"),
    ("build", "serving"),
    ("studies",),
    ("cli", "__main__"),
)
LAYER_OF = {component: layer for layer, components in enumerate(LAYERS) for component in components}

HEAVY = ("torch", "transformers", "sklearn", "scipy", "matplotlib", "onnx", "onnxruntime")
NOT_FOR_INFERENCE = ("data.read", "data.check", "training")


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((SRC / PACKAGE).rglob("*.py"))}


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below ``node`` that run when the module is imported."""
    below = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and is_type_checking(node.test):
        below = iter(node.orelse)
    for child in below:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from at_import(child)


def imported(nodes: Iterator[ast.AST], module: str, is_package: bool) -> set[str]:
    """Names of the modules that the import statements among ``nodes`` name; attributes are cut off."""
    package = module if is_package else module.rpartition(".")[0]
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            members = {f"{base}.{alias.name}" for alias in node.names}
            submodules = members & MODULES.keys()
            names |= submodules
            if members - submodules:
                names.add(base)
    return names


def imports_of(module: str, *, inside_functions: bool = False) -> set[str]:
    path = MODULES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return imported(ast.walk(tree) if inside_functions else at_import(tree), module, path.name == "__init__.py")


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name == PACKAGE or name.startswith(f"{PACKAGE}.")}


GRAPH = {module: ours(imports_of(module)) for module in MODULES}


def component_of(module: str) -> str | None:
    """The entry of LAYERS that ``module`` belongs to, None for a module that has no place."""
    place = module.removeprefix(f"{PACKAGE}.")
    while place and place not in LAYER_OF:
        place = place.rpartition(".")[0]
    return place or None


def find_cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """One way round from a node to itself, empty if there is none."""
    finished: set[str] = set()

    def visit(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in finished:
            return []
        for target in sorted(graph.get(node, ())):
            if cycle := visit(target, [*way, node]):
                return cycle
        finished.add(node)
        return []

    return next((cycle for node in sorted(graph) if (cycle := visit(node, []))), [])


def reachable(module: str) -> set[str]:
    """All of our modules that importing ``module`` imports, itself and enclosing packages included."""
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        if name and name not in seen:
            seen.add(name)
            waiting |= GRAPH.get(name, set()) | {name.rpartition(".")[0]}
    return seen


def test_every_module_has_a_layer() -> None:
    placeless = [module for module in MODULES if module != PACKAGE and component_of(module) is None]
    assert not placeless, f"give these a place in LAYERS: {placeless}"


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {PACKAGE}))
def test_imports_point_down(module: str) -> None:
    component = component_of(module)
    assert component is not None
    upward = {
        target
        for target in GRAPH[module]
        if (other := component_of(target)) is None or LAYER_OF[other] > LAYER_OF[component]
    }
    assert not upward, f"{module} is in a layer below what it imports, or imports the whole package"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert find_cycle(GRAPH) == []


def test_components_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {component: set() for component in LAYER_OF}
    for module, targets in GRAPH.items():
        if component := component_of(module):
            graph[component] |= {other for target in targets if (other := component_of(target))} - {component}
    assert find_cycle(graph) == []


def test_a_circle_is_found() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_only_what_runs_at_import_counts() -> None:
    source = """
import a
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import b
else:
    import c
try:
    from manyhead.recipe import schema
    from manyhead.errors import Problem
except ImportError:
    from . import sibling
class K:
    import d
    def f(self):
        import e
lazy = lambda: __import__("f")
"""
    names = imported(at_import(ast.parse(source)), f"{PACKAGE}.heads.linear", is_package=False)
    assert names == {"a", "typing", "c", "manyhead.recipe.schema", "manyhead.errors", "manyhead.heads", "d"}


def test_recipes_help_and_the_package_load_nothing_heavy() -> None:
    wanted = {PACKAGE, f"{PACKAGE}.errors", f"{PACKAGE}.cli.main", *(f"{PACKAGE}.{family}" for family in FAMILIES)}
    light = sorted(module for module in MODULES if module in wanted or module.startswith(f"{PACKAGE}.recipe"))
    program = f"""
import importlib, json, sys
loads = {{}}
for module in {light!r}:
    before = set(sys.modules)
    importlib.import_module(module)
    loads[module] = sorted((set(sys.modules) - before) & set({HEAVY!r}))
print(json.dumps({{module: heavy for module, heavy in loads.items() if heavy}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


def test_inference_knows_no_readers_and_no_training() -> None:
    barred = tuple(f"{PACKAGE}.{name}." for name in NOT_FOR_INFERENCE)
    for module in (name for name in MODULES if component_of(name) == "inference"):
        known = reachable(module) | ours(imports_of(module, inside_functions=True))
        assert not {name for name in known if f"{name}.".startswith(barred)}, module
