"""What the best trial so far has learned: the winner is made of it, and not trained again."""

import logging
from collections.abc import Mapping
from typing import Any

from configs.errors import RunError
from ensemble.commands.search.study import Study, TrialRecord
from ensemble.runs.run import Run
from ensemble.training.checkpoint import read_checkpoint, remove_checkpoint, write_checkpoint
from ensemble.training.history import Progress

log = logging.getLogger(__name__)

_ORIGIN = "origin.json"


def keep_if_best(
    study: Study,
    objective: str,
    record: TrialRecord,
    progress: Progress,
    origin: Mapping[str, Any],
) -> None:
    """Keeps what a trial learned, unless one that has ended is better.

    To be called before the trial's record is written, so that the best trial of all
    has always been kept.

    Args:
        study: Where trials are kept.
        objective: What is best.
        record: Of the completed trial.
        progress: Where its training ended.
        origin: What it started from, ready for JSON: data, weights, backend.
    """
    ended = study.best(objective)
    if ended and ended[0].rank(objective) < record.rank(objective):
        return
    folder = study.trial(record.number)
    try:
        write_checkpoint(folder, progress)
        folder.write_json(_ORIGIN, origin)
    except RunError as error:
        log.warning("the winner may have to be trained again: %s", error)


def drop_beaten(study: Study, objective: str) -> None:
    """Removes what other trials than the best one have kept."""
    for record in study.best(objective)[1:]:
        drop(study.trial(record.number))


def drop(folder: Run) -> None:
    """Removes what a trial has kept."""
    (folder.folder / _ORIGIN).unlink(missing_ok=True)
    remove_checkpoint(folder)


def take_over(folder: Run, origin: Mapping[str, Any]) -> Progress | None:
    """Returns where a trial's training ended.

    Args:
        folder: Of the trial.
        origin: What a training starts from now; it may tell more than was kept.

    Returns:
        None if the trial has kept nothing, or started from something else.
    """
    try:
        kept = folder.read_json(_ORIGIN)
        same = kept == {name: origin.get(name) for name in kept}
        progress = read_checkpoint(folder) if same else None
    except RunError as error:
        log.debug("%s", error)
        progress = None
    if progress is None:
        log.info("trial %s has left nothing to go on from: it is trained again", folder.name)
    else:
        log.info("trial %s has trained it already", folder.name)
    return progress
