"""Distribution: each training step shared by several devices, of one machine or of many.

Every device holds all weights and takes its part of each batch; gradients are averaged
before the weights are updated, so that a step equals that of one device with the
whole batch. Every process reads the same data in the same order.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ensemble.data.batches import Batch, Order
from ensemble.model.fusion import refresh_scales


@dataclass(frozen=True)
class Distribution:
    """The devices and processes that share a training step.

    Args:
        strategy: A `tf.distribute` strategy on TensorFlow, `keras.distribution.DataParallel`
            on JAX; None: one device.
        replicas: Devices of all processes.
        processes: Number of processes.
        process: Number of this process, from 0.
    """

    strategy: Any = None
    replicas: int = 1
    processes: int = 1
    process: int = 0

    @property
    def writes(self) -> bool:
        """Whether this process writes the run's folder."""
        return self.process == 0

    def scope(self) -> AbstractContextManager[Any]:
        """Returns a context in which variables are created on all devices."""
        return self.strategy.scope() if self.strategy else nullcontext()

    def replicate(self, model: keras.Model) -> keras.Model:
        """Returns a copy of a model on all devices; on a single one the model itself.

        BatchNorm takes its statistics over the whole batch.
        """
        if self.strategy is None:
            return model
        with self.scope():
            clone = keras.models.clone_model(model, clone_function=_clone, recursive=True)
        several = self.processes > 1 and keras.backend.backend() == "tensorflow"
        replica = (ProcessModel if several else keras.Model)(clone.input, clone.output)
        self.copy_values(model, replica)
        return replica

    def copy_values(self, source: keras.Model, target: keras.Model) -> None:
        """Copies the values of all variables, the seeds of dropout included, to another model."""
        if source is target:
            return
        assign_state(target, values_of(state_of(source)))

    def round_up(self, batch_size: int) -> int:
        """Returns the next batch size that divides by the number of devices."""
        return -(-batch_size // self.replicas) * self.replicas

    def fill_up(self, order: Order) -> Order:
        """Repeats the first images of an order at its end until all devices get as many."""
        length = self.round_up(len(order.rows))
        return Order(*(np.resize(part, length) for part in order))

    def batches(self, batches: keras.utils.PyDataset) -> keras.utils.PyDataset:
        """Returns what this process feeds of batches; TensorFlow cuts them by itself."""
        if self.processes == 1 or keras.backend.backend() == "tensorflow":
            return batches
        return _ProcessBatches(batches, self)


SINGLE_DEVICE = Distribution()


class ProcessModel(keras.Model):
    """A model that Keras's `fit` trains in several processes of TensorFlow.

    It must be made outside the strategy's scope, as `fit` cannot build it from distributed
    batches, and its logs must be of rank 1, as `fit` cannot average scalars over processes.
    """

    def train_step(self, data: Batch) -> dict[str, Any]:
        return _with_an_axis(super().train_step(data))

    def test_step(self, data: Batch) -> dict[str, Any]:
        return _with_an_axis(super().test_step(data))


class _ProcessBatches(keras.utils.PyDataset):
    """The part of each batch that belongs to a process."""

    def __init__(self, batches: keras.utils.PyDataset, distribution: Distribution) -> None:
        super().__init__()
        self._batches = batches
        self._distribution = distribution

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        process, processes = self._distribution.process, self._distribution.processes
        return keras.tree.map_structure(
            lambda array: np.split(array, processes)[process], self._batches[index]
        )


@contextmanager
def on_local_cpu() -> Iterator[None]:
    """Computes on the CPU of this process, whatever devices and processes train."""
    cpu = "cpu"
    if keras.backend.backend() == "jax":
        import jax

        # JAX numbers the devices of all processes together.
        cpu = f"cpu:{jax.local_devices(backend='cpu')[0].id}"
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        with keras.device(cpu):
            yield
    finally:
        keras.distribution.set_distribution(distribution)


def state_of(model: keras.Model) -> list[keras.Variable]:
    """Returns all variables of a model, those of its optimizer and metrics aside."""
    return [*model.trainable_variables, *model.non_trainable_variables]


def values_of(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Returns the values of variables."""
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def assign_state(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    """Assigns values to the variables of `state_of`."""
    for variable, value in zip(state_of(model), values, strict=True):
        variable.assign(value)
    refresh_scales(model)


def _with_an_axis(logs: dict[str, Any]) -> dict[str, Any]:
    return {name: keras.ops.expand_dims(value, 0) for name, value in logs.items()}


def _clone(layer: keras.layers.Layer) -> keras.layers.Layer:
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        # JAX sees the whole batch at once anyway, and knows no such option.
        config["synchronized"] = keras.backend.backend() == "tensorflow"
    return type(layer).from_config(config)
