"""Distribution: one training step shared by several devices, of one machine or of many.

Every device holds all weights and takes its part of each batch; gradients are
summed before the weights are updated, so that a step is that of one device with
the whole batch. Every process reads the same data in the same order.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import keras

from ensemble.data.batches import Block
from ensemble.model.fusion import refresh_scales

Step = Callable[[Block], Any]


class Distribution:
    """Who shares a training step; as it stands, nobody: one device of one process.

    A batch that does not divide by the number of devices, such as the last one of an
    epoch, is given to each of them whole, which comes to the same.

    Args:
        replicas: Devices over all processes.
        processes: Number of processes.
        process: Which of them this is, counted from 0.
    """

    def __init__(self, replicas: int = 1, processes: int = 1, process: int = 0) -> None:
        self.replicas = replicas
        self.processes = processes
        self.process = process

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes the run's folder."""
        return self.process == 0

    def scope(self) -> AbstractContextManager[Any]:
        """Makes variables, in a `with` block, that lie on all devices."""
        return nullcontext()

    def replicate(self, model: keras.Model) -> keras.Model:
        """Returns a model that lies on all devices; on a single one the model itself.

        BatchNorm takes its statistics over the whole batch.
        """
        if self.replicas == 1 and self.processes == 1:
            return model
        with self.scope():
            replica = keras.models.clone_model(model, clone_function=_clone, recursive=True)
        self.copy_values(model, replica)
        return replica

    def copy_values(self, source: keras.Model, target: keras.Model) -> None:
        """Gives a model the values of another one's variables, seeds of dropout among them."""
        if source is target:
            return
        for variable, other in zip(_state(target), _state(source), strict=True):
            variable.assign(keras.ops.convert_to_numpy(other))
        refresh_scales(target)

    def round_up(self, batch_size: int) -> int:
        """Returns the next batch size that divides by the number of devices."""
        return -(-batch_size // self.replicas) * self.replicas

    def place(self, block: Block) -> Block:
        """Returns a block as it lies on the devices, where a compiled loop wants it there."""
        return block

    def share(self, step: Step, batch: Block) -> None:
        """Runs a step, within a graph, on each device with its part of a batch."""
        step(batch)

    def count_once(self, model: keras.Model, batch_size: int) -> AbstractContextManager[Any]:
        """Has metrics, in a `with` block, count batches once that several devices got whole."""
        return nullcontext()

    @property
    def replicated(self) -> Any:
        """How a compiled loop's results lie on the devices; None: as it comes."""
        return None


ALONE = Distribution()


class StrategyDistribution(Distribution):
    """TensorFlow's: a `tf.distribute` strategy that mirrors variables."""

    def __init__(self, strategy: Any, processes: int = 1, process: int = 0) -> None:
        super().__init__(strategy.num_replicas_in_sync, processes, process)
        self._strategy = strategy

    def scope(self) -> AbstractContextManager[Any]:
        return self._strategy.scope()

    def share(self, step: Step, batch: Block) -> None:
        import tensorflow as tf

        def take_part() -> None:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            step(keras.tree.map_structure(partial(self._part, number), batch))

        whole = batch.weights.shape[0] % self.replicas
        self._strategy.run(partial(step, batch) if whole else take_part)

    def _part(self, number: Any, array: Any) -> Any:
        return keras.ops.reshape(array, (self.replicas, -1, *array.shape[1:]))[number]

    @contextmanager
    def count_once(self, model: keras.Model, batch_size: int) -> Iterator[None]:
        if batch_size % self.replicas == 0:
            yield
            return
        before = [keras.ops.convert_to_numpy(v) for v in model.metrics_variables]
        yield
        for variable, value in zip(model.metrics_variables, before, strict=True):
            after = keras.ops.convert_to_numpy(variable)
            variable.assign(value + (after - value) / self.replicas)


class MeshDistribution(Distribution):
    """JAX's: arrays over a mesh of devices, each batch cut along its images."""

    def __init__(self, devices: list[Any], processes: int = 1, process: int = 0) -> None:
        super().__init__(len(devices), processes, process)
        self._parallel = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)

    def scope(self) -> AbstractContextManager[Any]:
        return self._parallel.scope()

    @property
    def replicated(self) -> Any:
        return self._sharding()

    def place(self, block: Block) -> Block:
        import jax

        divides = block.weights.shape[1] % self.replicas == 0
        sharding = self._sharding(None, self._parallel.batch_dim_name if divides else None)

        def put(array: Any) -> Any:
            return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])

        return keras.tree.map_structure(put, block)

    def _sharding(self, *axes: str | None) -> Any:
        import jax

        mesh = self._parallel.device_mesh.backend_mesh
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def local_cpu() -> str:
    """Returns the CPU of this process, by the name that Keras knows it by.

    JAX numbers the devices of all processes together.
    """
    if keras.backend.backend() != "jax":
        return "cpu"
    import jax

    return f"cpu:{jax.local_devices(backend='cpu')[0].id}"


def _clone(layer: keras.layers.Layer) -> keras.layers.Layer:
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        # JAX sees the whole batch at once anyway, and knows no such option.
        config["synchronized"] = keras.backend.backend() == "tensorflow"
    return type(layer).from_config(config)


def _state(model: keras.Model) -> list[keras.Variable]:
    return [*model.trainable_variables, *model.non_trainable_variables]
