"""The loop for a model that begins with a wide dense layer, on a CPU.

Such a layer has so many weights that a step's time is that of their way through
memory. `WideWeights` holds them for an epoch and takes one pass a step. All after
the layer's product is a model of its own, the tail, which goes on as any model
does: it is trained on products and leaves the gradient with respect to them.
"""

import math
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from ensemble.data.batches import Block, Inputs
from ensemble.model.optimizers import FusedAdam
from ensemble.system.devices import has_gpu
from ensemble.training.distribution import ALONE, Distribution
from ensemble.training.host_call import call_host
from ensemble.training.loops import Loop, build_state, training_loop

_FEWEST_WEIGHTS = 2 * 10**6  # with fewer, a step's time is not that of memory
_INERT = (  # layers that do the same in training, and learn nothing
    keras.layers.InputLayer,
    keras.layers.Concatenate,
    keras.layers.Flatten,
    keras.layers.Normalization,
    keras.layers.Reshape,
)


def wide_loop(
    model: keras.Model, distribution: Distribution = ALONE, *, batch_size: int
) -> Loop | None:
    """Returns what `training_loop` returns, but faster, or None where it does not apply.

    It does for a functional model whose first layer that learns is dense, large and
    in float32, with plain `FusedAdam`, on one CPU, where llvmlite is installed.
    Results are the same, to rounding. Memory holds the layer's weights and moments
    twice.

    Args:
        model: A compiled one.
        distribution: Who shares the steps.
        batch_size: Of the largest batch.
    """
    if find_spec("llvmlite") is None or distribution is not ALONE or has_gpu():
        return None
    layer = _find_layer(model)
    if layer is None or not _is_plain(model.optimizer):
        return None
    try:
        after = keras.Model(layer.output, model.output)
    except ValueError:  # something leads past the layer
        return None
    return _WideLoop(model, layer, after, batch_size)


def _find_layer(model: keras.Model) -> keras.layers.Dense | None:
    """Returns the first layer that learns, if it is a wide dense one."""
    first = next((layer for layer in model.layers if not isinstance(layer, _INERT)), None)
    fits = (
        first is not None
        and type(first) is keras.layers.Dense
        and first.trainable
        and first.kernel_regularizer is first.kernel_constraint is None
        and first.activity_regularizer is None
        and first.compute_dtype == first.variable_dtype == "float32"
        and len(first.input.shape) == 2
        and math.prod(first.kernel.shape) >= _FEWEST_WEIGHTS
    )
    return first if fits else None


def _is_plain(optimizer: keras.optimizers.Optimizer) -> bool:
    """Tells whether each weight's update follows from its own gradient and Adam's settings."""
    others = (
        *("weight_decay", "clipnorm", "global_clipnorm", "clipvalue", "use_ema", "factors"),
        *("amsgrad", "gradient_accumulation_steps", "loss_scale_factor"),
    )
    return (
        type(optimizer) is FusedAdam
        and optimizer.epsilon > 0
        and not any(getattr(optimizer, name) for name in others)
    )


class _WideLoop:
    """Trains a model on every batch of blocks; its weights are up to date at their end.

    Args:
        model: A compiled one.
        layer: Its first layer that learns.
        after: From that layer's output to the model's.
        batch_size: Of the largest batch.
    """

    def __init__(
        self, model: keras.Model, layer: keras.layers.Dense, after: keras.Model, batch_size: int
    ) -> None:
        from ensemble.training.wide_weights import WideWeights  # needs llvmlite

        build_state(model)
        optimizer = model.optimizer
        self._model = model
        self._held = [layer.kernel, *optimizer.moments(layer.kernel)]
        self._weights = WideWeights(
            layer.kernel.shape,
            batch_size=batch_size,
            beta_1=optimizer.beta_1,
            beta_2=optimizer.beta_2,
            epsilon=optimizer.epsilon,
        )
        self._join = _make_join(keras.Model(model.input, layer.input))
        self._entry = _Entry(layer, batch_size, self._multiply)
        rows = keras.Input((), name="rows", dtype="int32")
        self._tail = keras.Model({rows.name: rows}, after(self._entry(rows)))
        self._tail.compile_from_config(model.get_compile_config())
        self._run_tail = training_loop(self._tail)

    def __call__(self, blocks: Iterable[Block]) -> None:
        optimizer = self._model.optimizer
        held = {id(variable) for variable in self._held}
        shared = [variable for variable in optimizer.variables if id(variable) not in held]
        shared += self._model.metrics_variables
        of_tail = [*self._tail.optimizer.variables, *self._tail.metrics_variables]
        _copy(shared, of_tail)
        self._weights.write(map(ops.convert_to_numpy, self._held))
        self._steps = int(optimizer.iterations)
        self._rate: float | None = None

        self._run_tail(map(self._prepare, blocks))
        if self._rate is not None:
            self._weights.learn(self._entry.gradient, self._rate, self._features[:0])
        _copy(of_tail, shared)
        _copy(self._weights.read(), self._held)

    def _prepare(self, block: Block) -> Block:
        """Keeps what the layer gets, and returns a block of the numbers of its rows."""
        steps, size = block.weights.shape
        self._features = self._join(
            {
                name: values.reshape(steps * size, *values.shape[2:])
                for name, values in block.inputs.items()
            }
        )
        self._rates = iter(self._model.optimizer.rates(self._steps, steps))
        self._steps += steps
        rows = np.arange(steps * size, dtype="int32")
        return block._replace(inputs={"rows": rows.reshape(steps, size)})

    def _multiply(self, rows: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Returns the product of some rows and weights that have learned from the step before."""
        features = self._features[rows[0] : rows[-1] + 1]
        if self._rate is None:  # there was none
            product = self._weights.multiply(features)
        else:
            product = self._weights.learn(gradient, self._rate, features)
        self._rate = next(self._rates)
        return product


def _make_join(model: keras.Model) -> Callable[[Inputs], np.ndarray]:
    """Returns what does as a model that joins its inputs to features `(images, features)`.

    Where the model puts all numbers side by side as they are, which numbers from 0 on
    tell, NumPy does it with fewer copies.
    """

    def put_side_by_side(inputs: Inputs) -> np.ndarray:
        flat = [inputs[name].reshape(len(inputs[name]), -1) for name in model.input]
        return np.concatenate(flat, axis=1) if len(flat) > 1 else flat[0]

    def run(inputs: Inputs) -> np.ndarray:
        return ops.convert_to_numpy(model(inputs))

    numbers = np.arange(model.output.shape[1], dtype="float32")
    sizes = [math.prod(tensor.shape[1:]) for tensor in model.input.values()]
    if sum(sizes) == len(numbers):
        parts = np.split(numbers, np.cumsum(sizes)[:-1])
        probe = {
            name: part.reshape(1, *tensor.shape[1:])
            for (name, tensor), part in zip(model.input.items(), parts, strict=True)
        }
        if np.array_equal(run(probe), put_side_by_side(probe)):
            return put_side_by_side
    return run


class _Entry(keras.layers.Layer):
    """A dense layer whose product comes from outside: from numbers of rows to its output.

    The gradient with respect to the product goes the way of those with respect to
    weights: the optimizer puts it into a variable, and the next step hands it out.

    Args:
        layer: The dense layer, whose bias and activation are used.
        batch_size: Of the largest batch.
        multiply: The method, of an object that lives longer, that turns rows `(images,)`
            and the last gradient `(batch_size, units)` into the product `(images, units)`.
    """

    def __init__(
        self,
        layer: keras.layers.Dense,
        batch_size: int,
        multiply: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> None:
        super().__init__(name="entry")
        self.bias = layer.bias
        self._gradient = self.add_weight(
            (batch_size, layer.units), "zeros", name="gradient", overwrite_with_gradient=True
        )
        self._activation = layer.activation
        self._multiply = multiply

    def call(self, rows: KerasTensor) -> KerasTensor:
        images, units = rows.shape[0], self._gradient.shape[1]
        product = call_host(
            self._multiply, rows, self._gradient, shape=(images, units), dtype="float32"
        )
        gradient = self._gradient[:images]
        product = product + (gradient - ops.stop_gradient(gradient))
        return self._activation(product if self.bias is None else product + self.bias)

    def compute_output_shape(self, rows_shape: tuple[int | None]) -> tuple[int | None, int]:
        return (*rows_shape, self._gradient.shape[1])

    @property
    def gradient(self) -> np.ndarray:
        """That of the last step, shape `(batch_size, units)`; zeros for images it did not have."""
        return ops.convert_to_numpy(self._gradient)


def _copy(sources: Iterable[Any], targets: Iterable[keras.Variable]) -> None:
    """Gives variables the values of others, by NumPy: JAX's may not share an array."""
    for source, target in zip(sources, targets, strict=True):
        target.assign(ops.convert_to_numpy(source))
