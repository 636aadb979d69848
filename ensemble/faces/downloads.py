"""Model files that are downloaded once and verified by their checksum."""

import http.client
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from branches.checksums import file_checksum
from configs.errors import WeightsError
from configs.files import expand_home
from ensemble.system.files import atomic_path
from ensemble.system.user_cache import user_cache

_TIMEOUT = 20  # seconds without a byte before a download is given up
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Download:
    """A file on the network; `sha256` is its checksum in hexadecimal."""

    name: str
    url: str
    sha256: str


def find_download(wanted: Download, given: Path | None = None) -> Path:
    """Returns the path of a file: as given, in the user's cache, or downloaded into it.

    Raises:
        WeightsError: If it is not available; the message lists alternatives.
    """
    if given is not None:
        path = expand_home(given)
        if not path.is_file():
            raise WeightsError(f"There is no file {given}. Name {wanted.name} with --face-model.")
        return path
    path = user_cache("models", "use --face-model FILE") / wanted.name
    if not path.is_file() or file_checksum(path) != wanted.sha256:
        _download(wanted, path)
    return path


def _download(wanted: Download, path: Path) -> None:
    try:
        with (
            atomic_path(path) as part,
            urllib.request.urlopen(wanted.url, timeout=_TIMEOUT) as response,
        ):
            part.write_bytes(response.read(_MAX_BYTES))
            if file_checksum(part) != wanted.sha256:
                raise OSError("what came has another checksum")
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise WeightsError(
            f"The face model {wanted.name} cannot be downloaded ({reason}). Connect to the "
            f"network once; or fetch it from {wanted.url} and name it with --face-model FILE; or "
            "use --faces haar, which needs no download."
        ) from error
