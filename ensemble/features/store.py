"""The store of features on disk: features of each view of each image from frozen branches.

    FOLDER/vgg16-96px-pooled-float32-1f0c.../      group: one frozen branch
        about.json                                 key: what decides its features
        view-0/  view-1-9ab2.../                   the images themselves; an augmented view
            0b7e....h5                             shard: some hundred images

If a process is killed, finished shards are kept.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from configs.errors import StoreError
from configs.files import expand_home
from ensemble.features.shards import (
    ShardError,
    read_digests,
    read_shard,
    write_shard,
)
from ensemble.system.files import remove_parts, write_atomic
from ensemble.system.locks import locked
from ensemble.system.user_cache import user_cache

PIPELINE = 2  # version of decoding, views and scaling; a change makes older features outdated

_SHARD_BYTES = 16 * 2**20  # of features: lost by a kill at most
_MIN_SHARD_IMAGES, _MAX_SHARD_IMAGES = 32, 256

Damaged = Callable[[Path, str], None]  # called with the path of a damaged shard and the reason
Place = tuple[Path, int]  # a shard and a row in it


@dataclass(frozen=True)
class BranchKey:
    """Everything except image and view that decides the features of a frozen branch.

    Args:
        branch: The backbone's name.
        weights: SHA-256 of its weights.
        architecture: SHA-256 of its layers, their settings and connections.
        scaling: Scaling of its pixels.
        image_size: Height and width of the image, in pixels.
        reduction: What is kept of its map: "pooled" or "map".
        shape: `(h, w, c)` of what is kept.
        precision: Precision of the computation, such as "float32".
        dtype: Type of the stored numbers: "float32" or "float16".
        pipeline: Version of decoding, views and scaling.
        engine: Family of the engine; see `engine_family`. Empty in stores of earlier versions.
    """

    branch: str
    weights: str
    architecture: str
    scaling: str
    image_size: int
    reduction: str
    shape: tuple[int, int, int]
    precision: str = "float32"
    dtype: str = "float32"
    pipeline: int = PIPELINE
    engine: str = ""

    @property
    def text(self) -> str:
        """The key as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def name(self) -> str:
        """Readable and unique name of the group's folder."""
        stem = f"{self.branch}-{self.image_size}px-{self.reduction}-{self.dtype}"
        return f"{stem}-{sha256(self.text.encode()).hexdigest()[:16]}"

    @property
    def image_bytes(self) -> int:
        """Bytes per view of an image."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def shard_images(self) -> int:
        """Images in a shard."""
        images = _SHARD_BYTES // self.image_bytes
        return min(max(images, _MIN_SHARD_IMAGES), _MAX_SHARD_IMAGES)


class FeatureStore:
    """A folder of features, shared by runs and by processes.

    Args:
        folder: None: a folder in the user's cache.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (
            user_cache("features", "use --cache FOLDER or ENSEMBLE_CACHE")
            if folder is None
            else expand_home(folder)
        )

    def make_folder(self) -> Path:
        """Returns the store's folder, which is made if necessary."""
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def open(self, key: BranchKey) -> "FeatureGroup":
        """Returns the features of one frozen branch, in a folder that is made if necessary."""
        group = FeatureGroup(self.folder / key.name, key)
        with _writing(group.folder):
            group.folder.mkdir(parents=True, exist_ok=True)
            about = group.folder / "about.json"
            if about.exists():
                about.touch()  # see `last_used`
            else:
                write_atomic(about, f"{key.text}\n".encode())
        return group

    def groups(self) -> "list[FeatureGroup]":
        """Returns all groups, by name."""
        found = []
        for path in sorted(self.folder.glob("*/about.json")):
            try:
                about = json.loads(path.read_text("utf-8"))
                key = BranchKey(**{**about, "shape": tuple(about["shape"])})
            except (OSError, ValueError, TypeError, KeyError):
                continue
            found.append(FeatureGroup(path.parent, key))
        return found

    def free_bytes(self) -> int:
        """Returns the free bytes of the disk that the store lies on."""
        folders = (self.folder, *self.folder.absolute().parents)
        return shutil.disk_usage(next(folder for folder in folders if folder.exists())).free


class FeatureGroup:
    """The stored features of one frozen branch, whose key decides them."""

    def __init__(self, folder: Path, key: BranchKey) -> None:
        self.folder = folder
        self.key = key

    @contextmanager
    def locked(self, waiting: Callable[[], object]) -> Iterator[None]:
        """Keeps other processes from working on the same features during a `with` block.

        Args:
            waiting: Called once if another process has to be waited for.
        """
        with ExitStack() as stack:
            with _writing(self.folder):
                stack.enter_context(locked(self.folder / "lock", waiting=waiting))
            remove_parts(self.folder)
            yield

    def read(
        self,
        view: str,
        digests: Sequence[bytes],
        damaged: Damaged,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Reads the features of one view of many images, and removes damaged shards.

        Args:
            view: Name of the view.
            digests: SHA-256 of each image.
            damaged: Called for each damaged shard.
            out: Output array of shape `(images, h, w, c)`; None: the shards are only checked.

        Returns:
            Whether an image's features were found, shape `(images,)`.
        """

        def discard(path: Path, reason: str) -> None:
            damaged(path, reason)
            path.unlink(missing_ok=True)

        places, broken = self._places(view)
        for path, reason in broken:
            discard(path, reason)
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for index, digest in enumerate(digests):
            if digest in places:
                path, row = places[digest]
                wanted.setdefault(path, []).append((index, row))
        found = np.zeros(len(digests), bool)
        for path, pairs in wanted.items():
            try:
                features = read_shard(path, self.key.text, view)
            except ShardError as error:
                discard(path, str(error))
                continue
            indices, rows = np.array(pairs).T
            found[indices] = True
            if out is not None:
                out[indices] = features[rows]
        return found

    def add(self, view: str, digests: Sequence[bytes], features: np.ndarray) -> None:
        """Writes a shard of features of shape `(images, h, w, c)` and of the key's dtype.

        Raises:
            StoreError: If it cannot be written, a full disk included.
        """
        folder = self.folder / view
        with _writing(folder):
            folder.mkdir(exist_ok=True)
            write_shard(folder, self.key.text, view, digests, features)

    def verify(self) -> Iterator[tuple[Path, str | None]]:
        """Yields every shard, and why it cannot be used or None."""
        for path in sorted(self.folder.glob("*/*.h5")):
            reason = None
            try:
                read_shard(path, self.key.text, path.parent.name)
            except ShardError as error:
                reason = str(error)
            yield path, reason

    def views(self) -> list[str]:
        """Returns the names of the views, sorted."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir())

    def image_count(self) -> int:
        """Returns the number of different images."""
        return len({digest for view in self.views() for digest in self._places(view)[0]})

    def byte_count(self) -> int:
        """Returns the bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def last_used(self) -> float:
        """Returns when the group was last opened, in seconds since 1970."""
        return (self.folder / "about.json").stat().st_mtime

    def remove(self) -> None:
        """Removes the group; a StoreError if that fails."""
        with _writing(self.folder):
            shutil.rmtree(self.folder)

    def _places(self, view: str) -> tuple[dict[bytes, Place], list[tuple[Path, str]]]:
        """Returns where the features of each image are, and the shards that cannot be opened."""
        places: dict[bytes, Place] = {}
        broken = []
        for path in sorted((self.folder / view).glob("*.h5")):
            try:
                places |= {digest: (path, row) for row, digest in enumerate(read_digests(path))}
            except ShardError as error:
                broken.append((path, str(error)))
        return places, broken


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Converts errors of writing to user errors."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The stored features in {folder} cannot be written ({error.strerror or error}). "
            "What is finished is kept. Free some space or choose another folder with --cache."
        ) from error
