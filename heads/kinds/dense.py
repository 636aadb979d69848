"""The study's head: one hidden layer on the flattened map."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from heads.registry import Activation, HeadSpec, Initializer, register_head

if TYPE_CHECKING:
    from keras import KerasTensor


def dense(
    features: "KerasTensor",
    *,
    units: Annotated[int, Field(ge=1)] = 512,
    activation: Activation = "relu",
    kernel_initializer: Initializer = "he_normal",
    batch_norm: bool = True,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
) -> "KerasTensor":
    """Flatten, Dense, BatchNorm, Dropout.

    With Keras's momentum of 0.99, moving statistics of a few hundred images lag twenty epochs
    behind the weights, which spoils the validation that early stopping watches.

    References:
        He et al., Delving Deep into Rectifiers, ICCV 2015, for the initializer.
    """
    from keras import layers

    x = layers.Flatten()(features)
    x = layers.Dense(units, activation=activation, kernel_initializer=kernel_initializer)(x)
    if batch_norm:
        x = layers.BatchNormalization(momentum=momentum)(x)
    return layers.Dropout(dropout)(x) if dropout else x


register_head(
    HeadSpec("dense", dense, summary="Flatten, Dense(512, relu, he_normal), BatchNorm, Dropout")
)
