"""OpenCV, which comes with the extra `faces` and is loaded on first need."""

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from configs.errors import ConfigError


def load_opencv(
    needs: str, alternative: str = "use --faces none for images that are face crops already"
) -> ModuleType:
    """Returns the module `cv2`.

    Args:
        needs: Beginning of the message, such as "Videos need".
        alternative: What works without it, in the imperative.

    Raises:
        ConfigError: If it is not installed or does not start.
    """
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            f"{needs} OpenCV ({error}). Install it with `pip install 'opencv-python-headless<5'`, "
            f"or {alternative}."
        ) from error
    return cv2


class PerThread(threading.local):
    """An object of OpenCV that keeps state, built once in each thread that uses it."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self.value = build()
