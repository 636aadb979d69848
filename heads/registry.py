"""The specification of a head and the registry of all heads. Imports no Keras."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from configs.registry import Registry

Initializer = Literal[
    "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal", "lecun_uniform",
    "orthogonal", "random_normal", "random_uniform", "truncated_normal",
]  # fmt: skip
Activation = Literal["relu", "gelu", "elu", "selu", "silu", "tanh"]


@dataclass(frozen=True)
class HeadSpec:
    """A head: the layers between the fused map and the logits.

    Args:
        name: As in `--head`.
        build: From a fused map of shape `(batch, h, w, c)` to `(batch, d)`. Its keyword-only
            arguments are the head's options, which are checked by their annotations.
        summary: One line for the help.
        spatial: Whether it looks at neighbouring positions, which needs the fusion "grid".
    """

    name: str
    build: Callable[..., Any]
    summary: str
    spatial: bool = False


HEADS: Registry[HeadSpec] = Registry("head", package="heads.kinds")


def register_head(spec: HeadSpec) -> HeadSpec:
    """Registers a head, so that its name works in `--head` and everywhere else."""
    return HEADS.register(spec)


def head_names() -> list[str]:
    """Returns the names of all known heads, sorted."""
    return HEADS.names()
