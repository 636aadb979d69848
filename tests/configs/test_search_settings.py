import pytest
from pydantic import ValidationError

from configs.fields import describe_errors, leaf_paths, put_leaf
from configs.schema import ExperimentConfig
from configs.search import SearchExperiment, Space


def mistake(space: object) -> str:
    values = {"search": {"spaces": {"training.learning_rate": space}}}
    with pytest.raises(ValidationError) as caught:
        SearchExperiment.model_validate(values)
    return "\n".join(describe_errors(caught.value, SearchExperiment))


@pytest.mark.parametrize(
    ("space", "candidates"),
    [
        ([1, 0.1, "1e-4"], [1, 0.1, 1e-4]),
        ({"choice": ["he_normal", "glorot_uniform"]}, ["he_normal", "glorot_uniform"]),
        (
            {"subsets": ["a", "b", "c"]},
            [["a"], ["b"], ["c"], ["a", "b"], ["a", "c"], ["b", "c"], ["a", "b", "c"]],
        ),
        ({"int": [2, 8], "step": 3}, [2, 5, 8]),
        ({"float": [0, 0.3], "step": 0.1}, [0, 0.1, 0.2, 0.3]),
        ({"float": [0, 0.3]}, None),
        ({"log": ["1e-5", 1]}, None),
    ],
)
def test_a_space_lists_its_values(space, candidates):
    assert Space.model_validate(space).candidates() == candidates


@pytest.mark.parametrize(
    "space", [[1, 2], {"subsets": ["a", "b"]}, {"float": [0, 1], "step": 0.5}, {"log": [1, 2]}]
)
def test_a_space_is_written_as_it_is_read(space):
    read = Space.model_validate(space)

    assert Space.model_validate(read.model_dump()) == read


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ([], "the choice is empty"),
        ({"subsets": []}, "the subsets is empty"),
        ([1, 1], "the value 1 occurs twice"),
        (3, "a space is written [a, b, ...]"),
        ({"lgo": [1, 2]}, "Received: {'lgo': [1, 2]}"),
        ({"log": [1, 2], "int": [1, 2]}, "a space is written"),
        ({"log": [0, 1]}, "the lowest value of a log must be above 0. Received: 0"),
        ({"log": [1e-3, 1e-4]}, "log takes the lowest and the highest value"),
        ({"float": [0, 1, 2]}, "float takes the lowest and the highest value"),
        ({"float": ["low", "high"]}, "float takes the lowest and the highest value"),
        ({"int": [1, 2.5]}, "int takes whole numbers"),
        ({"float": [0, 1], "step": 0}, "a step is above 0"),
        ({"log": [1, 2], "step": 1}, "a step is above 0 and only int and float take one"),
        ({"float": 3}, "float takes a list. Received: 3"),
    ],
)
def test_a_space_that_cannot_be_is_told(space, told):
    assert told in mistake(space)
    assert mistake(space).startswith("`search.spaces.training.learning_rate`")


def test_leaves_are_named_by_their_dotted_paths():
    paths = list(leaf_paths(ExperimentConfig))

    assert {"seed", "model.head", "data.augment.rotation", "training.epsilon"} <= set(paths)
    assert "training" not in paths


def test_a_leaf_is_put_at_its_place():
    values = {"model": {"head": "linear"}}

    put_leaf(values, ["model", "head", "bias"], False)
    put_leaf(values, ["seed"], 3)

    assert values == {"model": {"head": {"name": "linear", "bias": False}}, "seed": 3}


def test_several_seeds_are_a_space_of_their_own():
    settings = {"seed": 7, "search": {"tuner": "grid", "spaces": {"training.epochs": [1, 2]}}}
    alone = SearchExperiment.model_validate(settings)
    settings["search"]["seeds"] = 3
    several = SearchExperiment.model_validate(settings)

    (alone_space,), (several_space,) = alone.grids, several.grids
    assert list(alone_space) == ["training.epochs"]
    assert several_space["seed"].candidates() == [7, 8, 9]
    assert several_space["training.epochs"] == alone_space["training.epochs"]


def test_several_seeds_are_in_each_grid():
    grids = [{"training.epochs": [1]}, {"training.epsilon": [1]}]
    search = {"tuner": "grid", "seeds": 2, "grids": grids}
    config = SearchExperiment.model_validate({"seed": 5, "search": search})

    assert [space["seed"].candidates() for space in config.grids] == [[5, 6], [5, 6]]


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"tuner": "random", "grids": [{"seed": [1]}]}, "need the tuner grid. Received: random"),
        (
            {"tuner": "grid", "grids": [{"seed": [1]}], "spaces": {"seed": [1]}},
            "leave out search.spaces",
        ),
        ({"tuner": "grid", "grids": [{"seed": [1]}], "seeds": 2}, "leave out search.seeds"),
    ],
)
def test_grids_that_would_not_be_tried_as_they_stand_are_refused(search, told):
    with pytest.raises(ValidationError, match=told):
        SearchExperiment.model_validate({"search": search})


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"tuner": "random", "seeds": 2}, "need the tuner grid"),
        ({"tuner": "grid", "seeds": 2, "spaces": {"seed": [1, 2]}}, "leave out search.seeds"),
    ],
)
def test_seeds_that_would_not_be_tried_evenly_are_refused(search, told):
    with pytest.raises(ValidationError, match=told):
        SearchExperiment.model_validate({"search": search})
