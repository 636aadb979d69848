"""Calls from within compiled steps to Python."""

import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def call_host(
    method: Callable[..., np.ndarray], *tensors: Any, shape: tuple[int, ...], dtype: str
) -> Any:
    """Has a method compute a tensor, in steps that run on the CPU; no gradient passes.

    It is called once each time the step gets there, in the order of the steps.

    Args:
        method: From NumPy arrays to one; it must not call the backend. Its object must
            be held elsewhere, since steps, which TensorFlow never forgets, do not hold it.
        tensors: Its arguments.
        shape: Of what it returns.
        dtype: Of what it returns.
    """
    tensors = tuple(map(keras.ops.stop_gradient, tensors))
    find_method = weakref.WeakMethod(method)

    def call(*values: Any) -> np.ndarray:
        found = find_method()
        assert found is not None
        return found(*map(np.asarray, values))

    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            return tf.ensure_shape(tf.numpy_function(call, tensors, dtype), shape)
        case "jax":
            import jax
            from jax.experimental import io_callback

            return io_callback(call, jax.ShapeDtypeStruct(shape, dtype), *tensors, ordered=True)
        case _:
            return keras.ops.convert_to_tensor(call(*map(keras.ops.convert_to_numpy, tensors)))
