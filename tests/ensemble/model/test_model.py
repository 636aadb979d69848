import itertools
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from branches.builder import build_branch
from configs.errors import RunError
from ensemble.metrics.calibration import apply_temperature
from ensemble.model.composition import (
    MultiBranchModel,
    build_classifier,
    build_model,
    feature_shapes,
)
from ensemble.model.fusion import adapt_scales, align_maps
from ensemble.model.layers import average_areas, overlaps

pytestmark = pytest.mark.backend

BACKBONES = ("vgg16", "densenet121", "resnet50", "inception_v3")
FUSIONS = ("pooled", "grid", "flat")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (5, 24, 24, 3)).astype("float32")


def one_view(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Features as they are stored: views come before images."""
    return {label: values[None] for label, values in features.items()}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("branches", [["tiny"], ["tiny", "tiny:b"]])
def test_model_is_classifier_after_extractor(tiny, images, fusion, branches):
    ensemble = build_model(branches, classes="ab", image_size=24, weights="random", fusion=fusion)

    features = ensemble.extractor.predict(images, verbose=0)

    np.testing.assert_array_equal(
        ensemble.model.predict(images, verbose=0),
        ensemble.classifier.predict(features, verbose=0),
    )


def test_saving_keeps_the_law_and_the_names(tiny, images, tmp_path):
    ensemble = build_model(
        ["tiny", "tiny:b"], classes=["b", "a"], image_size=24, weights="random", standardize=True
    )
    features = ensemble.extractor.predict(images, verbose=0)
    adapt_scales(ensemble.classifier, one_view(features))
    ensemble.save(tmp_path / "model.keras")

    loaded = MultiBranchModel.load(tmp_path / "model.keras")

    features = loaded.extractor.predict(images, verbose=0)
    expected = ensemble.model.predict(images, verbose=0)
    np.testing.assert_allclose(loaded.model.predict(images, verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(loaded.classifier.predict(features, verbose=0), expected, atol=1e-6)
    assert loaded.classes == ("b", "a")
    assert loaded.image_size == 24
    assert feature_shapes(loaded.extractor) == feature_shapes(ensemble.extractor)


def test_a_temperature_divides_the_logits_and_is_saved_with_the_model(tiny, images, tmp_path):
    ensemble = build_model(["tiny"], classes="abc", image_size=24, weights="random")
    plain = ensemble.model.predict(images, verbose=0)

    warm = ensemble.with_temperature(2.5)
    warm.save(tmp_path / "model.keras")
    loaded = MultiBranchModel.load(tmp_path / "model.keras")

    expected = apply_temperature(plain, 2.5)
    assert np.abs(expected - plain).max() > 1e-3
    features = loaded.extractor.predict(images, verbose=0)
    for answers in (
        warm.model.predict(images, verbose=0),
        loaded.model.predict(images, verbose=0),
        loaded.classifier.predict(features, verbose=0),
    ):
        np.testing.assert_allclose(answers, expected, atol=1e-6)
        np.testing.assert_array_equal(answers.argmax(axis=1), plain.argmax(axis=1))
    assert (ensemble.temperature, loaded.temperature) == (1, 2.5)
    warm.classifier.set_weights([weight * 2 for weight in warm.classifier.get_weights()])
    assert np.abs(ensemble.model.predict(images, verbose=0) - plain).max() > 1e-3


def test_training_the_classifier_moves_the_model_and_leaves_the_extractor(tiny, images):
    ensemble = build_model(["tiny"], classes="ab", image_size=24, weights="random")
    extractor_before = [weight.copy() for weight in ensemble.extractor.get_weights()]
    model_before = ensemble.model.predict(images, verbose=0)

    features = ensemble.extractor.predict(images, verbose=0)
    ensemble.classifier.compile("adam", "sparse_categorical_crossentropy")
    ensemble.classifier.fit(features, np.array([0, 1, 0, 1, 0]), verbose=0)

    assert not np.array_equal(ensemble.model.predict(images, verbose=0), model_before)
    for before, after in zip(extractor_before, ensemble.extractor.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_branch_does_not_change_with_its_company(tiny, images):
    alone = build_model(["tiny"], classes="ab", image_size=24, weights="random", seed=3)
    beside = build_model(["tiny:b", "tiny"], classes="ab", image_size=24, weights="random", seed=3)

    np.testing.assert_array_equal(
        alone.extractor.predict(images, verbose=0)["tiny"],
        beside.extractor.predict(images, verbose=0)["tiny"],
    )


def test_branches_are_concatenated_in_the_order_given(tiny, images):
    ensemble = build_model(["tiny:b", "tiny"], classes="ab", image_size=24, weights="random")
    features = ensemble.extractor.predict(images, verbose=0)
    fused = keras.Model(ensemble.classifier.input, ensemble.classifier.get_layer("fusion").output)

    np.testing.assert_array_equal(
        fused.predict(features, verbose=0),
        np.concatenate([features["tiny:b"], features["tiny"]], axis=-1),
    )


def test_a_channel_that_hardly_moves_in_training_does_not_explode(tiny):
    classifier = build_classifier({"tiny": (1, 1, 3)}, classes="ab", standardize=True)
    train = np.random.default_rng(0).normal(size=(1, 50, 1, 1, 3)).astype("float32")
    train[..., 1], train[..., 2] = 5, 5 + 1e-6 * train[..., 2]

    adapt_scales(classifier, {"tiny": train})
    scaled = classifier.get_layer("tiny_scale")(train[0] + 1)

    assert 90 < float(keras.ops.max(scaled)) < 400


def test_standardized_features_have_mean_0_and_deviation_1(tiny, images):
    ensemble = build_model(
        ["tiny"], classes="ab", image_size=24, weights="random", standardize=True
    )
    features = ensemble.extractor.predict(images, verbose=0)
    adapt_scales(ensemble.classifier, one_view(features))
    scaled = keras.Model(
        ensemble.classifier.input, ensemble.classifier.get_layer("tiny_scale").output
    )

    values = scaled.predict(features, verbose=0)[:, 0, 0]

    alive = features["tiny"][:, 0, 0].std(axis=0) > 1e-3
    assert alive.any()
    np.testing.assert_allclose(values.mean(axis=0)[alive], 0, atol=1e-3)
    np.testing.assert_allclose(values.std(axis=0)[alive], 1, atol=1e-2)


@pytest.mark.parametrize(("cells", "new"), [(1, 1), (2, 1), (3, 2), (7, 5), (10, 8), (9, 9)])
def test_area_pooling_keeps_the_mean(cells, new):
    maps = np.random.default_rng(0).normal(size=(2, cells, cells, 3)).astype("float32")

    small = keras.ops.convert_to_numpy(average_areas(maps, new, new))

    assert small.shape == (2, new, new, 3)
    np.testing.assert_allclose(small.mean(axis=(1, 2)), maps.mean(axis=(1, 2)), atol=1e-5)


def test_area_pooling_halves_as_average_pooling_does():
    maps = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")

    np.testing.assert_allclose(
        average_areas(maps, 3, 3), keras.layers.AveragePooling2D(2)(maps), atol=1e-6
    )


def test_overlaps_share_out_every_cell():
    np.testing.assert_allclose(overlaps(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])


def test_maps_are_aligned_to_the_smallest_grid():
    maps = {
        "a": np.ones((1, 7, 7, 2), "float32"),
        "b": np.ones((1, 5, 6, 3), "float32"),
    }

    assert [m.shape for m in align_maps(maps)] == [(1, 5, 6, 2), (1, 5, 6, 3)]


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 half an archive"])
def test_a_damaged_model_file_is_one_sentence(tmp_path, content):
    path = tmp_path / "model.keras"
    path.write_bytes(content)

    with pytest.raises(RunError, match=r"model\.keras holds no ensemble that can be loaded"):
        MultiBranchModel.load(path)


def subsets() -> list[tuple[str, ...]]:
    return [subset for size in (1, 2, 3, 4) for subset in itertools.combinations(BACKBONES, size)]


RELOAD = """
import sys
import numpy as np
from pathlib import Path
from ensemble.cli.command_line import load_backend
load_backend()
from ensemble.model.composition import MultiBranchModel
folder = Path(sys.argv[1])
images = np.load(folder / "images.npy")
for path in sorted(folder.glob("*.keras")):
    model = MultiBranchModel.load(path).model
    np.save(path.with_suffix(".loaded.npy"), model(images))  # eager: tracing would take longer
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_subset_builds_trains_saves_and_loads_in_a_fresh_process(tmp_path, monkeypatch):
    # Each backbone is built once; a frozen branch may serve any number of ensembles.
    branches = {
        name: build_branch(name, input_shape=(75, 75, 3), weights="random") for name in BACKBONES
    }
    monkeypatch.setattr("ensemble.model.composition.build_branch", lambda name, **_: branches[name])
    images = np.random.default_rng(2).uniform(0, 255, (4, 75, 75, 3)).astype("float32")
    labels = np.array([0, 1, 2, 0])
    np.save(tmp_path / "images.npy", images)
    assert len(subsets()) == 15
    expected: dict[str, np.ndarray] = {}
    keras.utils.set_random_seed(4)
    for subset in subsets():
        ensemble = build_model(list(subset), classes="abc", image_size=75, weights="random")
        features = ensemble.extractor(images)
        ensemble.classifier.compile("adam", "sparse_categorical_crossentropy")
        before = keras.ops.convert_to_numpy(ensemble.classifier(features))
        ensemble.classifier.train_on_batch(features, labels)
        name = "+".join(subset)
        expected[name] = keras.ops.convert_to_numpy(ensemble.model(images))
        # As logarithms: random branches make answers so sure that probabilities hardly move.
        assert not np.allclose(*(np.log(p + 1e-37) for p in (expected[name], before)), atol=1e-7)
        ensemble.save(tmp_path / f"{name}.keras")

    subprocess.run([sys.executable, "-c", RELOAD, str(tmp_path)], check=True, cwd=Path.cwd())

    for name, probabilities in expected.items():
        loaded = np.load(tmp_path / f"{name}.loaded.npy")
        np.testing.assert_allclose(loaded, probabilities, atol=1e-5, err_msg=name)
