"""Adam in one pass over the weights, with a rate per part of a model."""

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="ensemble")
class FusedAdam(keras.optimizers.Adam):
    """Adam whose update is one operation on TensorFlow, where Keras uses a dozen.

    Settings and results are those of `keras.optimizers.Adam`, to rounding; on
    other backends, which fuse operations themselves, the update is that of Keras.

    Args:
        factors: Multiplier of the learning rate per trainable variable, in the order in which
            the optimizer is built; None: 1.
        settings: As of `keras.optimizers.Adam`.
    """

    def __init__(self, *, factors: Sequence[float] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.factors = factors

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        if self.factors is not None:
            learning_rate = learning_rate * self.factors[index]
        if keras.backend.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        step = tf.cast(self.iterations + 1, variable.dtype)
        arguments = {
            "var": variable.handle,
            "m": self._momentums[index].value.handle,
            "v": self._velocities[index].value.handle,
            "beta1_power": tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            "beta2_power": tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            "lr": tf.cast(learning_rate, variable.dtype),
            "beta1": self.beta_1,
            "beta2": self.beta_2,
            "epsilon": self.epsilon,
            "grad": tf.cast(tf.convert_to_tensor(gradient), variable.dtype),
        }
        if self.amsgrad:
            greatest = self._velocity_hats[index].value.handle
            tf.raw_ops.ResourceApplyAdamWithAmsgrad(vhat=greatest, **arguments)
        else:
            tf.raw_ops.ResourceApplyAdam(**arguments)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factors": self.factors}
