import numpy as np
import pytest

from ensemble.data import batches as batches_module
from ensemble.data.batches import (
    Block,
    Examples,
    draw_order,
    first_views,
    read_blocks,
    read_maps,
)
from ensemble.training.targets import one_hot


@pytest.fixture
def data() -> Examples:
    """Two views of 11 images; a value tells its image, and the second view by 100."""
    numbers = np.arange(11, dtype="float32")
    values = np.stack([numbers, numbers + 100])[..., None, None, None]
    return Examples({"x": values}, one_hot(np.arange(11), 11), np.arange(11) / 10)


@pytest.fixture(params=[1, 2, 100], ids=lambda steps: f"{steps}-steps")
def batches_a_block(request, monkeypatch) -> int:
    monkeypatch.setattr(batches_module, "_BLOCK", request.param * 4 * 4)  # bytes of 4 float32
    return request.param


def flat(blocks: list[Block]) -> list[np.ndarray]:
    """Returns values, labels and weights, one after the other."""
    return [
        np.concatenate([part.reshape(-1) for part in parts])
        for parts in zip(
            *((b.inputs["x"], b.targets.argmax(-1), b.weights) for b in blocks), strict=True
        )
    ]


def test_blocks_hold_all_batches_in_order(data, batches_a_block):
    order = draw_order(data, seed=1, epoch=1)

    blocks = list(read_blocks(data, order, batch_size=4))

    values, labels, weights = flat(blocks)
    np.testing.assert_array_equal(values, order.rows + 100 * order.views)
    np.testing.assert_array_equal(labels, order.rows)
    np.testing.assert_array_equal(weights, order.rows / 10)
    steps, last = {1: [1, 1], 2: [2], 100: [2]}[batches_a_block], (1, 3)
    assert [block.weights.shape for block in blocks] == [*((n, 4) for n in steps), last]
    assert all(b.inputs["x"].shape == (*b.weights.shape, 1, 1, 1) for b in blocks)


def test_every_image_comes_once_an_epoch_in_an_order_of_its_own(data):
    orders = [draw_order(data, seed=1, epoch=epoch) for epoch in range(1, 6)]

    assert all(sorted(order.rows) == list(range(11)) for order in orders)
    assert len({tuple(order.rows) for order in orders}) == 5
    assert len({tuple(order.views) for order in orders}) > 1
    assert {view for order in orders for view in order.views} == {0, 1}


def test_an_epochs_order_follows_from_seed_and_number(data):
    order, same = (draw_order(data, seed=1, epoch=3) for _ in range(2))
    other = draw_order(data, seed=2, epoch=3)

    np.testing.assert_array_equal(order.rows, same.rows)
    np.testing.assert_array_equal(order.views, same.views)
    assert not np.array_equal(order.rows, other.rows)


def test_images_are_drawn_as_often_as_their_chances_say(data):
    chances = np.where(np.arange(11) < 2, 5.0, 0.0) + np.where(np.arange(11) == 10, 10.0, 0.0)

    rows = np.concatenate(
        [draw_order(data, seed=1, epoch=epoch, chances=chances).rows for epoch in range(1, 201)]
    )

    shares = np.bincount(rows, minlength=11) / len(rows)
    np.testing.assert_allclose(shares, chances / 20, atol=0.03)
    assert set(rows) == {0, 1, 10}


def test_a_block_is_no_longer_than_asked(data):
    blocks = read_blocks(data, first_views(data), batch_size=2, most_steps=2)

    assert [block.weights.shape for block in blocks] == [(2, 2), (2, 2), (1, 2), (1, 1)]


def test_what_a_change_makes_of_a_block_takes_its_place(data):
    numbers = []

    def change(inputs, targets, number):
        numbers.append(number)
        return {"x": inputs["x"] * 2}, 1 - targets

    order = draw_order(data, seed=1, epoch=1)
    blocks = list(read_blocks(data, order, batch_size=4, most_steps=1, change=change))

    values = np.concatenate([block.inputs["x"].reshape(-1) for block in blocks])
    np.testing.assert_array_equal(values, 2 * (order.rows + 100 * order.views))
    targets = np.concatenate([block.targets.reshape(-1, 11) for block in blocks])
    np.testing.assert_array_equal(targets, 1 - data.targets[order.rows])
    assert numbers == [0, 1, 2]


def test_first_views_are_in_the_order_stored(data):
    values, *_ = flat(list(read_blocks(data, first_views(data), batch_size=4)))

    np.testing.assert_array_equal(values, np.arange(11))


def test_all_maps_are_read_once(data, batches_a_block):
    maps = np.concatenate(list(read_maps(data.inputs["x"])))

    np.testing.assert_array_equal(maps, data.inputs["x"].reshape(-1, 1, 1, 1))


def test_an_error_in_reading_reaches_the_reader(data):
    class Broken:
        shape, dtype = (2, 11, 1, 1, 1), np.dtype("float32")

        def reshape(self, *shape):
            raise OSError("gone")

    broken = Examples({"x": Broken()}, data.targets, data.weights)

    with pytest.raises(OSError, match="gone"):
        list(read_blocks(broken, first_views(broken), batch_size=4))
