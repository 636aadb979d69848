import numpy as np
import pytest

from ensemble.data.views import augmented_view

pytestmark = pytest.mark.backend

DIGESTS = [bytes([number]) * 32 for number in range(64)]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)


def view(images, number, digests=DIGESTS, **changes):
    settings = {"rotation": 10.0, "horizontal_flip": True, "seed": 1, **changes}
    return augmented_view(images, digests, number, **settings)


def test_view_0_is_the_image_itself(images):
    np.testing.assert_array_equal(view(images, 0), images)


def test_without_rotation_a_view_is_the_image_or_its_mirror(images):
    views = view(images, 1, rotation=0.0)

    mirrored = [np.allclose(v, i[:, ::-1], atol=1e-2) for v, i in zip(views, images, strict=True)]
    same = [np.allclose(v, i, atol=1e-2) for v, i in zip(views, images, strict=True)]
    assert all(np.logical_xor(mirrored, same))
    assert 16 <= sum(mirrored) <= 48


def test_without_rotation_and_mirror_a_view_is_the_image(images):
    np.testing.assert_allclose(
        view(images, 1, rotation=0.0, horizontal_flip=False), images, atol=1e-2
    )


def test_a_view_depends_on_the_image_alone_and_not_on_its_neighbours(images):
    together = view(images, 2)
    alone = view(images[5:6], 2, digests=DIGESTS[5:6])

    np.testing.assert_allclose(together[5], alone[0], atol=1e-3)


def test_views_differ_by_number_and_seed(images):
    assert not np.allclose(view(images, 1), view(images, 2))
    assert not np.allclose(view(images, 1), view(images, 1, seed=2))


def test_rotation_stays_within_its_limit():
    # A bright column through the centre: its tilt is the angle.
    side, limit = 65, 10.0
    image = np.zeros((64, side, side, 3), np.uint8)
    image[:, :, side // 2] = 255
    rotated = view(image, 1, rotation=limit, horizontal_flip=False)[..., 0]

    rows = np.arange(8, side - 8)
    columns = (rotated[:, rows] * np.arange(side)).sum(axis=2) / rotated[:, rows].sum(axis=2)
    angles = np.rad2deg([np.arctan(np.polyfit(rows, column, 1)[0]) for column in columns])
    assert np.abs(angles).max() <= limit + 0.2
    assert angles.min() < -limit / 2
    assert angles.max() > limit / 2


def test_values_stay_between_0_and_255(images):
    views = view(images, 3)
    assert views.min() >= 0
    assert views.max() <= 255
