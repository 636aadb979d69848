"""The training of a phase with early stopping, that can be interrupted and gone on with."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from configs.errors import ConfigError
from configs.schema import TrainingConfig
from ensemble.data.batches import Block, Examples, first_views, read_blocks
from ensemble.model.fusion import refresh_scales
from ensemble.system.devices import convert_memory_errors
from ensemble.system.progress import progress_bar
from ensemble.training.compilation import compile_model, make_schedule
from ensemble.training.distribution import ALONE, Distribution
from ensemble.training.epochs import Phase, seed_of, training_blocks, validation_blocks
from ensemble.training.history import History, Progress
from ensemble.training.interrupts import Interrupts
from ensemble.training.loops import Loop, evaluation_loop, training_loop

log = logging.getLogger(__name__)

_EXPLOSION = 5.0  # times the loss of equal probabilities, which no useful training reaches

# What Keras's callbacks count from epoch to epoch.
_COUNTERS = {
    *("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter"),
    "_ema_weights_in_model",
}


def train_model(
    model: keras.Model,
    train: Examples,
    validation: Examples,
    config: TrainingConfig,
    *,
    seed: int,
    phase: Phase | None = None,
    history: History | None = None,
    resume: Progress | None = None,
    keep: Callable[[Progress], object] | None = None,
    trackers: Sequence[keras.callbacks.Callback] = (),
    distribution: Distribution = ALONE,
) -> History:
    """Trains a model for a phase, with early stopping.

    The best epoch's weights are in the model when it returns, and so in every
    model composed of it. An epoch of an earlier phase counts among them: if no
    epoch of this one is better, the weights are what they were.

    Args:
        model: From inputs to class probabilities.
        train: What is learned from; one view of each image is drawn an epoch.
        validation: What early stopping watches.
        config: Optimizer, loss and early stopping.
        seed: Of the data's order, the views and the augmentation.
        phase: What `config` says of the head alone, if None.
        history: Earlier phases' epochs.
        resume: Where this phase stood when it was broken off.
        keep: Called with where it stands after each epoch.
        trackers: Told of every epoch too.
        distribution: Who shares the steps; the same history comes of it, dropout aside.

    Returns:
        The epochs of earlier phases and of this one.

    Raises:
        ConfigError: If the training diverges.
        KeyboardInterrupt: If it is interrupted before the end of the first epoch of
            all. Later, the history says so.
    """
    phase = phase or Phase("head", config.epochs, config.learning_rate)
    history = history or History(config.monitor)
    first = len(history) if resume is None else resume.history.phases.index(phase.name)
    given, model = model, distribution.replicate(model)
    with distribution.scope():
        compile_model(model, config, phase, steps=math.ceil(len(train) / config.batch_size))
    learn = training_loop(model, distribution)
    judge = evaluation_loop(model, distribution)
    phase = replace(phase, validation_batch=distribution.round_up(phase.validation_batch))

    stopping = keras.callbacks.EarlyStopping(
        config.monitor, patience=config.patience, restore_best_weights=True
    )
    counting = [*make_schedule(config), stopping]
    telling = _EpochTeller(images=len(train))
    callbacks = keras.callbacks.CallbackList(
        [*counting, telling, *trackers], model=model, epochs=first + phase.epochs
    )
    model.stop_training = False
    callbacks.on_train_begin()
    if resume is not None:
        history = resume.history
        _restore(resume, model, counting, stopping)
    elif history.best is not None:
        stopping.best, stopping.best_epoch = history.best, history.best_epoch - 1
        stopping.best_weights = model.get_weights()

    with Interrupts(polite=distribution.processes == 1) as interrupts:
        for epoch in range(len(history), first + phase.epochs):
            if model.stop_training:
                break
            callbacks.on_epoch_begin(epoch)
            if keras.backend.backend() == "torch":
                # There dropout draws from the generator of the process, which nothing keeps.
                # TensorFlow would forget its compiled steps over it.
                keras.utils.set_random_seed(seed_of(seed, epoch + 1))
            blocks = training_blocks(train, config, phase, seed=seed, epoch=epoch + 1)
            blocks = telling.count(interrupts.watch(blocks))
            with convert_memory_errors(config.batch_size):
                learnt = _run(learn, model, blocks)
            callbacks.on_test_begin()
            judged = _run(judge, model, interrupts.watch(validation_blocks(validation, phase)))
            callbacks.on_test_end()
            if interrupts.pending:
                break
            _check_losses(epoch + 1, learnt["loss"], judged["loss"], phase, train)
            values = {
                **learnt,
                **{f"val_{name}": value for name, value in judged.items()},
                "learning_rate": float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)),
            }
            callbacks.on_epoch_end(epoch, dict(values))
            values["seconds"] = telling.seconds
            history = history.with_epoch(phase.name, values, stopping.best_epoch + 1)
            if keep is not None:
                last = model.stop_training or epoch + 1 == first + phase.epochs
                keep(_capture(history, phase, model, counting, stopping, finished=last))
    callbacks.on_train_end()
    distribution.copy_values(model, given)
    if interrupts.pending and not len(history):
        raise KeyboardInterrupt
    return replace(history, interrupted=interrupts.pending)


def predict_examples(model: keras.Model, data: Examples, *, batch_size: int = 256) -> np.ndarray:
    """Returns the probabilities of the first view, shape `(images, num_classes)`."""
    return np.concatenate(
        [
            model.predict_on_batch({name: values[step] for name, values in block.inputs.items()})
            for block in read_blocks(data, first_views(data), batch_size=batch_size)
            for step in range(len(block.weights))
        ]
    )


def _run(loop: Loop, model: keras.Model, blocks: Iterable[Block]) -> dict[str, float]:
    """Runs a loop over blocks and returns the model's metrics over all of them."""
    model.reset_metrics()
    loop(blocks)
    return {name: float(value) for name, value in model.get_metrics_result().items()}


def _check_losses(
    epoch: int, loss: float, validation_loss: float, phase: Phase, train: Examples
) -> None:
    """Checks that the training has not diverged.

    Raises:
        ConfigError: If a loss is not finite, or from the second epoch on the training loss
            is several times that of equal probabilities for all classes.
    """
    limit = _EXPLOSION * math.log(train.targets.shape[1]) * float(train.weights.mean())
    if math.isfinite(loss + validation_loss) and (epoch == 1 or loss <= limit):
        return
    raise ConfigError(
        f"The training diverges: in epoch {epoch} ({phase.name}) the loss is {loss:.4g} and that "
        f"of validation {validation_loss:.4g}. Received: a learning rate of "
        f"{phase.learning_rate:g}. Use a lower one, such as {phase.learning_rate / 10:g}."
    )


def _capture(
    history: History,
    phase: Phase,
    model: keras.Model,
    counting: Sequence[keras.callbacks.Callback],
    stopping: keras.callbacks.EarlyStopping,
    *,
    finished: bool,
) -> Progress:
    return Progress(
        history,
        phase.name,
        [_counters(callback) for callback in counting],
        _values(_state(model)),
        _values(model.optimizer.variables),
        stopping.best_weights,
        finished,
    )


def _restore(
    progress: Progress,
    model: keras.Model,
    counting: Sequence[keras.callbacks.Callback],
    stopping: keras.callbacks.EarlyStopping,
) -> None:
    """Puts everything back, after `on_train_begin`, which resets callbacks."""
    variables = [*_state(model), *model.optimizer.variables]
    for variable, value in zip(variables, [*progress.model, *progress.optimizer], strict=True):
        variable.assign(value)
    refresh_scales(model)
    for callback, counters in zip(counting, progress.callbacks, strict=True):
        vars(callback).update(counters)
    stopping.best_weights = list(progress.best)
    model.stop_training = progress.finished


def _state(model: keras.Model) -> list[keras.Variable]:
    return [*model.trainable_variables, *model.non_trainable_variables]


def _values(variables: Iterable[keras.Variable]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _counters(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Returns what a callback knows of the epochs before, such as how many it has waited."""
    return {name: value for name, value in vars(callback).items() if name in _COUNTERS}


class _EpochTeller(keras.callbacks.Callback):
    """Tells of every epoch: in the log, and on a bar where somebody watches."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self._images = images
        self.seconds = 0.0

    def count(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Passes blocks on, and moves the bar after each."""
        for block in blocks:
            yield block
            self._bar.update(block.weights.size)

    def on_train_begin(self, logs: Any = None) -> None:
        self._bar = progress_bar("Training", self.params["epochs"] * self._images)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._bar.set_postfix_str(f"epoch {epoch + 1}")
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds = round(time.perf_counter() - self._start, 3)
        told = ", ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items())
        log.info("epoch %d of %d: %s", epoch + 1, self.params["epochs"], told)

    def on_train_end(self, logs: Any = None) -> None:
        self._bar.close()
