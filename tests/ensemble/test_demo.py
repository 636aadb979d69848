"""The drawn faces are repeatable, balanced and all different."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ensemble.datasets.demo import EXPRESSIONS, FACES_PER_CLASS, draw_face
from ensemble.datasets.registry import SOURCES, Location


@pytest.fixture(scope="module")
def demo():
    return SOURCES.get("demo").load(Location())


@pytest.fixture(scope="module")
def sample(demo):
    """A few faces of every class and split, by name."""
    return {
        record.name: demo.images.read(record.name)
        for record in demo.records
        if int(record.name[-8:-4]) < 3
    }


def test_demo_is_the_source_where_no_data_is_given():
    spec = SOURCES.get("demo")
    assert spec.matches(Location())
    assert not spec.matches(Location(roots=(Path("faces"),)))


def test_demo_asks_for_no_pretrained_weights(demo):
    assert demo.synthetic


def test_classes_are_balanced_in_both_splits(demo):
    counts = Counter((record.split, record.label) for record in demo.records)
    assert counts == {(s, e): n for s, n in FACES_PER_CLASS.items() for e in EXPRESSIONS}
    assert len({record.name for record in demo.records}) == len(demo.records)


def test_a_name_always_gives_the_same_pixels(demo, sample):
    for name in list(sample)[::5]:
        np.testing.assert_array_equal(demo.images.read(name), sample[name])


def test_no_two_names_share_their_pixels(sample):
    assert len({pixels.tobytes() for pixels in sample.values()}) == len(sample)
    assert {name.split("/")[0] for name in sample} == {"train", "validation"}


@pytest.mark.parametrize(
    "name",
    [
        "train/happy/9999.png",
        "validation/happy/0075.png",
        "test/happy/0000.png",
        "train/bored/0000.png",
        "x",
    ],
)
def test_other_names_are_refused_as_missing_files(demo, name):
    with pytest.raises(FileNotFoundError, match="the demo has no face"):
        demo.images.read(name)


@pytest.mark.parametrize("size", [48, 96])
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_is_drawn_at_any_size(expression, size):
    pixels = draw_face(expression, np.random.default_rng(3), size)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    assert np.ptp(pixels) > 100


def test_size_changes_the_resolution_and_not_the_face():
    small, large = (
        draw_face("happy", np.random.default_rng(3), size).astype(float) for size in (48, 96)
    )
    shrunk = large.reshape(48, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - small).mean() < 8


def test_one_seed_draws_one_person_with_different_expressions():
    faces = np.stack([draw_face(name, np.random.default_rng(3)) for name in EXPRESSIONS])
    assert len({face.tobytes() for face in faces}) == len(EXPRESSIONS)
    assert (faces[:, :8] == faces[0, :8]).all(), "the background changes with the expression"


def test_unknown_expression_is_told_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown expression 'hapy'. Did you mean 'happy'\?") as e:
        draw_face("hapy", np.random.default_rng(0))
    assert all(expression in str(e.value) for expression in EXPRESSIONS)
