import keras
import numpy as np
import pytest

from ensemble.data.batches import Block
from ensemble.model.composition import build_classifier
from ensemble.model.optimizers import FusedAdam
from ensemble.training.loops import evaluation_loop, training_loop
from ensemble.training.targets import one_hot

pytestmark = pytest.mark.backend


def build(*, dropout: float = 0.2, jit_compile: bool | str = "auto") -> keras.Model:
    keras.utils.set_random_seed(1)
    options = {"units": 8, "dropout": dropout}
    model = build_classifier({"a": (1, 1, 6)}, classes="abc", head_options=options)
    model.compile(
        FusedAdam(learning_rate=0.01),
        keras.losses.CategoricalCrossentropy(),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=jit_compile,
    )
    return model


def block(steps: int, size: int) -> Block:
    generator = np.random.default_rng([steps, size])
    return Block(
        {"a": generator.standard_normal((steps, size, 1, 1, 6), "float32")},
        one_hot(generator.integers(3, size=(steps, size)), 3),
        generator.uniform(size=(steps, size)).astype("float32"),
    )


BLOCKS = [block(3, 4), block(2, 4), block(1, 3)]


def assert_same_variables(model: keras.Model, other: keras.Model) -> None:
    for variable, expected in zip(model.variables, other.variables, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(variable),
            keras.ops.convert_to_numpy(expected),
            rtol=1e-4,
            atol=1e-6,
            err_msg=variable.path,
        )


@pytest.mark.parametrize("kind", ["train", "test"])
def test_a_loop_does_what_single_steps_do(kind):
    """Also to the seeds of dropout and to moving statistics, which are among the variables."""
    model, other = build(), build()
    run = (training_loop if kind == "train" else evaluation_loop)(model)
    step = getattr(other, f"{kind}_on_batch")

    told = []
    for number, some in enumerate(BLOCKS):
        keras.utils.set_random_seed(number)  # PyTorch drops by a generator that is no variable
        run([some])
        keras.utils.set_random_seed(number)
        for values, targets, weights in zip(
            some.inputs["a"], some.targets, some.weights, strict=True
        ):
            told.append(step({"a": values}, targets, weights, return_dict=True))

    assert_same_variables(model, other)
    sizes = [size for some in BLOCKS for size in [some.weights.shape[1]] * len(some.weights)]
    for name, value in model.get_metrics_result().items():
        expected = np.average([logs[name] for logs in told], weights=sizes)
        np.testing.assert_allclose(float(value), expected, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only here it is a choice")
def test_xla_computes_what_the_loop_does_without_it():
    """Dropout aside, for which XLA draws other numbers."""
    model, other = (build(dropout=0.0, jit_compile=choice) for choice in (True, False))
    for some in BLOCKS:
        training_loop(model)([some])
        training_loop(other)([some])

    for weights, expected in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(weights, expected, atol=1e-3)  # a step moves ten times as far


def test_judging_leaves_the_model_as_it_is():
    model = build()

    evaluation_loop(model)(BLOCKS[:1])

    for weights, expected in zip(model.get_weights(), build().get_weights(), strict=True):
        np.testing.assert_array_equal(weights, expected)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="nothing is compiled")
@pytest.mark.parametrize("kind", ["train_step", "test_step"])
def test_blocks_of_another_length_compile_nothing(kind, monkeypatch):
    model = build()
    step, traced = getattr(model, kind), []
    monkeypatch.setattr(model, kind, lambda *args: [traced.append(args), step(*args)][1])
    run = (training_loop if kind == "train_step" else evaluation_loop)(model)
    run(BLOCKS[::2])
    compiled = len(traced)

    for steps in (1, 2, 3):
        run([block(steps, 4), block(1, 3)])

    assert len(traced) == compiled
