"""What a head is, and the registry that knows all of them. Imports no Keras."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from configs.registry import Registry

Initializer = Literal[
    "he_normal",
    "he_uniform",
    "glorot_normal",
    "glorot_uniform",
    "lecun_normal",
    "lecun_uniform",
    "orthogonal",
    "random_normal",
    "random_uniform",
    "truncated_normal",
]
Activation = Literal["relu", "gelu", "elu", "selu", "silu", "tanh"]


@dataclass(frozen=True)
class HeadSpec:
    """A head: what stands between the fused map and the logits.

    Args:
        name: As in `--head`.
        build: From a fused map of shape `(batch, h, w, c)` to `(batch, d)`. Its
            keyword-only arguments are the head's options; their annotations
            are checked before anything is built.
        summary: One line that says what it is.
        spatial: True if it looks at neighbouring positions, so that a fusion
            that leaves a single one would waste it.
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
