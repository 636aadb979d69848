import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from configs.errors import DataError
from ensemble.data.loading import Split
from ensemble.training.targets import balance, make_targets, one_hot, sample_classes, smooth


def split(votes: np.ndarray | None) -> Split:
    return Split(
        images=None,
        names=("a", "b"),
        labels=np.array([0, 2], np.int32),
        weights=np.ones(2, np.float32),
        groups=(None, None),
        votes=votes,
    )


VOTES = np.array([[8, 2, 0], [1, 4, 5]], np.float32)


def test_a_label_is_certain():
    np.testing.assert_array_equal(make_targets(split(VOTES), 3, "label"), [[1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize("kind", ["distribution", "drawn"])
def test_votes_become_shares(kind):
    np.testing.assert_allclose(
        make_targets(split(VOTES), 3, kind), [[0.8, 0.2, 0], [0.1, 0.4, 0.5]], rtol=1e-6
    )


def test_votes_that_the_data_lacks_are_reported():
    with pytest.raises(DataError, match=r"'distribution' need the votes.*--targets label"):
        make_targets(split(None), 3, "distribution")


def test_classes_are_sampled_as_often_as_their_shares_say():
    targets = np.tile(np.array([[0.1, 0.0, 0.6, 0.3]], np.float32), (20_000, 1))

    sampled = sample_classes(targets, seed=1, epoch=1)

    assert sampled.shape == targets.shape
    np.testing.assert_array_equal(sampled.sum(axis=1), 1)
    np.testing.assert_allclose(sampled.mean(axis=0), targets[0], atol=0.015)
    assert not sampled[:, 1].any()


def test_a_draw_follows_from_seed_and_epoch():
    targets = np.full((50, 2), 0.5, np.float32)

    same = [sample_classes(targets, seed=1, epoch=2) for _ in range(2)]
    others = [sample_classes(targets, seed=s, epoch=e) for s, e in ((1, 3), (2, 2))]

    np.testing.assert_array_equal(*same)
    assert not any(np.array_equal(same[0], other) for other in others)


def test_smoothing_spreads_a_share_evenly():
    smoothed = smooth(one_hot(np.array([1]), 4), 0.2)

    np.testing.assert_allclose(smoothed, [[0.05, 0.85, 0.05, 0.05]], rtol=1e-6)


def test_balance_is_that_of_scikit_learn():
    labels = np.array([0, 0, 0, 1, 2, 2])

    np.testing.assert_allclose(
        balance(one_hot(labels, 3)), compute_sample_weight("balanced", labels), rtol=1e-6
    )


def test_a_mixed_target_counts_the_mean_of_its_classes():
    # Classes of 1.5 and 0.5 images: they count 2 / (2 * 1.5) and 2 / (2 * 0.5).
    targets = np.array([[1, 0], [0.5, 0.5]], np.float32)

    np.testing.assert_allclose(balance(targets), [2 / 3, (2 / 3 + 2) / 2], rtol=1e-6)
