"""Paths as users write them."""

from pathlib import Path

from configs.errors import ConfigError


class HomeError(ConfigError, ValueError):
    """A path below a home folder that is not known."""


def expand_home(path: str | Path) -> Path:
    """Replaces a leading `~` or `~user` with that user's home folder.

    Raises:
        HomeError: If the home folder is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise HomeError(
            f"The home folder of {str(path)!r} is not known. Set HOME or write the path in full, "
            f"as ./{path} if a folder bears that name"
        ) from error
