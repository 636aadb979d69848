"""The tuner that runs trials in a worker process and records each of them."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras_tuner
from keras_tuner.engine import base_tuner
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FailedTrialError

from configs.errors import ConfigError, RunError, UserError
from ensemble.commands.search.hypermodel import EnsembleHyperModel
from ensemble.commands.search.study import Study, TrialRecord
from ensemble.commands.search.winner import drop_beaten, keep_if_best
from ensemble.metrics.evaluating import write_results
from ensemble.metrics.metrics import objectives

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 3  # processes that may die in a trial
_MAX_TRIALS = 20  # of a process, as backends free no memory of earlier models


class TrialTuner(base_tuner.BaseTuner):
    """Runs trials of a hypermodel and records them in the folder of a search.

    Args:
        hypermodel: Builds and trains the models.
        study: The folder.
        oracle: Proposes the trials; None: a chief in another process does.
        renew: Replaces this process by a fresh one.
    """

    def __init__(
        self,
        hypermodel: EnsembleHyperModel,
        study: Study,
        oracle: keras_tuner.Oracle | None = None,
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        self._objective = hypermodel.space.config.search.objective
        objective = keras_tuner.Objective(self._objective, objectives()[self._objective])
        super().__init__(
            oracle or keras_tuner.Oracle(objective),
            directory=study.folder.parent,
            project_name=study.folder.name,
        )
        self._models = hypermodel
        self._study = study
        self._renew = renew
        self._count = 0
        self._idle = False

    def pre_create_trial(self) -> None:
        if self._count >= _MAX_TRIALS:
            self._renew()
        if self._idle:
            time.sleep(0.1)
        self._idle = True

    def on_trial_begin(self, trial: Trial) -> None:
        self._idle = False
        self._count += 1

    def run_trial(self, trial: Trial, *_: Any, **__: Any) -> dict[str, float]:
        """Runs a trial, or returns what is recorded of it, and returns its objective.

        Raises:
            FailedTrialError: With the reason why it failed.
        """
        values = self._models.space.values_of(trial.hyperparameters)
        record = self._study.read(int(trial.trial_id))
        if record is None or dict(record.values) != values:
            record = self._run(trial, values)
        if record.status == "failed":
            raise FailedTrialError(record.reason)
        return {self._objective: record.metrics[self._objective]}

    def save(self) -> None:
        """Does nothing, as a worker has no state of its own."""

    def _run(self, trial: Trial, values: Mapping[str, Any]) -> TrialRecord:
        started = time.perf_counter()
        record = TrialRecord(int(trial.trial_id), "failed", values)
        training = 0.0
        try:
            if self._study.count_attempt(record.number) > _MAX_ATTEMPTS:
                raise RunError(f"{_MAX_ATTEMPTS} processes died in this trial.")
            with self._study.trial(record.number).logging():
                record, training = self._train(trial.hyperparameters, record)
        except Exception as error:
            log.debug("trial %d failed", record.number, exc_info=True)
            reason = str(error).strip().splitlines() or [""]
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            record = replace(record, reason=f"{kind}{reason[0]}")
        seconds = time.perf_counter() - started
        record = replace(record, seconds=seconds, overhead=seconds - training)
        self._study.write(record)
        drop_beaten(self._study, self._objective)
        return record

    def _train(
        self, hp: keras_tuner.HyperParameters, record: TrialRecord
    ) -> tuple[TrialRecord, float]:
        """Returns the record of a completed trial, and the seconds of its training."""
        run = self._study.trial(record.number)
        config, _ = self._models.trial_of(hp)
        run.write_settings(config)
        result = self._models.train(hp, self._models.build(hp))
        history = result.history
        if self._objective not in result.metrics:
            raise ConfigError(f"{self._objective} is not defined for these classes.")
        run.write_table("history.csv", ["epoch", "phase", *history.epochs], history.rows())
        write_results(run, result.report)
        record = replace(
            record,
            status="completed",
            metrics=result.metrics,
            epochs=len(history),
            best_epoch=history.best_epoch,
            history={name: list(map(float, values)) for name, values in history.epochs.items()},
        )
        keep_if_best(self._study, self._objective, record, result.progress)
        return record, result.seconds
