"""The arithmetic that every result is computed with, whatever the user's keras.json holds."""

from typing import Any

import keras

_FLOATX = "float32"
_IMAGE_DATA_FORMAT = "channels_last"
_EPSILON = 1e-7


def set_arithmetic() -> None:
    """Sets Keras to float32, channels last and epsilon 1e-7, and lifts limits on epochs and steps.

    keras.json and variables such as KERAS_MAX_EPOCHS would change them unseen.
    """
    keras.config.set_floatx(_FLOATX)
    keras.config.set_dtype_policy(_FLOATX)
    keras.config.set_image_data_format(_IMAGE_DATA_FORMAT)
    keras.config.set_epsilon(_EPSILON)
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


def describe_arithmetic() -> dict[str, Any]:
    """Returns the settings of Keras that decide numbers, ready for JSON."""
    return {
        "floatx": keras.config.floatx(),
        "dtype_policy": keras.config.dtype_policy().name,
        "image_data_format": keras.config.image_data_format(),
        "epsilon": keras.config.epsilon(),
    }
