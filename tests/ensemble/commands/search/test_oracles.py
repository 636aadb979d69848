"""Laws of the oracles: no trial is lost or repeated, whatever dies."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("keras_tuner")

from configs.errors import RunError
from configs.search import SearchExperiment
from ensemble.commands.search.oracles import DurableOracle, make_oracle
from ensemble.commands.search.spaces import SearchSpace

SPACES = {
    "training.epsilon": [1, 0.1, 1e-7],
    "model.branches": {"subsets": ["vgg16", "resnet50"]},
    "model.head.units": {"int": [8, 16], "step": 8},
}


def space_of(tuner: str, spaces: dict[str, Any] = SPACES, **search: Any) -> SearchSpace:
    values = {
        "model": {"weights": "random"},
        "training": {"epochs": 9},
        "search": {"tuner": tuner, "spaces": spaces, **search},
    }
    return SearchSpace(SearchExperiment.model_validate(values))


@pytest.fixture
def open_oracle(tmp_path: Path) -> Callable[[SearchSpace], DurableOracle]:
    def open_it(space: SearchSpace) -> DurableOracle:
        return make_oracle(space, tmp_path / "study" / "oracle.json")

    (tmp_path / "study").mkdir()
    return open_it


def finish(oracle: DurableOracle, trial: Any, value: float = 0.5) -> None:
    oracle.update_trial(trial.trial_id, {"val_macro_f1": value})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def standing(oracle: DurableOracle) -> tuple[int, int]:
    """Returns how many trials are running and how many have ended."""
    return len(oracle.ongoing_trials), len(oracle.end_order)


def run_all(oracle: DurableOracle, space: SearchSpace, most: int = 200) -> list[dict[str, Any]]:
    seen = []
    for _ in range(most):
        trial = oracle.create_trial("worker0")
        if trial.status == "STOPPED":
            return seen
        seen.append(space.values_of(trial.hyperparameters))
        finish(oracle, trial, value=len(seen) % 7 / 7)
    raise AssertionError("the oracle never stops")


def test_a_grid_holds_every_combination_once(open_oracle):
    space = space_of("grid")
    oracle = open_oracle(space)

    seen = run_all(oracle, space)

    branches = [["vgg16"], ["resnet50"], ["vgg16", "resnet50"]]
    expected = [
        {"training.epsilon": a, "model.branches": b, "model.head.units": c}
        for a, b, c in product([1, 0.1, 1e-7], branches, [8, 16])
    ]
    assert seen == expected
    assert oracle.total() == len(expected)


def test_several_grids_hold_every_combination_once(open_oracle):
    grids = [
        {"model.head": ["linear"], "training.epsilon": [1e-7, 1]},
        {"model.head": ["dense"], "model.head.units": [8, 16]},
        {"training.epsilon": [1e-7], "model.head": ["linear", "dense"], "model.head.dropout": [0]},
    ]
    space = space_of("grid", spaces={}, grids=grids)

    seen = []
    while len(seen) < 20:  # each trial by an oracle that has just begun
        oracle = open_oracle(space)
        trial = oracle.create_trial("worker0")
        if trial.status == "STOPPED":
            break
        seen.append(space.values_of(trial.hyperparameters))
        finish(oracle, trial)

    assert seen == list(space.combinations())
    assert oracle.total() == len(seen) == 5
    heads = [(values["model.head"], values.get("model.head.units")) for values in seen]
    assert heads == [("linear", None)] * 2 + [("dense", 8), ("dense", 16), ("dense", 512)]


@pytest.mark.parametrize("tuner", ["grid", "random", "bayesian", "hyperband"])
def test_a_search_that_is_broken_off_anywhere_tries_the_same_as_one_that_is_not(
    tuner, open_oracle, tmp_path
):
    space = space_of(tuner, trials=14)
    whole = run_all(open_oracle(space), space)
    (tmp_path / "study" / "oracle.json").unlink()

    seen = []
    while True:
        oracle = open_oracle(space)
        trial = oracle.create_trial("worker0")
        if trial.status == "STOPPED":
            break
        given_up = space.values_of(trial.hyperparameters)
        oracle = open_oracle(space)  # killed in mid-trial
        trial = oracle.create_trial("worker0")
        assert space.values_of(trial.hyperparameters) == given_up
        seen.append(given_up)
        finish(oracle, trial, value=len(seen) % 7 / 7)

    assert len(seen) == len(whole) == 14
    if tuner != "bayesian":  # whose later proposals also follow the draws of one process
        assert seen == whole


@pytest.mark.parametrize("tuner", ["random", "bayesian"])
def test_no_trial_is_proposed_twice(tuner, open_oracle):
    space = space_of(tuner, trials=18)

    seen = run_all(open_oracle(space), space)

    assert len({json.dumps(values) for values in seen}) == len(seen) == 18


def test_hyperband_runs_the_best_again_for_longer(open_oracle):
    space = space_of("hyperband", {"training.learning_rate": {"log": [1e-5, 1e-1]}})
    oracle = open_oracle(space)

    seen = run_all(oracle, space)

    epochs = [values["training.epochs"] for values in seen]
    assert {1, 3, 9} == set(epochs)
    assert len(seen) == oracle.total()
    short = [v["training.learning_rate"] for v in seen if v["training.epochs"] == 1]
    scores = {rate: (index + 1) % 7 / 7 for index, rate in enumerate(short)}
    again = seen[len(short)]
    assert again["training.epochs"] == 3
    assert scores[again["training.learning_rate"]] == max(scores.values())


def test_two_workers_share_the_work(open_oracle):
    space = space_of("grid")
    oracle = open_oracle(space)

    first, second = oracle.create_trial("worker0"), oracle.create_trial("worker1")

    assert space.values_of(first.hyperparameters) != space.values_of(second.hyperparameters)
    assert standing(oracle) == (2, 0)


def test_the_trial_of_a_dead_worker_is_run_by_another(open_oracle):
    space = space_of("grid", trials=1)
    oracle = open_oracle(space)
    lost = oracle.create_trial("worker0")
    assert oracle.create_trial("worker1").status == "IDLE"  # there may be work again
    assert oracle.create_trial("worker0").trial_id == lost.trial_id  # restarted under its name

    assert oracle.release("worker1") is None
    assert oracle.release("worker0") == lost.trial_id
    again = oracle.create_trial("worker1")

    assert again.trial_id == lost.trial_id
    finish(oracle, again)
    finish(oracle, lost)  # the other one was alive after all
    assert standing(oracle) == (0, 1)
    assert not oracle.finished
    assert oracle.create_trial("worker1").status == "STOPPED"
    assert oracle.finished


def test_a_trial_whose_result_was_lost_on_its_way_is_run_again(open_oracle):
    oracle = open_oracle(space_of("grid", trials=1))
    first = oracle.create_trial("worker0")
    first.status = "INVALID"  # so KerasTuner calls any trial whose worker met an error
    oracle.end_trial(first)

    again = oracle.create_trial("worker0")

    assert (again.trial_id, again.status) == (first.trial_id, "RUNNING")


def test_a_full_disk_ends_the_search_and_blocks_no_worker(open_oracle, monkeypatch):
    oracle = open_oracle(space_of("grid"))
    trial = oracle.create_trial("worker0")

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("ensemble.commands.search.oracles.write_atomic", fail)
    finish(oracle, trial)

    assert "No space left" in str(oracle.failure)
    assert oracle.create_trial("worker1").status == "STOPPED"
    assert not oracle.finished


def test_a_failed_trial_is_not_run_again(open_oracle):
    space = space_of("grid", trials=3)
    oracle = open_oracle(space)
    for _ in range(3):
        trial = oracle.create_trial("worker0")
        trial.status = "FAILED"
        oracle.end_trial(trial)

    assert open_oracle(space).create_trial("worker0").status == "STOPPED"


def test_an_unreadable_file_is_reported(open_oracle, tmp_path):
    (tmp_path / "study" / "oracle.json").write_text('{"trials": {')

    with pytest.raises(RunError, match="Remove it and start again"):
        open_oracle(space_of("grid"))
