"""Computation of a model in fewer bits, with float32 weights."""

import keras

from configs.errors import ConfigError, reason_of
from configs.schema import Precision
from ensemble.model.fusion import refresh_scales

# 8 bits of mantissa can hold neither 256 grey levels nor probabilities near 1.
_EXACT_LAYERS = (
    keras.layers.InputLayer,
    keras.layers.Rescaling,
    keras.layers.Normalization,
    keras.layers.Softmax,
)


def in_precision(model: keras.Model, precision: Precision) -> keras.Model:
    """Returns a copy of a functional model, with float32 weights, in another precision.

    Pixels and probabilities stay float32.

    Raises:
        ConfigError: If a layer cannot be rebuilt.

    References:
        Micikevicius et al., Mixed Precision Training, ICLR 2018, arXiv:1710.03740.
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
        raise ConfigError(
            f"{model.name!r} cannot be rebuilt in {precision} ({reason_of(error)}). Use float32."
        ) from error
    return copy
