"""YAML settings by name or path, and paths below the home folder."""

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from configs.errors import ConfigError, HomeError
from configs.registry import unknown


def config_names() -> list[str]:
    """Returns the names of the settings that come with the package, sorted."""
    files = resources.files("configs").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))


def read_config(name: str) -> dict[str, Any]:
    """Returns the settings of a YAML file, nested as in the file.

    Args:
        name: A name that comes with the package, such as "three_class", or a path.

    Raises:
        ConfigError: If there is no such file or it is not a YAML mapping.
    """
    if name in config_names():
        text = (resources.files("configs") / f"{name}.yaml").read_text("utf-8")
    elif Path(name).suffix not in {".yaml", ".yml"}:
        raise ConfigError(unknown("config", name, config_names()) + " Or give a path to a .yaml.")
    else:
        try:
            text = Path(name).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The config {name} cannot be read ({error}).") from error
    try:
        values = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"The config {name} is not valid YAML: {yaml_problem(error)}.") from error
    if values is not None and not isinstance(values, dict):
        raise ConfigError(
            f"The config {name} must hold settings such as `training: {{epochs: 20}}`. "
            f"Received: {type(values).__name__}."
        )
    return values or {}


def load_yaml(text: str) -> Any:
    """Returns the plain values of YAML text.

    Raises:
        yaml.YAMLError: If it is not valid YAML, or a key occurs twice in a mapping.
    """
    return yaml.load(text, _Loader)


def write_config(values: dict[str, Any]) -> str:
    """Returns settings as YAML text, in the order given."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def yaml_problem(error: yaml.YAMLError) -> str:
    """Returns what is wrong with YAML text, and where."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"{problem} in line {mark.line + 1}, column {mark.column + 1}" if mark else problem


def expand_home(path: str | Path) -> Path:
    """Replaces a leading `~` or `~user` with that user's home folder.

    Raises:
        HomeError: If the home folder is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise HomeError(
            f"The home folder of {str(path)!r} is not known. Set HOME or write the path in full, "
            f"as ./{path} if a folder bears that name"
        ) from error


class _Loader(yaml.SafeLoader):
    """Reads plain values and rejects a key that occurs twice in a mapping."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                mark = first.setdefault((key.tag, key.value), key.start_mark)
                if mark is not key.start_mark:
                    problem = f"'{key.value}' in line {mark.line + 1} occurs again"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        return node
