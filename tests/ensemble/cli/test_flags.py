"""Laws of flags: every setting has one, and they win over files, which win over defaults."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from configs.errors import ConfigError
from configs.fields import options_model
from configs.schema import ExperimentConfig, Part
from ensemble.cli.command_line import read_experiment
from ensemble.cli.flags import Parser, SettingsParser
from heads.registry import HEADS, HeadSpec


def read(*argv: str) -> ExperimentConfig:
    """Returns the settings that a command gets."""
    return read_experiment(argv, prog="train", description="Trains.").config


def mistakes(*argv: str) -> list[str]:
    """Returns what is told of a command line that must be refused."""
    with pytest.raises(ConfigError) as error:
        read(*argv)
    return str(error.value).splitlines()


def texts(*argv: str) -> dict[str, Any]:
    """Returns dotted path to text, as the parser alone sees it."""
    return SettingsParser(ExperimentConfig, prog="train").parse_settings(argv)[1]


def leaves(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields dotted path and field of every leaf; a part is one."""
    for name, info in schema.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Part:
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", info


LEAVES = dict(leaves(ExperimentConfig))
SHORT = {
    info.json_schema_extra["flag"]: path
    for path, info in LEAVES.items()
    if isinstance(info.json_schema_extra, dict) and "flag" in info.json_schema_extra
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Writes a YAML file and returns its path."""

    def write_text(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text, "utf-8")
        return str(path)

    return write_text


@pytest.mark.parametrize("path", LEAVES)
def test_every_setting_has_its_path_as_a_flag(path):
    assert texts(f"--{path}", "some,text") == {path: "some,text"}


@pytest.mark.parametrize(("flag", "path"), SHORT.items())
def test_a_short_flag_means_its_setting(flag, path):
    assert texts(f"--{flag}", "some,text") == {path: "some,text"}
    assert texts(f"--{flag}=some,text") == {path: "some,text"}


def test_a_flag_not_given_says_nothing(monkeypatch):
    monkeypatch.delenv("ENSEMBLE_CACHE")  # which would speak
    assert texts() == {}
    assert read() == ExperimentConfig()


def test_the_help_tells_every_flag_and_part():
    text = SettingsParser(ExperimentConfig, prog="train").format_help()

    for path in LEAVES:
        assert f"--{path} " in text
    for flag in SHORT:
        assert f"--{flag}" in text
    for spec in HEADS:
        assert f"{spec.name:<14}{spec.summary}" in text
        for option, info in options_model(spec.build).model_fields.items():
            assert f"{option}={info.default}" in text


def test_texts_become_values():
    config = read(
        *("--branches", "vgg16,densenet121:b", "--classes", "happy, sad"),
        *("--merge", "bad=anger+disgust", "--data", "a,b.zip", "--weights", "vgg16=random"),
        *("--learning-rate", "1e-4", "--epochs", "7", "--horizontal-flip", "false"),
    )

    assert [branch.label for branch in config.model.branches] == ["vgg16", "densenet121:b"]
    assert config.model.weights == {"vgg16": "random"}
    assert config.data.classes == ["happy", "sad"]
    assert config.data.merge == {"bad": ["anger", "disgust"]}
    assert config.data.root == [Path("a"), Path("b.zip")]
    assert config.training.learning_rate == 1e-4
    assert config.training.epochs == 7
    assert not config.data.augment.horizontal_flip


@pytest.mark.parametrize(
    ("argv", "amsgrad"),
    [
        (["--amsgrad"], True),
        (["--amsgrad", "--epochs", "3"], True),
        (["--amsgrad", "true"], True),
        (["--amsgrad", "false"], False),
        (["--training.amsgrad"], True),
        ([], False),
    ],
)
def test_a_switch_needs_no_value(argv, amsgrad):
    assert read(*argv).training.amsgrad is amsgrad


@pytest.mark.parametrize("head", [spec.name for spec in HEADS])
def test_every_head_takes_its_options_as_flags(head):
    argv = ["--fusion", "grid", "--head", head]
    options = options_model(HEADS.get(head).build)().model_dump()
    for option, default in options.items():
        argv += [f"--model.head.{option}", str(default)]

    part = read(*argv).model.head

    assert part.name == head
    assert options_model(HEADS.get(head).build)(**part.options).model_dump() == options


def test_a_head_of_the_users_own_takes_options_too():
    def mine(features: Any, *, width: int = 3, tail: bool = True) -> Any: ...

    with HEADS.temporary(HeadSpec("mine", mine, summary="mine")):
        config = read("--head", "mine", "--model.head.width=5", "--model.head.tail", "false")

    assert config.model.head == Part(name="mine", options={"width": 5, "tail": False})


def test_options_without_a_head_are_those_of_the_default():
    head = read("--model.head.units", "64").model.head

    assert head == Part(name="dense", options={"units": 64})


@pytest.mark.parametrize(
    "argv",
    [
        ["--head", "dense", "--initializer", "orthogonal", "--model.head.units", "4"],
        ["--initializer", "orthogonal", "--model.head.units", "4", "--head", "dense"],
        ["--model.head.units", "4", "--head", "dense", "--initializer", "orthogonal"],
    ],
)
def test_the_order_of_flags_does_not_matter(argv):
    assert read(*argv).model.head.options == {"kernel_initializer": "orthogonal", "units": 4}


def test_of_a_flag_given_twice_the_last_counts():
    assert read("--epochs", "3", "--epochs", "5").training.epochs == 5
    assert read("--epochs", "3", "--training.epochs", "5").training.epochs == 5


def test_flags_win_over_the_file_which_wins_over_defaults(write):
    path = write("training: {epochs: 7, patience: 2}\nseed: 3")

    config = read("--config", path, "--epochs", "9")

    assert config.training.epochs == 9
    assert config.training.patience == 2
    assert config.seed == 3
    assert config.training.batch_size == ExperimentConfig().training.batch_size


def test_shipped_settings_are_called_by_name():
    config = read("--config", "three_class", "--epochs", "2")

    assert config.data.classes == ["neutral", "happy", "sad"]
    assert config.training.epochs == 2


def test_an_option_by_flag_keeps_the_files_head(write):
    path = write("model: {head: {name: linear, batch_norm: false}}")

    head = read("--config", path, "--model.head.dropout", "0.4").model.head

    assert head == Part(name="linear", options={"batch_norm": False, "dropout": 0.4})


def test_an_option_by_flag_joins_a_bare_name_in_the_file(write):
    path = write("model: {head: linear}")

    head = read("--config", path, "--model.head.dropout", "0.4").model.head

    assert head == Part(name="linear", options={"dropout": 0.4})


def test_a_head_by_flag_replaces_the_files_with_all_its_options(write):
    path = write("model: {head: {name: linear, dropout: 0.4}}")

    assert read("--config", path, "--head", "dense").model.head == Part(name="dense")
    assert read(
        "--config", path, "--initializer", "orthogonal", "--head", "dense"
    ).model.head == Part(name="dense", options={"kernel_initializer": "orthogonal"})


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--config", "three_class"],
        [
            *("--branches", "vgg16,vgg16:b", "--weights", "vgg16:b=random", "--amsgrad"),
            *("--head", "conv", "--model.head.filters", "8", "--fusion", "grid"),
            *("--data", "a,b.zip", "--labels", "votes.csv", "--merge", "bad=anger+disgust"),
            *("--epsilon", "1e-7", "--name", "first", "--seed", "5", "--rotation", "0"),
        ],
    ],
)
def test_settings_that_are_printed_can_be_read_again(argv, write, capsys):
    with pytest.raises(SystemExit) as stop:
        read(*argv, "--print-config")
    printed = capsys.readouterr().out

    assert stop.value.code == 0
    assert read("--config", write(printed)) == read(*argv)
    assert yaml.safe_load(printed)


def test_all_mistakes_are_told_at_once(write):
    path = write("training: {patience: 0}\nsead: 1\nmodel: {head: {dropuot: 0.3, units: 0}}")

    told = "\n".join(
        mistakes(
            *("--config", path, "--branches", "vgg61,densenet121", "--epochs", "ten"),
            *("--source", "foldr", "--image-size", "16", "--weights", "densenet121=missing.h5"),
        )
    )

    for words in (
        *("`training.patience`", "`training.epochs`", "`sead`", "'vgg61'", "'foldr'"),
        *("`model.head.dropuot`", "`model.head.units`", "branch 'densenet121'"),
    ):
        assert words in told


def test_parts_are_checked_though_a_setting_is_wrong():
    told = mistakes("--epochs", "ten", "--fusion", "polled", "--branches", "vgg61")

    assert len(told) == 3
    assert told[-1].startswith("Unknown branch 'vgg61'. Did you mean 'vgg16'?")


def test_a_plugin_that_fails_hides_no_other_mistake():
    told = mistakes("--plugins", "no_such_module", "--epochs", "0", "--branches", "no_such_branch")

    assert len(told) == 2
    assert told[0].startswith("`training.epochs`")
    assert told[1].startswith("The plugin 'no_such_module' cannot be imported")


def test_a_mistake_of_a_backbone_used_twice_is_told_once():
    assert len(mistakes("--branches", "vgg16,vgg16:b", "--image-size", "16")) == 1


def test_all_unknown_flags_are_told_at_once():
    assert mistakes("--epoch", "3", "--bach-size=4", "--zzzzzz") == [
        "Unknown flag --epoch. Did you mean --epochs?",
        "Unknown flag --bach-size. Did you mean --batch-size?",
        "Unknown flag --zzzzzz. See train --help.",
    ]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--epochs"], "expected one argument"),
        (["--model.head.units"], "expected a value"),
        (["--model.head.units", "--epochs"], "--epochs"),
        (["--model.head.units", "[1"], "--model.head.units"),
        (["stray"], "Unexpected argument 'stray'"),
        (["--amsgrad", "maybe"], "`training.amsgrad` must be a valid boolean"),
        (["--branches", ""], "`model.branches` must have at least 1 item"),
        (["--head", "conv"], "Use --fusion grid"),
        (["--head.units", "3"], "Unknown flag --head.units"),
    ],
)
def test_a_command_line_of_the_wrong_form_is_refused(argv, told):
    assert told in "\n".join(mistakes(*argv))


def test_a_flag_is_not_guessed_from_its_beginning():
    assert mistakes("--learning", "0.1") == [
        "Unknown flag --learning. Did you mean --learning-rate?"
    ]


def test_a_parser_of_other_arguments_refuses_in_the_same_words():
    parser = Parser(prog="evaluate")
    parser.add_argument("--split", choices=("train", "test"))

    with pytest.raises(ConfigError, match=r"Unknown flag --spilt\. Did you mean --split"):
        parser.parse_args(["--spilt", "train"])
    with pytest.raises(ConfigError, match="choose from"):
        parser.parse_args(["--split", "tset"])


def test_a_tilde_in_any_path_of_a_command_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = Parser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, default="~/out")

    args = parser.parse_args(["~/run"])

    assert (args.run, args.output) == (tmp_path / "run", tmp_path / "out")
    with pytest.raises(ConfigError, match="home folder of '~nobody_at_all/x' is not known"):
        parser.parse_args(["~nobody_at_all/x"])
