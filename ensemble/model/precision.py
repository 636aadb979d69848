"""A model's arithmetic in fewer bits, its weights in float32."""

from typing import Literal

import keras

from configs.errors import ConfigError
from ensemble.model.fusion import refresh_scales

Precision = Literal["float32", "bfloat16", "float16"]

# 8 bits of mantissa can hold neither 256 grey levels nor probabilities near 1.
_EXACT_LAYERS = (
    keras.layers.InputLayer,
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.Softmax,
)


def in_precision(model: keras.Model, precision: Precision) -> keras.Model:
    """Returns a copy of a model that computes in another precision.

    Micikevicius et al., Mixed Precision Training, ICLR 2018, arXiv:1710.03740.

    Args:
        model: A functional model; it may hold others.
        precision: For "bfloat16" and "float16" pixels and probabilities stay float32.

    Returns:
        A model with weights of its own, in float32, of the same values.

    Raises:
        ConfigError: If a layer cannot be rebuilt.
    """
    policy = "float32" if precision == "float32" else f"mixed_{precision}"

    def clone(layer: keras.Operation) -> keras.Operation:
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation holds nothing
        config = layer.get_config()
        exact = isinstance(layer, _EXACT_LAYERS)
        return type(layer).from_config(config if exact else {**config, "dtype": policy})

    try:
        copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
        copy.set_weights(model.get_weights())
        refresh_scales(copy)
    except Exception as error:  # layers of a user's own fail in ways of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"{model.name!r} cannot be rebuilt in {precision} ({reason}). Use float32."
        ) from error
    return copy
