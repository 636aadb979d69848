"""The epochs of a phase: what each of them learns from and is judged on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from configs.schema import TrainingConfig
from ensemble.data.batches import (
    Block,
    Change,
    Examples,
    Inputs,
    Order,
    draw_order,
    first_views,
    read_blocks,
)
from ensemble.training.targets import balance, draw_classes, smooth

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


def training_blocks(
    data: Examples, config: TrainingConfig, phase: Phase, *, seed: int, epoch: int
) -> Iterator[Block]:
    """Yields an epoch's batches, counted from 1, which follow from the seed and the epoch alone."""
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


def validation_blocks(data: Examples, phase: Phase) -> Iterator[Block]:
    """Yields the batches that are judged: the first view of each image, in order."""
    return read_blocks(
        data,
        first_views(data),
        batch_size=phase.validation_batch,
        most_steps=phase.most_steps,
    )


def seed_of(*entropy: int) -> int:
    """Returns a number of 32 bits that follows from others, and from no others alike."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _order(data: Examples, config: TrainingConfig, *, seed: int, epoch: int) -> Order:
    chances = balance(data.targets).astype("float64") if config.balance == "sampling" else None
    return draw_order(data, seed=seed, epoch=epoch, chances=chances)


def _make_change(augment: Augment, seed: int, epoch: int) -> Change:
    def change(inputs: Inputs, targets: np.ndarray, block: int) -> tuple[Inputs, np.ndarray]:
        images, targets = augment(inputs["image"], targets, seed_of(seed, epoch, block))
        return {**inputs, "image": images}, targets

    return change
