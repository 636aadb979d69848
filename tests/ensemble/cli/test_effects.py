"""Laws of settings without effect: an error that names when they work, where they were given."""

import pytest

from configs.fields import leaf_paths
from configs.files import config_names, read_config
from configs.schema import ExperimentConfig, FaceSetConfig
from configs.search import SearchExperiment
from ensemble.cli.effects import _EFFECTS, find_settings_without_effect

UNFREEZE = {"unfreeze": "last:1"}
SCRATCH = {"model": {"weights": "random"}, "training": {"unfreeze": "all"}}


def sentences(schema=ExperimentConfig, **values) -> list[str]:
    return list(find_settings_without_effect(schema.model_validate(values)))


@pytest.mark.parametrize(
    ("values", "leaf", "when"),
    [
        ({"data": {"augment": {"mixup": 0.2}}}, "data.augment.mixup", "--unfreeze"),
        ({"data": {"augment": {"erasing": 0.2}}}, "data.augment.erasing", "--unfreeze"),
        (
            {"data": {"augment": {"rotation": 3}, "views": 1}},
            "data.augment.rotation",
            "--views 2 or more",
        ),
        (
            {"training": {"fine_tuning": {"epochs": 3}}},
            "training.fine_tuning.epochs",
            "--unfreeze",
        ),
        ({"training": {"warmup_epochs": 2}}, "training.warmup_epochs", "--schedule cosine"),
        ({"data": {"faces": {"margin": 0.3}}}, "data.faces.margin", "--faces"),
        ({**SCRATCH, "data": {"views": 2}}, "data.views", "frozen"),
        ({**SCRATCH, "features": {"engine": "openvino"}}, "features.engine", "frozen"),
        (
            {"model": {"weights": "random"}}
            | {"training": {"unfreeze": "all", "fine_tuning": {"learning_rate": 1e-3}}},
            "training.fine_tuning.learning_rate",
            "--learning-rate",
        ),
    ],
)
def test_a_setting_without_effect_is_named_with_its_condition(values, leaf, when):
    (sentence,) = sentences(**values)

    assert sentence.startswith(f"`{leaf}` has no effect here.")
    assert when in sentence


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"data": {"augment": {"mixup": 0.0, "rotation": 10.0}}, "training": {"warmup_epochs": 0}},
        {"data": {"augment": {"mixup": 0.2}}, "training": UNFREEZE},
        {"data": {"augment": {"rotation": 3}}},
        {"data": {"augment": {"rotation": 3}, "views": 1}, "training": UNFREEZE},
        {"training": {**UNFREEZE, "fine_tuning": {"epochs": 3, "factors": "vgg16=0.1"}}},
        {"training": {"warmup_epochs": 2, "schedule": "cosine"}},
        {"data": {"faces": {"detector": "haar", "margin": 0.3}}},
        {**SCRATCH, "features": {"directory": "elsewhere"}},
    ],
)
def test_defaults_and_settings_with_an_effect_pass(values):
    assert sentences(**values) == []


def test_a_factor_of_a_frozen_branch_is_named():
    training = {"unfreeze": "vgg16:block5", "fine_tuning": {"factors": "vgg16=2,densenet121=2"}}

    (sentence,) = sentences(training=training)

    assert "'densenet121'" in sentence
    assert "--unfreeze densenet121:STAGE" in sentence


@pytest.mark.parametrize(
    ("schedules", "count"), [(["constant"], 1), (["cosine"], 0), (["constant", "cosine"], 0)]
)
def test_a_search_may_vary_what_decides_about_an_effect(schedules, count):
    spaces = {"training.warmup_epochs": [0, 2]}
    fixed = {"schedule": schedules[0]}
    if len(schedules) > 1:
        spaces["training.schedule"] = schedules

    assert len(sentences(SearchExperiment, search={"spaces": spaces}, training=fixed)) == count


def test_the_factor_is_of_hyperband():
    assert "--tuner hyperband" in sentences(SearchExperiment, search={"factor": 4})[0]
    assert sentences(SearchExperiment, search={"factor": 4, "tuner": "hyperband"}) == []


def test_options_of_a_detector_need_one_in_preparing_too():
    faces = {"detector": "none", "threshold": 0.5}

    assert sentences(FaceSetConfig, faces=faces)[0].startswith("`faces.threshold`")
    assert sentences(FaceSetConfig, faces={"threshold": 0.5}) == []


@pytest.mark.parametrize("name", config_names())
def test_every_preset_passes(name):
    assert sentences(SearchExperiment, **read_config(name)) == []


def test_every_leaf_of_the_table_exists():
    known = {leaf for schema in (SearchExperiment, FaceSetConfig) for leaf in leaf_paths(schema)}

    assert {leaf for leaves, when in _EFFECTS for leaf in (*leaves, *when.needs)} <= known
