"""Trackers that are told of every epoch beside the run's own history: TensorBoard, MLflow."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from configs.errors import ConfigError
from configs.schema import ExperimentConfig
from ensemble.run import Run

log = logging.getLogger(__name__)

_EXPERIMENT = "multibranch-ensemble"


def make_trackers(config: ExperimentConfig, run: Run) -> list[keras.callbacks.Callback]:
    """Returns the callbacks that `config.training.trackers` names.

    Raises:
        ConfigError: If one cannot be had here.
    """
    return [_TRACKERS[name](config, run) for name in config.training.trackers]


class MlflowTracker(keras.callbacks.Callback):
    """Writes settings and epochs to the MLflow server that MLFLOW_TRACKING_URI names.

    A server that is lost later costs a warning, not the training.

    Args:
        config: The settings, kept as parameters by dotted path.
        run: Gives the MLflow run its name.

    Raises:
        ConfigError: If there is no server, or it does not answer.
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
            experiment = self._client.get_experiment_by_name(_EXPERIMENT)
            home = (
                experiment.experiment_id
                if experiment
                else self._client.create_experiment(_EXPERIMENT)
            )
            self._id: str | None = self._client.create_run(home, run_name=run.name).info.run_id
            for path, value in _flatten(config.model_dump(mode="json", exclude_none=True)):
                self._client.log_param(self._id, path, value)
        except Exception as error:  # of the network, of the server, of a database
            raise ConfigError(
                f"MLflow at {mlflow.get_tracking_uri()} cannot be written ({_reason(error)})."
            ) from error

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        try:
            for name, value in (logs or {}).items() if self._id else ():
                self._client.log_metric(self._id, name, value, step=epoch + 1)
        except Exception as error:
            log.warning("MLflow is told no more of this run (%s)", _reason(error))
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
