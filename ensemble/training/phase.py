"""A phase of a training: its settings, its batches, and what accompanies it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from configs.schema import TrainingConfig
from ensemble.data.batches import Batches, Change, Examples, Inputs, sample_order
from ensemble.training.distribution import SINGLE_DEVICE, Distribution
from ensemble.training.history import Progress
from ensemble.training.targets import balance, sample_classes, smooth

Augment = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Phase:
    """Settings of a stretch of epochs of one kind.

    Args:
        name: Name in the history.
        config: Optimizer, loss, targets and early stopping.
        seed: Random seed for the data order, the views and the augmentation.
        epochs: Maximum number of epochs.
        learning_rate: Initial learning rate of Adam.
        factors: Factor of the learning rate for each trainable variable; None: 1.
        augment: Augments the images and targets of a batch, by a seed.
        validation_batch: Images per batch of the validation, which affects only the speed.
        steps_per_execution: Batches per block; Ctrl-C waits for the end of a block.
        precision: Compute dtype; the gradients of float16 are scaled.
    """

    name: str
    config: TrainingConfig
    seed: int
    epochs: int
    learning_rate: float
    factors: Sequence[float] | None = None
    augment: Augment | None = None
    validation_batch: int = 256
    steps_per_execution: int = 64
    precision: str = "float32"


@dataclass(frozen=True)
class Session:
    """What accompanies a training without changing its result.

    Args:
        resume: State of an interrupted training, to continue from.
        save: Called with the state after each epoch.
        callbacks: Further callbacks for Keras's `fit`.
        distribution: Devices that share each step.
    """

    resume: Progress | None = None
    save: Callable[[Progress], object] | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    distribution: Distribution = SINGLE_DEVICE


class TrainingBatches(Batches):
    """Batches of a phase; those of an epoch depend only on the seed and the epoch's number."""

    def __init__(self, data: Examples, phase: Phase, distribution: Distribution) -> None:
        super().__init__(data, phase.config.batch_size)
        self._phase = phase
        self._distribution = distribution
        if phase.config.balance == "weights":
            data = Examples(data.inputs, data.targets, data.weights * balance(data.targets))
        self._examples = data
        self.start_epoch(1)

    def start_epoch(self, epoch: int) -> None:
        """Samples order, views and targets of an epoch, counted from 1."""
        data, phase = self._examples, self._phase
        targets = data.targets
        sampling = phase.config.balance == "sampling"
        chances = balance(targets).astype("float64") if sampling else None
        order = sample_order(data, seed=phase.seed, epoch=epoch, chances=chances)
        if phase.config.targets == "drawn":
            targets = sample_classes(targets, seed=phase.seed, epoch=epoch)
        targets = smooth(targets, phase.config.label_smoothing)
        self.data = Examples(data.inputs, targets, data.weights)
        self.order = self._distribution.fill_up(order)
        self.change = _make_change(phase.augment, phase.seed, epoch) if phase.augment else None


def seed_of(*entropy: int) -> int:
    """Returns a number of 32 bits that depends on all the numbers given."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _make_change(augment: Augment, seed: int, epoch: int) -> Change:
    def change(inputs: Inputs, targets: np.ndarray, batch: int) -> tuple[Inputs, np.ndarray]:
        images, targets = augment(inputs["image"], targets, seed_of(seed, epoch, batch))
        return {**inputs, "image": images}, targets

    return change
