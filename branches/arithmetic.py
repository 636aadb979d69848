"""The arithmetic of every result, whatever the user's keras.json contains."""

from typing import Any

import keras


def set_arithmetic() -> None:
    """Sets Keras to float32, channels last and epsilon 1e-7, and lifts limits on epochs and steps.

    keras.json and variables such as KERAS_MAX_EPOCHS would change them silently.
    """
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


def describe_arithmetic() -> dict[str, Any]:
    """Returns the settings of Keras that affect results, ready for JSON."""
    return {
        "floatx": keras.config.floatx(),
        "dtype_policy": keras.config.dtype_policy().name,
        "image_data_format": keras.config.image_data_format(),
        "epsilon": keras.config.epsilon(),
    }
