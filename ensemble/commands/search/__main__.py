"""`python -m ensemble.search`: tries many settings and makes a run of the best of them."""

import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from configs.errors import ConfigError, RunError
from configs.search import SearchExperiment
from ensemble.cli.command_line import load_backend, read_experiment, run_command
from ensemble.commands.search.spaces import SearchSpace, label
from ensemble.commands.search.study import Study, TrialRecord
from ensemble.data.loading import check_location
from ensemble.system.text import table

if TYPE_CHECKING:
    from ensemble.commands.search.hypermodel import EnsembleHyperModel
    from ensemble.commands.search.oracles import DurableOracle

log = logging.getLogger("ensemble.search")

_IP, _PORT, _ID = "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"
_PARENT = "ENSEMBLE_SEARCH_PROCESS"  # id of the process that started a worker
_PATIENCE = 60.0  # seconds that workers started by hand wait for the chief
_SHOWN = 10  # trials in the table


def main(argv: Sequence[str] | None = None) -> int:
    """Searches as the arguments say; alone, or as KerasTuner's chief or worker."""
    return run_command(lambda: _search(argv))


def _search(argv: Sequence[str] | None) -> None:
    config, *_ = read_experiment(
        argv,
        prog="python -m ensemble.search",
        description="Search over settings in trials on stored features; the best becomes a run. "
        "Rerun the command to resume an interrupted search. With KerasTuner's variables "
        f"{_ID} (chief, worker0, ...), {_IP} and {_PORT} this process is one of several.",
        schema=SearchExperiment,
    )
    assert isinstance(config, SearchExperiment)
    SearchSpace(config)  # raises its errors before a backend loads
    name = _read_role(os.environ)
    check_location(config.data)
    study = Study.open(config)
    command = [sys.executable, "-m", "ensemble.search", *(sys.argv[1:] if argv is None else argv)]
    load_backend()
    from ensemble.commands.search.hypermodel import EnsembleHyperModel

    hypermodel = EnsembleHyperModel(config)
    if name is not None and "chief" not in name:
        _work(hypermodel, study, name, command)
        return
    with study.locked():
        _lead(hypermodel, study, None if name else command)
    print(f"{study.folder}/ holds trials.csv, and trials/ the settings and curves of each")


def _work(
    hypermodel: "EnsembleHyperModel", study: Study, name: str, command: Sequence[str]
) -> None:
    """Runs trials until there are no more."""
    from ensemble.commands.search.tuner import TrialTuner
    from ensemble.commands.search.workers import end_without

    if parent := os.environ.get(_PARENT):
        end_without(lambda: os.getppid() == int(parent), 0)
    else:
        end_without(study.has_chief, _PATIENCE)
    with study.locked_by_worker(name):
        hypermodel.prepare(study.check_origin)
        log.info("%s is ready, in %s", name, study.folder)
        TrialTuner(
            hypermodel, study, renew=partial(os.execv, sys.executable, list(command))
        ).search()


def _lead(hypermodel: "EnsembleHyperModel", study: Study, command: Sequence[str] | None) -> None:
    """Serves trials to workers, and makes the winner.

    Args:
        hypermodel: What is searched over.
        study: The folder of the search.
        command: Of the workers to be started; None: they are started by hand.
    """
    from ensemble.commands.search.serving import serve_trials
    from ensemble.commands.search.winner import make_winner
    from ensemble.commands.search.workers import Workers, default_workers

    hypermodel.prepare(study.check_origin)
    display = _Display(hypermodel.space, study)
    with tempfile.TemporaryDirectory(prefix="search-") as place:  # closed to other users
        names: list[str] = []
        if command is None:
            _check_free(os.environ[_IP], os.environ[_PORT])
            log.info("the chief listens at %s:%s", os.environ[_IP], os.environ[_PORT])
        else:
            os.environ.update({_IP: "unix", _PORT: str(Path(place) / "chief"), _ID: "chief"})
            count = hypermodel.space.config.search.workers
            count = count or default_workers(hypermodel.feature_sets)
            names = [f"worker{number}" for number in range(count)]
            log.info("%d %s, in %s", count, "workers" if count > 1 else "worker", study.folder)
        common = {**os.environ, _PARENT: str(os.getpid())}
        environments = {name: {**common, _ID: name} for name in names}
        workers = Workers(command or [], environments, study.folder)

        def watch(oracle: "DurableOracle") -> None:
            workers.watch(len(oracle.end_order))
            display.show(oracle)

        try:
            serve_trials(hypermodel, study, watch)
        finally:
            workers.end()
            study.write_table()
            if command is not None:
                for variable in (_IP, _PORT, _ID):
                    del os.environ[variable]
    display.show_best()
    print(make_winner(hypermodel, study))


def _read_role(environment: Mapping[str, str]) -> str | None:
    """Returns this process's name among several, None if it searches alone."""
    given = [name for name in (_IP, _PORT, _ID) if environment.get(name)]
    missing = [name for name in (_IP, _PORT, _ID) if name not in given]
    if given and missing:
        raise ConfigError(
            f"{given[0]} is set, but not {' and '.join(missing)}. A search on several processes "
            "needs all three; unset them to search alone."
        )
    return None if missing else environment[_ID]


def _check_free(host: str, port: str) -> None:
    """Checks that no other process listens at the address, which gRPC would share with it.

    Raises:
        RunError: If one does, or the address is not one of this machine.
    """
    try:
        socket.create_server((host, int(port))).close()
    except (OSError, ValueError, OverflowError) as error:
        raise RunError(
            f"The chief cannot listen at {host}:{port} ({error}). Set {_IP} to an address of this "
            f"machine and {_PORT} to a free port."
        ) from error


class _Display:
    """Prints the progress of a search, and its best trials.

    Args:
        space: The leaves that vary.
        study: The folder of the search.
    """

    def __init__(self, space: SearchSpace, study: Study) -> None:
        self._objective = space.config.search.objective
        self._paths = [dimension.path for dimension in space.dimensions]
        self._study = study
        self._started = time.monotonic()
        self._before: int | None = None  # trials that had ended at the start
        self._ended = -1

    def show(self, oracle: "DurableOracle") -> None:
        """Prints a line and writes the table of trials if a trial has ended."""
        ended, total = len(oracle.end_order), oracle.total()
        if ended == self._ended:
            return
        self._ended = ended
        self._before = ended if self._before is None else self._before
        self._study.write_table()
        best = self._study.best(self._objective)
        failed = sum(record.status == "failed" for record in self._study.records())
        parts = [
            f"{ended}{'' if total is None else f' of {total}'} trials ended",
            *([f"{failed} failed"] if failed else []),
            f"{len(oracle.ongoing_trials)} running",
        ]
        if total is not None and ended > self._before:
            each = (time.monotonic() - self._started) / (ended - self._before)
            parts.append(f"about {tqdm.format_interval(each * max(0, total - ended))} left")
        line = ", ".join(parts)
        log.info("%s", f"{line}; best {self._describe(best[0])}" if best else line)

    def show_best(self) -> None:
        """Prints a table of the best trials."""
        names = [path.split(".")[-1] for path in self._paths]
        best = self._study.best(self._objective)[:_SHOWN]
        rows = [["trial", self._objective, *names, "epochs", "seconds"], *map(self._row, best)]
        log.info("%s", "\n".join(table(rows)))

    def _row(self, record: TrialRecord) -> list[str]:
        values = (label(record.values.get(path, "")) for path in self._paths)
        value = f"{record.metrics[self._objective]:.4f}"
        return [str(record.number), value, *values, str(record.epochs), f"{record.seconds:.1f}"]

    def _describe(self, record: TrialRecord) -> str:
        values = ", ".join(
            f"{path.split('.')[-1]} {label(value)}" for path, value in record.values.items()
        )
        value = record.metrics[self._objective]
        return f"{self._objective} {value:.4f} in trial {record.number} ({values})"


if __name__ == "__main__":
    sys.exit(main())
