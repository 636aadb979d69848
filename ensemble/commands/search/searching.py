"""A search from its settings to its winner, in each of the roles that a process can have."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from keras_tuner.engine.trial import Trial

from configs.errors import RunError
from ensemble.commands.search.chief import Standing, lead
from ensemble.commands.search.forks import Forks
from ensemble.commands.search.leader import drop, take_over
from ensemble.commands.search.spaces import SearchSpace
from ensemble.commands.search.study import Study, TrialRecord
from ensemble.commands.search.trials import Bench, read_sources, record_sources
from ensemble.commands.search.tuners import make_oracle, values_of
from ensemble.commands.search.workers import start_workers, work
from ensemble.experiment import fit, resume
from ensemble.system.cores import count_cores

log = logging.getLogger(__name__)

_MOST_WORKERS = 8  # by default, as each takes half a GB of memory beside the features


@dataclass(frozen=True)
class Board:
    """What there is to see of a search.

    Args:
        standing: How far it is.
        best: The completed trials, the best first.
        failed: How many have failed.
    """

    standing: Standing
    best: list[TrialRecord]
    failed: int


Show = Callable[[Board], None]


def search_here(space: SearchSpace, study: Study, address: str, show: Show) -> Bench:
    """Runs a search on this machine alone: a chief, and workers beside it.

    Returns:
        What the trials have read, without the features themselves.

    Raises:
        UserError: If data, weights, the store or the folder cannot be used.
    """
    bench = Bench.prepare(space, study, Forks())
    count = space.config.search.workers or default_workers(bench)
    names = [f"worker{number}" for number in range(count)]
    log.info("%d %s, in %s", count, "workers" if count > 1 else "worker", study.folder)
    team = start_workers(space, study, bench, names)
    try:
        _lead(space, study, address, show, watch=team.watch)
    finally:
        team.end()
    bench.unload()
    return bench


def search_as_chief(space: SearchSpace, study: Study, address: str, show: Show) -> None:
    """Hands out trials to workers that are started by themselves.

    Raises:
        UserError: If data, the folder or the address cannot be used, or no worker comes.
    """
    study.check_data(record_sources(read_sources(space)))
    log.info("the chief listens at %s, in %s", address, study.folder)
    _lead(space, study, address, show, watch=lambda: None)


def search_as_worker(space: SearchSpace, study: Study, name: str) -> None:
    """Runs trials that a chief elsewhere hands out, until there are no more.

    Raises:
        UserError: If data, weights or the store cannot be used, or the chief is no more.
    """
    bench = Bench.prepare(space, study, Forks())
    log.info("%s is ready, in %s", name, study.folder)
    work(space, study, bench, [name])


def make_winner(space: SearchSpace, study: Study, bench: Bench | None = None) -> str:
    """Makes a run of the best trial, or finishes what was begun of it.

    What the trial has learned is taken over. Where that is missing or started from
    other data or weights, or trackers want to hear of the epochs, it is trained anew.

    Args:
        space: The leaves that vary.
        study: The trials.
        bench: What they have read, if it was in this process.

    Returns:
        Lines that say what came out, for the screen.

    Raises:
        RunError: If no trial was completed.
    """
    objective = space.config.search.objective
    best = study.best(objective)
    if not best:
        reasons = [record.reason for record in study.records() if record.reason]
        first = f" The first reason: {reasons[0]}" if reasons else ""
        raise RunError(f"No trial of {study.folder} was completed.{first}")
    winner = best[0]
    name = f"winner-{winner.number:04}"
    folder, trial = study.folder / name, study.trial(winner.number)
    config = trial.config.model_copy(
        update={"name": name, "output": study.folder, "features": space.config.features}
    )
    if (folder / "report.md").exists() and not (folder / "checkpoint.npz").exists():
        return f"{folder}/ holds the winner, {objective} {winner.metrics[objective]:.4f}"
    if folder.exists():
        result = resume(folder, config)
    else:
        begun = None if config.training.trackers else partial(take_over, trial)
        read = bench.read_for(space.config_of(winner.values)) if bench else None
        result = fit(config, begun=begun, read=read)
    if not result.history.interrupted:
        drop(trial)
    return result.summary()


def default_workers(bench: Bench) -> int:
    """Returns how many trials run side by side where nobody says: one for each core.

    On a GPU it is one, as a second one would need the same memory.
    """
    return 1 if bench.on_gpu else min(count_cores(), _MOST_WORKERS)


def _lead(
    space: SearchSpace,
    study: Study,
    address: str,
    show: Show,
    *,
    watch: Callable[[], None],
) -> None:
    def record_loss(trial: Trial, reason: str) -> None:
        number = int(trial.trial_id)
        study.write(TrialRecord(number, "failed", values_of(trial, space), reason=reason))

    oracle = make_oracle(space, study.folder / "oracle.json", record_loss)
    told = [-1]

    def tell(standing: Standing) -> None:
        if standing.ended != told[0]:
            study.write_table()
            told[0] = standing.ended
        records = study.records()
        failed = sum(record.status == "failed" for record in records)
        show(Board(standing, study.best(space.config.search.objective), failed))

    lead(oracle, address, show=tell, watch=watch)
    study.write_table()
