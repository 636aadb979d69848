"""The demo's faces are repeatable, balanced and all different."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ensemble.data.registry import SOURCES, Location
from ensemble.data.sources.demo import FACES_PER_CLASS
from ensemble.data.synthetic_faces import EXPRESSIONS


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
