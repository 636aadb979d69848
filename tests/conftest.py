"""Fixtures shared by all tests: a tiny branch, a tiny dataset, the real faces."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from branches.registry import BRANCHES, BranchSpec
from configs.schema import ExperimentConfig
from ensemble.cli.command_line import load_backend


def pytest_configure() -> None:
    os.environ["ENSEMBLE_CACHE"] = tempfile.mkdtemp(prefix="features-")  # not the user's own
    load_backend()  # quietly, before a test module imports Keras


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Has slow tests go first, so that none of them ends alone when all others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real faces that some tests measure on; they skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ENSEMBLE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real faces at {folder}; set ENSEMBLE_TEST_DATA to their folder")
    return folder


def build_tiny(input_shape: tuple[int, int, int], **_: Any) -> Any:
    """A backbone of two convolutions, as quick as one can be."""
    from keras import Input, Model, layers

    image = Input(input_shape)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="stem_conv")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.Conv2D(12, 3, strides=2, activation="relu", name="body_conv")(x)
    return Model(image, x, name="tiny_backbone")


@pytest.fixture
def tiny() -> Iterator[str]:
    """The name of a registered branch that builds and runs in no time."""
    spec = BranchSpec(
        name="tiny",
        builder=build_tiny,
        preprocessing="tf",
        min_size=8,
        reference="none",
        stages={"stem": "stem_bn", "body": "body_conv"},
    )
    with BRANCHES.temporary(spec):
        yield spec.name


@pytest.fixture
def colours_folder(tmp_path: Path) -> Path:
    """Class folders of 24 bluish and 24 reddish pictures, which anyone can tell apart."""
    generator = np.random.default_rng(0)
    for label, channel in (("blue", 2), ("red", 0)):
        folder = tmp_path / "colours" / label
        folder.mkdir(parents=True)
        for number in range(24):
            pixels = generator.integers(0, 160, (24, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 80
            Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return tmp_path / "colours"


@pytest.fixture
def make_config(tiny: str, colours_folder: Path, tmp_path: Path) -> Callable[..., ExperimentConfig]:
    """Makes the settings of an experiment that takes a second."""

    def make(**changes: dict[str, Any]) -> ExperimentConfig:
        values: dict[str, Any] = {
            "data": {"root": [colours_folder], "image_size": 16, "views": 2},
            "model": {"branches": [tiny], "weights": "random", "standardize": True},
            "features": {"directory": tmp_path / "cache", "engine": "keras"},
            "training": {"epochs": 4, "batch_size": 8},
            "output": tmp_path / "runs",
        }
        for section, settings in changes.items():
            values[section] = {**values.get(section, {}), **settings}
        return ExperimentConfig.model_validate(values)

    return make
