"""Engines: the same features whoever runs a branch, in order, a few batches at a time."""

import importlib.util
import logging
import subprocess
import sys

import keras
import numpy as np
import pytest

from branches.registry import BRANCHES, branch_names
from configs.errors import ConfigError
from ensemble.data.synthetic_faces import EXPRESSIONS, draw_face
from ensemble.features import engines
from ensemble.features.engines import make_engine
from ensemble.model.composition import build_extractor
from ensemble.model.precision import in_precision
from ensemble.model.runtimes import import_openvino
from ensemble.system.cores import count_cores

pytestmark = pytest.mark.backend

needs_openvino = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or importlib.util.find_spec("openvino") is None,
    reason="needs the backend tensorflow and the package openvino",
)
ENGINES = ["keras", pytest.param("openvino", marks=needs_openvino)]


def build(branch, size=32):
    extractor = build_extractor([branch], input_shape=(size, size, 3), weights="random")
    return keras.Model(extractor.input, extractor.output[branch], name=branch)


def random_images(count, size=32):
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def drawn_faces(count, size):
    rng = np.random.default_rng(0)
    return np.stack([draw_face(EXPRESSIONS[i % 8], rng, size) for i in range(count)])


def extract(engine, images):
    """Runs images through an engine and returns the features of all of them."""
    starts = range(0, len(images), engine.batch_size)
    batches = ((start, images[start : start + engine.batch_size]) for start in starts)
    tags, features = zip(*engine.map(batches), strict=True)
    assert tags == tuple(starts)
    return np.concatenate(features)


def assert_close(features, expected, tolerance):
    """Holds features against the expected ones: all, and each channel, by its own size."""
    assert features.dtype == np.float32
    assert features.shape == expected.shape
    error = np.abs(features - expected)
    assert error.max() <= tolerance * np.abs(expected).max()
    channels = (0, 1, 2)
    assert (error.max(channels) <= 10 * tolerance * np.abs(expected).max(channels) + 1e-12).all()


@pytest.fixture
def model(tiny):
    return build(tiny)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_an_engine_computes_what_the_model_does(name, dtype, model):
    engine = make_engine(model, name)
    images = random_images(2 * engine.batch_size + 3).astype(dtype)

    features = extract(engine, images)

    assert_close(features, model.predict(images.astype("float32"), verbose=0), 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("branch", branch_names())
def test_an_engine_computes_what_a_real_branch_does(name, branch):
    size = max(48, BRANCHES.get(branch).min_size)
    model = build(branch, size)
    images = np.concatenate([random_images(5, size), drawn_faces(8, size)])

    features = extract(make_engine(model, name), images)

    assert_close(features, model.predict(images.astype("float32"), verbose=0), 1e-3)


@pytest.mark.parametrize("name", ENGINES)
def test_images_between_grey_levels_are_not_rounded(name, model):
    images = np.full((1, 32, 32, 3), 100.5, "float32")

    features = extract(make_engine(model, name), images)

    assert_close(features, model.predict(images, verbose=0), 1e-6)


@pytest.mark.parametrize("name", ENGINES)
def test_batches_of_any_size_come_back_in_order_with_their_tags(name, model):
    engine = make_engine(model, name)
    sizes = [1, engine.batch_size, 3, 2, engine.batch_size, 1, 5, 1]
    batches = [((number, "tag"), random_images(size)) for number, size in enumerate(sizes)]

    results = list(engine.map(batches))

    assert [tag for tag, _ in results] == [tag for tag, _ in batches]
    for (_, features), (_, images) in zip(results, batches, strict=True):
        assert_close(features, model.predict(images.astype("float32"), verbose=0), 1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_nothing_comes_of_nothing(name, model):
    assert list(make_engine(model, name).map([])) == []


@pytest.mark.parametrize("name", ENGINES)
def test_only_a_few_batches_are_read_ahead(name, model):
    read = []

    def batches():
        for number in range(1000):
            read.append(number)
            yield number, random_images(1)

    results = make_engine(model, name).map(batches())
    for done in range(1, 4):
        next(results)
        assert len(read) - done <= 1 + count_cores()


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_can_be_left_in_the_middle_and_used_again(name, model):
    engine = make_engine(model, name)
    first = engine.map((n, random_images(4)) for n in range(10))
    next(first)
    first.close()

    assert_close(extract(engine, random_images(4)), next(engine.map([(0, random_images(4))]))[1], 0)


@pytest.mark.parametrize("name", ENGINES)
def test_features_of_an_earlier_batch_do_not_change(name, model):
    batches = [(number, random_images(number + 1)) for number in range(8)]

    results = list(make_engine(model, name).map(batches))

    for (_, features), (_, images) in zip(results, batches, strict=True):
        assert_close(features, model.predict(images.astype("float32"), verbose=0), 1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_near_and_leaves_the_model_alone(precision, model):
    images = random_images(20).astype("float32")
    expected = model.predict(images, verbose=0)
    engine = make_engine(model, "auto", precision=precision)

    features = extract(engine, images)

    assert precision in engine.name
    assert not np.array_equal(features, expected)
    assert features.dtype == np.float32
    assert np.abs(features - expected).max() <= 0.02 * np.abs(expected).max()
    np.testing.assert_array_equal(model.predict(images, verbose=0), expected)
    assert {layer.dtype_policy.name for layer in model._flatten_layers()} == {"float32"}


def test_pixels_are_scaled_in_float32_whatever_the_precision(model):
    dark = np.full((1, 32, 32, 3), 200, "uint8")  # 200 and 201 are one number in bfloat16's 8 bits
    images = np.concatenate([dark, dark + 1]).astype("float32")
    branch = in_precision(model, "bfloat16").get_layer("tiny")

    scaling = keras.Model(branch.input, branch.get_layer("scaling").output)

    assert len(np.unique(scaling.predict(images, verbose=0))) == 2


def test_a_model_that_cannot_be_rebuilt_is_refused_in_a_sentence(model):
    class Secretive(keras.layers.Layer):
        def __init__(self, secret):
            super().__init__()

        def call(self, images):
            return images

    stubborn = keras.Model(model.input, Secretive(object())(model.output), name="stubborn")

    with pytest.raises(ConfigError, match=r"'stubborn' cannot be rebuilt in float16 .* float32\."):
        make_engine(stubborn, "keras", precision="float16")


def test_features_too_large_for_float16_are_refused_in_a_sentence(model):
    model.set_weights([1e3 * weights for weights in model.get_weights()])

    with pytest.raises(ConfigError, match=r"'tiny' leaves the range of float16. Use bfloat16"):
        extract(make_engine(model, "keras", precision="float16"), random_images(2))


def test_a_full_device_halves_the_batch(model, monkeypatch, caplog):
    engine = make_engine(model, "keras")
    predict, asked = engine._runner.predict_on_batch, []

    def predict_up_to_five(images):
        asked.append(len(images))
        if len(images) > 5:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
        return predict(images)

    monkeypatch.setattr(engine._runner, "predict_on_batch", predict_up_to_five)
    images = random_images(20)

    with caplog.at_level(logging.WARNING):
        ((_, features),) = engine.map([(0, images)])

    assert asked == [20, 10, 5, 5, 5, 5]
    assert "5 images" in caplog.messages[-1]
    assert_close(features, model.predict(images.astype("float32"), verbose=0), 1e-5)


def test_an_error_that_is_not_of_memory_is_not_hidden(model, monkeypatch):
    engine = make_engine(model, "keras")

    def fail(images):
        raise ValueError("something else")

    monkeypatch.setattr(engine._runner, "predict_on_batch", fail)

    with pytest.raises(ValueError, match="something else"):
        list(engine.map([(0, random_images(2))]))


@needs_openvino
def test_auto_takes_openvino_where_it_can(model):
    assert make_engine(model, "auto").name.startswith("openvino 2")


@needs_openvino
def test_openvino_runs_without_winograds_algorithm_too(model, monkeypatch):
    from ensemble.features import winograd

    monkeypatch.setattr(winograd, "use_winograd", lambda _: pytest.fail("it was used"))
    images = random_images(3)
    engine = make_engine(model, "openvino-direct")

    assert engine.name.endswith(" direct")
    assert engine.family == "openvino"
    assert_close(extract(engine, images), model.predict(images.astype("float32"), verbose=0), 1e-4)


@needs_openvino
def test_auto_leaves_a_gpu_to_keras(model, monkeypatch):
    monkeypatch.setattr(engines, "has_gpu", lambda: True)

    assert make_engine(model, "auto").name.startswith("keras")


@needs_openvino
def test_auto_tells_why_openvino_cannot_run_a_branch(model, monkeypatch, caplog):
    openvino = import_openvino()

    def fail(graph):
        raise RuntimeError("no translator for Ridge2D\nand a long story")

    monkeypatch.setattr(openvino, "convert_model", fail)

    with caplog.at_level(logging.WARNING):
        assert make_engine(model, "auto").name.startswith("keras")
    assert caplog.messages == [
        "OpenVINO cannot convert 'tiny' (no translator for Ridge2D); the engine 'keras' runs it."
    ]
    with pytest.raises(ConfigError, match="cannot convert 'tiny'"):
        make_engine(model, "openvino")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about TensorFlow")
def test_without_openvino_keras_runs_all(model, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "openvino", None)

    engine = make_engine(model, "auto")

    assert engine.name == "keras (tensorflow)"
    assert not caplog.messages
    with pytest.raises(ConfigError, match=r"pip install 'multibranch-ensemble\[cpu\]'"):
        make_engine(model, "openvino")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_run_with_keras(backend, model, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)

    assert make_engine(model, "auto").name == f"keras ({backend})"
    with pytest.raises(ConfigError, match=f"needs the backend tensorflow. Received: {backend}"):
        make_engine(model, "openvino")


def test_openvino_knows_float32_only(model):
    assert make_engine(model, "auto", precision="bfloat16").name.startswith("keras")
    with pytest.raises(ConfigError, match=r"float32|backend"):
        make_engine(model, "openvino", precision="bfloat16")


@needs_openvino
def test_openvino_reports_to_nobody():
    code = (
        "import sys; from ensemble.model.runtimes import import_openvino; import_openvino();"
        "sys.exit(any(sys.modules[m] for m in sys.modules if m.startswith('openvino_telemetry')))"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
