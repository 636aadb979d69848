"""Features of frozen branches: each branch sees each view of each image once, for all runs."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from branches.checksums import architecture_checksum, weights_checksum
from branches.registry import BRANCHES
from configs.errors import ConfigError, StoreError
from configs.schema import Branch
from ensemble.data.loading import Split
from ensemble.data.reading import stream
from ensemble.data.views import View
from ensemble.features.arrays import allocate
from ensemble.features.engines import Engine, EngineName, engine_family, make_engine
from ensemble.features.store import BranchKey, FeatureGroup, FeatureStore
from ensemble.model.precision import Precision
from ensemble.system.progress import progress_bar

log = logging.getLogger(__name__)

Seen = tuple[int, np.ndarray]  # number of a view, and the images seen in it


class _OtherEngineError(Exception):
    """Another engine than the key's runs the branch; the message is its family."""


class FrozenBranch:
    """A branch of an extractor whose features are stored, or else extracted and stored.

    Args:
        extractor: From `build_extractor`.
        label: The branch's label in it.
        store: Where features are kept.
        engine: Who runs the branch; see `make_engine`.
        precision: Of the arithmetic; see `make_engine`.
        dtype: Of the stored numbers, "float32" or "float16".

    Attributes:
        store: As above.
        key: What decides the features. Its engine changes if OpenVINO cannot run the branch.
        engine: Name of what ran the branch; None as long as nothing had to be extracted.
        extracted: Views of images that were extracted.
        reused: Views of images that were stored already.
    """

    def __init__(
        self,
        extractor: keras.Model,
        label: str,
        store: FeatureStore,
        *,
        engine: EngineName = "auto",
        precision: Precision = "float32",
        dtype: str = "float32",
    ) -> None:
        branch = Branch.model_validate(label)
        model, kept = extractor.get_layer(branch.layer_name), extractor.output[label]
        self.label = label
        self.key = BranchKey(
            branch=branch.backbone,
            weights=weights_checksum(model),
            architecture=architecture_checksum(model),
            scaling=BRANCHES.get(branch.backbone).preprocessing,
            image_size=extractor.input_shape[1],
            reduction="map" if kept.shape == model.output.shape else "pooled",
            shape=tuple(kept.shape[1:]),
            precision=precision,
            dtype=dtype,
            engine=engine_family(engine, precision),
        )
        self.engine: str | None = None
        self.extracted = self.reused = 0
        self.store = store
        self._model = keras.Model(extractor.input, kept, name=branch.layer_name)
        self._choice: tuple[EngineName, Precision] = engine, precision
        self._running: Engine | None = None

    def load(self, split: Split, digests: Sequence[bytes], views: Sequence[View]) -> np.ndarray:
        """Returns the features of every view of every image.

        Args:
            split: The images, all readable.
            digests: SHA-256 of each image.
            views: The views.

        Returns:
            Shape `(views, images, h, w, c)`, in the store's dtype. If they are too
            many for the memory they lie in a file that vanishes with the process.

        Raises:
            ConfigError: If a feature is no finite number of that dtype.
            DataError: If an image can no longer be read.
            StoreError: If the store cannot be written or its disk is too full.
        """
        features = allocate(
            (len(views), len(split), *self.key.shape),
            self.key.dtype,
            folder=self.store.open(self.key).folder,
            what=f"Features of branch {self.label!r}",
        )
        self._serve(split, digests, views, features)
        return features

    def fill(self, split: Split, digests: Sequence[bytes], views: Sequence[View]) -> None:
        """Sees to it that the features are stored, in memory that does not grow with the images.

        Takes and raises what `load` does.
        """
        self._serve(split, digests, views, None)

    def _serve(
        self,
        split: Split,
        digests: Sequence[bytes],
        views: Sequence[View],
        features: np.ndarray | None,
    ) -> None:
        try:
            self._serve_by_key(split, digests, views, features)
        except _OtherEngineError as error:
            self.key = replace(self.key, engine=str(error))
            self._serve_by_key(split, digests, views, features)

    def _serve_by_key(
        self,
        split: Split,
        digests: Sequence[bytes],
        views: Sequence[View],
        features: np.ndarray | None,
    ) -> None:
        group = self.store.open(self.key)
        with group.locked(self._log_waiting):
            outs = [None] * len(views) if features is None else features
            found = np.stack(
                [
                    group.read(view.name, digests, _tell_damaged, out)
                    for view, out in zip(views, outs, strict=True)
                ]
            )
            first = _first_of_each(digests)
            missing = ~found & (first == np.arange(len(digests)))
            if missing.any():
                self._announce(int(missing.sum()), missing.size)
                self._extract(group, split, digests, views, missing, features)
            self.reused += int(found.sum())
            self.extracted += int(missing.sum())
        if features is not None:  # an image that occurs twice was seen once
            for view, image in zip(*np.nonzero(~found & ~missing), strict=True):
                features[view, image] = features[view, first[image]]

    def _extract(
        self,
        group: FeatureGroup,
        split: Split,
        digests: Sequence[bytes],
        views: Sequence[View],
        missing: np.ndarray,
        features: np.ndarray | None,
    ) -> None:
        """Runs the branch where `missing`, of shape `(views, images)`, says so."""
        engine = self._start_engine()
        unwritten: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in views]

        writes: deque[Future[None]] = deque()

        def write(view: int) -> None:
            if unwritten[view]:
                images, maps = map(np.concatenate, zip(*unwritten[view], strict=True))
                names = [digests[image] for image in images]
                writes.append(writer.submit(group.add, views[view].name, names, maps))
                unwritten[view].clear()
            while len(writes) > 1:  # the engine need not wait for the disk, but not run far ahead
                writes.popleft().result()

        batches = _batches(split, digests, views, missing, self.key.image_size, engine.batch_size)
        with (
            ThreadPoolExecutor(1) as writer,
            progress_bar(f"Extracting {self.label}", int(missing.sum())) as bar,
        ):
            for (view, images), maps in engine.map(batches):
                stored = self._as_stored(maps)
                if features is not None:
                    features[view, images] = stored
                unwritten[view].append((images, stored))
                if sum(len(images) for images, _ in unwritten[view]) >= self.key.shard_images:
                    write(view)
                bar.update(len(images))
            for view in range(len(views)):
                write(view)
            while writes:
                writes.popleft().result()

    def _start_engine(self) -> Engine:
        if self._running is None:
            choice, precision = self._choice
            self._running = make_engine(self._model, choice, precision=precision)
            self.engine = self._running.name
        if self._running.family != self.key.engine:
            raise _OtherEngineError(self._running.family)
        return self._running

    def _as_stored(self, maps: np.ndarray) -> np.ndarray:
        """Returns features in the store's dtype, which must hold them."""
        if not np.abs(maps).max(initial=0) <= np.finfo(self.key.dtype).max:  # NaN is not
            raise ConfigError(
                f"Features of branch {self.label!r} are no finite numbers of {self.key.dtype}. "
                "Use --features.dtype float32, --features.precision float32 or other --weights."
            )
        return maps.astype(self.key.dtype, copy=False)

    def _announce(self, missing: int, wanted: int) -> None:
        """Tells the work and the room that it takes on the disk, before it begins."""
        needed = missing * self.key.image_bytes
        self._refuse_without_room(needed)
        log.info(
            "%s: %s of %s views of images are to be extracted, %.1f MB in %s",
            self.label,
            f"{missing:,}",
            f"{wanted:,}",
            needed / 1e6,
            self.store.folder,
        )

    def _refuse_without_room(self, needed: int) -> None:
        free = self.store.free_bytes()
        if needed > free:
            raise StoreError(
                f"Features of branch {self.label!r} take {needed / 1e9:.2f} GB, and the disk of "
                f"{self.store.folder} has {free / 1e9:.2f} GB left. Free some space, choose "
                "another folder with --cache, or use --fusion pooled or --features.dtype float16."
            )

    def _log_waiting(self) -> None:
        log.info("%s: waiting for another process that extracts the same features", self.label)


def read_features(
    store: FeatureStore, key: BranchKey, digests: Sequence[bytes], views: Sequence[View]
) -> np.ndarray:
    """Returns features that are stored already, without the branch that made them.

    Args:
        store: Where they are.
        key: What decides them; see `FrozenBranch.key`.
        digests: SHA-256 of each image.
        views: The views.

    Returns:
        Shape `(views, images, h, w, c)`, as `FrozenBranch.load` returns them.

    Raises:
        StoreError: If some are not there any more.
    """
    group = store.open(key)
    features = allocate(
        (len(views), len(digests), *key.shape),
        key.dtype,
        folder=group.folder,
        what=f"Features of branch {key.branch!r}",
    )
    for view, out in zip(views, features, strict=True):
        found = group.read(view.name, digests, _tell_damaged, out)
        if not found.all():
            raise StoreError(
                f"{(~found).sum()} features of branch {key.branch!r} have gone from {store.folder} "
                "since they were stored. Start again, and they are extracted anew."
            )
    return features


def _batches(
    split: Split,
    digests: Sequence[bytes],
    views: Sequence[View],
    missing: np.ndarray,
    image_size: int,
    batch_size: int,
) -> Iterator[tuple[Seen, np.ndarray]]:
    """Yields what is missing, each image decoded once for all of its views."""
    wanted = np.flatnonzero(missing.any(axis=0))
    for rows, pixels in stream(split.select(wanted), image_size, batch_size=batch_size):
        for number, view in enumerate(views):
            chosen = missing[number, wanted[rows]]
            images = wanted[rows][chosen]
            if len(images):
                yield (number, images), view.of(pixels[chosen], [digests[i] for i in images])


def _first_of_each(digests: Sequence[bytes]) -> np.ndarray:
    """Returns for each image the first one with the same content, shape `(images,)`."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, index) for index, digest in enumerate(digests)])


def _tell_damaged(path: Path, reason: str) -> None:
    log.warning("%s is damaged (%s); its features are extracted again", path, reason)
