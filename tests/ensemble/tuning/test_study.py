"""A search's folder: its settings, and who may go on with them."""

from pathlib import Path
from typing import Any

import pytest

from configs.errors import RunError
from configs.files import read_config
from configs.search import SearchExperiment
from ensemble.tuning.study import Study

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


def test_searches_of_other_spaces_lie_in_other_folders(tmp_path):
    searches = [{"spaces": RATES}, {"spaces": EPSILONS}, {"grids": [RATES]}, {"grids": [EPSILONS]}]

    folders = {Study.open(config_of(tmp_path, **search)).folder for search in searches}

    assert len(folders) == 4
