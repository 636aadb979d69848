"""History of a training, and the state from which it resumes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ensemble.metrics.report import TrainingSummary


@dataclass(frozen=True)
class History:
    """Metrics of each epoch, over all phases.

    Args:
        monitor: Metric that chooses the best epoch, such as "val_accuracy".
        phases: The name of each epoch's phase.
        epochs: Name such as "val_accuracy" to one value for each epoch.
        best_epoch: The epoch whose weights are kept, counted from 1; 0: none yet.
        interrupted: Whether Ctrl-C stopped the training.
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
        """First epoch of the second phase, counted from 1; None where there is one phase."""
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
        """Yields the number, the phase and the metrics of each epoch."""
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
    """State of a training after an epoch: all that the rest of it depends on.

    Args:
        history: The epochs so far.
        phase: Name of the phase.
        callbacks: Counters of schedule and early stopping, a mapping for each callback.
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
