"""Builds heads on fused feature maps."""

from typing import Any

from keras import KerasTensor
from pydantic import ValidationError

from configs.errors import ConfigError
from configs.fields import read_options
from heads.registry import HEADS


def build_head(name: str, features: KerasTensor, **options: Any) -> KerasTensor:
    """Puts a head on a fused feature map.

    Args:
        name: A registered head, such as "dense".
        features: Map of shape `(batch, h, w, c)`.
        **options: The head's own, such as `dropout=0.3`.

    Returns:
        The input of the logits, shape `(batch, d)`.

    Raises:
        ConfigError: If the head is unknown, or an option unknown or outside its limits.
    """
    spec = HEADS.get(name)
    try:
        options = read_options(spec.build, options)
    except ValidationError as error:
        errors = "; ".join(f"{found['loc'][0]}: {found['msg']}" for found in error.errors())
        raise ConfigError(f"Head {name!r} cannot be built with {options}: {errors}.") from error
    return spec.build(features, **options)
