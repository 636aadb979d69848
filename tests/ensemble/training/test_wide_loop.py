import gc
import weakref

import keras
import numpy as np
import pytest

from configs.schema import TrainingConfig
from ensemble.data.batches import Block, Examples
from ensemble.model.composition import build_classifier
from ensemble.model.fusion import adapt_scales
from ensemble.model.optimizers import FusedAdam
from ensemble.training import trainer, wide_loop
from ensemble.training.distribution import Distribution
from ensemble.training.loops import training_loop
from ensemble.training.targets import one_hot
from ensemble.training.trainer import train_model

pytest.importorskip("llvmlite")
pytestmark = pytest.mark.backend

SHAPES = {"a": (2, 2, 5), "b": (1, 1, 9)}
BATCH = 6


@pytest.fixture(autouse=True)
def _any_layer_is_wide(monkeypatch):
    monkeypatch.setattr(wide_loop, "_FEWEST_WEIGHTS", 1)


def build(optimizer: keras.optimizers.Optimizer | None = None, **options) -> keras.Model:
    keras.utils.set_random_seed(1)
    options = {"fusion": "flat", "head_options": {"units": 70}} | options
    model = build_classifier(SHAPES, classes="abc", **options)
    compile_model(model, optimizer or plain_adam())
    return model


def plain_adam(**settings) -> FusedAdam:
    """With an epsilon that leaves differences of rounding what they are."""
    return FusedAdam(**{"learning_rate": 0.01, "epsilon": 1e-3} | settings)


def compile_model(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(), metrics=metrics)


def inputs(*counts: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(counts)
    return {
        name: generator.standard_normal((*counts, *shape), "float32")
        for name, shape in SHAPES.items()
    }


def block(steps: int, size: int, dtype: str = "float32") -> Block:
    generator = np.random.default_rng([steps, size])
    labels = generator.integers(3, size=(steps, size))
    weights = generator.uniform(size=(steps, size)).astype("float32")
    features = {name: array.astype(dtype) for name, array in inputs(steps, size).items()}
    return Block(features, one_hot(labels, 3), weights)


EPOCHS = [
    [block(3, BATCH), block(2, BATCH), block(1, 5)],
    [block(1, 5), block(4, BATCH, "float16")],
]


def values(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fusion": "grid", "standardize": True},  # here inputs do not lie side by side
        {"head_options": {"units": 3, "activation": "tanh", "batch_norm": False}},
        {
            "optimizer": lambda: plain_adam(
                learning_rate=keras.optimizers.schedules.CosineDecay(0.01, 7)
            )
        },
        {"optimizer": lambda: plain_adam(beta_1=0.5, epsilon=0.1)},
    ],
    ids=["flat", "grid", "small", "schedule", "adam"],
)
def test_it_does_what_the_usual_loop_does(options):
    """Also to moments, metrics, the seeds of dropout and moving statistics."""
    make_optimizer = options.get("optimizer", plain_adam)
    model, other = (build(**{**options, "optimizer": make_optimizer()}) for _ in range(2))
    for some in (model, other):
        adapt_scales(some, inputs(2, 30))
    wide, usual = wide_loop.wide_loop(model, batch_size=BATCH), training_loop(other)
    assert wide is not None

    for number, blocks in enumerate(EPOCHS):
        for some, loop in ((model, wide), (other, usual)):
            keras.utils.set_random_seed(number)  # PyTorch drops by a generator that is no variable
            some.reset_metrics()
            loop(iter(blocks))

        for found, expected in zip(model.variables, other.variables, strict=True):
            np.testing.assert_allclose(*values([found, expected]), 1e-4, 1e-5, err_msg=found.path)
        for name, value in model.get_metrics_result().items():
            expected = float(other.get_metrics_result()[name])
            np.testing.assert_allclose(float(value), expected, rtol=1e-4)
        found, expected = (values(some.optimizer.variables) for some in (model, other))
        for array, expected_array in zip(found, expected, strict=True):
            np.testing.assert_allclose(array, expected_array, rtol=1e-3, atol=1e-6)


def test_an_epoch_without_batches_changes_nothing():
    model = build()
    before = model.get_weights()

    wide_loop.wide_loop(model, batch_size=BATCH)(iter([]))

    for weights, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, expected)


def skipping() -> keras.Model:
    features = keras.Input((8,), name="a")
    hidden = keras.layers.Dense(4)(features)
    joined = keras.layers.Concatenate()([hidden, features])
    return keras.Model({"a": features}, keras.layers.Dense(3, activation="softmax")(joined))


def punished() -> keras.Model:
    features = keras.Input((8,), name="a")
    hidden = keras.layers.Dense(4, activity_regularizer="l2")(features)
    return keras.Model({"a": features}, keras.layers.Dense(3, activation="softmax")(hidden))


def frozen() -> keras.Model:
    model = build()
    next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense)).trainable = False
    return model


@pytest.mark.parametrize(
    ("make", "optimizer"),
    [
        (lambda: build(fusion="grid", head="conv", head_options={}), FusedAdam()),
        (skipping, FusedAdam()),
        (frozen, FusedAdam()),
        (punished, FusedAdam()),
        (build, FusedAdam(weight_decay=0.1)),
        (build, FusedAdam(global_clipnorm=1.0)),
        (build, FusedAdam(use_ema=True)),
        (build, FusedAdam(amsgrad=True)),
        (build, FusedAdam(factors=[1.0] * 6)),
        (build, keras.optimizers.Adam()),
    ],
    ids=[
        "conv",
        "skips",
        "frozen",
        "punished",
        "decay",
        "clips",
        "ema",
        "amsgrad",
        "factors",
        "adam",
    ],
)
def test_other_models_are_left_to_the_usual_loop(make, optimizer):
    model = make()
    compile_model(model, optimizer)

    assert wide_loop.wide_loop(model, batch_size=BATCH) is None


def test_it_needs_one_device_llvmlite_and_many_weights(monkeypatch):
    model = build()
    assert wide_loop.wide_loop(model, Distribution(2), batch_size=BATCH) is None
    with monkeypatch.context() as patch:
        patch.setattr(wide_loop, "find_spec", {}.get)
        assert wide_loop.wide_loop(model, batch_size=BATCH) is None
    monkeypatch.setattr(wide_loop, "_FEWEST_WEIGHTS", 70 * 29 + 1)
    assert wide_loop.wide_loop(model, batch_size=BATCH) is None
    monkeypatch.setattr(wide_loop, "_FEWEST_WEIGHTS", 70 * 29)
    assert wide_loop.wide_loop(model, batch_size=BATCH) is not None


def test_nothing_of_it_stays_in_memory():
    def train():
        model = build()
        wide_loop.wide_loop(model, batch_size=BATCH)(EPOCHS[0])
        return weakref.ref(model)

    trained = train()
    gc.collect()

    assert trained() is None


def test_training_with_it_has_the_same_history(monkeypatch):
    labels = np.random.default_rng(0).integers(3, size=40)
    data = Examples(inputs(2, 40), one_hot(labels, 3), np.ones(40, "float32"))
    config = TrainingConfig(batch_size=BATCH, epochs=3, learning_rate=0.01, epsilon=1e-3)
    made = []

    def make(*args, **more):
        made.append(wide_loop.wide_loop(*args, **more))
        return made[-1]

    monkeypatch.setattr(trainer, "wide_loop", make)
    with_it = train_model(build(), data, data, config, seed=1)
    monkeypatch.setattr(wide_loop, "_FEWEST_WEIGHTS", 10**9)
    without = train_model(build(), data, data, config, seed=1)

    assert made[0] is not None
    assert made[1] is None
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(with_it.epochs[name], without.epochs[name], rtol=1e-3)
