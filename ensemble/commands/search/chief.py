"""The chief of a search: hands trials out to workers, and ends when the work does."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from configs.errors import RunError
from ensemble.commands.search.tuners import LastingOracle

log = logging.getLogger(__name__)

_PATIENCE = 20.0  # seconds without a sign of a worker before its trial is given to another
_WAIT = 600.0  # seconds without any worker before the chief gives up
_FAREWELL = 5.0  # seconds for workers to hear that there is no more work


@dataclass(frozen=True)
class Standing:
    """Where a search stands.

    Args:
        ended: Trials that have ended.
        running: Trials that are running.
        total: How many there will be at most, None where nobody knows.
        seconds_left: What the rest will take, None where nobody knows.
    """

    ended: int
    running: int
    total: int | None
    seconds_left: float | None


def lead(
    oracle: LastingOracle,
    address: str,
    *,
    show: Callable[[Standing], None],
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Hands out trials until all have ended.

    Args:
        oracle: Knows the trials.
        address: Where workers find the chief, `host:port` or `unix:path`.
        show: Told twice a second where the search stands.
        watch: Called as often; raises if the workers are no more.

    Raises:
        RunError: If the address is taken, the oracle's file cannot be written, or no
            worker was heard of for ten minutes.
    """
    started, before = time.monotonic(), oracle.standing()["ended"]
    with _serving(oracle, address) as servicer:
        alone = time.monotonic()
        while not (servicer.stop_triggered and _farewell(oracle)):
            time.sleep(0.5 if servicer.stop_triggered or oracle.seen else 0.1)
            for tuner_id in oracle.forget(_PATIENCE):
                log.warning("worker %s was not heard of for %.0f s", tuner_id, _PATIENCE)
            if oracle.failure is not None:
                raise RunError(
                    f"{oracle.path} cannot be written ({oracle.failure}). Free some space and "
                    "start again: all trials that have ended are kept."
                )
            alone = time.monotonic() if oracle.seen else alone
            if time.monotonic() - alone > _WAIT:
                raise RunError(
                    f"No worker was heard of for {_WAIT:.0f} s. Start the chief and its workers "
                    "again: all trials that have ended are kept."
                )
            watch()
            show(_standing(oracle, started, before))
        show(_standing(oracle, started, before))


@contextmanager
def _serving(oracle: LastingOracle, address: str) -> Iterator[OracleServicer]:
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    servicer = OracleServicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise RunError(
            f"The chief cannot listen at {address}. Choose a free KERASTUNER_ORACLE_PORT."
        ) from error
    server.start()
    try:
        yield servicer
    finally:
        server.stop(grace=1).wait()


def _farewell(oracle: LastingOracle) -> bool:
    """Waits until every worker has heard that there is no more work, but not for long."""
    end = time.monotonic() + _FAREWELL
    while oracle.seen and time.monotonic() < end:
        time.sleep(0.05)
    return True


def _standing(oracle: LastingOracle, started: float, before: int) -> Standing:
    now, total = oracle.standing(), oracle.total()
    left = None
    if total is not None and now["ended"] > before:
        each = (time.monotonic() - started) / (now["ended"] - before)
        left = each * max(0, total - now["ended"])
    return Standing(now["ended"], now["running"], total, left)
