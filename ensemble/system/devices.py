"""Devices of the backend, and errors when their memory is full."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from configs.errors import ConfigError

_FULL = (  # messages of backends, CUDA's libraries and the system, without spaces
    "resourceexhausted",
    "outofmemory",
    "allocfailed",
    "allocatememory",
    "dsttensorisnotinitialized",
)


def has_gpu() -> bool:
    """Returns whether the backend computes on anything but the CPU."""
    return "cpu" not in str(keras.ops.zeros(1).device).lower()


def list_devices() -> list[str]:
    """Returns the model of each GPU, such as "NVIDIA H100 80GB HBM3", or "CPU".

    "GPU" stands for one whose model the backend does not report.
    """
    if not has_gpu():
        return ["CPU"]
    return _gpu_names() or ["GPU"]


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means that the memory of a device or the machine is full."""
    text = f"{type(error).__name__} {error}".lower().replace("_", "").replace(" ", "")
    return isinstance(error, MemoryError) or any(words in text for words in _FULL)


@contextmanager
def convert_memory_errors(batch_size: int) -> Iterator[None]:
    """Converts an error of full memory in a `with` block to a user error.

    Args:
        batch_size: Images per update.

    Raises:
        ConfigError: With the batch size received and a smaller one to try, if there is one.
    """
    try:
        yield
    except Exception as error:  # each backend has a class of its own for it
        if not is_out_of_memory(error):
            raise
        smaller = max(batch_size // 2, 2)
        way_out = "a smaller --image-size, fewer --branches or --fusion pooled"
        if smaller < batch_size:
            way_out = f"--batch-size {smaller}"
        raise ConfigError(
            f"`training.batch_size` is too large for the memory of {list_devices()[0]}. "
            f"Received: {batch_size}. Use {way_out}."
        ) from error


def _gpu_names() -> list[str]:
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            details = tf.config.experimental.get_device_details
            gpus = tf.config.list_physical_devices("GPU")
            return [details(gpu).get("device_name", gpu.name) for gpu in gpus]
        case "jax":
            import jax

            return [device.device_kind for device in jax.local_devices()]
        case "torch":
            import torch

            return [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return []
