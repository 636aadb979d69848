"""The contract of a branch, as code that anyone can run on a branch of their own."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from branches.builder import backbone_of, batch_norms, build_branch, freeze, unfreeze
from branches.checksums import weights_checksum
from branches.registry import BRANCHES, BranchSpec
from configs.errors import ConfigError


def check_branch(name: str) -> None:
    """Checks that a registered branch keeps its contract, with random weights.

    Raises:
        AssertionError: If it does not; the text says which rule is broken.
    """
    if not __debug__:
        raise RuntimeError("python -O leaves the assertions of this check out. Run it without -O.")
    spec = BRANCHES.get(name)
    side = spec.min_size
    branch = build_branch(name, input_shape=(side, side, 3), weights="random")
    images = np.random.default_rng(0).uniform(0, 255, (2, side, side, 3)).astype("float32")
    features = branch.predict(images, verbose=0)

    assert features.ndim == 4, f"{name}: the feature map has rank {features.ndim}, not 4"
    assert features.shape[1:] == branch.output_shape[1:], f"{name}: the output shape is not known"
    assert np.isfinite(features).all(), f"{name}: the feature map holds NaN or infinity"
    assert not np.allclose(features[0], features[1]), f"{name}: two images look the same to it"

    again = build_branch(name, input_shape=(side, side, 3), weights="random")
    assert weights_checksum(again) == weights_checksum(branch), f"{name}: not decided by its seed"
    other = build_branch(name, input_shape=(side, side, 3), weights="random", tag="b")
    pair = keras.layers.Concatenate()([branch.output, other(branch.input)])
    keras.Model(branch.input, pair)  # Keras refuses equal layer names in one graph
    assert not freeze(other).trainable_variables, f"{name}: freezing leaves weights trainable"
    _check_stages(spec, other)

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


def _check_stages(spec: BranchSpec, branch: keras.Model) -> None:
    name, ends = spec.name, list(spec.stages.values())
    layers = [layer.name for layer in backbone_of(branch).layers]
    absent = [end for end in ends if end not in layers]
    assert not absent, f"{name}: stages end at layers that the backbone lacks: {absent}"
    positions = [layers.index(end) for end in ends]
    assert positions == sorted(set(positions)), f"{name}: stages are not in the order of layers"
    assert not ends or ends[-1] == layers[-1], f"{name}: the last stage ends before the backbone"
    shadowed = [stage for stage in spec.stages if stage == "all" or stage.startswith("last:")]
    assert not shadowed, f"{name}: stages have names reserved for unfreezing: {shadowed}"

    branch.trainable = True
    normalizing = {id(weight) for layer in batch_norms(branch) for weight in layer.weights}
    learnable = {id(weight) for weight in branch.trainable_variables} - normalizing
    if not learnable:
        return
    stages = [_unfrozen(branch, stage) for stage in spec.stages]
    for number, stage in enumerate(stages):
        assert stage.isdisjoint(set().union(*stages[:number])), f"{name}: stages share weights"
    assert not stages or set().union(*stages) == learnable, f"{name}: weights are in no stage"
    assert _unfrozen(branch, "all") == learnable, f"{name}: unfreezing all leaves weights frozen"


def _unfrozen(branch: keras.Model, stage: str) -> set[int]:
    """Returns the identities of the weights that unfreezing one stage makes trainable."""
    try:
        return {id(weight) for weight in unfreeze(branch, [stage]).trainable_variables}
    except ConfigError as error:
        raise AssertionError(str(error)) from error
