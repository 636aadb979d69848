"""Many steps in one call: loops over blocks of batches, compiled where the backend can.

`fit` returns to Python after every step, which for a small head takes longer
than the step. What a step does is left to the model's own `train_step` and
`test_step`; here is only their repetition, and how each backend compiles it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from ensemble.data.batches import Block
from ensemble.training.distribution import ALONE, Distribution

Loop = Callable[[Iterable[Block]], None]


def training_loop(model: keras.Model, distribution: Distribution = ALONE) -> Loop:
    """Returns a function that trains a compiled model on every batch of blocks, in order.

    The model's metrics go on counting until they are reset. Loops keep to the
    model as it was compiled when they were made.

    Args:
        model: One that `distribution` has replicated.
        distribution: Who shares the steps.
    """
    return _make_loop(model, distribution, learns=True)


def evaluation_loop(model: keras.Model, distribution: Distribution = ALONE) -> Loop:
    """Returns a function that judges a compiled model on every batch of blocks.

    What comes out is in the model's metrics, which go on counting until they are
    reset. Takes what `training_loop` does.
    """
    return _make_loop(model, distribution, learns=False)


def _make_loop(model: keras.Model, distribution: Distribution, *, learns: bool) -> Loop:
    build_state(model, distribution)
    step = model.train_step if learns else model.test_step
    match keras.backend.backend():
        case "tensorflow":
            return _TensorFlowLoop(model, step, distribution)
        case "jax":
            return _JaxLoop(
                distribution,
                step,
                model.trainable_variables,
                model.non_trainable_variables,
                *([model.optimizer.variables] if learns else []),
                model.metrics_variables,
            )
        case _:
            return _TorchLoop(step, learns=learns)


def build_state(model: keras.Model, distribution: Distribution = ALONE) -> None:
    """Makes the variables of optimizer, loss and metrics, since a compiled loop cannot."""
    target, weight = keras.ops.ones((1, *model.output_shape[1:])), keras.ops.ones(1)
    with distribution.scope():
        with keras.StatelessScope():  # metrics on several devices count in steps alone
            model.compute_loss(y=target, y_pred=target, sample_weight=weight)
            model.compute_metrics(None, target, target, weight)
        if not model.optimizer.built:  # one that scales losses would build its own twice
            model.optimizer.build(model.trainable_variables)
    model.reset_metrics()


class _TensorFlowLoop:
    """A while loop in a graph, traced once for each size of batches.

    One graph for all sizes would work out shapes at every step. XLA compiles it
    where the model was compiled so; for heads on a CPU that takes longer.
    """

    def __init__(
        self, model: keras.Model, step: Callable[[Block], Any], distribution: Distribution
    ) -> None:
        self._model = model
        self._step = step
        self._distribution = distribution
        self._graphs: dict[int, Callable[[Block], None]] = {}

    def __call__(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            size = block.weights.shape[1]
            if size not in self._graphs:
                self._graphs[size] = self._trace(block)
            with self._distribution.count_once(self._model, size):
                self._graphs[size](block)

    def _trace(self, example: Block) -> Callable[[Block], None]:
        import tensorflow as tf

        def run(block: Block) -> None:
            def advance(index: Any) -> Any:
                self._distribution.share(self._step, _batch(block, index))
                return index + 1

            steps = tf.shape(block.weights)[0]
            tf.while_loop(lambda index: index < steps, advance, [0], parallel_iterations=1)

        signature = keras.tree.map_structure(
            lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), example
        )
        return tf.function(
            run,
            input_signature=[signature],
            autograph=False,
            jit_compile=self._model.jit_compile,
        )


class _JaxLoop:
    """A while loop in a program, compiled once for each size of batches.

    Args:
        distribution: Who shares the steps.
        step: From the variables' values and a batch to logs and new values.
        variables: What it takes and gives back, in its order.
    """

    def __init__(
        self,
        distribution: Distribution,
        step: Callable[..., Any],
        *variables: list[keras.Variable],
    ) -> None:
        import jax

        def run(values: Any, block: Block, steps: int) -> Any:
            def advance(index: Any, values: Any) -> Any:
                return step(values, _batch(block, index))[1]

            return jax.lax.fori_loop(0, steps, advance, values)

        compiled = jax.jit(run, donate_argnums=0, out_shardings=distribution.replicated)
        # Waiting keeps blocks from piling up in memory before a slow device.
        self._run = lambda *arguments: jax.block_until_ready(compiled(*arguments))
        self._distribution = distribution
        self._variables = variables
        self._longest: dict[int, int] = {}  # steps of the longest block, by size of batches

    def __call__(self, blocks: Iterable[Block]) -> None:
        values = tuple([variable.value for variable in group] for group in self._variables)
        for block in blocks:
            placed = self._distribution.place(self._fill_up(block))
            values = self._run(values, placed, len(block.weights))
        for variables, new_values in zip(self._variables, values, strict=True):
            for variable, value in zip(variables, new_values, strict=True):
                variable.assign(value)

    def _fill_up(self, block: Block) -> Block:
        """Makes a block as long as the longest before it, since another length compiles anew."""
        steps, size = block.weights.shape
        longest = self._longest[size] = max(steps, self._longest.get(size, 0))
        if steps == longest:
            return block
        return keras.tree.map_structure(
            lambda array: np.resize(array, (longest, *array.shape[1:])), block
        )


class _TorchLoop:
    """A loop in Python over a block that is brought to the device at once."""

    def __init__(self, step: Callable[[Block], Any], *, learns: bool) -> None:
        self._step = step
        self._learns = learns

    def __call__(self, blocks: Iterable[Block]) -> None:
        import torch

        for block in blocks:
            steps = len(block.weights)
            block = keras.tree.map_structure(keras.ops.convert_to_tensor, block)
            with torch.set_grad_enabled(self._learns):
                for index in range(steps):
                    self._step(_batch(block, index))


def _batch(block: Block, index: Any) -> Block:
    return keras.tree.map_structure(lambda array: array[index], block)
