"""Laws of checksums: two models share one exactly if they compute the same."""

import keras
import pytest
from keras import layers, ops

from branches.checksums import architecture_checksum


def build(wire, *, activation="relu", dtype=None) -> keras.Model:
    """Two convolutions of one shape, wired in some way."""
    image = keras.Input((8, 8, 3))
    first = layers.Conv2D(3, 3, padding="same", activation=activation, dtype=dtype)
    second = layers.Conv2D(3, 3, padding="same")
    return keras.Model(image, wire(image, first(image), second))


WIRINGS = {
    "chain": lambda _, x, second: layers.Add()([x, second(x)]),
    "side by side": lambda image, x, second: layers.Add()([x, second(image)]),
    "around": lambda image, x, second: layers.Add()([image, second(x)]),
    "twice": lambda _, x, second: layers.Add()([x, second(second(x))]),
    "difference": lambda _, x, second: layers.Subtract()([x, second(x)]),
    "difference the other way": lambda _, x, second: layers.Subtract()([second(x), x]),
    "operation": lambda _, x, second: ops.multiply(x, ops.relu(second(x))),
    "operation of a constant": lambda _, x, second: second(x) * 2.0,
    "operation of another constant": lambda _, x, second: second(x) * 3.0,
}


def nested(wire) -> keras.Model:
    image = keras.Input((8, 8, 3))
    return keras.Model(image, layers.ReLU()(build(wire)(image)))


def test_other_connections_have_another_checksum():
    built = [make(wire) for make in (build, nested) for wire in WIRINGS.values()]

    assert len({architecture_checksum(model) for model in built}) == len(built)


@pytest.mark.parametrize("wire", WIRINGS.values(), ids=WIRINGS)
def test_names_and_what_is_trainable_do_not_count(wire):
    first, second = nested(wire), nested(wire)
    second.trainable = False
    second.layers[1].name = "other"

    assert architecture_checksum(first) == architecture_checksum(second)


@pytest.mark.parametrize("change", [{"activation": "tanh"}, {"dtype": "mixed_bfloat16"}])
def test_other_settings_have_another_checksum(change):
    wire = WIRINGS["chain"]

    assert architecture_checksum(build(wire)) != architecture_checksum(build(wire, **change))
