"""Versions, devices, code and command, on which a result depends besides its settings."""

import platform
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

from branches.arithmetic import describe_arithmetic
from ensemble.system.cores import count_cores
from ensemble.system.devices import list_devices
from ensemble.system.limits import memory_limit

_PACKAGES = (
    *("keras", "tensorflow", "jax", "torch", "openvino"),
    *("numpy", "pillow", "scikit-learn", "h5py"),
)


def describe_environment() -> dict[str, Any]:
    """Returns versions, backend, arithmetic, machine, git commit and command, ready for JSON."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions("multibranch-ensemble", *_PACKAGES),
        "backend": keras.config.backend(),
        "arithmetic": describe_arithmetic(),
        "devices": list_devices(),
        "cores": count_cores(),
        "memory": memory_limit(),
        "git_commit": _git_commit(),
        "command": sys.argv,
    }


def package_versions(*packages: str) -> dict[str, str]:
    """Returns the versions of those packages that are installed, by name."""
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _git_commit() -> str | None:
    """Returns the commit of this code, with "+" for changes; None if the code is not tracked."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
