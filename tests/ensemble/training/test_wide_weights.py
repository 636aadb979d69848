from itertools import pairwise

import keras
import numpy as np
import pytest

pytest.importorskip("llvmlite")

from ensemble.model.optimizers import FusedAdam
from ensemble.training import machine_code, wide_weights
from ensemble.training.wide_weights import WideWeights

pytestmark = pytest.mark.backend

ADAM = {"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3}


def make(shape: tuple[int, int], batch_size: int = 8) -> tuple[WideWeights, list[np.ndarray]]:
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal(shape, "float32") for _ in range(2)]
    arrays.append(generator.random(shape, "float32"))  # squares have no sign
    weights = WideWeights(shape, batch_size=batch_size, **ADAM)
    weights.write(arrays)
    return weights, arrays


@pytest.mark.parametrize("shape", [(1, 1), (128, 64), (300, 70), (700, 16), (257, 512)])
def test_weights_are_read_as_they_were_written(shape):
    weights, arrays = make(shape)

    for array, expected in zip(weights.read(), arrays, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("cores", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (128, 64), (300, 70), (257, 512)])
def test_a_step_is_an_update_and_a_product(shape, cores, monkeypatch):
    """Batches of several sizes, none of images among them, on any number of cores."""
    monkeypatch.setattr(wide_weights, "count_cores", lambda: cores)
    weights, (kernel, mean, square) = make(shape, batch_size=7)
    generator = np.random.default_rng(1)
    batches = [generator.standard_normal((n, shape[0]), "float32") for n in (7, 7, 3, 5, 0)]

    product = weights.multiply(batches[0])

    np.testing.assert_allclose(product, batches[0] @ kernel, rtol=1e-4, atol=1e-4)
    for step, (before, batch) in enumerate(pairwise(batches), start=1):
        gradient = generator.standard_normal((len(before), shape[1]), "float32")
        product = weights.learn(gradient, 0.1 / step, batch)

        slope = before.T @ gradient
        mean = mean + (slope - mean) * (1 - ADAM["beta_1"])
        square = square + (slope**2 - square) * (1 - ADAM["beta_2"])
        kernel = kernel - 0.1 / step * mean / (np.sqrt(square) + ADAM["epsilon"])
        np.testing.assert_allclose(product, batch @ kernel, rtol=1e-4, atol=1e-4)
        for array, expected in zip(weights.read(), (kernel, mean, square), strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)


def test_a_cpu_without_wide_vectors_computes_the_same(monkeypatch):
    def run() -> np.ndarray:
        weights, _ = make((300, 70))
        features = np.random.default_rng(3).standard_normal((8, 300), "float32")
        weights.multiply(features)
        return weights.learn(np.ones((8, 70), "float32"), 0.1, features)

    expected = run()
    features = machine_code.binding.FeatureMap()
    monkeypatch.setattr(machine_code.binding, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(machine_code.binding, "get_host_cpu_name", lambda: "generic")
    plain = machine_code.compile_step.__wrapped__()
    monkeypatch.setattr(wide_weights, "compile_step", lambda: plain)

    assert plain.columns == 16
    np.testing.assert_allclose(run(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "rate", [0.01, keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)], ids=["fixed", "falls"]
)
def test_the_update_is_that_of_keras(rate):
    weights, (start, *_) = make((200, 70))
    weights.write([start, np.zeros_like(start), np.zeros_like(start)])
    kernel = keras.Variable(start)
    optimizer = keras.optimizers.Adam(rate, **ADAM)
    rates = FusedAdam(learning_rate=rate, **ADAM).rates(0, 20)
    generator = np.random.default_rng(2)
    features = generator.standard_normal((20, 8, 200), "float32")

    weights.multiply(features[0])
    for step, batch in enumerate(features):
        gradient = 10.0 ** (step % 5 - 3) * generator.standard_normal((8, 70)).astype("float32")
        following = features[step + 1] if step + 1 < len(features) else batch[:0]
        weights.learn(gradient, rates[step], following)
        optimizer.apply([keras.ops.convert_to_tensor(batch.T @ gradient)], [kernel])

    found = next(weights.read())
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(kernel), rtol=1e-5, atol=1e-5)
