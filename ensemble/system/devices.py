"""Devices: what the backend computes on, and what to do when their memory is full."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from configs.errors import ConfigError

_FULL = (  # words of the backends, of CUDA's libraries and of the system, without spaces
    "resourceexhausted",
    "outofmemory",
    "allocfailed",
    "allocatememory",
    "dsttensorisnotinitialized",
)


def has_gpu() -> bool:
    """Tells whether the backend computes on anything but the CPU; each names it in its way."""
    return "cpu" not in str(keras.ops.zeros(1).device).lower()


def list_devices() -> list[str]:
    """Returns what the backend computes on, by name.

    Returns:
        The model of each GPU, such as "NVIDIA H100 80GB HBM3", or "GPU" where the
        backend cannot tell; "CPU" where no GPU is used.
    """
    if not has_gpu():
        return ["CPU"]
    return _gpu_names() or ["GPU"]


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error says that a device's memory is full, or the machine's."""
    text = f"{type(error).__name__} {error}".lower().replace("_", "").replace(" ", "")
    return isinstance(error, MemoryError) or any(words in text for words in _FULL)


@contextmanager
def refuse_full_memory(batch_size: int) -> Iterator[None]:
    """Turns an error of full memory in a `with` block into a sentence for the user.

    Args:
        batch_size: Images in a training step.

    Raises:
        ConfigError: With the batch size received and the one to try: half of it,
            or, where a step of two images is too much, other ways out.
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
