"""Prints what the package and its tests need where TensorFlow is not wanted, one a line."""

import tomllib
from pathlib import Path

TENSORFLOW = ("tensorflow", "tensorboard", "keras-tuner")  # a tuner needs TensorBoard

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
tools = [name for name in project["optional-dependencies"]["dev"] if name.startswith("pytest")]
for requirement in project["dependencies"] + tools:
    if not requirement.startswith(TENSORFLOW):
        print(requirement)
