"""Trials are served to workers until all have ended."""

import logging
import threading
import time
from collections.abc import Callable

from configs.errors import RunError
from ensemble.commands.search.hypermodel import EnsembleHyperModel
from ensemble.commands.search.oracles import DurableOracle, make_oracle
from ensemble.commands.search.study import Study
from ensemble.commands.search.tuner import TrialTuner

log = logging.getLogger(__name__)

_POLL = 0.2  # seconds
_WAIT = 600.0  # seconds without any worker before the search ends
_FAREWELL = 5.0  # seconds for workers to learn that all trials have ended


def serve_trials(
    hypermodel: EnsembleHyperModel,
    study: Study,
    watch: Callable[[DurableOracle], object],
) -> None:
    """Serves trials as KerasTuner's chief, at the address that its variables name.

    Args:
        hypermodel: What is searched over.
        study: The folder of the search, which this process has locked.
        watch: Called several times a second.

    Raises:
        RunError: If the state of the search cannot be kept, the address is in use, or no
            worker came for ten minutes.
    """
    oracle = make_oracle(hypermodel.space, study.folder / "oracle.json")
    tuner = TrialTuner(hypermodel, study, oracle)

    def serve() -> None:
        try:
            tuner.search()
        except Exception as error:
            oracle.failure = error

    threading.Thread(target=serve, daemon=True).start()
    alone_since = time.monotonic()
    while not oracle.finished:
        time.sleep(_POLL)
        if oracle.failure is not None:
            raise RunError(
                f"The search ended early ({oracle.failure}). Start it again: all recorded trials "
                "are kept."
            ) from oracle.failure
        for name in [*oracle.tuner_ids, *oracle.ongoing_trials]:
            if not study.has_worker(name) and (number := oracle.release(name)) is not None:
                log.warning("%s died; trial %s is run again", name, number)
        if oracle.tuner_ids:
            alone_since = time.monotonic()
        elif time.monotonic() - alone_since > _WAIT:
            raise RunError(
                f"No worker came for {_WAIT:.0f} s. Start the search and its workers again: all "
                "recorded trials are kept."
            )
        watch(oracle)
    end = time.monotonic() + _FAREWELL
    while oracle.tuner_ids and time.monotonic() < end:
        time.sleep(_POLL)
