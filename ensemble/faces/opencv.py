"""OpenCV, which comes with the extra `faces` and is loaded on first need."""

from types import ModuleType

from configs.errors import ConfigError


def load_opencv(detector: str) -> ModuleType:
    """Returns the module `cv2`.

    Args:
        detector: What needs it, for the message.

    Raises:
        ConfigError: If it is not installed or does not start.
    """
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            f"Face detector {detector!r} needs OpenCV ({error}). Install it with "
            "`pip install 'opencv-python-headless<5'`, or use --faces none for images that "
            "are face crops already."
        ) from error
    return cv2
