"""Each branch sees each view of each image once, whatever is asked of it afterwards."""

import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from configs.errors import ConfigError, StoreError
from ensemble.commands.cache.__main__ import main as cache
from ensemble.data.loading import Split
from ensemble.data.reading import inspect
from ensemble.data.views import View
from ensemble.features import arrays, engines
from ensemble.features.frozen_branch import FrozenBranch
from ensemble.features.store import FeatureStore
from ensemble.model.composition import build_extractor

pytestmark = pytest.mark.backend

ROOT = Path(__file__).resolve().parents[3]
VIEWS = [View(number, rotation=10, horizontal_flip=True, seed=1) for number in range(3)]


class Pixels:
    """Images that are drawn when they are read, each from its own number."""

    def read(self, name: str) -> np.ndarray:
        return np.random.default_rng(int(name)).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def make_split(names: list[int]) -> Split:
    return Split(
        Pixels(),
        tuple(map(str, names)),
        np.zeros(len(names), np.int32),
        np.ones(len(names), np.float32),
        (None,) * len(names),
    )


@pytest.fixture
def extractor(tiny):
    return build_extractor(
        ["tiny", "tiny:b", "tiny:c", "tiny:d"],
        input_shape=(16, 16, 3),
        weights="random",
        fusion="grid",
    )


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


def load_features(extractor, store, names, views=VIEWS, label="tiny", **options):
    branch = FrozenBranch(extractor, label, store, **{"engine": "keras", **options})
    found = inspect(make_split(names), 16)
    return branch, branch.load(found.readable, found.digests, views)


def test_features_are_what_the_extractor_gives(extractor, store):
    _, features = load_features(extractor, store, list(range(20)))

    found = inspect(make_split(list(range(20))), 16)
    images = np.stack([found.readable.images.read(name) for name in found.readable.names])
    for row, view in enumerate(VIEWS):
        expected = extractor(view.of(images, found.digests))["tiny"]
        np.testing.assert_allclose(features[row], expected, rtol=1e-4, atol=1e-5)


def test_stored_features_are_the_extracted_ones_bit_for_bit(extractor, store):
    _, first = load_features(extractor, store, list(range(20)))
    branch, again = load_features(extractor, store, list(range(19, -1, -1)))

    assert (branch.extracted, branch.reused, branch.engine) == (0, 60, None)
    np.testing.assert_array_equal(again[:, ::-1], first)


def test_only_what_is_missing_is_extracted(extractor, store):
    def work(names, views=VIEWS, **options) -> tuple[int, int]:
        branch, _ = load_features(extractor, store, names, views, **options)
        return branch.extracted, branch.reused

    assert work([0, 1, 2], VIEWS[:2]) == (6, 0)
    assert work([0, 1, 2], VIEWS[:2]) == (0, 6)
    assert work([2, 3, 0], VIEWS[:2]) == (2, 4)  # a new image
    assert work([0, 1, 2]) == (3, 6)  # a new view
    assert work([1]) == (0, 3)  # fewer images, as of fewer classes
    assert work([0, 1, 2], label="tiny:b") == (9, 0)  # a new branch
    assert work([0, 1], dtype="float16") == (6, 0)


def test_fifteen_combinations_are_served_by_four_extractions(tiny, store):
    labels = ["tiny", "tiny:b", "tiny:c", "tiny:d"]
    subsets = [s for size in range(1, 5) for s in itertools.combinations(labels, size)]
    extracted = 0
    for subset in subsets:
        extractor = build_extractor(list(subset), input_shape=(16, 16, 3), weights="random")
        for label in subset:
            branch, _ = load_features(extractor, store, [0, 1, 2], VIEWS[:1], label=label)
            extracted += branch.extracted

    assert len(subsets) == 15
    assert extracted == 4 * 3


def test_other_weights_or_another_architecture_never_share_features(tiny, store):
    for seed in (1, 2):
        extractor = build_extractor(
            ["tiny"], input_shape=(16, 16, 3), weights="random", seed=seed, fusion="grid"
        )
        assert load_features(extractor, store, [0], VIEWS[:1])[0].extracted == 1
    extractor.get_layer("tiny").get_layer("tiny_backbone").layers[
        1
    ].activation = keras.activations.tanh
    assert load_features(extractor, store, [0], VIEWS[:1])[0].extracted == 1


def test_features_of_engines_with_other_numbers_are_kept_apart(extractor, store, monkeypatch):
    def load(engine: str) -> tuple[int, int, str]:
        branch, _ = load_features(extractor, store, [0, 1], VIEWS[:1], engine=engine)
        return branch.extracted, branch.reused, branch.key.engine

    assert load("keras")[:2] == (2, 0)
    monkeypatch.setattr(engines, "_openvino_obstacle", lambda _: None)
    monkeypatch.setattr(engines, "has_gpu", lambda: False)

    class Cheap(engines.KerasEngine):
        def __init__(self, model, *, winograd):
            super().__init__(model)
            self.family = "openvino"

    monkeypatch.setattr(engines, "OpenVinoEngine", Cheap)
    Cheap.family = "openvino"
    assert load("openvino") == (2, 0, "openvino")
    assert load("auto") == (0, 2, "openvino")
    assert load("keras")[:2] == (0, 2)


def test_where_openvino_cannot_run_a_branch_the_features_of_keras_are_taken(
    extractor, store, monkeypatch
):
    class Failing:
        family = "openvino"

        def __init__(self, model, *, winograd):
            raise ConfigError("it cannot convert it")

    monkeypatch.setattr(engines, "_openvino_obstacle", lambda _: None)
    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    monkeypatch.setattr(engines, "OpenVinoEngine", Failing)

    first, _ = load_features(extractor, store, [0, 1], VIEWS[:1], engine="auto")
    again, _ = load_features(extractor, store, [0, 1], VIEWS[:1], engine="keras")

    assert (first.extracted, first.reused) == (2, 0)
    assert (again.extracted, again.reused) == (0, 2)
    assert first.key == again.key


def test_views_of_another_seed_or_angle_never_share_features(extractor, store):
    for view in (View(1, 10, True, 1), View(1, 10, True, 2), View(1, 5, True, 1), View(1, 10)):
        assert load_features(extractor, store, [0], [view])[0].extracted == 1
    for view in (View(0, 10, True, 1), View(0, 5, False, 2)):
        reused = load_features(extractor, store, [0], [view])[0].reused
    assert reused == 1  # the image itself is the same whatever its views are


def test_an_image_that_occurs_twice_is_seen_once(extractor, store):
    branch, features = load_features(extractor, store, [5, 6, 5, 5])

    assert branch.extracted == 2 * len(VIEWS)
    np.testing.assert_array_equal(features[:, 2], features[:, 0])
    np.testing.assert_array_equal(features[:, 3], features[:, 0])
    assert not np.array_equal(features[:, 1], features[:, 0])


def test_features_too_large_for_the_memory_lie_on_the_disk(extractor, store, monkeypatch):
    _, in_memory = load_features(extractor, store, list(range(20)))
    monkeypatch.setattr(arrays, "_SHARE_OF_MEMORY", 0)

    _, on_disk = load_features(extractor, store, list(range(20)))

    assert isinstance(on_disk, np.memmap)
    np.testing.assert_array_equal(on_disk, in_memory)
    assert {path.suffix for path in store.folder.rglob("*") if path.is_file()} <= {
        ".h5", ".json", ""
    }  # fmt: skip


def test_float16_takes_half_the_room_and_keeps_three_digits(extractor, store):
    _, wide = load_features(extractor, store, list(range(8)))
    _, narrow = load_features(extractor, store, list(range(8)), dtype="float16")

    assert narrow.dtype == np.float16
    np.testing.assert_allclose(narrow, wide, rtol=1e-3, atol=1e-3 * np.abs(wide).max())


def test_features_that_float16_cannot_hold_are_refused(extractor, store):
    branch = extractor.get_layer("tiny").get_layer("tiny_backbone")
    branch.set_weights([1e6 * weight for weight in branch.get_weights()])

    with pytest.raises(ConfigError, match=r"--features\.dtype float32"):
        load_features(extractor, store, [0], dtype="float16")


def test_a_disk_without_room_is_told_before_the_work(extractor, store, monkeypatch):
    monkeypatch.setattr(FeatureStore, "free_bytes", lambda _: 100)

    with pytest.raises(StoreError, match=r"0\.00 GB left.*--cache"):
        load_features(extractor, store, [0, 1])


def test_work_and_room_are_told_before_it_begins(extractor, store, caplog):
    with caplog.at_level("INFO", "ensemble"):
        load_features(extractor, store, [0, 1])

    assert f"extracting 6 of 6 views of images, 0.0 MB in {store.folder}" in caplog.text


def test_a_damaged_shard_is_named_and_extracted_again(extractor, store, caplog):
    _, first = load_features(extractor, store, [0, 1, 2])
    path = next(store.folder.rglob("view-0/*.h5"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    branch, again = load_features(extractor, store, [0, 1, 2])

    assert branch.extracted == 3
    assert str(path) in caplog.text
    np.testing.assert_array_equal(again, first)


def test_the_cache_is_listed_verified_and_pruned(extractor, store, capsys):
    load_features(extractor, store, [0, 1, 2])
    load_features(extractor, store, [0], label="tiny:b")
    place = ["--cache", str(store.folder)]

    assert cache(["list", *place]) == 0
    assert capsys.readouterr().out.count("tiny-16px-map-float32-") == 2
    assert cache(["verify", *place]) == 0
    assert "6 files are sound" in capsys.readouterr().out

    damaged = next(store.folder.rglob("*.h5"))
    damaged.write_bytes(b"")
    assert cache(["verify", *place]) == 2
    assert f"{damaged} is damaged" in capsys.readouterr().err
    assert cache(["prune", *place]) == 0
    assert not damaged.exists()
    assert cache(["verify", *place]) == 0
    assert len(store.groups()) == 2

    assert cache(["prune", "--unused-for", "1", *place]) == 0
    assert len(store.groups()) == 2
    assert cache(["prune", "--all", *place]) == 0
    assert store.groups() == []
    assert cache(["list", "--all", *place]) == 2


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Class folders of 300 pictures."""
    for number in range(300):
        folder = tmp_path / "pictures" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_extraction_that_is_killed_goes_on_where_it_was(pictures, tmp_path):
    command = [
        sys.executable, "-m", "ensemble.extract", "--branches", "vgg16", "--weights", "random",
        "--image-size", "32", "--views", "4", "--data", str(pictures),
        "--cache", str(tmp_path / "cache"), "--features.engine", "keras",
    ]  # fmt: skip
    store = FeatureStore(tmp_path / "cache")
    worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while not list(store.folder.rglob("view-0/*.h5")):
        assert worker.poll() is None
        time.sleep(0.01)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    (group,) = store.groups()
    kept = sum(len(path.read_bytes()) > 0 for path in group.folder.rglob("*.h5"))

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert kept
    assert all(reason is None for _, reason in group.verify())
    extracted = int(done.stdout.split("vgg16: ")[1].split(" views")[0].replace(",", ""))
    assert 0 < extracted < 4 * 240 + 60
    assert group.image_count() == 300
