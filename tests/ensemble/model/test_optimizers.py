import keras
import numpy as np
import pytest

from ensemble.model.optimizers import FusedAdam

pytestmark = pytest.mark.backend

SHAPES = [(7, 5), (5,), (5, 3)]


def start() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape).astype("float32") for shape in SHAPES]


def descend(optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
    """Returns three variables after 50 steps of gradients of very unlike sizes."""
    variables = [keras.Variable(values, dtype="float32") for values in start()]
    generator = np.random.default_rng(1)
    for step in range(50):
        scale = 10.0 ** (step % 7 - 4)
        gradients = [scale * generator.standard_normal(shape) for shape in SHAPES]
        tensors = [keras.ops.convert_to_tensor(g, "float32") for g in gradients]
        optimizer.apply(tensors, variables)
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"amsgrad": True},
        {"epsilon": 0.1},
        {"epsilon": 1.0, "amsgrad": True},
        {"beta_1": 0.5, "beta_2": 0.9, "learning_rate": 0.1},
        {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)},
        {"clipnorm": 0.1, "weight_decay": 0.01},
    ],
    ids=lambda settings: "-".join(settings) or "default",
)
def test_fused_adam_is_adam(settings):
    expected = descend(keras.optimizers.Adam(**settings))

    for values, expected_values in zip(descend(FusedAdam(**settings)), expected, strict=True):
        np.testing.assert_allclose(values, expected_values, rtol=1e-5, atol=1e-5)


def test_fused_adam_is_saved_with_its_settings():
    optimizer = FusedAdam(learning_rate=0.01, beta_1=0.8, epsilon=0.1, amsgrad=True)

    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))

    assert type(loaded) is FusedAdam
    assert loaded.get_config() == optimizer.get_config()


def test_a_factor_multiplies_the_rate_of_its_variable():
    plain = descend(FusedAdam(learning_rate=0.01))
    slower = descend(FusedAdam(learning_rate=0.02, factors=[0.5, 0.0, 1.0]))

    np.testing.assert_allclose(slower[0], plain[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(slower[1], start()[1])
    np.testing.assert_allclose(
        slower[2], descend(FusedAdam(learning_rate=0.02))[2], rtol=1e-5, atol=1e-6
    )
