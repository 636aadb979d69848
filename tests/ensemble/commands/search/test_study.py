"""A search's folder: its settings, and who may go on with them."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from configs.errors import RunError
from configs.files import read_config
from configs.search import SearchExperiment
from ensemble.commands.search.study import Study, TrialRecord
from ensemble.runs.run import Run

RATES = {"training.learning_rate": [0.1, 0.01]}
EPSILONS = {"training.epsilon": [1, 1e-7]}


def config_of(folder: Path, **search: Any) -> SearchExperiment:
    values = {"output": folder, "search": {"tuner": "grid", **search}}
    return SearchExperiment.model_validate(values)


@pytest.mark.parametrize(
    "search",
    [{"spaces": RATES}, {"grids": [RATES, EPSILONS]}, {"grids": [{**RATES, **EPSILONS}]}],
    ids=["spaces", "grids", "one grid"],
)
def test_a_search_is_gone_on_with_by_the_settings_that_it_keeps(search, tmp_path):
    config = config_of(tmp_path, **search)
    study = Study.open(config)

    kept = read_config(str(study.folder / "search.yaml"))
    again = SearchExperiment.model_validate({**kept, "output": tmp_path})

    assert again == config
    assert Study.open(again).folder == study.folder
    assert set(kept["search"]) & {"spaces", "grids"} == set(search)
    assert Study.open(config_of(tmp_path, **search, workers=3)).folder == study.folder


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"spaces": EPSILONS}, "`search.spaces.training.epsilon"),
        ({"grids": [RATES]}, "`search.grids` was None there"),
    ],
)
def test_another_search_is_refused(search, told, tmp_path):
    config = config_of(tmp_path, spaces=RATES).model_copy(update={"name": "mine"})
    other = config_of(tmp_path, **search).model_copy(update={"name": "mine"})
    Study.open(config)

    with pytest.raises(RunError, match="holds another search") as caught:
        Study.open(other)
    assert told in str(caught.value)


def test_processes_that_begin_a_search_together_do_not_refuse_each_other(tmp_path):
    for number in range(10):
        config = config_of(tmp_path / str(number), spaces=RATES)
        together = Barrier(6)

        def begin(_: int, config=config, together=together) -> Path:
            together.wait()
            return Study.open(config).folder

        with ThreadPoolExecutor(6) as pool:
            assert len(set(pool.map(begin, range(6)))) == 1


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    config = config_of(tmp_path, spaces=RATES).model_copy(update={"name": "mine"})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("of the user")

    with pytest.raises(RunError, match="holds no search"):
        Study.open(config)


def test_searches_of_other_spaces_lie_in_other_folders(tmp_path):
    searches = [{"spaces": RATES}, {"spaces": EPSILONS}, {"grids": [RATES]}, {"grids": [EPSILONS]}]

    folders = {Study.open(config_of(tmp_path, **search)).folder for search in searches}

    assert len(folders) == 4


def test_a_search_continues_only_with_what_it_began_with(tmp_path):
    study = Study.open(config_of(tmp_path, spaces=RATES))
    began = {"backend": "jax", "images or labels": [{"train": {"labels": "a"}}], "weights": []}

    study.check_origin(began)  # a new search
    study.check_origin(began)

    with pytest.raises(RunError, match=r"began with different images or labels and weights\."):
        study.check_origin({**began, "images or labels": [], "weights": [{"vgg16": "b"}]})
    Run(study.folder).write_json("data.json", {"feature_sets": []})
    with pytest.raises(RunError, match="by an earlier version"):
        study.check_origin(began)


def test_one_search_at_a_time_works_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("ensemble.commands.search.study._PATIENCE", 0.1)
    study = Study.open(config_of(tmp_path, spaces=RATES))
    other = Study.open(config_of(tmp_path, spaces=RATES))

    with study.locked(), pytest.raises(RunError, match=rf"\(process {os.getpid()}\)"):  # noqa: SIM117
        with other.locked():
            pytest.fail("two searches in one folder")
    with other.locked():
        pass


def test_a_worker_is_known_to_be_alive_by_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr("ensemble.commands.search.study._PATIENCE", 0.1)
    study = Study.open(config_of(tmp_path, spaces=RATES))
    assert not study.has_worker("worker0")
    assert not study.has_chief()

    with study.locked(), study.locked_by_worker("worker0"):
        assert study.has_worker("worker0")
        assert study.has_chief()
        assert not study.has_worker("worker1")
        with pytest.raises(RunError, match="works as worker0 already"):  # noqa: SIM117
            with study.locked_by_worker("worker0"):
                pytest.fail("two workers of one name")


def test_attempts_at_a_trial_are_counted_until_it_is_recorded_or_the_search_starts(tmp_path):
    study = Study.open(config_of(tmp_path, spaces=RATES))

    assert [study.count_attempt(3) for _ in range(3)] == [1, 2, 3]
    study.write(TrialRecord(3, "completed", {}))
    assert study.count_attempt(3) == 1
    with study.locked():
        assert study.count_attempt(3) == 1
