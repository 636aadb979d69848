import numpy as np
import pytest

from ensemble.training.mixing import mix


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (64, 12, 10, 3)).astype("float32")


@pytest.fixture
def targets() -> np.ndarray:
    """A class for each image, so that a mixed target names both partners and their shares."""
    return np.eye(64, dtype="float32")


def draw(images, targets, seed=1, **settings):
    return mix(images, targets, np.random.default_rng(seed), **settings)


def test_neither_leaves_images_and_targets_alone(images, targets):
    mixed, shares = draw(images, targets)

    np.testing.assert_array_equal(mixed, images)
    np.testing.assert_array_equal(shares, targets)


@pytest.mark.parametrize("settings", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1, "cutmix": 1}])
def test_targets_still_sum_to_1_and_hold_the_share_of_the_image_itself(images, targets, settings):
    mixed, shares = draw(images, targets, **settings)

    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert mixed.dtype == shares.dtype == np.float32
    assert ((shares > 0).sum(axis=1) <= 2).all()
    assert shares.min() >= 0


def test_mixup_blends_by_the_share_that_the_target_holds(images, targets):
    mixed, shares = draw(images, targets, mixup=1.0)

    solved = []
    for row, (image, share) in enumerate(zip(mixed, shares, strict=True)):
        partner = int(np.argmax(np.delete(share, row)))
        partner += partner >= row
        if share[row] == 1:
            continue
        distance = (images[row] - images[partner]).ravel().astype("float64")
        solved.append(
            (image - images[partner]).ravel().astype("float64") @ distance / (distance @ distance)
        )
        assert solved[-1] == pytest.approx(share[row], abs=1e-4)
    assert np.std(solved) > 0.1  # a share for each image, not one for all


def test_cutmix_replaces_one_rectangle_as_large_as_the_target_holds(images, targets):
    mixed, shares = draw(images, targets, cutmix=1.0)

    for row, (image, share) in enumerate(zip(mixed, shares, strict=True)):
        own = (image == images[row]).all(axis=-1)
        if own.all():
            continue
        partner = int(np.argmax(np.where(np.arange(64) == row, 0, share)))
        np.testing.assert_array_equal(image[~own], images[partner][~own])
        rows, columns = np.flatnonzero((~own).any(axis=1)), np.flatnonzero((~own).any(axis=0))
        assert (~own).sum() == len(rows) * len(columns)
        assert own.mean() == pytest.approx(share[row], abs=1e-6)


def test_mean_share_of_cutmix_is_that_of_its_source():
    # Beta(1, 1) has mean 1/2; rectangles that are clipped at the border leave more.
    images = np.zeros((4000, 16, 16, 1), np.float32)
    partners = np.ones((1, 1), np.float32)
    images[::2] = 1
    mixed, _ = draw(images, np.repeat(partners, 4000, 0), cutmix=1.0)

    changed = np.abs(mixed - images).mean() * 2  # half of the partners look the same
    generator = np.random.default_rng(5)
    sides = np.sqrt(generator.uniform(size=100_000))
    centres = generator.uniform(size=(2, 100_000))
    spans = np.minimum(centres + sides / 2, 1) - np.maximum(centres - sides / 2, 0)
    assert changed == pytest.approx(spans.prod(axis=0).mean(), abs=0.02)


def test_with_both_each_image_is_either_blended_or_cut(images, targets):
    mixed, shares = draw(images, targets, mixup=1.0, cutmix=1.0)

    changed = (mixed != images).any(axis=-1).mean(axis=(1, 2))
    moved = shares[np.arange(64), np.arange(64)] < 1
    blended = (changed == 1) & moved
    assert 16 <= blended.sum() <= 48
    assert ((changed < 1) & moved).sum() >= 16


def test_a_small_alpha_gives_numbers(images, targets):
    mixed, shares = draw(images, targets, mixup=1e-3, cutmix=1e-3)

    assert np.isfinite(mixed).all()
    assert np.isfinite(shares).all()
