"""Workers of a search: one process starts a fresh child for each worker that ends."""

import logging
import os
import resource
from collections.abc import Mapping, Sequence
from typing import Any

from configs.errors import RunError
from ensemble.commands.search.forks import CRASHED, Forks, end_child
from ensemble.commands.search.spaces import SearchSpace
from ensemble.commands.search.study import Study, TrialRecord
from ensemble.commands.search.trials import Bench, run_trial
from ensemble.commands.search.tuners import OutgrownError, TrialTuner
from ensemble.system.cores import shares_of_cores

log = logging.getLogger(__name__)

_DONE, _OUTGROWN, _ABANDONED = 0, 80, 81  # exit codes of a child
_GROWTH = 1.05  # of a child's memory since its first trial, before a fresh one takes over
_MOST_CRASHES = 5  # of a worker in a row
_SIGN, _PATIENCE = 2.0, 60.0  # seconds between signs of life; without an answer to them


def work(space: SearchSpace, study: Study, bench: Bench, names: Sequence[str]) -> None:
    """Runs trials in children, one for each name, until the chief says that all is done.

    A child that dies is followed by another of the same name, and its trial is
    run again.

    Args:
        space: The leaves that vary.
        study: Where trials are kept.
        bench: What they read.
        names: Of the workers, as the chief knows them.

    Raises:
        RunError: If the chief is no more, or children die again and again.
    """
    forks = Forks()
    cores = shares_of_cores(len(names))
    output = {name: study.folder / f"{name}.log" for name in names}

    def start(place: int) -> int:
        name = names[place]
        return forks.start(
            lambda: _run_trials(space, study, bench, name),
            output=output[name],
            cores=cores[place],
        )

    children = {start(place): place for place in range(len(names))}
    crashes = dict.fromkeys(names, 0)
    try:
        while children:
            child, status = os.wait()
            place = children.pop(child)
            name, code = names[place], os.waitstatus_to_exitcode(status)
            if code == _DONE:
                continue
            if code == _ABANDONED:
                raise RunError(
                    f"The chief has not answered for {_PATIENCE:.0f} s. Start it again, then "
                    "the workers: all trials that have ended are kept."
                )
            crashes[name] = 0 if code == _OUTGROWN else crashes[name] + 1
            if crashes[name] >= _MOST_CRASHES:
                raise RunError(f"{name} died {_MOST_CRASHES} times; {output[name]} may tell why.")
            if crashes[name]:
                log.warning("%s died (%s) and is started again", name, _cause(code))
            children[start(place)] = place
    finally:
        for child in children:
            end_child(child)


def start_workers(space: SearchSpace, study: Study, bench: Bench, names: Sequence[str]) -> "Team":
    """Has workers run trials beside this process."""

    def run() -> int:
        try:
            work(space, study, bench, names)
        except RunError as error:
            log.error("%s", error)
            return CRASHED
        return _DONE

    return Team(Forks().start(run))


class Team:
    """The process that looks after the workers of this machine.

    Args:
        child: Its process id.
    """

    def __init__(self, child: int) -> None:
        self._child = child

    def watch(self) -> None:
        """Checks that it is at work or done.

        Raises:
            RunError: If it has died.
        """
        found, status = (0, 0) if self._child == 0 else os.waitpid(self._child, os.WNOHANG)
        if found:
            self._child = 0
            if os.waitstatus_to_exitcode(status) != _DONE:
                raise RunError(
                    "The workers have died. Start again: all trials that have ended are kept."
                )

    def end(self) -> None:
        """Ends it, and with it its workers."""
        if self._child:
            end_child(self._child)


def _run_trials(space: SearchSpace, study: Study, bench: Bench, name: str) -> int:
    """Runs trials in this process as long as its memory does not grow."""
    peaks: list[int] = []  # kB after each trial

    def run(number: int, values: Mapping[str, Any]) -> TrialRecord:
        record = run_trial(bench, space, study, number, values)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return record

    tuner = TrialTuner(
        space,
        run,
        study.folder,
        name,
        grown=lambda: bool(peaks) and peaks[-1] > _GROWTH * peaks[0],
    )
    tuner.report_living(_SIGN, _PATIENCE, lambda: os._exit(_ABANDONED))
    try:
        tuner.search()
    except OutgrownError:
        return _OUTGROWN
    return _DONE


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
