"""Trackers that record every epoch beside the run's own history: TensorBoard, MLflow."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from configs.errors import ConfigError
from configs.schema import ExperimentConfig
from ensemble.runs.run import Run
from ensemble.training.checkpoint import has_checkpoint

log = logging.getLogger(__name__)

_EXPERIMENT = "multibranch-ensemble"
_FILE = "mlflow.json"  # in the run's folder


@contextmanager
def tracking(config: ExperimentConfig, run: Run) -> Iterator[list[keras.callbacks.Callback]]:
    """Yields the callbacks that `config.training.trackers` names, and closes them at the end.

    Raises:
        ConfigError: If one is not available.
    """
    names = config.training.trackers if run.writes else ()
    trackers = [_TRACKERS[name](config, run) for name in names]
    status = "FAILED"
    try:
        yield trackers
        status = "KILLED" if has_checkpoint(run) else "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        for tracker in trackers:
            if isinstance(tracker, MlflowTracker):
                tracker.close(status)


class MlflowTracker(keras.callbacks.Callback):
    """Logs settings and epochs to the MLflow server named by MLFLOW_TRACKING_URI.

    A resumed run continues its MLflow run, whose id is in `mlflow.json`. If the server is
    lost later, the training goes on with a warning.

    Args:
        config: The settings, logged as parameters by dotted path.
        run: Names the MLflow run.

    Raises:
        ConfigError: If no server is named, or it does not respond.
    """

    def __init__(self, config: ExperimentConfig, run: Run) -> None:
        super().__init__()
        import mlflow

        if not mlflow.is_tracking_uri_set():
            raise ConfigError(
                "The tracker 'mlflow' needs a server. Set MLFLOW_TRACKING_URI, such as "
                "http://localhost:5000, or leave out --track mlflow."
            )
        try:
            self._client = mlflow.MlflowClient()
            self._id: str | None = self._continue(run) or self._begin(config, run)
        except Exception as error:  # of the network, of the server, of a database
            raise ConfigError(
                f"MLflow at {mlflow.get_tracking_uri()} cannot be written ({_reason(error)})."
            ) from error

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        with self._reporting_loss():
            for name, value in (logs or {}).items() if self._id else ():
                self._client.log_metric(self._id, name, value, step=epoch + 1)

    def close(self, status: str) -> None:
        """Ends the MLflow run with a status of MLflow: "FINISHED", "FAILED" or "KILLED"."""
        with self._reporting_loss():
            if self._id:
                self._client.set_terminated(self._id, status)

    def _continue(self, run: Run) -> str | None:
        """Returns the id of an earlier part of the run on this server, if there is one."""
        from mlflow.exceptions import MlflowException

        if not (run.folder / _FILE).exists():
            return None
        run_id = str(run.read_json(_FILE).get("run_id"))
        try:
            self._client.update_run(run_id, "RUNNING")
        except MlflowException as error:
            log.warning("MLflow does not continue run %s (%s): a new one begins", run_id, error)
            return None
        return run_id

    def _begin(self, config: ExperimentConfig, run: Run) -> str:
        experiment = self._client.get_experiment_by_name(_EXPERIMENT)
        home = (
            experiment.experiment_id if experiment else self._client.create_experiment(_EXPERIMENT)
        )
        run_id: str = self._client.create_run(home, run_name=run.name).info.run_id
        for path, value in _flatten(config.model_dump(mode="json", exclude_none=True)):
            self._client.log_param(run_id, path, value)
        run.write_json(_FILE, {"run_id": run_id})
        return run_id

    @contextmanager
    def _reporting_loss(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            log.warning("MLflow no longer records this run (%s)", _reason(error))
            self._id = None


def _make_tensorboard(_: ExperimentConfig, run: Run) -> keras.callbacks.Callback:
    return keras.callbacks.TensorBoard(str(run.folder / "tensorboard"), write_graph=False)


_TRACKERS: Mapping[str, Callable[[ExperimentConfig, Run], keras.callbacks.Callback]] = {
    "tensorboard": _make_tensorboard,
    "mlflow": MlflowTracker,
}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
