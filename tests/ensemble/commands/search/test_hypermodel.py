"""Any tuner of KerasTuner searches over ensembles, and a user's own does."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras_tuner")

import keras_tuner

from configs.errors import ConfigError
from ensemble import EnsembleHyperModel
from ensemble.commands.search.study import Study
from ensemble.commands.search.tuner import TrialTuner

SPACE = {
    "model.head.units": [8, 16],
    "training.learning_rate": {"log": [1e-3, 1e-1]},
}


def accuracy_of(model: Any, hypermodel: EnsembleHyperModel) -> float:
    features = hypermodel.feature_sets[0]
    _, maps = features.load([branch.label for branch in features.config.model.branches])
    predicted = model.predict({name: values[0] for name, values in maps.items()}, verbose=0)
    return float(np.mean(predicted.argmax(axis=1) == features.images.validation.readable.labels))


@pytest.mark.parametrize(
    "name", ["RandomSearch", "BayesianOptimization", "Hyperband", "GridSearch"]
)
def test_tuners_of_keras_tuner_search_over_it(name, make_config, tmp_path):
    limit = {"max_epochs": 3} if name == "Hyperband" else {"max_trials": 2}
    hypermodel = EnsembleHyperModel(make_config(), SPACE)

    tuner = getattr(keras_tuner, name)(
        hypermodel,
        objective=keras_tuner.Objective("val_macro_f1", "max"),
        directory=tmp_path / "tuner",
        **limit,
    )
    tuner.search(verbose=0)

    best = tuner.oracle.get_best_trials()[0]
    assert best.status == "COMPLETED"
    assert set(best.hyperparameters.values) >= set(SPACE)
    assert best.score > 0.6
    # The weights that the tuner keeps are those of the epoch that the score belongs to.
    found = accuracy_of(tuner.get_best_models()[0], hypermodel)
    assert found == pytest.approx(best.metrics.get_best_value("val_accuracy"))


def test_a_model_has_the_layers_that_its_hyperparameters_name(make_config):
    hypermodel = EnsembleHyperModel(make_config(), SPACE)
    hp = keras_tuner.HyperParameters()
    hp.values = {"model.head.units": 16, "training.learning_rate": 0.01}

    model = hypermodel.build(hp)
    metrics = hypermodel.fit(hp, model, epochs=3, initial_epoch=1)

    assert 16 in {getattr(layer, "units", None) for layer in model._flatten_layers()}
    assert set(metrics) > {"val_macro_f1", "val_accuracy", "val_balanced_accuracy", "val_loss"}


def test_an_unknown_leaf_is_refused_at_once(make_config):
    with pytest.raises(ConfigError, match="Did you mean"):
        EnsembleHyperModel(make_config(), {"training.learnig_rate": [1, 2]})


class Recorder(TrialTuner):
    """Runs trials without a chief."""

    def on_trial_end(self, trial: Any) -> None:
        self.oracle.end_trial(trial)


def test_a_trial_in_which_processes_die_is_recorded_as_failed(tmp_path, make_config):
    hypermodel = EnsembleHyperModel(make_config(), SPACE)
    study = Study(tmp_path / "study")
    for _ in range(3):
        study.count_attempt(0)  # each by a process that died
    oracle = keras_tuner.oracles.RandomSearchOracle(
        keras_tuner.Objective("val_macro_f1", "max"), max_trials=2
    )
    hypermodel.space.declare(oracle.hyperparameters)

    Recorder(hypermodel, study, oracle).search()

    first, second = study.records()
    assert (first.status, first.reason) == ("failed", "3 processes died in this trial.")
    assert second.status == "completed"
    assert oracle.trials["0"].status == "FAILED"


def test_a_process_is_renewed_after_some_trials(tmp_path, make_config, monkeypatch):
    monkeypatch.setattr("ensemble.commands.search.tuner._MAX_TRIALS", 2)
    hypermodel = EnsembleHyperModel(make_config(), SPACE)
    study = Study(tmp_path / "study")
    oracle = keras_tuner.oracles.RandomSearchOracle(
        keras_tuner.Objective("val_macro_f1", "max"), max_trials=5
    )
    hypermodel.space.declare(oracle.hyperparameters)

    def renew() -> None:
        raise SystemExit

    for count in (2, 4):
        with pytest.raises(SystemExit):
            Recorder(hypermodel, study, oracle, renew).search()
        assert len(study.records()) == count
    Recorder(hypermodel, study, oracle, renew).search()
    assert len(study.records()) == 5


def test_a_recorded_trial_is_not_run_again(tmp_path, make_config):
    hypermodel = EnsembleHyperModel(make_config(), SPACE)
    study = Study(tmp_path / "study")

    def search() -> dict[str, float]:
        oracle = keras_tuner.oracles.RandomSearchOracle(
            keras_tuner.Objective("val_macro_f1", "max"), max_trials=2, seed=1
        )
        hypermodel.space.declare(oracle.hyperparameters)
        Recorder(hypermodel, study, oracle).search()
        return {number: trial.score for number, trial in oracle.trials.items()}

    scores = search()
    hypermodel.train = None  # so that no trial can be run
    assert search() == scores
    assert len(scores) == 2
