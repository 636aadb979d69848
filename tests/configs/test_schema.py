"""Laws of the settings: what may be written, what is refused, and that nothing is lost."""

from typing import Annotated

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from configs.fields import section_of
from configs.files import write_config
from configs.schema import (
    Branch,
    DataConfig,
    ExperimentConfig,
    FaceSetConfig,
    ModelConfig,
    Part,
    TrainingConfig,
)
from configs.search import SearchExperiment


def messages(schema: type[BaseModel], values: dict) -> list[str]:
    """Returns pydantic's messages for settings that must be refused."""
    with pytest.raises(ValidationError) as error:
        schema.model_validate(values)
    return [mistake["msg"] for mistake in error.value.errors()]


def test_all_defaults_are_valid():
    ExperimentConfig.model_validate(ExperimentConfig().model_dump())


@pytest.mark.parametrize(
    ("text", "backbone", "tag", "layer"),
    [("vgg16", "vgg16", "", "vgg16"), ("vgg16:b", "vgg16", "b", "vgg16_b")],
)
def test_a_branch_is_its_spelling(text, backbone, tag, layer):
    branch = Branch.model_validate(text)

    assert (branch.backbone, branch.tag) == (backbone, tag)
    assert branch.label == text == branch.model_dump()
    assert branch.layer_name == layer
    assert Branch.model_validate({"backbone": backbone, "tag": tag}) == branch


@pytest.mark.parametrize("text", ["vgg16:b c", "vgg16:b:c", "vgg16:b/c"])
def test_a_tag_that_is_no_word_is_refused(text):
    assert "letters, digits and _" in messages(ModelConfig, {"branches": [text]})[0]


@pytest.mark.parametrize(
    "branches", ["vgg16, densenet121,vgg16:b", ["vgg16", "densenet121", "vgg16:b"]]
)
def test_branches_are_a_list_or_a_text_with_commas(branches):
    model = ModelConfig.model_validate({"branches": branches})

    assert [branch.label for branch in model.branches] == ["vgg16", "densenet121", "vgg16:b"]


def test_a_model_has_a_branch():
    assert messages(ModelConfig, {"branches": []})
    assert messages(ModelConfig, {"branches": ""})


def test_a_branch_that_stands_twice_needs_a_tag():
    assert messages(ModelConfig, {"branches": "vgg16,vgg16"}) == [
        "Value error, branch 'vgg16' occurs twice; tag the second one: vgg16,vgg16:b"
    ]


@pytest.mark.parametrize("weights", ["imagenet", "random", "some/file.h5"])
def test_one_word_gives_weights_to_all_branches(weights):
    model = ModelConfig.model_validate({"branches": "vgg16,vgg16:b", "weights": weights})

    assert model.weights_of("vgg16") == model.weights_of("vgg16:b") == weights


@pytest.mark.parametrize(
    "weights",
    ["vgg16=a.h5, vgg16:b=random", {"vgg16": "a.h5", "vgg16:b": "random"}],
)
def test_weights_go_to_branches_by_label(weights):
    model = ModelConfig.model_validate(
        {"branches": "vgg16,vgg16:b,densenet121", "weights": weights}
    )

    assert model.weights_of("vgg16") == "a.h5"
    assert model.weights_of("vgg16:b") == "random"
    assert model.weights_of("densenet121") == "imagenet"


def test_weights_of_no_branch_are_refused():
    (message,) = messages(ModelConfig, {"branches": "vgg16", "weights": "vgg16:b=a.h5"})

    assert "'vgg16:b', which is not a branch of this model (vgg16)" in message


def test_weights_for_one_and_for_all_are_not_mixed():
    (message,) = messages(ModelConfig, {"branches": "vgg16", "weights": "random,vgg16=a.h5"})

    assert "'random' has no branch" in message


@pytest.mark.parametrize("classes", ["happy, sad", ["happy", "sad"], "happy,sad,"])
def test_classes_are_a_list_or_a_text_with_commas(classes):
    assert DataConfig(classes=classes).classes == ["happy", "sad"]


@pytest.mark.parametrize(
    "merge",
    [
        "negative=anger+disgust, positive=happy",
        {"negative": "anger+disgust", "positive": "happy"},
        {"negative": ["anger", "disgust"], "positive": ["happy"]},
    ],
)
def test_classes_are_joined_under_a_new_name(merge):
    groups = DataConfig(merge=merge).merge

    assert groups == {"negative": ["anger", "disgust"], "positive": ["happy"]}


def test_classes_joined_under_no_name_are_refused():
    (message,) = messages(DataConfig, {"merge": "anger+disgust"})

    assert "NEW=A+B" in message


@pytest.mark.parametrize("root", ["a,b.zip", ["a", "b.zip"]])
def test_data_lies_in_one_place_or_several(root):
    assert [path.name for path in DataConfig(root=root).root] == ["a", "b.zip"]


def test_labels_alone_are_no_data():
    (message,) = messages(DataConfig, {"labels": "votes.csv"})

    assert "needs --data" in message


def test_a_part_is_a_name_or_a_name_with_options():
    assert Part.model_validate("dense") == Part(name="dense")
    part = Part.model_validate({"name": "dense", "units": 64, "dropout": 0.3})
    assert part == Part(name="dense", options={"units": 64, "dropout": 0.3})
    assert part.model_dump() == {"name": "dense", "units": 64, "dropout": 0.3}


def test_options_of_the_head_need_no_name():
    assert ModelConfig.model_validate({"head": {"units": 64}}).head == Part(
        name="dense", options={"units": 64}
    )


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (ExperimentConfig(), "seed"),
        (TrainingConfig(), "epochs"),
        (ModelConfig(), "branches"),
        (Branch(backbone="vgg16"), "tag"),
    ],
)
def test_settings_are_frozen(config, field):
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, field, getattr(config, field))


def test_settings_survive_yaml(tmp_path):
    config = ExperimentConfig.model_validate(
        {
            "data": {
                "root": "a,b.zip",
                "labels": "votes.csv",
                "classes": "happy,négatif",
                "merge": "négatif=anger+sad",
                "augment": {"rotation": 0, "horizontal_flip": False},
            },
            "model": {
                "branches": "vgg16,vgg16:b",
                "weights": "vgg16:b=random",
                "fusion": "grid",
                "head": {"name": "conv", "filters": 8},
            },
            "training": {"learning_rate": 1e-4, "epsilon": 0.1, "amsgrad": True},
            "seed": 7,
            "plugins": "mine.py",
            "output": str(tmp_path),
            "name": "first",
        }
    )

    text = write_config(config.model_dump(mode="json"))

    assert ExperimentConfig.model_validate(yaml.safe_load(text)) == config


def test_defaults_survive_yaml():
    text = write_config(ExperimentConfig().model_dump(mode="json"))

    assert ExperimentConfig.model_validate(yaml.safe_load(text)) == ExperimentConfig()


def test_every_mistake_is_found_at_once():
    with pytest.raises(ValidationError) as error:
        ExperimentConfig.model_validate(
            {
                "data": {"image_size": 0, "augment": {"rotation": -1}},
                "model": {"fusion": "polled", "branches": ["vgg16:?"]},
                "training": {"epochs": "many", "beta_1": 1},
                "seed": -1,
                "sead": 1,
            }
        )

    assert {mistake["loc"] for mistake in error.value.errors()} == {
        ("data", "image_size"),
        ("data", "augment", "rotation"),
        ("model", "fusion"),
        ("model", "branches", 0, "tag"),
        ("training", "epochs"),
        ("training", "beta_1"),
        ("seed",),
        ("sead",),
    }


@pytest.mark.parametrize(
    "setting",
    [
        {"training": {"learning_rate": 0}},
        {"training": {"learning_rate": float("inf")}},
        {"training": {"learning_rate": float("nan")}},
        {"training": {"epsilon": -1e-7}},
        {"training": {"patience": 0}},
        {"training": {"monitor": "accuracy"}},
        {"data": {"validation_fraction": 0}},
        {"data": {"validation_fraction": 1}},
        {"data": {"views": 0}},
        {"seed": 2**31},
        {"name": "up/../down"},
        {"name": ""},
    ],
)
def test_a_value_outside_its_limits_is_refused(setting):
    with pytest.raises(ValidationError):
        ExperimentConfig.model_validate(setting)


def test_every_setting_explains_itself():
    def silent(schema: type[BaseModel], prefix: str = "") -> list[str]:
        found = []
        for name, info in schema.model_fields.items():
            kind = info.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Part:
                assert kind.__doc__
                found += silent(kind, f"{prefix}{name}.")
            elif not info.description:
                found.append(f"{prefix}{name}")
        return found

    assert silent(ExperimentConfig) == []


@pytest.mark.parametrize(
    ("protocol", "targets", "learned"),
    [
        ("majority", "auto", "label"),
        ("plurality", "auto", "label"),
        ("distribution", "auto", "distribution"),
        ("majority", "distribution", "distribution"),
        ("distribution", "drawn", "drawn"),
    ],
)
def test_targets_follow_the_protocol_unless_they_are_named(protocol, targets, learned):
    config = ExperimentConfig.model_validate(
        {"data": {"protocol": protocol}, "training": {"targets": targets}}
    )

    assert config.targets == learned


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_tilde_is_the_home_folder_in_every_path(home):
    config = ExperimentConfig.model_validate(
        {
            "output": "~/runs",
            "data": {"root": "~/a,~/b.csv", "labels": "~/l.csv", "faces": {"model": "~/m"}},
            "features": {"directory": "~/cache"},
        }
    )

    data = config.data
    found = [config.output, *data.root, data.labels, data.faces.model, config.features.directory]
    names = ("runs", "a", "b.csv", "l.csv", "m", "cache")
    assert found == [home / name for name in names]


@pytest.mark.parametrize("schema", [SearchExperiment, FaceSetConfig])
def test_no_leaf_is_a_path_that_keeps_its_tilde(schema, home):
    """Reads a tilde under each leaf whose type is a path, now and in times to come."""
    for leaf, info in path_leaves(schema):
        found = TypeAdapter(Annotated[info.annotation, info]).validate_python("~/x")
        assert found in (home / "x", [home / "x"]), leaf


def path_leaves(schema, prefix=""):
    for name, info in schema.model_fields.items():
        section = section_of(info)
        if section is not None:
            yield from path_leaves(section, f"{prefix}{name}.")
        elif "Path" in repr(info.annotation):
            yield f"{prefix}{name}", info


def test_an_unknown_home_folder_is_a_mistake():
    (message,) = messages(DataConfig, {"root": "~no_such_user/faces"})

    assert "The home folder of '~no_such_user/faces' is not known" in message
