"""Training of a classifier on stored features: batches, optimizer, early stopping."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from configs.schema import TrainingConfig
from ensemble.batches import Block, LabelledFeatures, draw_order, first_views, read_blocks
from ensemble.fusion import adapt_scales
from ensemble.loops import Loop, evaluation_loop, training_loop
from ensemble.optimizers import build_adam
from ensemble.progress import progress_bar
from ensemble.report import TrainingSummary

log = logging.getLogger(__name__)

_VALIDATION_BATCH = 256  # no gradient is taken, so only the speed depends on it


@dataclass(frozen=True)
class History:
    """What each epoch came to.

    Args:
        epochs: Name such as "val_accuracy" to one value for each epoch.
        best_epoch: The epoch whose weights were kept, counted from 1.
        monitor: What chose it.
    """

    epochs: Mapping[str, Sequence[float]]
    best_epoch: int
    monitor: str

    def rows(self) -> Iterator[tuple[float, ...]]:
        """Yields the number of each epoch and what it came to."""
        for epoch, values in enumerate(zip(*self.epochs.values(), strict=True), start=1):
            yield epoch, *values

    def summary(self) -> TrainingSummary:
        """Returns the best epoch's values."""
        best = {
            name: values[self.best_epoch - 1]
            for name, values in self.epochs.items()
            if name != "seconds"
        }
        return TrainingSummary(len(self.epochs["loss"]), self.best_epoch, self.monitor, best)


def train_classifier(
    classifier: keras.Model,
    train: LabelledFeatures,
    validation: LabelledFeatures,
    config: TrainingConfig,
    *,
    seed: int,
) -> History:
    """Trains a classifier on stored features, with early stopping.

    The best epoch's weights are in the classifier when it returns, and so in
    every model composed of it.

    Args:
        classifier: From `build_classifier`.
        train: What is learned from; one view of each image is drawn an epoch.
        validation: What early stopping watches.
        config: Optimizer, epochs and early stopping.
        seed: Of the data's order and the choice of views.
    """
    adapt_scales(classifier, train.inputs)
    classifier.compile(
        optimizer=build_adam(
            learning_rate=config.learning_rate,
            beta_1=config.beta_1,
            beta_2=config.beta_2,
            epsilon=config.epsilon,
            amsgrad=config.amsgrad,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    recording = keras.callbacks.History()
    stopping = keras.callbacks.EarlyStopping(
        config.monitor, patience=config.patience, restore_best_weights=True
    )
    telling = _EpochTeller(images=len(train.labels))
    callbacks = keras.callbacks.CallbackList(
        [recording, stopping, telling], model=classifier, epochs=config.epochs
    )
    learn, judge = training_loop(classifier), evaluation_loop(classifier)
    classifier.stop_training = False
    callbacks.on_train_begin()
    for epoch in range(config.epochs):
        callbacks.on_epoch_begin(epoch)
        order = draw_order(train, seed=seed, epoch=epoch + 1)
        learnt = _run(learn, classifier, read_blocks(train, order, batch_size=config.batch_size))
        judged = _run(judge, classifier, _validation_blocks(validation))
        callbacks.on_epoch_end(
            epoch, {**learnt, **{f"val_{name}": value for name, value in judged.items()}}
        )
        if classifier.stop_training:
            break
    callbacks.on_train_end()
    epochs = {**recording.history, "seconds": telling.seconds}
    return History(epochs, stopping.best_epoch + 1, config.monitor)


def predict_features(classifier: keras.Model, data: LabelledFeatures) -> np.ndarray:
    """Returns the probabilities of the first view, shape `(images, num_classes)`."""
    return np.concatenate(
        [
            classifier.predict_on_batch({name: maps[step] for name, maps in block.inputs.items()})
            for block in _validation_blocks(data)
            for step in range(len(block.labels))
        ]
    )


def _validation_blocks(data: LabelledFeatures) -> Iterator[Block]:
    return read_blocks(data, first_views(data), batch_size=_VALIDATION_BATCH)


def _run(loop: Loop, classifier: keras.Model, blocks: Iterable[Block]) -> dict[str, Any]:
    """Runs a loop over blocks and returns the classifier's metrics over all of them."""
    classifier.reset_metrics()
    for block in blocks:
        loop(block)
    return classifier.get_metrics_result()


class _EpochTeller(keras.callbacks.Callback):
    """Tells of every epoch: in the log, and on a bar where somebody watches."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self._images = images
        self.seconds: list[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self._bar = progress_bar("Training", self.params["epochs"] * self._images)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(round(time.perf_counter() - self._start, 3))
        told = ", ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        log.info("epoch %d of %d: %s", epoch + 1, self.params["epochs"], told)
        self._bar.set_postfix_str(f"epoch {epoch + 1}")
        self._bar.update(self._images)

    def on_train_end(self, logs: Any = None) -> None:
        self._bar.close()
