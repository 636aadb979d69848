"""The best trial of a search: its checkpoint is kept, and becomes a run without training again."""

import logging

from configs.errors import RunError
from ensemble.commands.search.hypermodel import EnsembleHyperModel
from ensemble.commands.search.study import Study, TrialRecord
from ensemble.experiment import fit, resume
from ensemble.runs.run import Run
from ensemble.training.checkpoint import read_checkpoint, remove_checkpoint, write_checkpoint
from ensemble.training.history import Progress

log = logging.getLogger(__name__)


def keep_if_best(study: Study, objective: str, record: TrialRecord, progress: Progress) -> None:
    """Writes the checkpoint of a completed trial, unless a recorded one is better.

    To be called before the trial is recorded, so that the best recorded trial always has one.
    """
    best = study.best(objective)
    if best and best[0].rank(objective) < record.rank(objective):
        return
    try:
        write_checkpoint(study.trial(record.number), progress)
    except RunError as error:
        log.warning("the winner may have to be trained again: %s", error)


def drop_beaten(study: Study, objective: str) -> None:
    """Removes the checkpoints of all recorded trials but the best one."""
    for record in study.best(objective)[1:]:
        remove_checkpoint(study.trial(record.number))


def make_winner(hypermodel: EnsembleHyperModel, study: Study) -> str:
    """Makes a run of the best trial, or finishes an interrupted one.

    The run takes over the trial's training. Where the trial has left no checkpoint, or
    trackers need the epochs, it is trained again.

    Returns:
        A summary for the screen.

    Raises:
        RunError: If no trial was completed.
    """
    search = hypermodel.space.config
    objective = search.search.objective
    best = study.best(objective)
    if not best:
        reasons = [record.reason for record in study.records() if record.reason]
        first = f" The first reason: {reasons[0]}" if reasons else ""
        raise RunError(f"No trial of {study.folder} was completed.{first}")
    winner, trial = best[0], study.trial(best[0].number)
    folder = study.folder / f"winner-{winner.number:04}"
    config = trial.config.model_copy(
        update={"name": folder.name, "output": study.folder, "features": search.features}
    )
    if (folder / "report.md").exists() and not (folder / "checkpoint.npz").exists():
        return f"{folder}/ holds the winner, {objective} {winner.metrics[objective]:.4f}"
    if folder.exists():
        result = resume(folder, config)
    else:
        progress = None if config.training.trackers else _read_kept(trial)
        features = hypermodel.features_of(hypermodel.space.config_of(winner.values))
        read = features.dataset, features.images
        result = fit(config, begun=lambda _: progress, read=read)
    if not result.history.interrupted:
        remove_checkpoint(trial)
    return result.summary()


def _read_kept(trial: Run) -> Progress | None:
    try:
        progress = read_checkpoint(trial)
    except RunError as error:
        log.warning("%s", error)
        progress = None
    if progress is None:
        log.info("trial %s has no checkpoint: the winner is trained again", trial.name)
    return progress
