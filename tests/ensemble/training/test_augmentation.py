import threading

import keras
import numpy as np
import pytest

from configs.schema import AugmentConfig
from ensemble.training.augmentation import Augmentation

pytestmark = pytest.mark.backend

OFF = {"rotation": 0.0, "horizontal_flip": False}
ALL = {
    "rotation": 10.0, "horizontal_flip": True, "translation": 0.1, "zoom": 0.1, "brightness": 0.2,
    "contrast": 0.2, "erasing": 0.5, "mixup": 0.4, "cutmix": 1.0,
}  # fmt: skip


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3), dtype=np.uint8)


@pytest.fixture
def targets() -> np.ndarray:
    return np.eye(4, dtype="float32")[np.arange(40) % 4]


@pytest.fixture(scope="module")
def everything() -> Augmentation:
    return Augmentation(AugmentConfig(**ALL))


def augment(images, seed=1, **settings):
    targets = np.ones((len(images), 1), "float32")
    return Augmentation(AugmentConfig(**OFF | settings))(images, targets, seed)[0]


def test_shapes_types_and_ranges_are_kept(everything, images, targets):
    augmented, shares = everything(images, targets, 1)

    assert augmented.shape == images.shape
    assert shares.shape == targets.shape
    assert augmented.dtype == shares.dtype == np.float32
    assert augmented.min() >= 0
    assert augmented.max() <= 255
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert not np.allclose(augmented, images)


def test_a_result_follows_from_the_seed_alone(everything, images, targets):
    first = everything(images, targets, 7)
    other = everything(images, targets, 8)
    everything(images[:3], targets[:3], 9)
    again = everything(images, targets, 7)
    afresh = Augmentation(AugmentConfig(**ALL))(images, targets, 7)

    for one, two, three in zip(first, again, afresh, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
    assert not np.allclose(first[0], other[0])


def test_a_result_is_the_same_in_any_thread_beside_a_training(everything, images, targets):
    seeds = range(6)
    expected = [everything(images, targets, seed) for seed in seeds]
    augmented = {}

    def work(mine):
        for seed in mine:
            augmented[seed] = everything(images, targets, seed)

    threads = [threading.Thread(target=work, args=(seeds[start::2],)) for start in range(2)]
    model = keras.Sequential(
        [keras.Input((12, 10, 3)), keras.layers.Flatten(), keras.layers.Dropout(0.5),
         keras.layers.Dense(4, activation="softmax")]
    )  # fmt: skip
    model.compile("adam", "categorical_crossentropy")
    for thread in threads:
        thread.start()
    model.fit(images / 255, targets, batch_size=4, epochs=2, verbose=0)
    for thread in threads:
        thread.join()

    for seed in seeds:
        for one, two in zip(expected[seed], augmented[seed], strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_result_does_not_depend_on_the_precision_of_the_training(images, targets):
    expected = Augmentation(AugmentConfig(**ALL))(images, targets, 3)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        augmented = Augmentation(AugmentConfig(**ALL))(images, targets, 3)
    finally:
        keras.config.set_dtype_policy(policy)

    np.testing.assert_array_equal(augmented[0], expected[0])


def test_all_off_is_the_image_itself(images, targets):
    augmented, shares = Augmentation(AugmentConfig(**OFF))(images, targets, 1)

    np.testing.assert_array_equal(augmented, images)
    np.testing.assert_array_equal(shares, targets)


def test_the_arguments_are_left_alone(everything, images, targets):
    pixels, wanted = images.astype("float32"), targets.copy()
    before = pixels.copy()
    everything(pixels, wanted, 1)

    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(wanted, targets)


def test_a_flip_is_the_mirror_image_of_about_half_of_them(images):
    augmented = augment(images, horizontal_flip=True)

    mirrored = (augmented == images[:, :, ::-1]).all(axis=(1, 2, 3))
    same = (augmented == images).all(axis=(1, 2, 3))
    assert np.logical_xor(mirrored, same).all()
    assert 8 <= mirrored.sum() <= 32


def test_rotation_turns_each_image_by_an_angle_of_its_own_within_the_limit():
    # A bright column through the centre: its tilt is the angle.
    side, limit = 33, 10.0
    image = np.zeros((48, side, side, 3), np.uint8)
    image[:, :, side // 2] = 255
    augmented = augment(image, rotation=limit)[..., 0]

    rows = np.arange(6, side - 6)
    columns = (augmented[:, rows] * np.arange(side)).sum(axis=2) / augmented[:, rows].sum(axis=2)
    angles = np.rad2deg([np.arctan(np.polyfit(rows, column, 1)[0]) for column in columns])
    assert np.abs(angles).max() <= limit + 0.3
    assert angles.min() < -limit / 2
    assert angles.max() > limit / 2
    assert len(np.unique(angles.round(2))) > 40


def test_translation_shifts_a_ramp_by_up_to_its_share():
    # Where nothing has been uncovered, a ramp that is shifted by d pixels differs by d steps.
    image = np.broadcast_to(np.arange(20.0)[None, None, :, None], (48, 20, 20, 3))
    shifts = augment(image, translation=0.2)[:, 10, 10, 0] - 10

    assert np.abs(shifts).max() <= 4 + 1e-3
    assert shifts.min() < -2
    assert shifts.max() > 2


def test_zoom_changes_the_slope_of_a_ramp_by_up_to_its_share():
    image = np.broadcast_to(np.arange(21.0)[None, None, :, None], (48, 21, 21, 3))
    augmented = augment(image, zoom=0.25)
    slopes = (augmented[:, 10, 13, 0] - augmented[:, 10, 7, 0]) / 6

    assert np.abs(slopes - 1).max() <= 0.25 + 1e-3
    assert slopes.min() < 0.875
    assert slopes.max() > 1.125
    np.testing.assert_allclose(augmented[:, 10, 10, 0], 10, atol=1e-3)  # about the centre


def test_brightness_adds_one_number_to_an_image_within_the_limit():
    augmented = augment(np.full((64, 4, 4, 3), 120, np.uint8), brightness=0.2)
    added = augmented - 120

    assert np.ptp(added, axis=(1, 2, 3)).max() < 1e-3
    assert np.abs(added).max() <= 0.2 * 255
    assert added.min() < -0.1 * 255
    assert added.max() > 0.1 * 255


def test_contrast_scales_the_distance_to_the_mean_both_ways():
    image = np.full((64, 4, 4, 3), 100, np.uint8)
    image[:, :2] = 140
    augmented = augment(image, contrast=0.3)
    factors = (augmented[:, 0, 0, 0] - augmented[:, 3, 0, 0]) / 40

    assert np.abs(factors - 1).max() <= 0.3 + 1e-4
    assert factors.min() < 0.85
    assert factors.max() > 1.15
    np.testing.assert_allclose(augmented.mean(axis=(1, 2, 3)), 120, atol=1e-3)


def test_erasing_acts_with_its_probability_on_one_rectangle():
    augmented = augment(np.zeros((600, 16, 16, 3), np.uint8), erasing=0.3)[..., 0] > 0

    erased = augmented.any(axis=(1, 2))
    assert 0.22 <= erased.mean() <= 0.38  # 4 deviations of the binomial distribution
    for image in augmented[erased]:
        rows, columns = image.any(axis=1), image.any(axis=0)
        assert image.sum() == rows.sum() * columns.sum()


def test_images_of_a_large_batch_are_augmented_independently():
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 3), dtype=np.uint8)
    augmented = augment(np.repeat(image, 600, axis=0), rotation=20.0, brightness=0.2)

    assert len(np.unique(augmented.reshape(600, -1).round(3), axis=0)) == 600
