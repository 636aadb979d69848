"""Heads: what turns a fused feature map into the input of the logits.

Listing and registering heads is light; building one loads Keras, on first use.
"""
# ruff: noqa: F401

from importlib import import_module
from typing import TYPE_CHECKING, Any

from heads.registry import HEADS, HeadSpec, head_names, register_head

if TYPE_CHECKING:
    from heads.builder import build_head
    from heads.checks import check_head

_LAZY = {"build_head": "heads.builder", "check_head": "heads.checks"}
__all__ = ["HEADS", "HeadSpec", "head_names", "register_head", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'heads' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
