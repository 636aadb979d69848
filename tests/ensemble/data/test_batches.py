import numpy as np
import pytest

from ensemble.data import batches as batches_module
from ensemble.data.batches import (
    Batches,
    Examples,
    read_maps,
    sample_order,
)
from ensemble.training.targets import one_hot


@pytest.fixture
def data() -> Examples:
    """Two views of 11 images; a value tells its image, and the second view by 100."""
    numbers = np.arange(11, dtype="float32")
    values = np.stack([numbers, numbers + 100])[..., None, None, None]
    return Examples({"x": values}, one_hot(np.arange(11), 11), np.arange(11) / 10)


def read(batches: Batches) -> list[np.ndarray]:
    """Returns values, labels and weights, one after the other."""
    parts = zip(*(batches[number] for number in range(len(batches))), strict=True)
    inputs, targets, weights = map(list, parts)
    values = np.concatenate([each["x"].reshape(-1) for each in inputs])
    return [values, np.concatenate(targets).argmax(-1), np.concatenate(weights)]


def test_batches_hold_all_images_in_order(data):
    order = sample_order(data, seed=1, epoch=1)
    batches = Batches(data, 4, order)

    values, labels, weights = read(batches)

    np.testing.assert_array_equal(values, order.rows + 100 * order.views)
    np.testing.assert_array_equal(labels, order.rows)
    np.testing.assert_array_equal(weights, order.rows / 10)
    shapes = [batches[number][0]["x"].shape for number in range(len(batches))]
    assert shapes == [(4, 1, 1, 1), (4, 1, 1, 1), (3, 1, 1, 1)]


def test_every_image_comes_once_an_epoch_in_an_order_of_its_own(data):
    orders = [sample_order(data, seed=1, epoch=epoch) for epoch in range(1, 6)]

    assert all(sorted(order.rows) == list(range(11)) for order in orders)
    assert len({tuple(order.rows) for order in orders}) == 5
    assert len({tuple(order.views) for order in orders}) > 1
    assert {view for order in orders for view in order.views} == {0, 1}


def test_an_epochs_order_follows_from_seed_and_number(data):
    order, same = (sample_order(data, seed=1, epoch=3) for _ in range(2))
    other = sample_order(data, seed=2, epoch=3)

    np.testing.assert_array_equal(order.rows, same.rows)
    np.testing.assert_array_equal(order.views, same.views)
    assert not np.array_equal(order.rows, other.rows)


def test_images_are_drawn_as_often_as_their_chances_say(data):
    chances = np.where(np.arange(11) < 2, 5.0, 0.0) + np.where(np.arange(11) == 10, 10.0, 0.0)

    rows = np.concatenate(
        [sample_order(data, seed=1, epoch=epoch, chances=chances).rows for epoch in range(1, 201)]
    )

    shares = np.bincount(rows, minlength=11) / len(rows)
    np.testing.assert_allclose(shares, chances / 20, atol=0.03)
    assert set(rows) == {0, 1, 10}


def test_what_a_change_makes_of_a_batch_takes_its_place(data):
    numbers = []

    def change(inputs, targets, number):
        numbers.append(number)
        return {"x": inputs["x"] * 2}, np.roll(targets, 1, axis=1)

    order = sample_order(data, seed=1, epoch=1)
    values, labels, _ = read(Batches(data, 4, order, change))

    np.testing.assert_array_equal(values, 2 * (order.rows + 100 * order.views))
    np.testing.assert_array_equal(labels, (order.rows + 1) % 11)
    assert numbers == [0, 1, 2]


def test_first_views_are_in_the_order_stored(data):
    values, *_ = read(Batches(data, 4))

    np.testing.assert_array_equal(values, np.arange(11))


@pytest.mark.parametrize("images", [1, 2, 100])
def test_all_maps_are_read_once(data, images, monkeypatch):
    monkeypatch.setattr(batches_module, "_PIECE", images * 4)  # bytes of a float32
    maps = np.concatenate(list(read_maps(data.inputs["x"])))

    np.testing.assert_array_equal(maps, data.inputs["x"].reshape(-1, 1, 1, 1))
