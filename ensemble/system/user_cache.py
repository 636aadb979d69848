"""The folder of this package in the user's cache."""

from pathlib import Path

from platformdirs import user_cache_path

from configs.errors import StoreError


def user_cache(name: str, instead: str) -> Path:
    """Returns a folder in the user's cache, which need not exist.

    Args:
        name: Name of the folder, such as "features".
        instead: What else to do, for the error, such as "use --cache FOLDER".

    Raises:
        StoreError: If the user has neither a home folder nor a cache.
    """
    try:
        return user_cache_path("multibranch-ensemble", appauthor=False) / name
    except RuntimeError as error:
        raise StoreError(
            f"There is no home folder to keep {name} in. Set HOME or XDG_CACHE_HOME to a folder "
            f"that you can write, or {instead}."
        ) from error
