"""Callbacks of a phase: interrupts, a check for divergence, history and checkpoints."""

import logging
import math
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import keras

from configs.errors import ConfigError
from ensemble.data.batches import Examples
from ensemble.system.progress import progress_bar
from ensemble.training.distribution import assign_state, state_of, values_of
from ensemble.training.history import History, Progress
from ensemble.training.phase import Phase, Session, TrainingBatches, seed_of

log = logging.getLogger(__name__)

Logs = dict[str, float] | None

_DIVERGENCE = 5.0  # times the loss of equal probabilities, which no useful training reaches

# What Keras's callbacks count from epoch to epoch.
_COUNTERS = {
    *("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter"),
    "_ema_weights_in_model",
}


class Interrupted(KeyboardInterrupt):
    """Raised at the end of a block of batches in which there was a Ctrl-C."""


class PoliteInterrupts(keras.callbacks.Callback):
    """Delays the first Ctrl-C in a `with` block to the end of a block of batches.

    The second Ctrl-C acts at once.

    Args:
        polite: False: the first one acts at once too, as where other processes would
            wait for this one in vain.
    """

    def __init__(self, *, polite: bool = True) -> None:
        super().__init__()
        self._pending = False
        # Only the main thread receives signals.
        self._polite = polite and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "PoliteInterrupts":
        if self._polite:
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._polite:
            signal.signal(signal.SIGINT, self._previous)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self._pending:
            raise Interrupted

    on_test_batch_end = on_train_batch_end

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
        signal.signal(number, self._previous)


class EpochLogs(keras.callbacks.Callback):
    """Adds the learning rate to the logs of each epoch and checks that the training converges.

    Args:
        phase: The settings.
        train: The training data.
    """

    def __init__(self, phase: Phase, train: Examples) -> None:
        super().__init__()
        self._phase = phase
        self._limit = _DIVERGENCE * math.log(train.targets.shape[1]) * float(train.weights.mean())

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        assert logs is not None
        rate = self.model.optimizer.learning_rate
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        self.check(epoch + 1, logs["loss"], logs["val_loss"])

    def check(self, epoch: int, loss: float, validation_loss: float) -> None:
        """Checks that the training has not diverged.

        Raises:
            ConfigError: If a loss is not finite, or from the second epoch on the training
                loss is several times that of equal probabilities for all classes.
        """
        if math.isfinite(loss + validation_loss) and (epoch == 1 or loss <= self._limit):
            return
        rate = self._phase.learning_rate
        raise ConfigError(
            f"The training diverges: in epoch {epoch} ({self._phase.name}) the loss is "
            f"{loss:.4g} and that of validation {validation_loss:.4g}. Received: a learning "
            f"rate of {rate:g}. Use a lower one, such as {rate / 10:g}."
        )


class Recorder(keras.callbacks.Callback):
    """Keeps the history of a phase, logs each epoch, and saves and restores the state after it.

    It goes behind all callbacks whose state it saves.

    Args:
        phase: The settings.
        session: Where the state is saved, and what it is restored from.
        batches: The training images, which are ordered anew in each epoch.
        history: The epochs before.
        stateful: Callbacks whose counters belong to the state; the last is early stopping.
    """

    def __init__(
        self,
        phase: Phase,
        session: Session,
        batches: TrainingBatches,
        history: History,
        stateful: Sequence[keras.callbacks.Callback],
    ) -> None:
        super().__init__()
        self.history = history
        self._phase = phase
        self._session = session
        self._batches = batches
        self._stateful = stateful
        self._stopping = stateful[-1]

    def on_train_begin(self, logs: Logs = None) -> None:
        self._bar = progress_bar("Training", self.params["epochs"] * len(self._batches.data))
        resume, stopping = self._session.resume, self._stopping
        if resume is not None and resume.phase == self._phase.name:
            self._restore(resume)
        elif self.history.best is not None:
            stopping.best, stopping.best_epoch = self.history.best, self.history.best_epoch - 1
            stopping.best_weights = self.model.get_weights()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._start = time.perf_counter()
        self._bar.set_postfix_str(f"epoch {epoch + 1}")
        self._bar.update(epoch * len(self._batches.data) - self._bar.n)
        self._batches.start_epoch(epoch + 1)
        if keras.backend.backend() == "torch":
            # There dropout samples from the generator of the process, which is not saved.
            # TensorFlow would forget its compiled steps over it.
            keras.utils.set_random_seed(seed_of(self._phase.seed, epoch + 1))

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._bar.update(self.model.steps_per_execution * self._batches.batch_size)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        epochs = self.params["epochs"]
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        log.info("epoch %d of %d: %s", epoch + 1, epochs, text)
        values["seconds"] = round(time.perf_counter() - self._start, 3)
        self.history = self.history.with_epoch(
            self._phase.name, values, self._stopping.best_epoch + 1
        )
        if self._session.save is not None:
            self._session.save(self._capture(self.model.stop_training or epoch + 1 == epochs))

    def on_train_end(self, logs: Logs = None) -> None:
        self._bar.close()

    def _capture(self, finished: bool) -> Progress:
        model = self.model
        return Progress(
            self.history,
            self._phase.name,
            [_counters(callback) for callback in self._stateful],
            values_of(state_of(model)),
            values_of(model.optimizer.variables),
            self._stopping.best_weights,
            finished,
        )

    def _restore(self, progress: Progress) -> None:
        assign_state(self.model, progress.model)
        for variable, value in zip(self.model.optimizer.variables, progress.optimizer, strict=True):
            variable.assign(value)
        for callback, counters in zip(self._stateful, progress.callbacks, strict=True):
            vars(callback).update(counters)
        self._stopping.best_weights = list(progress.best)


def _counters(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Returns what a callback knows of the epochs before, such as how many it has waited."""
    return {name: value for name, value in vars(callback).items() if name in _COUNTERS}
