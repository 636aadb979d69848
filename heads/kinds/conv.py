"""The convolutional head: looks at neighbouring positions of all branches together."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from heads.registry import Activation, HeadSpec, Initializer, register_head

if TYPE_CHECKING:
    from keras import KerasTensor


def conv(
    features: "KerasTensor",
    *,
    filters: Annotated[int, Field(ge=1)] = 256,
    activation: Activation = "relu",
    kernel_initializer: Initializer = "he_normal",
    batch_norm: bool = True,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
) -> "KerasTensor":
    """Conv2D 3x3, BatchNorm, activation, global average, Dropout."""
    from keras import layers

    x = layers.Conv2D(filters, 3, padding="same", kernel_initializer=kernel_initializer)(features)
    if batch_norm:
        x = layers.BatchNormalization(momentum=momentum)(x)
    x = layers.Activation(activation)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dropout(dropout)(x) if dropout else x


register_head(
    HeadSpec(
        "conv", conv, summary="Conv2D(256, 3x3), BatchNorm, relu, global average", spatial=True
    )
)
