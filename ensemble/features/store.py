"""Features kept on disk: what frozen branches made of each view of each image.

    FOLDER/vgg16-96px-pooled-float32-1f0c.../      one frozen branch: a group
        about.json                                 what decides its numbers
        view-0/  view-1-9ab2.../                   the images themselves; an augmented view
            0b7e....h5                             some hundred images: a shard

A process may be killed at any moment: shards that are finished stay, the one in
work is recognised and done again.
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

# Goes up when decoding, views or scaling change, so that older numbers are not taken for new.
PIPELINE = 2

_SHARD_BYTES = 16 * 2**20  # of features: about what a kill costs, and not too many files
_SHARD_IMAGES = (32, 256)  # at least and at most

Damaged = Callable[[Path, str], None]  # is told of a damaged shard: where, and what is wrong
Place = tuple[Path, int]  # a shard and a row in it


@dataclass(frozen=True)
class BranchKey:
    """Everything beside image and view that decides the numbers of a frozen branch.

    Args:
        branch: The backbone's name.
        weights: SHA-256 of its weights.
        architecture: SHA-256 of its layers, their settings and connections.
        scaling: How it scales pixels.
        image_size: Height and width of the image, in pixels.
        reduction: What is kept of its map: "pooled" or "map".
        shape: `(h, w, c)` of what is kept.
        precision: Of the arithmetic, such as "float32".
        dtype: Of the stored numbers: "float32" or "float16".
        pipeline: Version of decoding, views and scaling.
        engine: What computes it; see `engine_family`. Empty in stores of earlier versions.
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
        """A folder's name: readable, and another one for every other key."""
        stem = f"{self.branch}-{self.image_size}px-{self.reduction}-{self.dtype}"
        return f"{stem}-{sha256(self.text.encode()).hexdigest()[:16]}"

    @property
    def image_bytes(self) -> int:
        """Bytes that the features of one view of one image take."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def shard_images(self) -> int:
        """Images in a shard."""
        fewest, most = _SHARD_IMAGES
        return min(max(_SHARD_BYTES // self.image_bytes, fewest), most)


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
        """Returns the store's folder, which is there afterwards.

        Raises:
            StoreError: If it cannot be made.
        """
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def open(self, key: BranchKey) -> "FeatureGroup":
        """Returns the features of one frozen branch; makes their folder if there is none.

        Raises:
            StoreError: If the folder cannot be made.
        """
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
        """Returns all groups, by name; folders that are none are passed over."""
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
    """The stored features of one frozen branch.

    Args:
        folder: Where they are.
        key: What decides them.
    """

    def __init__(self, folder: Path, key: BranchKey) -> None:
        self.folder = folder
        self.key = key

    @contextmanager
    def locked(self, waiting: Callable[[], object]) -> Iterator[None]:
        """Keeps other processes from working on the same features for the length of the block.

        Args:
            waiting: Called once if another process has to be waited for.

        Raises:
            StoreError: If the folder cannot be written.
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
        """Reads the features of one view of many images, and checks the shards that hold them.

        A damaged shard is told of and removed; its images count as not stored.

        Args:
            view: Name of the view.
            digests: SHA-256 of each image.
            damaged: Is told of each damaged shard.
            out: Where to put the features, shape `(images, h, w, c)`; None: nowhere.

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
        """Writes a shard; when this returns it will outlive the process.

        Args:
            view: Name of the view.
            digests: SHA-256 of each image.
            features: Shape `(images, h, w, c)`, of the key's dtype.

        Raises:
            StoreError: If it cannot be written, a full disk included.
        """
        folder = self.folder / view
        with _writing(folder):
            folder.mkdir(exist_ok=True)
            write_shard(folder, self.key.text, view, digests, features)

    def verify(self) -> Iterator[tuple[Path, str | None]]:
        """Yields every shard and what is wrong with it, None where it is sound."""
        for path in sorted(self.folder.glob("*/*.h5")):
            try:
                read_shard(path, self.key.text, path.parent.name)
            except ShardError as error:
                yield path, str(error)
            else:
                yield path, None

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
        """Removes the group and everything in it.

        Raises:
            StoreError: If it cannot be removed.
        """
        with _writing(self.folder):
            shutil.rmtree(self.folder)

    def _places(self, view: str) -> tuple[dict[bytes, Place], list[tuple[Path, str]]]:
        """Returns where the features of each image are, and the shards that do not say so."""
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
    """Tells of a file that cannot be written in a sentence."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The stored features in {folder} cannot be written ({error.strerror or error}). "
            "What is finished is kept. Free some space or choose another folder with --cache."
        ) from error
