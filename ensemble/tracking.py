"""Trackers that are told of every epoch beside the run's own history: TensorBoard, MLflow."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from configs.errors import ConfigError
from configs.schema import ExperimentConfig
from ensemble.run import Run


def make_trackers(config: ExperimentConfig, run: Run) -> list[keras.callbacks.Callback]:
    """Returns the callbacks that `config.training.trackers` names.

    Raises:
        ConfigError: If one cannot be had here.
    """
    return [_make(name, config, run) for name in config.training.trackers]


class MlflowTracker(keras.callbacks.Callback):
    """Writes settings and epochs to an MLflow server, or to files where none is named.

    The server is the one of MLflow's own variable MLFLOW_TRACKING_URI.

    Args:
        config: The settings, kept as parameters by dotted path.
        run: Gives the MLflow run its name, and a folder for files.
    """

    def __init__(self, config: ExperimentConfig, run: Run) -> None:
        super().__init__()
        import mlflow

        self._client = mlflow.MlflowClient(
            mlflow.get_tracking_uri()
            if mlflow.is_tracking_uri_set()
            else (run.folder.parent / "mlruns").resolve().as_uri()
        )
        self._name = run.name
        self._settings = dict(_flatten(config.model_dump(mode="json", exclude_none=True)))
        self._id: str | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        if self._id is None:  # two phases are one run
            name = "multibranch-ensemble"
            experiment = self._client.get_experiment_by_name(name)
            home = experiment.experiment_id if experiment else self._client.create_experiment(name)
            self._id = self._client.create_run(home, run_name=self._name).info.run_id
            for path, value in self._settings.items():
                self._client.log_param(self._id, path, value)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            self._client.log_metric(self._id, name, value, step=epoch + 1)


def _make_tensorboard(_: ExperimentConfig, run: Run) -> keras.callbacks.Callback:
    return keras.callbacks.TensorBoard(str(run.folder / "tensorboard"), write_graph=False)


# Name to what makes it and the packages that it needs.
_TRACKERS: Mapping[str, tuple[Callable[..., keras.callbacks.Callback], tuple[str, ...]]] = {
    "tensorboard": (_make_tensorboard, ("tensorflow", "tensorboard")),
    "mlflow": (MlflowTracker, ("mlflow",)),
}


def _make(name: str, config: ExperimentConfig, run: Run) -> keras.callbacks.Callback:
    build, packages = _TRACKERS[name]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"The tracker {name!r} needs the package {package!r}, which is not installed: "
                f"pip install {package}, or leave out --track {name}."
            )
    return build(config, run)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
