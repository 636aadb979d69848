"""Laws of the tree, read from the sources: four packages and the floors of `ensemble`.

    configs  <-  branches, heads  <-  ensemble          (arrow: "is imported by")

Within `ensemble`, a file imports files of its own folder and of the floors below.

Each law is a function from all modules to its violations. The last test plants
a violation of each, so that a law that sees nothing is noticed.
"""

import ast
import graphlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from branches.registry import BRANCHES, branch_names
from ensemble.data.registry import SOURCES
from ensemble.faces.registry import DETECTORS
from heads.registry import HEADS

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "configs": {"configs"},
    "branches": {"configs", "branches"},
    "heads": {"configs", "heads"},
    "ensemble": {"configs", "branches", "heads", "ensemble"},
}
FLOORS = (  # of `ensemble`, the ground first
    *("system", "plots", "data", "faces", "model", "features", "runs", "metrics", "training"),
    *("experiment", "cli", "commands", "__main__"),
)
BACKENDS = {"tensorflow", "jax", "torch"}
NEEDS_BACKEND = {  # and only inside a function, so that the others are not needed
    "ensemble.system.devices": {"tensorflow", "jax", "torch"},  # to name them
    "ensemble.training.cluster": {"tensorflow", "jax"},  # to find devices and processes
    "ensemble.model.conversion": {"tensorflow"},  # to hand a graph to a converter
    "ensemble.training.distribution": {"jax"},  # to number its devices
    "ensemble.model.optimizers": {"tensorflow"},  # for a kernel that Keras does not use
}
HEAVY = BACKENDS | {
    *("keras", "keras_tuner", "grpc", "openvino", "scipy", "sklearn", "pandas"),
    *("matplotlib", "cv2", "starlette", "uvicorn"),
    *("ai_edge_litert", "onnx", "onnxruntime", "tf2onnx"),
}
SCREEN = {"ensemble.cli.command_line", "ensemble.cli.flags"}  # beside the commands themselves

Modules = dict[str, ast.Module]
Law = Callable[[Modules], list[str]]


class Import(NamedTuple):
    """An import: who, what, whether on import of the module itself, and whether by a text."""

    source: str
    target: str
    at_start: bool
    line: int
    by_text: bool

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}, imports {self.target}"


def read_modules() -> Modules:
    """Returns dotted name to syntax tree, for every module of the four packages."""
    files = sorted(file for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py"))
    return {_dotted(file): ast.parse(file.read_text("utf-8")) for file in files}


def arrows_point_down(modules: Modules) -> list[str]:
    return [
        str(found)
        for found in _imports(modules)
        if _package(found.target) in MAY_IMPORT
        and _package(found.target) not in MAY_IMPORT[_package(found.source)]
    ]


def floors_import_downwards(modules: Modules) -> list[str]:
    """Imports of a higher floor, also within functions and for type checkers alone."""
    return [
        str(found)
        for found in _imports(modules)
        if found.source != "ensemble"
        and _package(found.source) == _package(found.target) == "ensemble"
        and _floor(found.target) > _floor(found.source)
    ]


def folders_do_not_import_each_other_in_a_circle(modules: Modules) -> list[str]:
    packages = {parent for name in modules for parent in _parents(name)}
    return _circle(modules, lambda name: name if name in packages else name.rpartition(".")[0])


def files_do_not_import_each_other_in_a_circle(modules: Modules) -> list[str]:
    return _circle(modules, lambda name: name)


def parts_take_no_config_object(modules: Modules) -> list[str]:
    return [
        str(found)
        for found in _imports(modules)
        if found.target == "configs.schema" and _package(found.source) in {"branches", "heads"}
    ]


def no_command_is_imported(modules: Modules) -> list[str]:
    commands = set(_commands(modules))
    return [str(found) for found in _imports(modules) if found.target in commands]


def only_commands_see_screen_and_environment(modules: Modules) -> list[str]:
    below = [name for name in modules if name not in {*SCREEN, *_commands(modules)}]
    return [
        f"{name} uses {word}"
        for name in below
        for node in ast.walk(modules[name])
        for word in _outward(node)
    ]


def no_backend_is_imported_by_name(modules: Modules) -> list[str]:
    return [
        str(found)
        for found in _imports(modules)
        if _package(found.target) in BACKENDS
        and (found.at_start or _package(found.target) not in NEEDS_BACKEND.get(found.source, set()))
    ]


def no_branch_is_known_by_name_elsewhere(modules: Modules) -> list[str]:
    names = set(branch_names())
    return [
        f"{name} compares with {constant!r}"
        for name, tree in modules.items()
        if _package(name) != "branches"
        for node in ast.walk(tree)
        for constant in _compared(node)
        if constant in names
    ]


def registering_a_part_is_light(modules: Modules) -> list[str]:
    return _heavy_imports(modules, _registrations(modules))


def starting_a_command_is_light(modules: Modules) -> list[str]:
    return _heavy_imports(modules, _commands(modules))


PLANTED = [
    (arrows_point_down, "configs.planted", "import heads"),
    (arrows_point_down, "configs.planted", "def f():\n    from branches.registry import BRANCHES"),
    (arrows_point_down, "branches.planted", "from ensemble import fit"),
    (arrows_point_down, "branches.planted", "from heads.registry import HEADS"),
    (arrows_point_down, "branches.planted", "import_module('ensemble.model')"),
    (arrows_point_down, "heads.planted", "if TYPE_CHECKING:\n    import ensemble.model"),
    (arrows_point_down, "heads.planted", "from ..branches import registry"),
    (floors_import_downwards, "ensemble.data.planted", "from ensemble.runs.run import Run"),
    (floors_import_downwards, "ensemble.model.planted", "def f():\n    import ensemble.training"),
    (floors_import_downwards, "ensemble.plots.planted", "import ensemble.metrics.report"),
    (floors_import_downwards, "ensemble.metrics.planted", "from ensemble import fit"),
    (floors_import_downwards, "ensemble.planted", "from ensemble.system import cores"),
    (
        folders_do_not_import_each_other_in_a_circle,
        "ensemble.commands.predict.planted",
        "from ensemble.commands.serve.service import build_app",
    ),
    (
        files_do_not_import_each_other_in_a_circle,
        "configs.errors",
        "def f():\n    from configs.registry import unknown",
    ),
    (parts_take_no_config_object, "heads.planted", "from configs.schema import ModelConfig"),
    (parts_take_no_config_object, "branches.planted", "from configs import schema"),
    (
        no_command_is_imported,
        "ensemble.planted",
        "from ensemble.commands.train.__main__ import main",
    ),
    (
        no_command_is_imported,
        "ensemble.planted",
        "def f():\n    from ensemble.commands.train import __main__",
    ),
    (only_commands_see_screen_and_environment, "ensemble.planted", "print('done')"),
    (only_commands_see_screen_and_environment, "ensemble.planted", "import argparse"),
    (only_commands_see_screen_and_environment, "heads.planted", "os.environ['HOME']"),
    (only_commands_see_screen_and_environment, "heads.planted", "from os import environ"),
    (only_commands_see_screen_and_environment, "branches.planted", "os.getenv('HOME')"),
    (no_backend_is_imported_by_name, "ensemble.planted", "import tensorflow as tf"),
    (no_backend_is_imported_by_name, "ensemble.planted", "def f():\n    from jax import numpy"),
    (no_backend_is_imported_by_name, "ensemble.model.conversion", "import tensorflow"),
    (
        no_backend_is_imported_by_name,
        "ensemble.model.conversion",
        "def f():\n    import torch",
    ),
    (no_backend_is_imported_by_name, "ensemble.training.distribution", "import jax"),
    (
        no_backend_is_imported_by_name,
        "ensemble.model.optimizers",
        "def f():\n    import jax",
    ),
    (no_backend_is_imported_by_name, "ensemble.system.devices", "import torch"),
    (no_branch_is_known_by_name_elsewhere, "ensemble.planted", "name == 'vgg16'"),
    (no_branch_is_known_by_name_elsewhere, "heads.planted", "name in ('a', 'vgg16')"),
    (
        no_branch_is_known_by_name_elsewhere,
        "configs.planted",
        "match name:\n    case 'vgg16' | 'b':\n        pass",
    ),
    (registering_a_part_is_light, "branches.planted", "import keras\nregister_branch(x)"),
    (
        registering_a_part_is_light,
        "heads.planted",
        "from heads.builder import build_head\nregister_head(x)",
    ),
    (
        starting_a_command_is_light,
        "ensemble.planted",
        "from ensemble.model import composition\nif __name__ == '__main__':\n    main()",
    ),
]

LAWS = list(dict.fromkeys(law for law, _, _ in PLANTED))


@pytest.fixture(scope="module")
def modules() -> Modules:
    return read_modules()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law_of_the_tree(law, modules):
    assert law(modules) == []


@pytest.mark.parametrize(
    ("law", "name", "source"), PLANTED, ids=[f"{law.__name__}-{name}" for law, name, _ in PLANTED]
)
def test_a_planted_violation_is_found(law, name, source, modules):
    violations = law({**modules, name: ast.parse(source)})

    assert violations
    assert all(name in violation for violation in violations)


@pytest.mark.parametrize("registry", [BRANCHES, HEADS, DETECTORS, SOURCES], ids=lambda r: r.kind)
def test_folders_of_parts_hold_nothing_else(registry, modules):
    """Every module of such a folder is imported with every command."""
    found = {name for name in modules if name.rpartition(".")[0] == registry._package}

    assert found
    assert found <= set(_registrations(modules))


def test_every_folder_of_modules_is_a_package():
    """A wheel leaves out any other."""
    folders = {file.parent for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py")}

    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_all_modules_are_read(modules):
    assert {"configs", "branches", "heads", "ensemble", "ensemble.data"} <= set(modules)
    assert "ensemble.commands.train.__main__" in _commands(modules)
    assert {"branches.families.vgg", "heads.kinds.dense", "ensemble.data.sources.folder"} <= set(
        _registrations(modules)
    )


def _dotted(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _package(name: str) -> str:
    return name.partition(".")[0]


def _floor(name: str) -> int:
    """Returns the floor of a module of `ensemble`; a stranger stands above or below all."""
    part = name.split(".")[1] if "." in name else "__main__"
    return FLOORS.index(part) if part in FLOORS else -1


def _circle(modules: Modules, place: Callable[[str], str]) -> list[str]:
    """Returns the imports that lead from one place (a file or a folder) back to it."""
    graph: dict[str, dict[str, Import]] = {}
    for found in _imports(modules):
        source, target = place(found.source), place(found.target)
        known = found.target in modules and "ensemble" not in {source, target}
        if known and source != target and not found.by_text:  # a registry names its folder
            graph.setdefault(source, {}).setdefault(target, found)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pairs = pairwise(error.args[1])
        return ["; ".join(str(graph[source][target]) for target, source in pairs)]
    return []


def _commands(modules: Modules) -> list[str]:
    """Returns the modules that run when called with `python -m`."""
    return [
        name
        for name, tree in modules.items()
        if any(
            isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
            for node in tree.body
        )
    ]


def _registrations(modules: Modules) -> list[str]:
    """Returns the modules that register a part when they are imported."""
    return [
        name
        for name, tree in modules.items()
        if any(
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func).startswith("register_")
            for node in tree.body
        )
    ]


def _heavy_imports(modules: Modules, starts: list[str]) -> list[str]:
    """Returns the heavy imports that happen on importing one of `starts`, directly or not."""
    imports: dict[str, list[Import]] = {}
    for found in _imports(modules):
        if found.at_start:
            imports.setdefault(found.source, []).append(found)
    violations = []
    for start in starts:
        reached, waiting = set(), [start]
        while waiting:
            name = waiting.pop()
            if name in reached:
                continue
            reached.add(name)
            for found in imports.get(name, []):
                if _package(found.target) in HEAVY:
                    violations.append(f"{start} loads {found.target} through {name}")
                waiting += [found.target, *_parents(found.target)]
    return violations


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _imports(modules: Modules) -> Iterator[Import]:
    for name, tree in modules.items():
        at_start = set(map(id, _at_start(tree)))
        for node in ast.walk(tree):
            for target in _targets(node, name, modules):
                is_text = isinstance(node, ast.Constant)
                yield Import(
                    name, target, id(node) in at_start and not is_text, node.lineno, is_text
                )


def _at_start(node: ast.AST) -> Iterator[ast.AST]:
    """Yields what runs on import: no bodies of functions, nothing for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_start(child)


def _targets(node: ast.AST, source: str, modules: Modules) -> Iterator[str]:
    """Yields the modules that a node imports, by statement or by a text that names one."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            above = source.split(".")[:-level] if level else []
            base = ".".join([*above, *([module] if module else [])])
            members = [f"{base}.{alias.name}" for alias in names]
            submodules = [member for member in members if member in modules]
            yield from submodules
            if len(submodules) < len(members):
                yield base
        case ast.Constant(value=str(text)) if "." in text and text in modules:
            yield text


def _outward(node: ast.AST) -> Iterator[str]:
    """Yields the words of a node that reach for the screen, the arguments or the environment."""
    match node:
        case ast.Call(func=ast.Name(id="print")):
            yield "print"
        case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "getenv" | "putenv" as word):
            yield f"os.{word}"
        case ast.ImportFrom(module="os", names=names):
            yield from (a.name for a in names if a.name in {"environ", "getenv", "putenv"})
        case ast.Import(names=names):
            yield from (a.name for a in names if a.name == "argparse")
        case ast.ImportFrom(module="argparse"):
            yield "argparse"


def _compared(node: ast.AST) -> Iterator[object]:
    """Yields the constants with which a node compares."""
    match node:
        case ast.Compare(left=left, comparators=others):
            for side in (left, *others):
                elements = side.elts if isinstance(side, ast.Tuple | ast.List | ast.Set) else [side]
                yield from (e.value for e in elements if isinstance(e, ast.Constant))
        case ast.MatchValue(value=ast.Constant(value=value)):
            yield value
