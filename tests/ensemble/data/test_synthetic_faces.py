"""A face follows from its expression and its seed, at any size."""

import numpy as np
import pytest

from ensemble.data.synthetic_faces import EXPRESSIONS, draw_face


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
