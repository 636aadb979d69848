"""`python -m ensemble.search`: tries many settings and makes a run of the best of them."""

import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError
from configs.search import SearchExperiment
from ensemble.cli.command_line import load_backend, read_experiment, run_command
from ensemble.commands.search.spaces import SearchSpace, label
from ensemble.commands.search.study import Study
from ensemble.data.loading import check_location
from ensemble.system.text import table

if TYPE_CHECKING:
    from ensemble.commands.search.searching import Board
    from ensemble.commands.search.study import TrialRecord

_IP, _PORT, _ID = "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"
_SHOWN = 10  # trials in the table
_EVERY = 1.0  # seconds between two tables


def main(argv: Sequence[str] | None = None) -> int:
    """Searches as the arguments say; alone, or as KerasTuner's chief or worker."""
    return run_command(lambda: _search(argv))


def _search(argv: Sequence[str] | None) -> None:
    config, *_ = read_experiment(
        argv,
        prog="python -m ensemble.search",
        description="Search over settings in trials on stored features; the best becomes a run. "
        "The same command goes on with a search that was broken off. With KerasTuner's variables "
        f"{_ID} (chief, worker0, ...), {_IP} and {_PORT} this process is one of several.",
        schema=SearchExperiment,
    )
    assert isinstance(config, SearchExperiment)
    space = SearchSpace(config)
    name = _read_role(os.environ)
    if importlib.util.find_spec("keras_tuner") is None:
        raise ConfigError(
            "A search needs the package keras-tuner, which is not installed: "
            "pip install keras-tuner."
        )
    check_location(config.data)
    study = Study.open(config)
    load_backend(devices=False)  # trials are forked from this process
    from ensemble.commands.search.searching import (
        make_winner,
        search_as_chief,
        search_as_worker,
        search_here,
    )

    if name is not None and "chief" not in name:
        search_as_worker(space, study, name)
        return
    bench = None
    board = _Screen(space)
    with study.locked():
        if name is None:
            place = Path(tempfile.mkdtemp(prefix="search-"))  # no other user reaches its socket
            os.environ.update({_IP: "unix", _PORT: str(place / "chief"), _ID: "worker"})
            try:
                bench = search_here(space, study, f"unix:{place / 'chief'}", board.show)
            finally:
                shutil.rmtree(place, ignore_errors=True)
        else:
            search_as_chief(space, study, f"{os.environ[_IP]}:{os.environ[_PORT]}", board.show)
        board.end()
        load_backend()
        print(make_winner(space, study, bench))
    print(f"{study.folder}/ holds trials.csv, and trials/ the settings and curves of each")


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


class _Screen:
    """Shows the best trials: a table that is drawn again on a terminal, lines elsewhere."""

    def __init__(self, space: SearchSpace) -> None:
        self._objective = space.config.search.objective
        self._paths = [dimension.path for dimension in space.dimensions]
        self._live = sys.stderr.isatty()
        self._lines = 0
        self._told = -1
        self._last = 0.0

    def show(self, board: "Board") -> None:
        """Shows where the search stands."""
        done = board.standing.ended
        if not self._live:
            if done != self._told:
                self._told = done
                best = board.best[0] if board.best else None
                shown = f"; best {self._describe(best)}" if best else ""
                print(f"{self._progress(board)}{shown}", file=sys.stderr, flush=True)
            return
        if time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            self._draw(board)

    def end(self) -> None:
        """Leaves the last table on the screen."""
        self._lines = 0

    def _draw(self, board: "Board") -> None:
        head = ["trial", self._objective, *(path.split(".")[-1] for path in self._paths)]
        rows = [[*head, "epochs", "seconds"], *map(self._row, board.best[:_SHOWN])]
        width = shutil.get_terminal_size().columns
        text = [line[:width] for line in (*table(rows), self._progress(board))]
        above = f"\x1b[{self._lines}A" if self._lines else ""
        print(f"{above}\r\x1b[J" + "\n".join(text), file=sys.stderr, flush=True)
        self._lines = len(text)

    def _row(self, record: "TrialRecord") -> list[str]:
        values = (label(record.values.get(path, "")) for path in self._paths)
        value = f"{record.metrics[self._objective]:.4f}"
        return [str(record.number), value, *values, str(record.epochs), f"{record.seconds:.1f}"]

    def _describe(self, record: "TrialRecord") -> str:
        values = ", ".join(
            f"{path.split('.')[-1]} {label(value)}" for path, value in record.values.items()
        )
        value = record.metrics[self._objective]
        return f"{self._objective} {value:.4f} in trial {record.number} ({values})"

    def _progress(self, board: "Board") -> str:
        standing = board.standing
        total = "" if standing.total is None else f" of {standing.total}"
        failed = f", {board.failed} failed" if board.failed else ""
        left = standing.seconds_left
        rest = "" if left is None else f", about {_span(left)} left"
        return f"{standing.ended}{total} trials ended{failed}, {standing.running} running{rest}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


if __name__ == "__main__":
    sys.exit(main())
