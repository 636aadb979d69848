"""Laws of YAML settings, and of those that come with the package."""

from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.files import config_names, load_yaml, read_config, write_config
from configs.schema import ExperimentConfig
from configs.search import SearchExperiment
from ensemble.cli.checks import find_errors
from ensemble.commands.search.spaces import SearchSpace


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted path and value of each leaf."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_settings_come_with_the_package():
    assert "three_class" in config_names()
    assert config_names() == sorted(config_names())


def schema_of(name: str) -> type[ExperimentConfig]:
    return SearchExperiment if "search" in read_config(name) else ExperimentConfig


@pytest.mark.parametrize("name", config_names())
def test_shipped_settings_fit_the_schema_and_the_parts(name):
    config = schema_of(name).model_validate(read_config(name))

    assert find_errors(config) == []
    if isinstance(config, SearchExperiment):
        assert SearchSpace(config).feature_configs()


@pytest.mark.parametrize("name", config_names())
def test_shipped_settings_open_with_purpose_command_and_result(name):
    text = (resources.files("configs") / f"{name}.yaml").read_text("utf-8")
    purpose, run, expect, *_ = text.splitlines()

    assert purpose.startswith("# ")
    assert purpose.endswith(".")
    command = "search" if schema_of(name) is SearchExperiment else "train"
    assert run.startswith(f"# Run:     python -m ensemble.{command} --config {name}")
    assert expect.startswith("# Expect:  ")


@pytest.mark.parametrize("name", config_names())
def test_shipped_settings_state_only_what_differs_from_the_defaults(name):
    stated = dict(leaves(read_config(name)))
    schema = schema_of(name)
    config = dict(leaves(schema.model_validate(read_config(name)).model_dump()))
    defaults = dict(leaves(schema().model_dump()))

    assert stated
    assert [path for path in stated if path in defaults and config[path] == defaults[path]] == []


def test_a_key_may_override_one_that_it_merges():
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: *b"

    assert load_yaml(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"x": 3, "y": 2},
    }


def test_settings_are_read_from_a_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("training: {epochs: 3}\n")

    assert read_config(str(path)) == {"training": {"epochs": 3}}


def test_an_empty_file_changes_nothing(tmp_path):
    path = tmp_path / "empty.yml"
    path.write_text("# nothing yet\n")

    assert read_config(str(path)) == {}


def test_what_is_written_is_read_again(tmp_path):
    values = {"b": {"z": [1, 2.5, 1e-7], "a": "négatif"}, "a": None, "c": {"on": True}}
    path = tmp_path / "mine.yaml"
    path.write_text(write_config(values), "utf-8")

    assert read_config(str(path)) == values
    assert list(read_config(str(path))) == ["b", "a", "c"]


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"Did you mean 'three_class'\?"):
        read_config("three_clas")


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "missing.yaml"

    with pytest.raises(ConfigError, match=r"missing\.yaml cannot be read"):
        read_config(str(path))


def test_a_folder_is_no_file(tmp_path):
    folder = tmp_path / "folder.yaml"
    folder.mkdir()

    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(str(folder))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"model: [vgg16\ntraining: 3", "is not valid YAML: .* in line 2, column 9"),
        (b"a: 1\nb: {c: 1, d: 2,\n  c: 3}", "'c' in line 2 occurs again in line 3, column 3"),
        (b"a: {b: 1}\n'a': {c: 2}", "'a' in line 1 occurs again in line 2, column 1"),
        (b"a: 1\n\tb: 2", "is not valid YAML: .* in line 2, column 1"),
        (b"- vgg16\n- resnet50", "must hold settings .* Received: list"),
        (b"vgg16", "must hold settings .* Received: str"),
        (b"a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        (b"\xff\xfe\x00\x80", "cannot be read"),
        (b"a: \x07", "is not valid YAML"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(content, told, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=told):
        read_config(str(path))
