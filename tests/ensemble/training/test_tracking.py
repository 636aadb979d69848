import importlib.util

import keras
import pytest

from configs.errors import ConfigError
from ensemble import experiment
from ensemble.commands.train.__main__ import main as train
from ensemble.experiment import fit

FINE = {"epochs": 2, "unfreeze": "last:1", "fine_tuning": {"epochs": 1}}


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or importlib.util.find_spec("tensorboard") is None,
    reason="needs the backend tensorflow and the package tensorboard",
)
def test_tensorboard_reads_every_epoch(make_config):
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = fit(make_config(training={**FINE, "trackers": "tensorboard"}))

    losses = [
        float(tf.make_ndarray(event.tensor_proto))
        for path in (result.run.folder / "tensorboard" / "validation").glob("events.*")
        for event in EventAccumulator(str(path)).Reload().Tensors("epoch_loss")
    ]
    assert sorted(losses, reverse=True) == pytest.approx(
        sorted(result.history.epochs["val_loss"], reverse=True), rel=1e-5
    )


@pytest.fixture
def server(tmp_path, monkeypatch) -> str:
    """Stands for an MLflow server: its store in files."""
    pytest.importorskip("mlflow")
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return uri


def test_mlflow_reads_settings_and_every_epoch(make_config, server):
    import mlflow

    result = fit(make_config(training={**FINE, "trackers": "mlflow"}))

    client = mlflow.MlflowClient(server)
    (experiment,) = client.search_experiments(filter_string="name = 'multibranch-ensemble'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == result.run.name
    assert run.data.params["training.fine_tuning.epochs"] == "1"
    logged = [m.value for m in client.get_metric_history(run.info.run_id, "val_loss")]
    assert logged == pytest.approx(result.history.epochs["val_loss"])


def only_run(server):
    import mlflow

    client = mlflow.MlflowClient(server)
    (experiment,) = client.search_experiments(filter_string="name = 'multibranch-ensemble'")
    (run,) = client.search_runs([experiment.experiment_id])
    return run, client


def test_an_mlflow_run_ends_with_the_training_and_continues_with_it(
    make_config, server, monkeypatch
):
    config = make_config(training={"trackers": "mlflow"}).model_copy(update={"name": "mine"})
    write = experiment.write_checkpoint

    def fail(run, progress):
        write(run, progress)
        if len(progress.history) == 2:
            assert only_run(server)[0].info.status == "RUNNING"
            raise error

    monkeypatch.setattr(experiment, "write_checkpoint", fail)
    for error, status in ((OSError("gone"), "FAILED"), (KeyboardInterrupt(), "KILLED")):
        with pytest.raises(type(error)):
            fit(config) if status == "FAILED" else experiment.resume(config.output / "mine")
        assert only_run(server)[0].info.status == status
        (config.output / "mine" / "checkpoint.npz").unlink()
    monkeypatch.setattr(experiment, "write_checkpoint", write)

    result = experiment.resume(config.output / "mine")

    run, client = only_run(server)
    assert run.info.status == "FINISHED"
    assert max(m.step for m in client.get_metric_history(run.info.run_id, "val_loss")) == len(
        result.history
    )


def test_a_server_that_is_lost_does_not_end_the_training(make_config, server, monkeypatch, caplog):
    import mlflow

    def fail(*_, **__):
        raise ConnectionError("gone")

    monkeypatch.setattr(mlflow.MlflowClient, "log_metric", fail)

    result = fit(make_config(training={**FINE, "trackers": "mlflow"}))

    assert len(result.history) == 3
    assert caplog.text.count("no longer records this run (gone)") == 1


def test_mlflow_without_a_server_is_reported(make_config, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        fit(make_config(training={"trackers": "mlflow"}))


def test_a_tracker_that_is_not_installed_is_reported(make_config, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "mlflow" else find(name)
    )

    assert train(["--branches", "vgg16", "--track", "mlflow"]) == 2

    assert "pip install" in capsys.readouterr().err
