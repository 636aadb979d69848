from typing import Any

import pytest

from configs.errors import ConfigError
from configs.search import SearchExperiment
from ensemble.commands.search.spaces import SearchSpace, label, serves


def space_of(spaces: dict[str, Any], **sections: Any) -> SearchSpace:
    search = {"spaces": spaces, **sections.pop("search", {})}
    values = {"model": {"weights": "random"}, **sections, "search": search}
    return SearchSpace(SearchExperiment.model_validate(values))


def refusal(spaces: dict[str, Any], **sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        space_of(spaces, **sections)
    return str(caught.value)


def test_values_become_the_settings_of_a_trial():
    space = space_of(
        {
            "model.branches": {"subsets": ["vgg16", "resnet50"]},
            "model.head.dropout": {"float": [0, 0.5]},
            "training.learning_rate": {"log": [1e-5, 1e-2]},
        }
    )

    config = space.config_of(
        {
            "model.branches": ["resnet50"],
            "model.head.dropout": 0.25,
            "training.learning_rate": 3e-4,
        }
    )

    assert [branch.label for branch in config.model.branches] == ["resnet50"]
    assert config.model.head.options == {"dropout": 0.25}
    assert config.training.learning_rate == 3e-4
    assert not hasattr(config, "search")


def test_a_part_that_varies_takes_options_that_vary_too():
    space = space_of({"model.head.units": [8, 16], "model.head": ["dense", "linear"]})

    assert space.config_of({"model.head.units": 8, "model.head": "dense"}).model.head.options == {
        "units": 8
    }
    with pytest.raises(ConfigError, match=r"model\.head\.units"):
        space.config_of({"model.head.units": 8, "model.head": "linear"})


def test_weights_of_branches_that_a_trial_has_not_are_left_out():
    space = space_of(
        {"model.branches": [["vgg16"], ["resnet50"]]},
        model={"branches": ["vgg16", "resnet50"], "weights": {"vgg16": "random"}},
    )

    assert space.config_of({"model.branches": ["resnet50"]}).model.weights == "imagenet"
    assert space.config_of({"model.branches": ["vgg16"]}).model.weights == {"vgg16": "random"}


@pytest.mark.parametrize(
    ("spaces", "told"),
    [
        ({}, "`search.spaces` is empty"),
        ({"training.learnig_rate": [1, 2]}, "Did you mean `training.learning_rate`?"),
        ({"model.head.dropuot": [0.1]}, "Did you mean `model.head.dropout`?"),
        ({"training": [1]}, "Unknown setting `search.spaces.training`."),
        ({"training.learning_rate": [1e-3, -1]}, "has -1: `training.learning_rate` must be"),
        ({"model.branches": [["vgg61"]]}, "Did you mean 'vgg16'?"),
        ({"model.head.dropout": {"float": [0.0, 1.5]}}, "`model.head.dropout` must be less than 1"),
        ({"training.unfreeze": [["last:2"]]}, "needs the images"),
        ({"training.fine_tuning.epochs": [1]}, "needs the images"),
        ({"output": ["a"]}, "does not affect the result"),
        ({"data.augment.rotation": {"float": [0, 9]}}, "Name its values one by one"),
        ({"seed": list(range(65))}, "ask for 65 sets of stored features"),
    ],
)
def test_a_space_that_fits_nowhere_is_told(spaces, told):
    assert told in refusal(spaces)


def test_all_mistakes_are_told_at_once():
    told = refusal({"training.learnig_rate": [1], "training.epsilon": [0]})

    assert len(told.splitlines()) == 2


def test_a_value_that_fits_beside_another_is_no_mistake():
    space_of({"model.head": ["dense", "conv"], "model.fusion": ["pooled", "grid"]})

    assert "--fusion grid" in refusal({"model.head": ["dense", "conv"]})


def test_thawing_needs_images():
    assert "--unfreeze" in refusal({"seed": [1, 2]}, training={"unfreeze": ["last:2"]})


def test_a_grid_needs_ends():
    spaces = {"training.learning_rate": {"log": [1e-5, 1e-2]}}

    assert "is continuous" in refusal(spaces, search={"tuner": "grid"})


def grids_of(*grids: dict[str, Any], **sections: Any) -> SearchSpace:
    search = {"tuner": "grid", "grids": list(grids)}
    values = {"model": {"weights": "random"}, **sections, "search": search}
    return SearchSpace(SearchExperiment.model_validate(values))


def test_what_stands_in_two_grids_is_combined_once_and_tells_all_that_varies():
    space = grids_of(
        {"training.learning_rate": [1e-3, 1e-4]},
        {"training.learning_rate": [1e-4], "training.epsilon": [1, 1e-7]},
        {"training.epsilon": [1e-7, 1e-8]},
    )

    assert list(space.combinations()) == [
        {"training.learning_rate": rate, "training.epsilon": epsilon}
        for rate, epsilon in [(1e-3, 1e-7), (1e-4, 1e-7), (1e-4, 1), (1e-3, 1e-8)]
    ]
    assert {dimension.path: dimension.values for dimension in space.dimensions} == {
        "training.learning_rate": (1e-3, 1e-4),
        "training.epsilon": (1e-7, 1, 1e-8),
    }


def test_an_option_that_the_head_of_a_trial_does_not_take_is_left_out():
    space = grids_of(
        {"model.head": ["linear"]},
        {"model.head": ["dense"], "model.head.units": [8]},
        {"model.head.units": [16, 512]},
        model={"head": {"dropout": 0.5}, "weights": "random"},
    )

    assert list(space.combinations()) == [
        {"model.head": "linear"},
        {"model.head": "dense", "model.head.units": 8},
        {"model.head": {"name": "dense", "dropout": 0.5}, "model.head.units": 16},
        {"model.head": {"name": "dense", "dropout": 0.5}, "model.head.units": 512},
    ]
    head, units = space.dimensions
    assert (head.optional, units.optional) == (False, True)
    options = [space.config_of(values).model.head.options for values in space.combinations()]
    assert options == [
        {},
        {"units": 8},
        {"dropout": 0.5, "units": 16},
        {"dropout": 0.5, "units": 512},
    ]


def test_grids_share_features():
    space = grids_of(
        {"model.branches": [["vgg16"]], "model.head.units": [8]},
        {"model.branches": [["resnet50"], ["vgg16"]]},
        {"model.branches": [["vgg16"]], "data.image_size": [64]},
        {"training.epochs": [3]},
        model={"branches": ["densenet121"], "weights": "random"},
    )

    assert [
        (config.data.image_size, [branch.label for branch in config.model.branches])
        for config in space.feature_configs()
    ] == [(96, ["vgg16", "resnet50", "densenet121"]), (64, ["vgg16"])]


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ({"training.learnig_rate": [1]}, "`search.grids.training.learnig_rate`"),
        ({"training.epsilon": [-1]}, "`search.grids.training.epsilon` has -1"),
        ({"training.epsilon": {"log": [1e-8, 1]}}, "is continuous"),
    ],
)
def test_a_mistake_in_a_grid_is_told_once(grid, told):
    with pytest.raises(ConfigError, match=told) as caught:
        grids_of(grid, {"training.epochs": [1]}, grid)

    assert len(str(caught.value).splitlines()) == 1


def test_features_are_stored_once_for_all_trials_that_read_them():
    space = space_of(
        {
            "seed": [1, 2],
            "model.fusion": ["pooled", "flat"],
            "model.branches": {"subsets": ["vgg16", "resnet50", "vgg16:b"]},
            "training.learning_rate": [1e-3, 1e-4],
        }
    )

    configs = space.feature_configs()

    assert [(config.seed, config.model.fusion) for config in configs] == [
        (1, "pooled"), (1, "flat"), (2, "pooled"), (2, "flat")
    ]  # fmt: skip
    for config in configs:
        assert [branch.label for branch in config.model.branches] == [
            "vgg16",
            "resnet50",
            "vgg16:b",
        ]
    trial = space.config_of({"seed": 2, "model.fusion": "flat", "model.branches": ["vgg16:b"]})
    assert [serves(config, trial) for config in configs] == [False, False, False, True]


def test_a_branch_that_cannot_be_built_at_one_size_spoils_no_other_trial():
    space = space_of(
        {"data.image_size": [48, 96], "model.branches": {"subsets": ["vgg16", "inception_v3"]}}
    )

    assert [
        (config.data.image_size, [branch.label for branch in config.model.branches])
        for config in space.feature_configs()
    ] == [(48, ["vgg16"]), (96, ["vgg16", "inception_v3"])]


@pytest.mark.parametrize("value", [1e-5, 0.1, 3, True, "he_normal", ["vgg16", "resnet50"], None])
def test_a_value_is_found_again_behind_its_token(value):
    dimension = space_of({"training.clip_norm": [1.5, 2.5]}).dimensions[0]
    dimension = type(dimension)(dimension.path, dimension.space, (value, "other", 7.5))

    assert dimension.value_of(dimension.tokens[0]) == value


def test_numbers_rounded_to_32_bits_on_their_way_are_mended():
    import numpy as np

    space = space_of({"training.epsilon": [0.1, 1e-7], "training.beta_1": {"float": [0, 0.9]}})
    epsilon, beta = space.dimensions

    assert epsilon.value_of(float(np.float32(0.1))) == 0.1
    assert epsilon.value_of(float(np.float32(1e-7))) == 1e-7
    assert beta.value_of(float(np.float32(0.123456))) == 0.123456


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["vgg16", "b"], "vgg16+b"),
        (1e-7, "1e-07"),
        ({"name": "dense", "units": 8}, "name: dense, units: 8"),
    ],
)
def test_values_are_told_in_a_word(value, text):
    assert label(value) == text
