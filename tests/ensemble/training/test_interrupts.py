import os
import signal
import threading
from collections.abc import Iterator

import keras
import numpy as np
import pytest

from configs.schema import TrainingConfig
from ensemble.data.batches import Examples
from ensemble.model.composition import build_classifier
from ensemble.training.callbacks import Interrupted, PoliteInterrupts
from ensemble.training.history import History
from ensemble.training.targets import one_hot
from ensemble.training.trainer import predict_examples, train_model

pytestmark = pytest.mark.backend


@pytest.fixture(autouse=True)
def python_minds_interrupts() -> Iterator[None]:
    """A process that was started in the background ignores them, and so would the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Interrupting(keras.callbacks.Callback):
    """Sends Ctrl-C at the beginning of an epoch, and records the epochs that end."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._epoch = epoch
        self.ended: list[int] = []
        self.closed = False

    def on_epoch_begin(self, epoch, logs=None) -> None:
        if epoch == self._epoch:
            interrupt()

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.ended.append(epoch)

    def on_train_end(self, logs=None) -> None:
        self.closed = True


DATA = Examples(
    {"a": np.random.default_rng(0).standard_normal((1, 20, 1, 1, 6), "float32")},
    one_hot(np.arange(20) % 2, 2),
    np.ones(20, "float32"),
)


def train(epochs: int, callback: keras.callbacks.Callback) -> tuple[History, np.ndarray]:
    keras.utils.set_random_seed(1)
    model = build_classifier({"a": (1, 1, 6)}, classes="ab")
    config = TrainingConfig(epochs=epochs, batch_size=4, monitor="val_loss", patience=9)
    history = train_model(model, DATA, DATA, config, seed=1, callbacks=[callback])
    return history, predict_examples(model, DATA)


def test_the_first_interrupt_ends_the_training_with_the_best_weights():
    interrupting = Interrupting(3)

    history, probabilities = train(9, interrupting)

    assert history.interrupted
    assert len(history) == 3
    assert interrupting.ended == [0, 1, 2]
    assert interrupting.closed
    whole, expected = train(3, Interrupting(-1))
    assert not whole.interrupted
    assert whole.epochs["loss"] == history.epochs["loss"]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


def test_an_interrupt_before_the_end_of_the_first_epoch_leaves_nothing():
    with pytest.raises(KeyboardInterrupt):
        train(9, Interrupting(0))


def test_an_interrupt_waits_for_the_end_of_a_block():
    with PoliteInterrupts() as interrupts:
        interrupts.on_train_batch_end(0)
        interrupt()
        with pytest.raises(Interrupted):
            interrupts.on_test_batch_end(0)


def test_the_second_interrupt_acts_at_once():
    with PoliteInterrupts():
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_afterwards_an_interrupt_is_what_it_was():
    with PoliteInterrupts():
        pass

    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_of_several_processes_none_waits():
    with PoliteInterrupts(polite=False), pytest.raises(KeyboardInterrupt):
        interrupt()


def test_a_thread_that_gets_no_signals_trains():
    done = []
    thread = threading.Thread(target=lambda: done.append(train(1, Interrupting(-1))))
    thread.start()
    thread.join()

    assert len(done[0][0]) == 1
