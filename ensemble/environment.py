"""What a result depends on beside its settings: versions, device, code, command."""

import platform
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

from ensemble.devices.devices import list_devices

_PACKAGES = (
    *("keras", "tensorflow", "jax", "torch", "llvmlite", "openvino"),
    *("numpy", "pillow", "scikit-learn", "h5py"),
)


def describe_environment() -> dict[str, Any]:
    """Returns versions, backend, devices, git commit and command line, ready for JSON."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions("multibranch-ensemble", *_PACKAGES),
        "backend": keras.config.backend(),
        "devices": list_devices(),
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
    """Returns the commit of this code, with "+" where it has been changed since."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
