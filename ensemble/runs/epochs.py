"""The epochs of a run, read from its `history.csv`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from configs.errors import RunError
from ensemble.runs.run import Run


@dataclass(frozen=True)
class Epochs:
    """The epochs of a training.

    Args:
        phases: Name of the phase of each epoch.
        values: Name such as "val_accuracy" to one value per epoch.
    """

    phases: Sequence[str] = ()
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def second_phase(self) -> int | None:
        """First epoch of the second phase, counted from 1; None without one."""
        later = (epoch for epoch, name in enumerate(self.phases, 1) if name != self.phases[0])
        return next(later, None)


def read_epochs(run: Run) -> Epochs:
    """Returns the epochs of a run; none where it was not trained, as after a fusion.

    Raises:
        RunError: If `history.csv` is damaged.
    """
    if not (run.folder / "history.csv").is_file():
        return Epochs()
    rows = run.read_table("history.csv")
    names = [name for name in (rows[0] if rows else {}) if name not in {"epoch", "phase"}]
    try:
        values = {name: [float(row[name]) for row in rows] for name in names}
    except ValueError as error:
        raise RunError(f"The epochs of {run.folder} cannot be read ({error}).") from error
    return Epochs([row.get("phase", "") for row in rows], values)
