"""Branches: backbones that turn an RGB image of 0..255 into one feature map.

Listing and registering branches is light; building one loads Keras, on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from branches.registry import BRANCHES, BranchSpec, branch_names, check_stages, register_branch

if TYPE_CHECKING:
    from branches.builder import build_branch, freeze, thaw
    from branches.checks import check_branch

__all__ = [
    "BRANCHES",
    "BranchSpec",
    "branch_names",
    "build_branch",
    "check_branch",
    "check_stages",
    "freeze",
    "register_branch",
    "thaw",
]

_LAZY = {
    "build_branch": "branches.builder",
    "freeze": "branches.builder",
    "thaw": "branches.builder",
    "check_branch": "branches.checks",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'branches' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
