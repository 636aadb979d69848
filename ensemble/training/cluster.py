"""Finds the devices and joins the processes that a training asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from configs.errors import ConfigError, RunError
from configs.schema import TrainingConfig
from ensemble.training.distribution import SINGLE_DEVICE, Distribution

_strategies: list[Any] = []  # of TensorFlow's processes: one, which is made once and early


def connect() -> Distribution:
    """Joins the processes that the engine's environment variables name.

    It must be called before the backend's first computation, and waits for all of them.
    Variables that name only this process, as some services set them, change nothing.

    Returns:
        All devices of all processes.

    Raises:
        ConfigError: If the variables are invalid, a process is missing, or the backend
            cannot share a step between processes.
    """
    backend = keras.backend.backend()
    try:
        match backend:
            case "tensorflow":
                import tensorflow as tf

                if not _strategies and _count_processes(tf) > 1:
                    _strategies.append(tf.distribute.MultiWorkerMirroredStrategy())
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
    return _joined() or SINGLE_DEVICE


def distribute(config: TrainingConfig) -> Distribution:
    """Returns the distribution that `config.devices` asks for.

    Raises:
        ConfigError: If there are not as many devices, the batch size does not divide by
            their number, or a setting does not go with several devices.
    """
    joined = _joined()
    if joined is not None and config.devices != "all":
        raise ConfigError(
            "`training.devices` must be all where several processes train together. "
            f"Received: {config.devices}."
        )
    distribution = joined or _on_this_machine(config.devices)
    _check(config, distribution)
    return distribution


@contextmanager
def notice_loss(distribution: Distribution) -> Iterator[None]:
    """Turns TensorFlow's error for a lost process into a sentence for the user.

    JAX ends the process itself and logs why.

    Raises:
        RunError: If the training cannot go on, since another process has ended.
    """
    try:
        yield
    except Exception as error:  # the same kind is raised by other mishaps
        if distribution.processes == 1 or "Collective ops is aborted" not in str(error):
            raise
        raise RunError(
            "Another process of this training has ended, so this one ends too. Its output says "
            "why; go on by starting all of them with --resume and the run's folder."
        ) from error


def _count_processes(tf: Any) -> int:
    """Returns the number of processes that TF_CONFIG has train together."""
    tasks = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
    return len(tasks.get("chief", [])) + len(tasks.get("worker", []))


def _joined() -> Distribution | None:
    """Returns all devices of all processes; None if this one is alone."""
    match keras.backend.backend():
        case "tensorflow" if _strategies:
            resolver = _strategies[0].cluster_resolver
            tasks = resolver.cluster_spec().as_dict()
            chiefs = len(tasks.get("chief", []))
            offset = chiefs if resolver.task_type == "worker" else 0
            return _mirror(
                _strategies[0], chiefs + len(tasks.get("worker", [])), offset + resolver.task_id
            )
        case "jax":
            import jax

            if jax.process_count() > 1:
                return _parallel(jax.devices(), jax.process_count(), jax.process_index())
    return None


def _on_this_machine(devices: str) -> Distribution:
    backend = keras.backend.backend()
    if devices == "1":
        return SINGLE_DEVICE
    match backend:
        case "tensorflow":
            import tensorflow as tf

            found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
            chosen = _choose([device.name for device in found], devices)
            if len(chosen) > 1:
                return _mirror(tf.distribute.MirroredStrategy(chosen))
        case "jax":
            import jax

            chosen = _choose(jax.devices(), devices)
            if len(chosen) > 1:
                return _parallel(chosen)
        case _:
            raise ConfigError(
                f"`training.devices` must be 1 with the backend {backend}, which trains on one "
                f"device. Received: {devices}. Set KERAS_BACKEND to tensorflow or jax for more."
            )
    return SINGLE_DEVICE


def _mirror(strategy: Any, processes: int = 1, process: int = 0) -> Distribution:
    return Distribution(strategy, strategy.num_replicas_in_sync, processes, process)


def _parallel(devices: list[Any], processes: int = 1, process: int = 0) -> Distribution:
    parallel = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    return Distribution(parallel, len(devices), processes, process)


def _choose(found: list[Any], devices: str) -> list[Any]:
    if devices == "all":
        return found
    if int(devices) > len(found):
        raise ConfigError(
            f"`training.devices` asks for more devices than there are. Received: {devices}. "
            f"Use at most {len(found)}, or all."
        )
    return found[: int(devices)]


def _check(config: TrainingConfig, distribution: Distribution) -> None:
    """Raises ConfigError for settings that do not go with the distribution or the backend."""
    count, backend = distribution.replicas, keras.backend.backend()
    if config.batch_size % count:
        raise ConfigError(
            f"`training.batch_size` must divide by the number of devices, {count}. "
            f"Received: {config.batch_size}. Use {distribution.round_up(config.batch_size)}."
        )
    precision = config.fine_tuning.precision if config.unfreeze else "float32"
    mirrored = backend == "tensorflow" and distribution.strategy is not None
    scaled = precision if precision == "float16" else None
    for name, value, place, refused in (
        ("jit_compile", config.jit_compile, "tensorflow and jax", backend == "torch"),
        ("jit_compile", config.jit_compile, "one device on tensorflow", mirrored),
        ("clip_norm", config.clip_norm, "one device on tensorflow", mirrored),
        ("fine_tuning.precision", scaled, "one device on tensorflow", mirrored),
    ):
        if refused and value:
            raise ConfigError(
                f"`training.{name}` goes with {place}. Received: {value}, with the backend "
                f"{backend}. Leave it out, or set KERAS_BACKEND to jax."
            )
