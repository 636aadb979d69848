"""Frozen branches: each extracts the features of each view of each image once, for all runs."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import keras
import numpy as np

from branches.checksums import architecture_checksum, weights_checksum
from branches.registry import BRANCHES
from configs.errors import ConfigError, StoreError
from configs.schema import Branch, EngineName, Precision
from ensemble.data.loading import Split
from ensemble.data.reading import stream
from ensemble.data.views import View
from ensemble.features.arrays import allocate
from ensemble.features.engines import Engine, engine_family, make_engine
from ensemble.features.store import BranchKey, FeatureGroup, FeatureStore
from ensemble.system.progress import progress_bar

log = logging.getLogger(__name__)


class FrozenBranch:
    """A branch of an extractor whose features are read from a store, or extracted and stored.

    Args:
        extractor: From `build_extractor`.
        label: The branch's label in it.
        store: Where features are kept.
        engine: Engine that runs the branch; see `make_engine`.
        precision: Precision of the computation; see `make_engine`.
        dtype: Type of the stored numbers, "float32" or "float16".

    Attributes:
        store: As above.
        key: What decides the features. Its engine changes if OpenVINO cannot run the branch.
        engine: Name of the engine that ran; None if nothing had to be extracted.
        extracted: Number of views of images that were extracted.
        reused: Number of views of images that were stored already.
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

    def load(self, split: Split, digests: Sequence[bytes], views: Sequence[View]) -> np.ndarray:
        """Returns the features of every view of every image.

        Args:
            split: The images, all readable.
            digests: SHA-256 of each image.
            views: The views.

        Returns:
            Shape `(views, images, h, w, c)`, in the store's dtype. If it is too large for
            memory, it is in a file that is removed when the process ends.

        Raises:
            ConfigError: If a feature is not a finite number of that dtype.
            DataError: If an image can no longer be read.
            StoreError: If the store cannot be written or its disk is too full.
        """
        features = _allocate(self.store, self.key, len(views), len(split))
        self._serve(_Work(split, digests, views, features))
        return features

    def fill(self, split: Split, digests: Sequence[bytes], views: Sequence[View]) -> None:
        """Stores the features, in memory that does not grow with the images; see `load`."""
        self._serve(_Work(split, digests, views, None))

    def _serve(self, work: "_Work") -> None:
        """Reads what is stored and extracts the rest."""
        group = self.store.open(self.key)
        with group.locked(self._log_waiting):
            found = _read(group, work)
            missing = ~found & (work.first == np.arange(len(work.digests)))
            other_engine = missing.any() and self._runner.family != self.key.engine
            if missing.any() and not other_engine:
                self._check_room(int(missing.sum()), missing.size)
                self._extract(group, work, missing)
        if other_engine:
            self.key = replace(self.key, engine=self._runner.family)
            self._serve(work)
            return
        self.reused += int(found.sum())
        self.extracted += int(missing.sum())
        if work.features is not None:
            for view, image in zip(*np.nonzero(~found & ~missing), strict=True):
                work.features[view, image] = work.features[view, work.first[image]]

    @cached_property
    def _runner(self) -> Engine:
        engine, precision = self._choice
        return make_engine(self._model, engine, precision=precision)

    def _extract(self, group: FeatureGroup, work: "_Work", missing: np.ndarray) -> None:
        """Runs the branch on what is missing, an array of shape `(views, images)`."""
        self.engine = self._runner.name
        unwritten: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in work.views]
        writes: deque[Future[None]] = deque()

        def write(view: int) -> None:
            if unwritten[view]:
                images, maps = map(np.concatenate, zip(*unwritten[view], strict=True))
                names = [work.digests[image] for image in images]
                writes.append(writer.submit(group.add, work.views[view].name, names, maps))
                unwritten[view].clear()
            while len(writes) > 1:  # the engine runs at most one shard ahead of the disk
                writes.popleft().result()

        batches = work.batches(missing, self.key.image_size, self._runner.batch_size)
        with (
            ThreadPoolExecutor(1) as writer,
            progress_bar(f"Extracting {self.label}", int(missing.sum())) as bar,
        ):
            for (view, images), maps in self._runner.map(batches):
                stored = self._as_stored(maps)
                if work.features is not None:
                    work.features[view, images] = stored
                unwritten[view].append((images, stored))
                if sum(len(images) for images, _ in unwritten[view]) >= self.key.shard_images:
                    write(view)
                bar.update(len(images))
            for view in range(len(work.views)):
                write(view)
            while writes:
                writes.popleft().result()

    def _as_stored(self, maps: np.ndarray) -> np.ndarray:
        if not np.abs(maps).max(initial=0) <= np.finfo(self.key.dtype).max:  # NaN is not
            raise ConfigError(
                f"Features of branch {self.label!r} are not finite numbers of {self.key.dtype}. "
                "Use --features.dtype float32, --features.precision float32 or other --weights."
            )
        return maps.astype(self.key.dtype, copy=False)

    def _check_room(self, missing: int, wanted: int) -> None:
        """Checks that the disk has room for the missing features, and logs what is extracted."""
        needed, free = missing * self.key.image_bytes, self.store.free_bytes()
        if needed > free:
            raise StoreError(
                f"Features of branch {self.label!r} take {needed / 1e9:.2f} GB, and the disk of "
                f"{self.store.folder} has {free / 1e9:.2f} GB left. Free some space, choose "
                "another folder with --cache, or use --fusion pooled or --features.dtype float16."
            )
        log.info(
            "%s: extracting %s of %s views of images, %.1f MB in %s",
            self.label,
            f"{missing:,}",
            f"{wanted:,}",
            needed / 1e6,
            self.store.folder,
        )

    def _log_waiting(self) -> None:
        log.info("%s: waiting for another process that extracts the same features", self.label)


def read_features(
    store: FeatureStore, key: BranchKey, digests: Sequence[bytes], views: Sequence[View]
) -> np.ndarray:
    """Returns features that are stored already, as `FrozenBranch.load` returns them.

    Args:
        store: Where they are.
        key: What decides them; see `FrozenBranch.key`.
        digests: SHA-256 of each image.
        views: The views.

    Raises:
        StoreError: If some are no longer stored.
    """
    features = _allocate(store, key, len(views), len(digests))
    group = store.open(key)
    for view, out in zip(views, features, strict=True):
        found = group.read(view.name, digests, _log_damaged, out)
        if not found.all():
            raise StoreError(
                f"{(~found).sum()} features of branch {key.branch!r} have gone from {store.folder} "
                "since they were stored. Start again, and they are extracted again."
            )
    return features


@dataclass(frozen=True, eq=False)
class _Work:
    """Views of images, and the array for their features or None."""

    split: Split
    digests: Sequence[bytes]
    views: Sequence[View]
    features: np.ndarray | None

    @cached_property
    def first(self) -> np.ndarray:
        """For each image the first one with the same content, shape `(images,)`."""
        first: dict[bytes, int] = {}
        return np.array([first.setdefault(digest, i) for i, digest in enumerate(self.digests)])

    def batches(
        self, missing: np.ndarray, image_size: int, batch_size: int
    ) -> Iterator[tuple[tuple[int, np.ndarray], np.ndarray]]:
        """Yields what is missing, each image decoded once: number of the view, images; pixels."""
        wanted = np.flatnonzero(missing.any(axis=0))
        for rows, pixels in stream(self.split.select(wanted), image_size, batch_size=batch_size):
            for number, view in enumerate(self.views):
                chosen = missing[number, wanted[rows]]
                images = wanted[rows][chosen]
                if len(images):
                    seen = view.of(pixels[chosen], [self.digests[i] for i in images])
                    yield (number, images), seen


def _read(group: FeatureGroup, work: _Work) -> np.ndarray:
    """Reads what is stored; returns whether it was found, shape `(views, images)`."""
    outs = [None] * len(work.views) if work.features is None else work.features
    return np.stack(
        [
            group.read(view.name, work.digests, _log_damaged, out)
            for view, out in zip(work.views, outs, strict=True)
        ]
    )


def _allocate(store: FeatureStore, key: BranchKey, views: int, images: int) -> np.ndarray:
    return allocate(
        (views, images, *key.shape),
        key.dtype,
        folder=store.open(key).folder,
        what=f"Features of branch {key.branch!r}",
    )


def _log_damaged(path: Path, reason: str) -> None:
    log.warning("%s is damaged (%s); its features are extracted again", path, reason)
