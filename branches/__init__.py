"""Branches: backbones that turn an RGB image of 0..255 into one feature map.

Listing and registering branches is light; building one loads Keras, on first use.
"""
# ruff: noqa: F401

from importlib import import_module
from typing import TYPE_CHECKING, Any

from branches.registry import BRANCHES, BranchSpec, branch_names, check_stages, register_branch

if TYPE_CHECKING:
    from branches.builder import build_branch, freeze, thaw, unfreeze
    from branches.checks import check_branch

_LAZY = {
    "build_branch": "branches.builder",
    "check_branch": "branches.checks",
    "freeze": "branches.builder",
    "thaw": "branches.builder",  # `unfreeze` in 0.1
    "unfreeze": "branches.builder",
}
__all__ = ["BRANCHES", "BranchSpec", "branch_names", "check_stages", "register_branch", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'branches' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
