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

from configs.errors import ConfigError
from configs.schema import TrainingConfig
from ensemble.batches import Block
from ensemble.fusion import refresh_scales

Step = Callable[[Block], Any]

_cluster: list[Any] = []  # the strategy of TensorFlow's processes, which is made once and early


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


class _StrategyDistribution(Distribution):
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


class _MeshDistribution(Distribution):
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


def connect() -> Distribution:
    """Joins the processes that the engine's environment variables name.

    It must come before the backend's first computation, and waits for all of them.

    Returns:
        All devices of all processes.

    Raises:
        ConfigError: If the variables make no sense, a process does not come, or the
            engine cannot share a step between processes.
    """
    backend = keras.backend.backend()
    try:
        match backend:
            case "tensorflow":
                import tensorflow as tf

                if not _cluster:
                    _cluster.append(tf.distribute.MultiWorkerMirroredStrategy())
            case "jax":
                keras.distribution.initialize()
            case _:
                raise ValueError(f"{backend} trains in one process")
    except Exception as error:  # each engine has kinds of its own for it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"The processes of this training cannot be joined ({reason}). For tensorflow set "
            "TF_CONFIG; for jax KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID."
        ) from error
    return _joined() or ALONE


def distribute(config: TrainingConfig) -> Distribution:
    """Returns the distribution that `config.devices` asks for.

    Raises:
        ConfigError: If there are not as many devices, the batch size does not divide by
            their number, or the engine cannot do with several of them what is asked for.
    """
    joined = _joined()
    if joined is not None and config.devices != "all":
        raise ConfigError(
            "`training.devices` must be all where several processes train together. "
            f"Received: {config.devices}."
        )
    distribution = joined or _on_this_machine(config.devices)
    _refuse_unfit(config, distribution)
    return distribution


def local_cpu() -> str:
    """Returns the CPU of this process, by the name that Keras knows it by.

    JAX numbers the devices of all processes together.
    """
    if keras.backend.backend() != "jax":
        return "cpu"
    import jax

    return f"cpu:{jax.local_devices(backend='cpu')[0].id}"


def _joined() -> Distribution | None:
    """Returns all devices of all processes; None if this one is alone."""
    match keras.backend.backend():
        case "tensorflow" if _cluster:
            resolver = _cluster[0].cluster_resolver
            tasks = resolver.cluster_spec().as_dict()
            chiefs = len(tasks.get("chief", []))
            offset = chiefs if resolver.task_type == "worker" else 0
            processes = chiefs + len(tasks.get("worker", []))
            return _StrategyDistribution(_cluster[0], processes, offset + resolver.task_id)
        case "jax":
            import jax

            if jax.process_count() > 1:
                return _MeshDistribution(jax.devices(), jax.process_count(), jax.process_index())
    return None


def _on_this_machine(devices: str) -> Distribution:
    backend = keras.backend.backend()
    if devices == "1":
        return ALONE
    match backend:
        case "tensorflow":
            import tensorflow as tf

            found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
            chosen = _choose([device.name for device in found], devices)
            if len(chosen) > 1:
                return _StrategyDistribution(tf.distribute.MirroredStrategy(chosen))
        case "jax":
            import jax

            chosen = _choose(jax.devices(), devices)
            if len(chosen) > 1:
                return _MeshDistribution(chosen)
        case _:
            raise ConfigError(
                f"`training.devices` must be 1 with the backend {backend}, which trains on one "
                f"device. Received: {devices}. Set KERAS_BACKEND to tensorflow or jax for more."
            )
    return ALONE


def _choose(found: list[Any], devices: str) -> list[Any]:
    if devices == "all":
        return found
    if int(devices) > len(found):
        raise ConfigError(
            f"`training.devices` asks for more devices than there are. Received: {devices}. "
            f"Use at most {len(found)}, or all."
        )
    return found[: int(devices)]


def _refuse_unfit(config: TrainingConfig, distribution: Distribution) -> None:
    count = distribution.replicas
    if config.batch_size % count:
        raise ConfigError(
            f"`training.batch_size` must divide by the number of devices, {count}. "
            f"Received: {config.batch_size}. Use {distribution.round_up(config.batch_size)}."
        )
    if not isinstance(distribution, _StrategyDistribution):
        return
    if config.clip_norm is not None:
        raise ConfigError(
            "`training.clip_norm` goes with one device on tensorflow, where each device would "
            f"clip its own part of the gradient. Received: {config.clip_norm}. Leave it out, or "
            "set KERAS_BACKEND to jax."
        )
    if config.unfreeze and config.fine_tuning.precision == "float16":
        raise ConfigError(
            "`training.fine_tuning.precision` float16 goes with one device on tensorflow. "
            "Use bfloat16, or set KERAS_BACKEND to jax."
        )


def _clone(layer: keras.layers.Layer) -> keras.layers.Layer:
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        # JAX sees the whole batch at once anyway, and knows no such option.
        config["synchronized"] = keras.backend.backend() == "tensorflow"
    return type(layer).from_config(config)


def _state(model: keras.Model) -> list[keras.Variable]:
    return [*model.trainable_variables, *model.non_trainable_variables]
