"""Laws of registries: a part is found by its name, wherever it was declared."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.registry import Registry, near_miss, unknown


@dataclass(frozen=True)
class Tool:
    """A part of a registry of this test."""

    name: str
    weight: int = 0


@pytest.fixture
def tools() -> Registry[Tool]:
    """Two tools, and no module beside them that registers another."""
    registry: Registry[Tool] = Registry("tool", package="configs")
    for name in ("saw", "hammer"):
        registry.register(Tool(name))
    return registry


@pytest.fixture
def toolbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a registry, one module that registers and one that must not be imported."""
    folder = tmp_path / "toolbox"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "registry.py").write_text(
        "from collections import namedtuple\n"
        "from configs.registry import Registry\n"
        "Tool = namedtuple('Tool', 'name')\n"
        "TOOLS = Registry('tool', package='toolbox.kinds')\n"
    )
    (folder / "machine.py").write_text("raise AssertionError('this module is not a part')\n")
    (folder / "kinds").mkdir()
    (folder / "kinds" / "__init__.py").touch()
    (folder / "kinds" / "axe.py").write_text(
        "from toolbox.registry import TOOLS, Tool\nTOOLS.register(Tool('axe'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "toolbox"]:
        del sys.modules[name]


def test_a_part_is_found_by_its_name(tools):
    assert tools.get("saw") == Tool("saw")
    assert tools.names() == ["hammer", "saw"]
    assert {tool.name for tool in tools} == {"hammer", "saw"}
    assert "saw" in tools
    assert "axe" not in tools


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known(tools):
    with pytest.raises(ConfigError) as error:
        tools.get("hamer")

    assert str(error.value) == "Unknown tool 'hamer'. Did you mean 'hammer'? Known: hammer, saw."


def test_a_name_far_from_all_is_answered_without_a_guess(tools):
    with pytest.raises(ConfigError) as error:
        tools.get("xyz")

    assert str(error.value) == "Unknown tool 'xyz'. Known: hammer, saw."
    assert unknown("tool", "xyz", []) == "Unknown tool 'xyz'. Known: none."


@pytest.mark.parametrize(
    ("received", "meant"),
    [
        ("vgg61", "vgg16"),
        ("vgg-16", "vgg16"),
        ("resnet", "resnet50"),
        ("inceptionv3", "inception_v3"),
        ("mobilenet_v9000", None),
    ],
)
def test_near_misses_are_those_of_a_slipping_finger(received, meant):
    assert near_miss(received, ["densenet121", "inception_v3", "resnet50", "vgg16"]) == meant


def test_a_name_is_given_once(tools):
    with pytest.raises(ConfigError, match="tool 'saw' is registered already"):
        tools.register(Tool("saw", weight=3))

    assert tools.get("saw") == Tool("saw")


def test_the_same_part_may_register_again(tools):
    assert tools.register(Tool("saw")) == Tool("saw")
    assert tools.names() == ["hammer", "saw"]


def test_a_temporary_part_leaves_no_trace(tools):
    with tools.temporary(Tool("axe")) as axe:
        assert tools.get("axe") is axe

    assert tools.names() == ["hammer", "saw"]


def test_a_temporary_part_leaves_even_after_an_error(tools):
    with pytest.raises(RuntimeError), tools.temporary(Tool("axe")):
        raise RuntimeError

    assert "axe" not in tools


def test_a_temporary_part_cannot_take_a_name_that_is_given(tools):
    with pytest.raises(ConfigError), tools.temporary(Tool("saw", weight=3)):
        pass

    assert tools.get("saw") == Tool("saw")


def test_modules_beside_a_registry_are_imported_on_the_first_look(toolbox):
    from toolbox.registry import TOOLS

    assert "toolbox.kinds.axe" not in sys.modules
    assert TOOLS.names() == ["axe"]
    assert "toolbox.kinds.axe" in sys.modules


def test_a_new_part_is_one_new_file(toolbox):
    (toolbox / "kinds" / "chisel.py").write_text(
        "from toolbox.registry import TOOLS, Tool\nTOOLS.register(Tool('chisel'))\n"
    )
    from toolbox.registry import TOOLS

    assert TOOLS.names() == ["axe", "chisel"]
