"""The stored features that trials train on."""

import logging
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from configs.schema import ExperimentConfig
from ensemble.data.inspection import (
    check_readable,
    inspect_dataset,
    log_duplicates,
    log_problems,
)
from ensemble.data.views import training_views
from ensemble.faces.store import read_dataset
from ensemble.features.extraction import (
    build_frozen,
    describe_branch,
    fill_branches,
    freeze_branches,
    log_start,
)
from ensemble.features.frozen_branch import read_features
from ensemble.features.store import BranchKey, FeatureStore
from ensemble.runs.records import record_data, record_weights

log = logging.getLogger(__name__)

Maps = Mapping[str, np.ndarray]


class FeatureSet:
    """The features of all trials with the same data, seed and fusion.

    Args:
        config: Settings, with every branch that a trial may have.

    Attributes:
        config: As above.
        dataset: The data.
        images: Its readable images.
        weights: Origin of the branches' weights that were loaded in the end.
        origin: Fingerprints of the images, labels and weights, ready for JSON.

    Raises:
        UserError: If data or weights cannot be used.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        self.dataset = read_dataset(config.data, config.seed)
        self.images = inspect_dataset(self.dataset, config.data)
        log_problems(self.images.problems, "")
        log_duplicates(self.images, "")
        check_readable(self.dataset, self.images)
        log_start(config, self.dataset)
        extractor, model = build_frozen(config, self.dataset)
        self.weights = model.weights
        self.origin = {
            "images or labels": record_data(self.images),
            "weights": record_weights(model, extractor),
        }
        self._branches = freeze_branches(extractor, model, config.features)
        self._keys: dict[str, BranchKey] = {}
        self._maps: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def fill(self) -> None:
        """Extracts and stores the features that are missing.

        Raises:
            UserError: If the store cannot be used.
        """
        fill_branches(self._branches, self.images, self.config)
        for branch in self._branches:
            log.info("%s", describe_branch(branch))
        self._keys = {branch.label: branch.key for branch in self._branches}
        self._branches = []  # frees the networks

    def shapes(self, labels: Sequence[str]) -> dict[str, tuple[int, int, int]]:
        """Returns the shape of each branch's features of an image."""
        return {name: self._keys[name].shape for name in labels}

    def load(self, labels: Sequence[str]) -> tuple[Maps, Maps]:
        """Returns the features of training views and of validation images, read once."""
        views = training_views(self.config.data, self.config.seed)
        store = FeatureStore(self.config.features.directory)
        for name in labels:
            if name not in self._maps:
                key = self._keys[name]
                self._maps[name] = (
                    read_features(store, key, self.images.train.digests, views),
                    read_features(store, key, self.images.validation.digests, views[:1]),
                )
        train = {name: self._maps[name][0] for name in labels}
        return train, {name: self._maps[name][1] for name in labels}

    @property
    def byte_count(self) -> int:
        """Bytes that all features take in memory."""
        count = self.config.data.views * len(self.images.train.readable)
        count += len(self.images.validation.readable)
        return sum(key.image_bytes * count for key in self._keys.values())


def describe_origin(feature_sets: Sequence[FeatureSet]) -> dict[str, object]:
    """Returns what all trials start from, ready for JSON."""
    return {
        "backend": keras.config.backend(),
        "images or labels": [each.origin["images or labels"] for each in feature_sets],
        "weights": [each.origin["weights"] for each in feature_sets],
    }
