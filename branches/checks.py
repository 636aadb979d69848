"""The contract of a branch, as code that anyone can run on a branch of their own."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from branches.builder import build_branch, freeze
from branches.checksums import weights_checksum
from branches.preprocessing import ImageNetPreprocessing
from branches.registry import BRANCHES


def check_branch(name: str) -> None:
    """Checks that a registered branch keeps its contract, with random weights.

    Raises:
        AssertionError: If it does not; the text says which rule is broken.
    """
    spec = BRANCHES.get(name)
    side = spec.min_size
    branch = build_branch(name, input_shape=(side, side, 3), weights="random")
    images = np.random.default_rng(0).uniform(0, 255, (2, side, side, 3)).astype("float32")
    features = branch.predict(images, verbose=0)

    assert features.ndim == 4, f"{name}: the feature map has rank {features.ndim}, not 4"
    assert features.shape[1:] == branch.output_shape[1:], f"{name}: the output shape is not known"
    assert np.isfinite(features).all(), f"{name}: the feature map holds NaN or infinity"
    assert not np.allclose(features[0], features[1]), f"{name}: two images look the same to it"
    assert any(isinstance(layer, ImageNetPreprocessing) for layer in branch.layers), (
        f"{name}: pixels are not scaled inside the branch"
    )

    again = build_branch(name, input_shape=(side, side, 3), weights="random")
    assert weights_checksum(again) == weights_checksum(branch), f"{name}: not decided by its seed"
    other = build_branch(name, input_shape=(side, side, 3), weights="random", tag="b")
    pair = keras.layers.Concatenate()([branch.output, other(branch.input)])
    keras.Model(branch.input, pair)  # Keras refuses equal layer names in one graph
    assert not freeze(other).trainable_variables, f"{name}: freezing leaves weights trainable"

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "branch.keras"
        branch.save(path)
        loaded = keras.saving.load_model(path, safe_mode=True)
    np.testing.assert_allclose(
        loaded.predict(images, verbose=0),
        features,
        rtol=1e-5,
        atol=1e-5,
        err_msg=f"{name}: a saved branch computes something else",
    )
