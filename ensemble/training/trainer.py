"""Training of a phase by Keras's `fit`, with early stopping, interrupts and exact resume."""

from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np

from configs.schema import TrainingConfig
from ensemble.data.batches import Batches, Examples, first_views
from ensemble.system.devices import convert_memory_errors
from ensemble.training.callbacks import EpochLogs, Interrupted, PoliteInterrupts, Recorder
from ensemble.training.compilation import compile_model, make_schedule
from ensemble.training.distribution import assign_state
from ensemble.training.history import History
from ensemble.training.phase import Phase, Session, TrainingBatches


def train_model(
    model: keras.Model,
    train: Examples,
    validation: Examples,
    config: TrainingConfig,
    *,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Trains a model with early stopping.

    The best epoch's weights are in the model when it returns, and so in every
    model composed of it.

    Args:
        model: From inputs to class probabilities.
        train: Training data; in each epoch one view of each image is sampled.
        validation: Data that early stopping monitors.
        config: Optimizer, loss and early stopping.
        seed: Random seed for the data order and the views.
        callbacks: Further callbacks for Keras's `fit`.

    Raises:
        ConfigError: If the training diverges.
        KeyboardInterrupt: If it is interrupted before the end of the first epoch.
            Later, the history records it.
    """
    phase = Phase("head", config, seed, config.epochs, config.learning_rate)
    return train_phase(model, (train, validation), phase, Session(callbacks=callbacks))


def train_phase(
    model: keras.Model,
    data: tuple[Examples, Examples],
    phase: Phase,
    session: Session,
    history: History | None = None,
) -> History:
    """Trains a model for a phase, as `train_model` does.

    An epoch of an earlier phase may be the best one: if no epoch of this phase is
    better, the weights stay as they were.

    Args:
        model: From inputs to class probabilities.
        data: The training and the validation data.
        phase: The settings.
        session: What accompanies the training.
        history: The epochs of earlier phases.

    Returns:
        The epochs of earlier phases and of this one.
    """
    resume, distribution = session.resume, session.distribution
    history = history or History(phase.config.monitor)
    if resume is not None and resume.phase == phase.name:
        history = resume.history
        if resume.finished:
            assign_state(model, resume.model)
            model.set_weights(resume.best)
            return history
    epochs = phase.epochs + sum(name != phase.name for name in history.phases)
    batches = TrainingBatches(data[0], phase, distribution)
    validation = Batches(
        data[1],
        distribution.round_up(phase.validation_batch),
        distribution.fill_up(first_views(data[1])),
    )
    replica = distribution.replicate(model)
    stopping = keras.callbacks.EarlyStopping(
        phase.config.monitor, patience=phase.config.patience, restore_best_weights=True
    )
    stateful = [*make_schedule(phase.config), stopping]
    recorder = Recorder(phase, session, batches, history, stateful)
    interrupts = PoliteInterrupts(polite=distribution.processes == 1)
    callbacks = keras.callbacks.CallbackList(
        [EpochLogs(phase, data[0]), *stateful, *session.callbacks, recorder, interrupts],
        add_history=True,
        model=replica,
        epochs=epochs,
        steps=len(batches),
    )
    interrupted = False
    with distribution.scope(), interrupts, convert_memory_errors(phase.config.batch_size):
        compile_model(replica, phase, len(batches), distribution)
        try:
            replica.fit(
                distribution.batches(batches),
                validation_data=distribution.batches(validation),
                epochs=epochs,
                initial_epoch=len(history),
                shuffle=False,
                callbacks=callbacks,
                verbose=0,
            )
        except Interrupted:
            if not len(recorder.history):
                raise
            interrupted = True
            callbacks.on_train_end()  # restores the best weights
        distribution.copy_values(replica, model)
    return replace(recorder.history, interrupted=interrupted)


def predict_examples(model: keras.Model, data: Examples, *, batch_size: int = 256) -> np.ndarray:
    """Returns the probabilities of the first view, shape `(images, num_classes)`."""
    return model.predict(Batches(data, batch_size), verbose=0)
