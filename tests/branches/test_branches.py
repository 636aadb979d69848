"""Laws of branches: an RGB image of 0..255 goes in, one feature map comes out."""

import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from branches.builder import build_branch, freeze
from branches.checks import check_branch
from branches.checksums import weights_checksum
from branches.preprocessing import scale_pixels
from branches.registry import BRANCHES, BranchSpec, branch_names, check_size
from configs.errors import ConfigError
from ensemble.cli.checks import load_plugins

pytestmark = pytest.mark.backend

PLUGIN = '''"""A branch of one convolution."""
from branches import BranchSpec, register_branch
def build(*, input_shape, include_top, weights):
    import keras
    image = keras.Input(input_shape)
    return keras.Model(image, keras.layers.Conv2D(4, 3, strides=2)(image))
register_branch(
    BranchSpec("one_convolution", build, preprocessing="torch", min_size=16, reference="none")
)
'''


@pytest.fixture
def pixels() -> np.ndarray:
    """Pixels of 0..255, both ends included; the channels differ."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (3, 20, 20, 3)).astype("float32")
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    return images


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[str]:
    """The path of a file with a branch of a user's own; all trace of it goes afterwards."""
    path = tmp_path / "users_own_branch.py"
    path.write_text(PLUGIN)
    bystander = BranchSpec("bystander", _refuse, "none", min_size=1, reference="none")
    with BRANCHES.temporary(bystander):  # on leaving, it restores the registry as it was
        yield str(path)
    sys.modules.pop(path.stem, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", branch_names())
def test_branch_keeps_its_contract(name):
    check_branch(name)


def test_a_tiny_branch_keeps_the_contract_too(tiny):
    check_branch(tiny)


@pytest.mark.parametrize("name", branch_names())
def test_scaling_is_that_of_the_published_weights(name, pixels):
    spec = BRANCHES.get(name)
    reference = _reference_scaling(spec)

    scaled = keras.ops.convert_to_numpy(scale_pixels(pixels, spec.preprocessing))

    np.testing.assert_allclose(scaled, reference(pixels.copy()), atol=1e-4)


@pytest.mark.parametrize("mode", ["caffe", "torch", "tf"])
def test_each_scaling_has_its_reference(mode, pixels):
    reference = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode=mode)

    scaled = keras.ops.convert_to_numpy(scale_pixels(pixels, mode))

    np.testing.assert_allclose(scaled, reference, atol=1e-4)


def test_no_scaling_leaves_pixels_alone(pixels):
    np.testing.assert_array_equal(scale_pixels(pixels, "none"), pixels)


def test_scaling_computes_in_float32_under_a_policy_of_half_precision(pixels):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        scaled = scale_pixels(pixels, "torch")
    finally:
        keras.config.set_dtype_policy(policy)

    np.testing.assert_array_equal(scaled, scale_pixels(pixels, "torch"))


def test_the_scaling_stands_inside_the_branch(pixels):
    def build(*, input_shape, **_):
        image = keras.Input(input_shape)
        return keras.Model(image, keras.layers.Identity()(image))

    spec = BranchSpec("identity", build, preprocessing="caffe", min_size=8, reference="none")
    with BRANCHES.temporary(spec):
        branch = build_branch("identity", input_shape=(20, 20, 3), weights="random")

    np.testing.assert_array_equal(branch.predict(pixels, verbose=0), scale_pixels(pixels, "caffe"))


def test_a_branch_is_called_by_its_name_and_tag(tiny):
    def name(**options):
        return build_branch(tiny, input_shape=(16, 16, 3), weights="random", **options).name

    assert name() == "tiny"
    assert name(tag="b") == "tiny_b"


def test_height_and_width_may_stay_open(tiny):
    branch = build_branch(tiny, input_shape=(None, None, 3), weights="random")

    assert branch.input_shape == (None, None, None, 3)
    assert branch.predict(np.zeros((1, 20, 30, 3)), verbose=0).shape == (1, 4, 6, 12)


def test_a_branch_of_the_users_own_is_one_file(plugin):
    load_plugins([plugin])

    assert len(PLUGIN.splitlines()) <= 15
    assert "one_convolution" in branch_names()
    check_branch("one_convolution")
    branch = build_branch("one_convolution", input_shape=(32, 32, 3), weights="random")
    assert branch.output_shape == (None, 15, 15, 4)


def test_a_plugin_loaded_twice_registers_once(plugin, monkeypatch):
    load_plugins([plugin])
    monkeypatch.chdir(Path(plugin).parent)
    load_plugins([plugin, Path(plugin).name, f"./{Path(plugin).name}"])

    assert branch_names().count("one_convolution") == 1


def test_a_plugin_that_was_loaded_by_its_path_can_be_imported(plugin, monkeypatch):
    monkeypatch.syspath_prepend(Path(plugin).parent)
    monkeypatch.delitem(sys.modules, Path(plugin).stem, raising=False)
    load_plugins([plugin])
    module = importlib.import_module(Path(plugin).stem)  # registers no part twice
    monkeypatch.delitem(sys.modules, Path(plugin).stem)

    assert Path(module.__file__).resolve() == Path(plugin).resolve()


@pytest.mark.parametrize("stem", ["json", "keras", "branches", "heads", "my-parts.v2"])
def test_a_plugin_is_loaded_whatever_its_name(stem, plugin, tmp_path):
    before = sys.modules.get(stem)
    for number in (1, 2):
        plugin = tmp_path / str(number) / f"{stem}.py"
        plugin.parent.mkdir()
        plugin.write_text(PLUGIN.replace("one_convolution", f"{stem}_{number}"))
        load_plugins([str(plugin)])

    assert {f"{stem}_1", f"{stem}_2"} <= set(branch_names())
    assert sys.modules.get(stem) is before


def test_a_layer_of_a_plugin_is_found_when_its_model_is_loaded(tmp_path):
    plugin = tmp_path / "wave.py"
    plugin.write_text(
        "import keras\n\n\n@keras.saving.register_keras_serializable()\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, inputs):\n        return 2 * inputs\n"
    )
    load_plugins([str(plugin)])
    (module,) = (sys.modules[name] for name in sys.modules if name.startswith("_plugin_wave_"))
    model = keras.Sequential([keras.Input((1,)), module.Twice()])
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded(np.ones((1, 1)))[0, 0] == 2


@pytest.mark.parametrize("name", branch_names())
def test_too_small_an_image_is_refused_by_the_branchs_name(name):
    size = BRANCHES.get(name).min_size - 1

    with pytest.raises(ConfigError) as error:
        build_branch(name, input_shape=(size, 300, 3), weights="random")

    assert f"branch {name!r}" in str(error.value)
    assert f"Received: {size}." in str(error.value)
    assert f"--image-size {size + 1}" in str(error.value)


def test_an_image_of_the_smallest_size_is_taken():
    for spec in BRANCHES:
        check_size(spec, (spec.min_size, spec.min_size, 3))
        check_size(spec, (None, None, 3))


def test_grey_images_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"3 channels\. Received: 1"):
        build_branch(tiny, input_shape=(32, 32, 1), weights="random")


def test_an_unknown_branch_is_refused_with_its_near_miss():
    with pytest.raises(ConfigError, match="Did you mean 'vgg16'"):
        build_branch("vgg61", weights="random")


def test_random_weights_are_decided_by_seed_and_tag(tiny):
    assert _checksum(seed=1) == _checksum(seed=1)
    assert len({_checksum(seed=1), _checksum(seed=2), _checksum(seed=1, tag="b")}) == 3


def test_random_weights_do_not_depend_on_the_callers_random_state(tiny):
    checksums = set()
    for state in (1, 2):
        keras.utils.set_random_seed(state)
        checksums.add(_checksum())

    assert len(checksums) == 1


def test_building_leaves_the_callers_random_state_alone(tiny):
    keras.utils.set_random_seed(3)
    python, numpy = random.getstate(), np.random.get_state()

    _checksum()

    assert random.getstate() == python
    for before, after in zip(numpy, np.random.get_state(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_freezing_keeps_batch_norm_statistics_still(tiny):
    branch = freeze(build_branch(tiny, input_shape=(16, 16, 3), weights="random"))
    before = [weight.copy() for weight in branch.get_weights()]

    _train(branch)

    assert branch.non_trainable_variables
    assert not branch.trainable_variables
    for weight, after in zip(before, branch.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, after)


def test_without_freezing_batch_norm_statistics_move(tiny):
    branch = build_branch(tiny, input_shape=(16, 16, 3), weights="random")
    before = weights_checksum(branch)
    statistics = [variable.numpy() for variable in branch.non_trainable_variables]

    _train(branch)

    assert weights_checksum(branch) != before
    for old, variable in zip(statistics, branch.non_trainable_variables, strict=True):
        assert not np.array_equal(old, variable.numpy())


def _checksum(**options) -> str:
    branch = build_branch("tiny", input_shape=(16, 16, 3), weights="random", **options)
    return weights_checksum(branch)


def _train(branch: keras.Model) -> None:
    """Trains a classifier on a branch for a few steps, branch included."""
    pooled = keras.layers.GlobalAveragePooling2D()(branch.output)
    model = keras.Model(branch.input, keras.layers.Dense(2)(pooled))
    model.compile("adam", "mse")
    images = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3))
    model.fit(images, np.ones((8, 2)), batch_size=4, epochs=2, verbose=0)


def _reference_scaling(spec: BranchSpec):
    """Returns `preprocess_input` of the module in `keras.applications` with that builder."""
    function = spec.builder.partition(":")[2]
    modules = [
        module
        for module in vars(keras.applications).values()
        if hasattr(module, "preprocess_input")
    ]
    (reference,) = {m.preprocess_input for m in modules if hasattr(m, function)}
    return reference


def _refuse(**_):
    raise AssertionError("this branch is never built")
