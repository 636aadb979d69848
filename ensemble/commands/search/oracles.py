"""KerasTuner's oracles, which propose trials, with a state that survives a kill at any moment.

KerasTuner 1.4.8 writes its state in place into many files, does not save where a grid
stands, and waits for workers that have died.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial
from keras_tuner.engine.trial import TrialStatus as Status
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle

from configs.errors import RunError
from ensemble.commands.search.spaces import SearchSpace
from ensemble.metrics.metrics import objectives
from ensemble.system.files import write_atomic

_MAX_COLLISIONS = 1000  # samples of known values before a space counts as exhausted


class DurableOracle(keras_tuner.Oracle):
    """An oracle that keeps its state in one file, which is replaced as a whole.

    Attributes:
        finished: Whether all trials have ended.
        failure: The exception that ended the search; None: there was none.
    """

    finished = False
    failure: Exception | None = None

    def open(self, path: Path) -> None:
        """Continues from the state in a file if it exists, and keeps the state there.

        Raises:
            RunError: If it is unreadable.
        """
        self.path = path
        self.verbose = 0
        self._max_collisions = _MAX_COLLISIONS
        if path.exists():
            self.reload()

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """Returns the next trial; one of status STOPPED after all have ended."""
        try:
            trial = super().create_trial(tuner_id)
        except Exception as error:  # raised here it would keep the oracle's lock for ever
            self.failure = error
            return Trial(self.hyperparameters, status=Status.STOPPED)
        if trial.status == Status.STOPPED:
            if self.ongoing_trials:  # another worker may die, and its trial be free again
                trial.status = Status.IDLE
            else:
                self.finished = True
        return trial

    @keras_tuner.synchronized
    def end_trial(self, trial: Trial) -> None:
        """Takes a trial's result, unless another worker has brought it before."""
        own = {each.trial_id: each for each in self.ongoing_trials.values()}
        if trial.trial_id in own:
            # The message from the worker holds numbers rounded to 32 bits.
            trial.hyperparameters = own[trial.trial_id].hyperparameters
            try:
                super().end_trial(trial)
            except Exception as error:
                self.failure = error

    @keras_tuner.synchronized
    def release(self, tuner_id: str) -> str | None:
        """Forgets a worker that has died; the next worker gets its trial.

        Returns:
            The id of that trial, None if it had none.
        """
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is None:
            return None
        self._retry_queue.append(trial.trial_id)
        return trial.trial_id

    def total(self) -> int | None:
        """Returns the number of trials, None where it is not known."""
        return self.max_trials

    def get_state(self) -> dict[str, Any]:
        trials = {number: trial.get_state() for number, trial in self.trials.items()}
        return {**super().get_state(), "trials": trials}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.trials = {number: Trial.from_state(trial) for number, trial in state["trials"].items()}
        super().set_state(state)

    def save(self) -> None:
        write_atomic(self.path, json.dumps(self.get_state(), default=lambda x: x.item()).encode())

    def reload(self) -> None:
        try:
            self.set_state(json.loads(self.path.read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self.path} is unreadable ({error}). Remove it and start again: recorded trials "
                "are not run again."
            ) from error
        self.ongoing_trials: dict[str, Trial] = {}
        # Not the saved list of ongoing trials, which still has the one that ended last.
        self._retry_queue = [
            number for number in reversed(self.start_order) if number not in self.end_order
        ]

    def _save_trial(self, trial: Trial) -> None:
        """Does nothing, as trials are kept with the rest of the state."""


class GridOracle(DurableOracle):
    """Proposes every combination once, in order."""

    def set_space(self, space: SearchSpace) -> None:
        """Sets the combinations."""
        self._dimensions = space.dimensions
        self._count = sum(1 for _ in space.combinations())
        self._remaining = space.combinations()

    def total(self) -> int | None:
        return min(self._count, self.max_trials or self._count)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        for values in self._remaining:
            tokens = {each.path: each.token_of(values) for each in self._dimensions}
            if not self._duplicate(tokens):  # those before a resume
                return {"status": Status.RUNNING, "values": tokens}
        return {"status": Status.STOPPED}


class RandomOracle(DurableOracle, RandomSearchOracle):
    """Samples values at random, none of them twice."""


class BayesianOracle(DurableOracle, BayesianOptimizationOracle):
    """Samples values where a Gaussian process expects the best, none of them twice."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        proposal = super().populate_space(trial_id)
        if proposal["values"] is not None and self._duplicate(proposal["values"]):
            return self._random_populate_space()
        return proposal


class BandOracle(DurableOracle, HyperbandOracle):
    """Hyperband: many short trials, the best of them again with more epochs.

    A longer trial starts from the beginning, so that each result can be reproduced alone.
    """

    def total(self) -> int | None:
        count = sum(
            self._get_size(bracket, number)
            for bracket in range(self._get_num_brackets())
            for number in range(self._get_num_rounds(bracket))
        )
        return min(count, self.max_trials or count)


def make_oracle(space: SearchSpace, path: Path) -> DurableOracle:
    """Returns the oracle that the settings name.

    Args:
        space: The leaves that vary, and the settings of the search.
        path: The file of its state.

    Raises:
        RunError: If that file is unreadable.
    """
    search = space.config.search
    hyperparameters = keras_tuner.HyperParameters()
    space.declare(hyperparameters)
    common: dict[str, Any] = {
        "objective": keras_tuner.Objective(search.objective, objectives()[search.objective]),
        "hyperparameters": hyperparameters,
        "seed": space.config.seed + 1,  # KerasTuner takes 0 for none
        "max_retries_per_trial": 3,  # of a trial whose result did not reach the chief
        "max_consecutive_failed_trials": 10**9,
    }
    oracle: DurableOracle
    match search.tuner:
        case "grid":
            oracle = GridOracle(**common)
            oracle.set_space(space)
        case "random":
            oracle = RandomOracle(**common)
        case "bayesian":
            oracle = BayesianOracle(**common)
        case "hyperband":
            epochs = space.config.training.epochs
            oracle = BandOracle(max_epochs=epochs, factor=search.factor, **common)
    oracle.max_trials = space.trials
    oracle.open(path)
    return oracle
