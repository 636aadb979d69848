"""Laws of weights: a file gives the branch that it was saved from, or a clear refusal."""

import random
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from branches.builder import build_branch
from branches.checksums import file_checksum, weights_checksum
from branches.preprocessing import with_scaling
from branches.registry import BRANCHES, BranchSpec
from branches.weights import check_file
from configs.errors import WeightsError

SHAPE = (24, 24, 3)
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype("float32")


def build_net(*, include_top=True, weights="imagenet", input_shape=(32, 32, 3), depth=3):
    """A backbone that is called as those of `keras.applications` are."""
    if weights == "imagenet":
        raise Exception("URL fetch failure on https://example.org/net.h5: None -- timed out.\n(2)")
    layers = keras.layers
    x = image = keras.Input(input_shape)
    for block in range(depth):
        x = layers.Conv2D(4, 3, padding="same", name=f"block{block}_conv")(x)
        x = layers.BatchNormalization(name=f"block{block}_bn")(x)
        x = layers.ReLU(name=f"block{block}_relu")(x)
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dense(5, name="predictions")(x)
    return keras.Model(image, x, name="net")


@pytest.fixture
def net() -> Iterator[str]:
    """The name of a registered branch for which weights are published somewhere."""
    spec = BranchSpec(
        name="net",
        builder=build_net,
        preprocessing="torch",
        min_size=8,
        reference="none",
        weights_licence="MIT",
    )
    with BRANCHES.temporary(spec):
        yield spec.name


def trained(*, include_top: bool = False, seed: int = 1, **options) -> keras.Model:
    """Returns a backbone whose weights are all unlike those of a new one."""
    model = build_net(include_top=include_top, weights=None, input_shape=SHAPE, **options)
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    return model


def as_branch(backbone: keras.Model) -> keras.Model:
    """Returns the branch of this backbone."""
    return with_scaling(backbone, "torch", name="net")


def features_of(backbone: keras.Model) -> np.ndarray:
    """Returns what the branch of this backbone computes."""
    return as_branch(backbone).predict(IMAGES, verbose=0)


def features_from(path: Path) -> np.ndarray:
    """Returns what the branch computes with the weights of a file."""
    return build_branch("net", input_shape=SHAPE, weights=str(path)).predict(IMAGES, verbose=0)


def save_published(model: keras.Model, path: Path) -> None:
    """Writes weights alone as an .h5, which is the form of published files."""
    whole = path.with_name("whole.h5")
    model.save(whole)
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", target)
        target.attrs.update(source["model_weights"].attrs)


SAVERS: dict[str, Callable[[keras.Model, Path], None]] = {
    "model.h5": lambda model, path: model.save(path),
    "published.h5": save_published,
    "model.weights.h5": lambda model, path: model.save_weights(path),
    "branch.weights.h5": lambda model, path: as_branch(model).save_weights(path),
}


@pytest.mark.parametrize("file", SAVERS)
def test_a_file_of_the_backbone_gives_the_backbone(file, net, tmp_path):
    source = trained()
    SAVERS[file](source, tmp_path / file)

    np.testing.assert_allclose(features_from(tmp_path / file), features_of(source), rtol=1e-5)


@pytest.mark.parametrize("file", SAVERS)
def test_of_a_file_with_a_classifier_on_top_the_backbone_is_kept(file, net, tmp_path):
    whole = trained(include_top=True)
    SAVERS[file](whole, tmp_path / file)
    below_top = keras.Model(whole.input, whole.get_layer("block2_relu").output)

    np.testing.assert_allclose(features_from(tmp_path / file), features_of(below_top), rtol=1e-5)


def test_a_file_of_a_saved_branch_gives_the_branch(net, tmp_path):
    branch = build_branch(net, input_shape=SHAPE, weights="random", seed=5, tag="b")
    branch.save_weights(tmp_path / "branch.weights.h5")

    again = features_from(tmp_path / "branch.weights.h5")

    np.testing.assert_array_equal(again, branch.predict(IMAGES, verbose=0))


def test_a_file_serves_images_of_any_size(net, tmp_path):
    source = trained()
    source.save(tmp_path / "net.h5")

    branch = build_branch(net, input_shape=(40, 16, 3), weights=str(tmp_path / "net.h5"))

    assert weights_checksum(branch) == weights_checksum(source)


def test_a_file_in_the_home_folder_is_found(net, tmp_path, monkeypatch):
    trained().save(tmp_path / "net.h5")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert check_file("~/net.h5", net) == tmp_path / "net.h5"


def test_loading_leaves_the_callers_random_state_alone(net, tmp_path):
    trained(include_top=True).save(tmp_path / "net.h5")
    before = random.getstate()

    features_from(tmp_path / "net.h5")

    assert random.getstate() == before


@pytest.mark.parametrize(
    ("file", "told"),
    [("missing.h5", "that exists"), ("folder.h5", "that exists"), ("notes.txt", "must be an .h5")],
)
def test_a_file_that_cannot_hold_weights_is_refused_before_building(file, told, net, tmp_path):
    (tmp_path / "notes.txt").write_text("weights")
    (tmp_path / "folder.h5").mkdir()

    refused(tmp_path / file, told)


@pytest.mark.parametrize("file", ["text.h5", "text.weights.h5"])
def test_a_text_under_a_weights_name_is_refused(file, net, tmp_path):
    (tmp_path / file).write_text("version https://git-lfs.github.com/spec/v1")

    refused(tmp_path / file, "do not fit")


@pytest.mark.parametrize("file", ["empty.h5", "empty.weights.h5"])
def test_a_file_without_weights_is_refused(file, net, tmp_path):
    h5py.File(tmp_path / file, "w").close()

    refused(tmp_path / file, "do not fit")


@pytest.mark.parametrize("include_top", [False, True])
@pytest.mark.parametrize("file", ["model.h5", "published.h5"])
def test_a_file_of_a_deeper_backbone_is_refused(file, include_top, net, tmp_path):
    SAVERS[file](trained(depth=4, include_top=include_top), tmp_path / file)

    refused(tmp_path / file, "do not fit")


def test_a_file_of_other_shapes_is_refused(net, tmp_path):
    image = keras.Input(SHAPE)
    other = keras.Model(image, keras.layers.Conv2D(5, 3)(image))
    for file, save in SAVERS.items():
        save(other, tmp_path / file)
        refused(tmp_path / file, "do not fit")


@pytest.mark.parametrize("file", SAVERS)
def test_a_file_of_a_part_of_the_layers_is_refused(file, net, tmp_path):
    SAVERS[file](trained(depth=2), tmp_path / file)

    refused(tmp_path / file, "do not fit")


@pytest.mark.parametrize(
    ("file", "hole"),
    [
        ("model.weights.h5", "layers/conv2d_1"),
        ("model.weights.h5", "layers/conv2d_1/vars"),
        ("model.weights.h5", "layers/conv2d_1/vars/1"),
        ("model.weights.h5", "layers/batch_normalization_2"),
        ("model.weights.h5", "layers/batch_normalization_2/vars/3"),
        ("branch.weights.h5", "layers/functional"),
        ("branch.weights.h5", "layers/functional/layers/batch_normalization/vars"),
        ("published.h5", "block1_bn"),
        ("published.h5", "block1_bn/block1_bn/moving_mean"),
        ("published.h5", "block2_conv/block2_conv/kernel"),
    ],
)
def test_a_file_with_a_hole_is_refused(file, hole, net, tmp_path):
    SAVERS[file](trained(), tmp_path / file)
    with h5py.File(tmp_path / file, "r+") as content:
        del content[hole]

    refused(tmp_path / file, "do not fit")


@pytest.mark.parametrize("layer", ["conv2d_1", "batch_normalization_2"])
def test_a_file_that_lists_a_layer_without_its_weights_is_refused(layer, net, tmp_path):
    file = tmp_path / "model.weights.h5"
    trained().save_weights(file)
    with h5py.File(file, "r+") as content:
        variables = content[f"layers/{layer}/vars"]
        for name in list(variables):
            del variables[name]

    refused(file, "do not fit")


class Nested(keras.layers.Layer):
    """A layer with another one in a list of lists; Keras only warns if a file lacks that."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = [[keras.layers.Dense(3)]]

    def build(self, shape) -> None:
        self.rows[0][0].build(shape)

    def call(self, x):
        return self.rows[0][0](x)


def test_what_keras_only_warns_of_is_refused(tmp_path):
    def build(*, input_shape, **_):
        image = keras.Input(input_shape)
        return keras.Model(image, Nested()(image))

    file = tmp_path / "nested.weights.h5"
    build(input_shape=SHAPE).save_weights(file)
    with BRANCHES.temporary(BranchSpec("net", build, "torch", 8, "none")):
        build_branch("net", input_shape=SHAPE, weights=str(file))
        with h5py.File(file, "r+") as content:
            del content["layers/nested/rows/container"]

        refused(file, "Skipping nested container")


def test_a_deprecation_in_keras_is_no_reason_to_refuse(net, tmp_path, monkeypatch):
    source = trained()
    source.save(tmp_path / "net.h5")
    load = keras.Model.load_weights

    def load_and_warn(*args, **kwargs):
        warnings.warn("old news", DeprecationWarning, stacklevel=2)
        return load(*args, **kwargs)

    monkeypatch.setattr(keras.Model, "load_weights", load_and_warn)
    with warnings.catch_warnings(record=True):
        features = features_from(tmp_path / "net.h5")

    np.testing.assert_allclose(features, features_of(source), rtol=1e-5)


def test_a_branch_without_published_weights_says_so(tiny):
    with pytest.raises(WeightsError) as error:
        build_branch(tiny, input_shape=SHAPE, weights="imagenet")

    assert "Branch 'tiny' has no published ImageNet weights" in str(error.value)
    assert "--weights tiny=random" in str(error.value)


def test_published_weights_are_taken_as_they_come():
    source = trained()
    spec = BranchSpec("net", lambda **_: source, "torch", 8, "none", weights_licence="MIT")
    with BRANCHES.temporary(spec):
        branch = build_branch("net", input_shape=SHAPE, weights="imagenet")

    assert weights_checksum(branch) == weights_checksum(source)


def test_a_failed_download_names_three_ways_on(net):
    with pytest.raises(WeightsError) as error:
        build_branch(net, input_shape=SHAPE, weights="imagenet")

    text = str(error.value)
    assert "branch 'net' cannot be downloaded (URL fetch failure" in text
    assert "\n" not in text
    for way in ("~/.keras/models", "--weights net=FILE.h5", "--weights random"):
        assert way in text


@pytest.mark.parametrize("timeout", [None, 7.0])
def test_a_download_gives_up_in_time_and_restores_the_callers_limit(timeout):
    during = []

    def build(**_):
        during.append(socket.getdefaulttimeout())
        raise Exception("no network")

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        spec = BranchSpec("net", build, "torch", 8, "none", weights_licence="MIT")
        with BRANCHES.temporary(spec), pytest.raises(WeightsError):
            build_branch("net", input_shape=SHAPE, weights="imagenet")
        assert socket.getdefaulttimeout() == timeout
    finally:
        socket.setdefaulttimeout(before)

    assert during[0] is not None


def test_equal_weights_have_equal_checksums_wherever_they_come_from(net, tmp_path):
    source = trained()
    checksums = {weights_checksum(source)}
    for file, save in SAVERS.items():
        save(source, tmp_path / file)
        branch = build_branch(net, input_shape=SHAPE, weights=str(tmp_path / file))
        checksums.add(weights_checksum(branch))

    assert len(checksums) == 1


def test_one_number_changes_the_checksum():
    source = trained()
    before = weights_checksum(source)
    statistics = source.get_layer("block1_bn").moving_mean
    statistics.assign(statistics + np.float32([0, 0, 1e-6, 0]))

    assert weights_checksum(source) != before


def test_files_are_told_apart_by_content(tmp_path):
    for name, content in (("a.h5", b"1"), ("b.h5", b"1"), ("c.h5", b"2")):
        (tmp_path / name).write_bytes(content)

    first, second, third = (file_checksum(tmp_path / f"{name}.h5") for name in "abc")
    assert first == second != third


@pytest.mark.slow
def test_the_file_of_a_large_classifier_gives_its_backbone(tmp_path):
    whole = keras.applications.DenseNet121(weights=None)
    whole.save(tmp_path / "densenet121.h5")

    branch = build_branch(
        "densenet121", input_shape=(64, 64, 3), weights=str(tmp_path / "densenet121.h5")
    )

    below_top = keras.Model(whole.input, whole.get_layer("relu").output)
    assert weights_checksum(branch) == weights_checksum(below_top)


def refused(path: Path, told: str) -> None:
    """Checks that a file is refused with its name, its branch's name and the reason."""
    with pytest.raises(WeightsError, match=re.escape(told)) as error:
        build_branch("net", input_shape=SHAPE, weights=str(path))

    assert "'net'" in str(error.value)
    assert str(path) in str(error.value)
