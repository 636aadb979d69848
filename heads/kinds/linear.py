"""The linear head: logistic regression on the features."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from heads.registry import HeadSpec, register_head

if TYPE_CHECKING:
    from keras import KerasTensor


def linear(
    features: "KerasTensor",
    *,
    batch_norm: bool = True,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> "KerasTensor":
    """Flatten and BatchNorm, which brings all features to one scale."""
    from keras import layers

    x = layers.Flatten()(features)
    if batch_norm:
        x = layers.BatchNormalization(momentum=momentum)(x)
    return layers.Dropout(dropout)(x) if dropout else x


register_head(HeadSpec("linear", linear, summary="Flatten, BatchNorm: logistic regression"))
