"""Laws of messages: each invalid setting names its place, the rule and the value received."""

from collections.abc import Sequence

import pytest
from pydantic import BaseModel, ValidationError

from configs.fields import describe_errors
from configs.schema import ExperimentConfig, TrainingConfig


def sentences(
    values: object, schema: type[BaseModel] = ExperimentConfig, prefix: Sequence[str] = ()
) -> list[str]:
    """Returns what is told of settings that must be refused."""
    with pytest.raises(ValidationError) as error:
        schema.model_validate(values)
    return list(describe_errors(error.value, schema, prefix))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"training": {"learning_rate": -1}},
            "`training.learning_rate` must be greater than 0. Received: -1.",
        ),
        (
            {"training": {"epochs": "ten"}},
            "`training.epochs` must be a valid integer, unable to parse string as an integer. "
            "Received: ten.",
        ),
        (
            {"model": {"fusion": "polled"}},
            "`model.fusion` must be 'pooled', 'grid' or 'flat'. Received: polled.",
        ),
        ({"data": {"augment": {"rotation": 200}}}, "`data.augment.rotation` must be less than"),
        ({"model": {"branches": []}}, "`model.branches` must have at least 1 item"),
        ({"name": "a/b"}, "`name`: a folder's name may hold"),
        ({"model": 3}, "`model` must be a valid dictionary"),
        ({"model": {"branches": [{}]}}, "`model.branches.0.backbone` is wrong: Field required."),
    ],
)
def test_a_mistake_names_place_rule_and_value(values, told):
    (sentence,) = sentences(values)

    assert sentence.startswith(told)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"traning": {}}, "Unknown setting `traning`. Did you mean `training`? Known here: data,"),
        (
            {"training": {"epoch": 3}},
            "Unknown setting `training.epoch`. Did you mean `training.epochs`? Known here: ",
        ),
        (
            {"data": {"augment": {"rotations": 3}}},
            "Unknown setting `data.augment.rotations`. Did you mean `data.augment.rotation`? "
            "Known here: brightness, contrast, cutmix, erasing, horizontal_flip, mixup, rotation,",
        ),
        ({"data": {"xyz": 3}}, "Unknown setting `data.xyz`. Known here: augment, classes,"),
    ],
)
def test_an_unknown_setting_is_answered_with_its_neighbours(values, told):
    (sentence,) = sentences(values)

    assert sentence.startswith(told)


def test_a_rule_between_settings_is_told_in_its_own_words():
    assert sentences({"model": {"branches": "vgg16,vgg16"}}) == [
        "`model`: branch 'vgg16' occurs twice; tag the second one: vgg16,vgg16:b."
    ]


def test_all_mistakes_are_told():
    told = sentences({"training": {"patience": 0, "epochs": 0}, "seed": -1, "sead": 1})

    assert [sentence.split("`")[1] for sentence in told] == [
        "training.epochs",
        "training.patience",
        "seed",
        "sead",
    ]


def test_a_setting_of_two_types_is_named_without_them():
    told = sentences({"model": {"weights": {"vgg16": 3}}})

    assert {sentence.split("`")[1] for sentence in told} <= {
        "model.weights",
        "model.weights.vgg16",
    }


def test_no_sentence_is_told_twice():
    told = sentences({"model": {"weights": 3, "branches": [1, 1]}})

    assert len(told) == len(set(told))


def test_a_section_read_alone_keeps_its_place():
    assert sentences({"patience": 0}, TrainingConfig, prefix=["training"]) == [
        "`training.patience` must be greater than or equal to 1. Received: 0."
    ]
