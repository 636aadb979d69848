"""KerasTuner at work: its tuners propose trials, its chief hands them out, its workers run them.

KerasTuner 1.4.8 keeps its knowledge in many files written in place, forgets where
a grid stood, takes a trial for ended that was never begun and waits for workers
that are gone. The oracles here keep everything in one file that is replaced as a
whole, and hand a lost trial to the next worker.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine import base_tuner
from keras_tuner.engine.trial import Trial
from keras_tuner.engine.trial import TrialStatus as Status
from keras_tuner.errors import FailedTrialError
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle

from configs.errors import RunError
from ensemble.commands.search.spaces import WITHOUT, Dimension, SearchSpace
from ensemble.commands.search.study import TrialRecord
from ensemble.metrics.metrics import objectives
from ensemble.system.files import write_atomic

log = logging.getLogger(__name__)

_MOST_LOSSES = 3  # workers that a trial may outlive
_COLLISIONS = 1000  # draws of known values before a space counts as exhausted
_EPOCHS = "tuner/epochs"  # how Hyperband names the length of a trial


def declare(dimensions: list[Dimension]) -> keras_tuner.HyperParameters:
    """Returns the leaves that vary as KerasTuner's hyperparameters."""
    hyperparameters = keras_tuner.HyperParameters()
    for dimension in dimensions:
        space = dimension.space
        if dimension.space.kind in {"choice", "subsets"}:
            hyperparameters.Choice(dimension.path, dimension.tokens)
        elif space.kind == "int":
            low, high = map(int, space.values)
            hyperparameters.Int(dimension.path, low, high, step=int(space.step or 1))
        elif space.kind == "float":
            low, high = space.values
            hyperparameters.Float(dimension.path, low, high, step=space.step)
        else:
            low, high = space.values
            hyperparameters.Float(dimension.path, low, high, sampling="log")
    return hyperparameters


class LastingOracle(keras_tuner.Oracle):
    """An oracle that outlives its process and its workers.

    Attributes:
        seen: Tuner id to when it was last heard of, in seconds of `time.monotonic`.
        on_loss: Called with a trial that no worker lived through, and the reason.
        failure: Why its file could not be written; None: it could.
    """

    def keep_in(self, path: Path, on_loss: Callable[[Trial, str], None]) -> None:
        """Goes on where the file `path` says, if it is there, and keeps everything in it.

        Raises:
            RunError: If it cannot be read.
        """
        self.path = path
        self.seen: dict[str, float] = {}
        self.losses: dict[str, int] = {}
        self.on_loss = on_loss
        self.failure: OSError | None = None
        self.verbose = 0
        self._max_collisions = _COLLISIONS
        self._set_project_dir(path.parent.parent, path.parent.name)
        if path.exists():
            self.reload()

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """Returns the next trial; a worker that asks while one is its own has lost that one."""
        self.seen[tuner_id] = time.monotonic()
        if tuner_id in self.ongoing_trials:
            self._lose(tuner_id)
        trial = super().create_trial(tuner_id)
        if trial.status == Status.STOPPED and self.ongoing_trials:
            trial.status = Status.IDLE  # another worker may be lost, and its trial come back
        if trial.status == Status.STOPPED:
            self.seen.pop(tuner_id, None)
        return trial

    def get_trial(self, trial_id: str) -> Trial:
        """Returns a trial; whoever runs it asks for it to show that it lives."""
        for tuner_id, trial in list(self.ongoing_trials.items()):
            if trial.trial_id == trial_id:
                self.seen[tuner_id] = time.monotonic()
        return super().get_trial(trial_id)

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Takes a trial's result, unless another worker has brought it before."""
        own = {each.trial_id: each for each in self.ongoing_trials.values()}
        if trial.trial_id in own:
            # On its way a number was rounded to 32 bits.
            trial.hyperparameters = own[trial.trial_id].hyperparameters
            super().end_trial(trial)

    @keras_tuner.synchronized
    def forget(self, patience: float) -> list[str]:
        """Takes trials back from workers that were not heard of for so many seconds.

        Returns:
            The ids of those workers.
        """
        late = [
            tuner_id
            for tuner_id, moment in list(self.seen.items())
            if time.monotonic() - moment > patience
        ]
        for tuner_id in late:
            del self.seen[tuner_id]
            self.tuner_ids.discard(tuner_id)
            if tuner_id in self.ongoing_trials:
                self._lose(tuner_id)
        return late

    @keras_tuner.synchronized
    def standing(self) -> dict[str, int]:
        """Returns how many trials are running, and how many have ended."""
        return {"running": len(self.ongoing_trials), "ended": len(self.end_order)}

    def total(self) -> int | None:
        """Returns how many trials there will be, None where nobody knows."""
        return self.max_trials

    def get_state(self) -> dict[str, Any]:
        trials = {number: trial.get_state() for number, trial in self.trials.items()}
        return {**super().get_state(), "trials": trials, "losses": self.losses}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.trials = {number: Trial.from_state(trial) for number, trial in state["trials"].items()}
        self.losses = dict(state["losses"])
        super().set_state(state)

    def save(self) -> None:
        try:
            write_atomic(self.path, json.dumps(self.get_state(), default=_plain).encode())
        except OSError as error:  # raised here it would keep the oracle's lock for ever
            self.failure = error

    def reload(self) -> None:
        try:
            self.set_state(json.loads(self.path.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.path} cannot be read ({error}). Remove it and start again: trials that "
                "have ended are kept beside it and are not run again."
            ) from error
        self.ongoing_trials: dict[str, Trial] = {}
        # Not its own list of ongoing trials, which still has the one that ended last.
        self._retry_queue = [
            number for number in reversed(self.start_order) if number not in self.end_order
        ]

    def _save_trial(self, trial: Trial) -> None:
        """Does nothing, as trials are kept with all the rest."""

    def _lose(self, tuner_id: str) -> None:
        trial = self.ongoing_trials.pop(tuner_id)
        self.losses[trial.trial_id] = self.losses.get(trial.trial_id, 0) + 1
        if self.losses[trial.trial_id] < _MOST_LOSSES:
            self._retry_queue.append(trial.trial_id)
            log.warning("trial %s: worker %s is lost; it is run again", trial.trial_id, tuner_id)
            return
        reason = f"{_MOST_LOSSES} workers died in this trial, the last one {tuner_id}."
        trial.status, trial.message = Status.FAILED, reason
        self.end_order.append(trial.trial_id)
        self.save()
        self.on_loss(trial, reason)


class GridOracle(LastingOracle):
    """Proposes every combination once, in order."""

    def declare(self, space: SearchSpace) -> None:
        """Says which combinations there are."""
        self._dimensions = space.dimensions
        self._count = sum(1 for _ in space.combinations())
        self._coming = space.combinations()

    def total(self) -> int | None:
        return min(self._count, self.max_trials or self._count)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        for values in self._coming:
            tokens = {each.path: each.token_of(values) for each in self._dimensions}
            if not self._duplicate(tokens):  # an oracle that goes on meets those before
                return {"status": Status.RUNNING, "values": tokens}
        return {"status": Status.STOPPED}


class RandomOracle(LastingOracle, RandomSearchOracle):
    """Draws values at random, none of them twice."""


class BayesianOracle(LastingOracle, BayesianOptimizationOracle):
    """Draws values where a Gaussian process expects the best, none of them twice."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        proposal = super().populate_space(trial_id)
        if proposal["values"] is not None and self._duplicate(proposal["values"]):
            return self._random_populate_space()
        return proposal


class BandOracle(LastingOracle, HyperbandOracle):
    """Hyperband: many short trials, the best of them again with more epochs.

    A longer trial starts afresh, so that each result can be repeated by itself.
    """

    def total(self) -> int | None:
        count = sum(
            self._get_size(bracket, number)
            for bracket in range(self._get_num_brackets())
            for number in range(self._get_num_rounds(bracket))
        )
        return min(count, self.max_trials or count)


def make_oracle(
    space: SearchSpace, path: Path, on_loss: Callable[[Trial, str], None]
) -> LastingOracle:
    """Returns the oracle that settings name.

    Args:
        space: The leaves that vary, and the settings of the search.
        path: The file in which it keeps what it knows.
        on_loss: Called with a trial that no worker lived through, and the reason.

    Raises:
        RunError: If that file is damaged.
    """
    search = space.config.search
    common: dict[str, Any] = {
        "objective": keras_tuner.Objective(search.objective, objectives()[search.objective]),
        "hyperparameters": declare(space.dimensions),
        "seed": space.config.seed + 1,  # KerasTuner takes 0 for none
        "max_consecutive_failed_trials": 10**9,  # it would hang, as it keeps its lock
    }
    oracle: LastingOracle
    match search.tuner:
        case "grid":
            oracle = GridOracle(**common)
            oracle.declare(space)
        case "random":
            oracle = RandomOracle(**common)
        case "bayesian":
            oracle = BayesianOracle(**common)
        case "hyperband":
            epochs = space.config.training.epochs
            oracle = BandOracle(max_epochs=epochs, factor=search.factor, **common)
    oracle.max_trials = space.trials
    oracle.keep_in(path, on_loss)
    return oracle


def values_of(trial: Trial, space: SearchSpace) -> dict[str, Any]:
    """Returns dotted leaf to value for a trial that an oracle proposes."""
    given = trial.hyperparameters.values
    values = {
        dimension.path: dimension.value_of(given[dimension.path])
        for dimension in space.dimensions
        if given[dimension.path] != WITHOUT
    }
    if _EPOCHS in given:
        values["training.epochs"] = int(given[_EPOCHS])
    return values


class OutgrownError(Exception):
    """This worker process makes room for a fresh one."""


class TrialTuner(base_tuner.BaseTuner):
    """A worker: asks the chief for trials and runs them.

    Args:
        space: The leaves that vary.
        run: From a trial's number and its values to what it came to.
        folder: Of the study.
        tuner_id: What the chief knows it by.
        grown: Whether this process has grown so that a fresh one should take its place.
    """

    def __init__(
        self,
        space: SearchSpace,
        run: Callable[[int, Mapping[str, Any]], TrialRecord],
        folder: Path,
        tuner_id: str,
        grown: Callable[[], bool],
    ) -> None:
        objective = space.config.search.objective
        super().__init__(
            keras_tuner.Oracle(keras_tuner.Objective(objective, objectives()[objective])),
            directory=folder.parent,
            project_name=folder.name,
        )
        self.tuner_id = tuner_id
        self._space = space
        self._run = run
        self._grown = grown
        self._idle = False
        self._current: str | None = None

    def pre_create_trial(self) -> None:
        if self._idle:
            time.sleep(0.1)
        elif self._grown():
            raise OutgrownError
        self._idle = True

    def on_trial_begin(self, trial: Trial) -> None:
        self._idle = False
        self._current = trial.trial_id

    def on_trial_end(self, trial: Trial) -> None:
        self._current = None
        super().on_trial_end(trial)

    def run_trial(self, trial: Trial, *_: Any, **__: Any) -> dict[str, float]:
        record = self._run(int(trial.trial_id), values_of(trial, self._space))
        if record.status == "failed":
            raise FailedTrialError(record.reason)
        name = self._space.config.search.objective
        return {name: record.metrics[name]}

    def save(self) -> None:
        """Does nothing, as a worker knows nothing that the chief does not."""

    def report_living(self, every: float, patience: float, give_up: Callable[[], None]) -> None:
        """Shows the chief in a thread that this worker lives.

        Args:
            every: Seconds between two signs.
            patience: Seconds without an answer after which to give up.
            give_up: Called then.
        """
        from keras_tuner.src import protos

        messages, stub = protos.get_service(), self.oracle.stub

        def report() -> None:
            heard = time.monotonic()
            while time.monotonic() - heard < patience:
                current = self._current
                try:
                    if current is not None:
                        stub.GetTrial(messages.GetTrialRequest(trial_id=current), timeout=every)
                    else:
                        stub.GetSpace(messages.GetSpaceRequest(), timeout=every)
                    heard = time.monotonic()
                except Exception:  # whatever gRPC raises while nobody answers
                    log.debug("the chief does not answer", exc_info=True)
                time.sleep(every)
            give_up()

        threading.Thread(target=report, daemon=True).start()


def _plain(value: Any) -> Any:
    """Returns a NumPy number as a plain one."""
    return value.item()
