"""Training: phases of epochs with early stopping, that can be interrupted and gone on with."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from configs.schema import TrainingConfig
from ensemble.devices.devices import refuse_full_memory
from ensemble.devices.distribution import ALONE, Distribution
from ensemble.evaluation.report import TrainingSummary
from ensemble.fusion import refresh_scales
from ensemble.progress import progress_bar
from ensemble.training.batches import (
    Block,
    Change,
    Examples,
    Inputs,
    Order,
    draw_order,
    first_views,
    read_blocks,
)
from ensemble.training.interrupts import Interrupts
from ensemble.training.loops import Loop, evaluation_loop, training_loop
from ensemble.training.optimizers import FusedAdam
from ensemble.training.targets import balance, draw_classes, smooth

log = logging.getLogger(__name__)

# What Keras's callbacks count from epoch to epoch.
_COUNTERS = {
    *("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter"),
    "_ema_weights_in_model",
}

Augment = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs of one kind.

    Args:
        name: As in the history.
        epochs: How many at most.
        learning_rate: Adam's step.
        factors: What it is multiplied by for each trainable variable; None: 1.
        augment: What becomes of images and targets in each epoch, by a seed.
        validation_batch: Images judged at a time; only the speed depends on it.
        most_steps: Steps between two looks at the keyboard; None: any number.
        precision: Of the arithmetic, to know whether gradients must be scaled.
    """

    name: str
    epochs: int
    learning_rate: float
    factors: Sequence[float] | None = None
    augment: Augment | None = None
    validation_batch: int = 256
    most_steps: int | None = None
    precision: str = "float32"


@dataclass(frozen=True)
class History:
    """What each epoch came to, over all phases.

    Args:
        monitor: What chooses the best epoch, such as "val_accuracy".
        phases: The name of each epoch's phase.
        epochs: Name such as "val_accuracy" to one value for each epoch.
        best_epoch: The epoch whose weights are kept, counted from 1; 0: none yet.
        interrupted: Whether somebody stopped it before its end.
    """

    monitor: str
    phases: Sequence[str] = ()
    epochs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    best_epoch: int = 0
    interrupted: bool = False

    def __len__(self) -> int:
        return len(self.phases)

    @property
    def best(self) -> float | None:
        """The best value of the monitor; None before the first epoch."""
        return self.epochs[self.monitor][self.best_epoch - 1] if self.best_epoch else None

    @property
    def second_phase(self) -> int | None:
        """The epoch with which another phase begins, counted from 1; None where there is one."""
        later = [epoch for epoch, phase in enumerate(self.phases, 1) if phase != self.phases[0]]
        return later[0] if later else None

    def with_epoch(self, phase: str, values: Mapping[str, float], best_epoch: int) -> "History":
        """Returns the history with one more epoch."""
        return replace(
            self,
            phases=(*self.phases, phase),
            epochs={name: (*self.epochs.get(name, ()), value) for name, value in values.items()},
            best_epoch=best_epoch,
        )

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yields the number of each epoch, its phase and what it came to."""
        columns = zip(self.phases, *self.epochs.values(), strict=True)
        for epoch, values in enumerate(columns, start=1):
            yield epoch, *values

    def summary(self) -> TrainingSummary:
        """Returns the best epoch's values."""
        best = {
            name: values[self.best_epoch - 1]
            for name, values in self.epochs.items()
            if name != "seconds"
        }
        return TrainingSummary(len(self), self.best_epoch, self.monitor, best)


@dataclass(frozen=True, eq=False)
class Progress:
    """Where a training stands after an epoch: all that the rest of it depends on.

    Args:
        history: The epochs so far.
        phase: Name of the phase.
        callbacks: Counters of early stopping and the schedule, a mapping for each callback.
        model: Values of the model's variables, the seeds of dropout among them.
        optimizer: Values of the optimizer's variables.
        best: Weights of the best epoch.
        finished: Whether the phase ends with this epoch.
    """

    history: History
    phase: str
    callbacks: Sequence[Mapping[str, Any]]
    model: Sequence[np.ndarray]
    optimizer: Sequence[np.ndarray]
    best: Sequence[np.ndarray]
    finished: bool


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
        KeyboardInterrupt: If it is interrupted before the end of the first epoch of
            all. Later, the history says so.
    """
    phase = phase or Phase("head", config.epochs, config.learning_rate)
    history = history or History(config.monitor)
    first = len(history) if resume is None else resume.history.phases.index(phase.name)
    given, model = model, distribution.replicate(model)
    with distribution.scope():
        _compile(model, config, phase, steps=math.ceil(len(train) / config.batch_size))
    learn, judge = training_loop(model, distribution), evaluation_loop(model, distribution)
    phase = replace(phase, validation_batch=distribution.round_up(phase.validation_batch))

    stopping = keras.callbacks.EarlyStopping(
        config.monitor, patience=config.patience, restore_best_weights=True
    )
    counting = [*_make_schedule(config), stopping]
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
            # On PyTorch dropout draws from the generator of the process, which nothing keeps.
            keras.utils.set_random_seed(_seed_of(seed, epoch + 1))
            blocks = _training_blocks(train, config, phase, seed=seed, epoch=epoch + 1)
            with refuse_full_memory(config.batch_size):
                learnt = _run(learn, model, interrupts.watch(blocks), telling)
            callbacks.on_test_begin()
            judged = _run(judge, model, interrupts.watch(_validation_blocks(validation, phase)))
            callbacks.on_test_end()
            if interrupts.pending:
                break
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


def _compile(model: keras.Model, config: TrainingConfig, phase: Phase, *, steps: int) -> None:
    rate: Any = phase.learning_rate
    if config.schedule == "cosine":
        warmup = min(round(config.warmup_epochs * steps), phase.epochs * steps - 1)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate,
            phase.epochs * steps - warmup,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    optimizer: keras.optimizers.Optimizer = FusedAdam(
        factors=phase.factors,
        learning_rate=rate,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=config.epsilon,
        amsgrad=config.amsgrad,
        weight_decay=config.weight_decay or None,
        global_clipnorm=config.clip_norm,
        use_ema=config.ema > 0,
        ema_momentum=config.ema or 0.99,
    )
    if config.weight_decay:  # biases and scales have no size to keep down
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if phase.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    loss = keras.losses.CategoricalCrossentropy()
    if config.focal_gamma:
        loss = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=config.focal_gamma)
    model.compile(optimizer, loss, metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")])


def _make_schedule(config: TrainingConfig) -> Iterator[keras.callbacks.Callback]:
    """Yields what changes weights or rate at the ends of epochs; it goes before early stopping."""
    if config.ema:
        yield keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    if config.schedule == "plateau":
        yield keras.callbacks.ReduceLROnPlateau(config.monitor, factor=0.5, patience=2)


def _training_blocks(
    data: Examples, config: TrainingConfig, phase: Phase, *, seed: int, epoch: int
) -> Iterator[Block]:
    """Yields an epoch's batches, which follow from the seed and the epoch alone."""
    order = _order(data, config, seed=seed, epoch=epoch)
    targets = data.targets
    weights = data.weights
    if config.balance == "weights":
        weights = weights * balance(targets)
    if config.targets == "drawn":
        targets = draw_classes(targets, seed=seed, epoch=epoch)
    targets = smooth(targets, config.label_smoothing)
    return read_blocks(
        Examples(data.inputs, targets, weights),
        order,
        batch_size=config.batch_size,
        most_steps=phase.most_steps,
        change=_make_change(phase.augment, seed, epoch) if phase.augment else None,
    )


def _order(data: Examples, config: TrainingConfig, *, seed: int, epoch: int) -> Order:
    chances = balance(data.targets).astype("float64") if config.balance == "sampling" else None
    return draw_order(data, seed=seed, epoch=epoch, chances=chances)


def _make_change(augment: Augment, seed: int, epoch: int) -> Change:
    def change(inputs: Inputs, targets: np.ndarray, block: int) -> tuple[Inputs, np.ndarray]:
        images, targets = augment(inputs["image"], targets, _seed_of(seed, epoch, block))
        return {**inputs, "image": images}, targets

    return change


def _seed_of(*entropy: int) -> int:
    """Returns a number of 32 bits that follows from others, and from no others alike."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _validation_blocks(data: Examples, phase: Phase) -> Iterator[Block]:
    return read_blocks(
        data,
        first_views(data),
        batch_size=phase.validation_batch,
        most_steps=phase.most_steps,
    )


def _run(
    loop: Loop, model: keras.Model, blocks: Iterable[Block], teller: "_EpochTeller | None" = None
) -> dict[str, float]:
    """Runs a loop over blocks and returns the model's metrics over all of them."""
    model.reset_metrics()
    for block in blocks:
        loop(block)
        if teller is not None:
            teller.count(block.weights.size)
    return {name: float(value) for name, value in model.get_metrics_result().items()}


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

    def count(self, images: int) -> None:
        """Moves the bar on."""
        self._bar.update(images)

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
