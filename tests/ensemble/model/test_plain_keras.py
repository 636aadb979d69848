"""Saved models load in plain Keras, with nothing of this project installed."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from branches.builder import build_branch
from branches.registry import BRANCHES, BranchSpec
from ensemble.commands.fuse.fusing import fuse_models
from ensemble.commands.fuse.rules import Mean, Stack
from ensemble.experiment import fit
from ensemble.model.composition import MultiBranchModel, build_model

pytestmark = pytest.mark.backend

PLAIN = """
import sys
import zipfile
from pathlib import Path

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"branches", "configs", "ensemble", "heads"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
import keras
import numpy as np

images = np.load("images.npy")
for path in sorted(Path().glob("*.keras")):
    model = keras.saving.load_model(path, safe_mode=True)
    np.save(path.with_suffix(".npy"), keras.ops.convert_to_numpy(model(images)))
"""


def build_coarse(input_shape: tuple[int, int, int], **_: Any) -> keras.Model:
    """A backbone whose grid is 3 x 3 at 16 pixels, where that of `tiny` is finer."""
    image = keras.Input(input_shape)
    x = keras.layers.AveragePooling2D(5)(image)
    return keras.Model(image, keras.layers.Conv2D(6, 1)(x), name="coarse_backbone")


def build_fine(input_shape: tuple[int, int, int], **_: Any) -> keras.Model:
    """A backbone whose grid is 7 x 7 at 16 pixels, which 3 does not divide."""
    image = keras.Input(input_shape)
    return keras.Model(image, keras.layers.Conv2D(5, 4, strides=2)(image), name="fine_backbone")


@pytest.fixture
def others() -> Iterator[None]:
    coarse = BranchSpec("coarse", build_coarse, "caffe", min_size=8, reference="none")
    fine = BranchSpec("fine", build_fine, "torch", min_size=8, reference="none")
    with BRANCHES.temporary(coarse), BRANCHES.temporary(fine):
        yield


def own_model(branch: str) -> keras.Model:
    """A branch in a model of a user's own."""
    image = keras.Input((16, 16, 3))
    maps = build_branch(branch, input_shape=(16, 16, 3), weights="random")(image)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(maps))


def test_saved_models_need_nothing_but_keras(tiny, others, make_config, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3)).astype("float32")
    np.save(folder / "images.npy", images)
    result = fit(make_config())
    (folder / "run.keras").write_bytes((result.run.folder / "model.keras").read_bytes())
    models = {"run": result.ensemble.model}

    options: dict[str, Any] = {"classes": "ab", "image_size": 16, "weights": "random"}
    grid = build_model(["fine", "coarse"], fusion="grid", standardize=True, **options)
    flat = build_model([tiny], fusion="flat", head="linear", **options)
    stacking = Stack(np.eye(4, 2, dtype="float32"), np.ones(2, "float32"))
    ensembles = {
        "grid": grid.with_temperature(1.7),
        "mean": fuse_models([grid, flat], Mean(np.array([0.3, 0.7]))),
        "stacking": fuse_models([grid, flat], stacking),
    }
    for name, ensemble in ensembles.items():
        ensemble.save(folder / f"{name}.keras")
        models[name] = ensemble.model
    for branch in ("fine", "coarse", tiny):
        models[branch] = own_model(branch)
        models[branch].save(folder / f"{branch}.keras")

    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    subprocess.run(
        [sys.executable, "-P", "-c", PLAIN], check=True, cwd=folder, env=environment, timeout=120
    )

    assert len(models) == 7
    for name, model in models.items():
        expected = keras.ops.convert_to_numpy(model(images))
        np.testing.assert_allclose(
            np.load(folder / f"{name}.npy"), expected, atol=1e-5, err_msg=name
        )


def test_a_run_stores_what_keras_has_no_place_for(make_config):
    config = make_config(data={"classes": ["red", "blue"]})
    result = fit(config)
    path = result.run.folder / "model.keras"

    loaded = MultiBranchModel.load(path)
    record = read_record(path)

    assert loaded.classes == ("red", "blue")
    assert loaded.temperature == result.ensemble.temperature == record["temperature"]
    assert record["protocol"]["classes"] == ["red", "blue"]
    assert record["protocol"]["faces"]["detector"] == config.data.faces.detector
    assert record["source"]["run"] == result.run.name
    assert record["source"]["seed"] == config.seed
    assert "keras" in record["source"]["packages"]


def read_record(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("ensemble.json"))
