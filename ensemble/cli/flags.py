"""Flags generated from the schema: one per leaf, and a short one for common leaves."""

import argparse
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from branches.registry import BRANCHES
from configs.errors import ConfigError, HomeError
from configs.fields import options_model, section_of
from configs.files import expand_home, load_yaml, yaml_problem
from configs.registry import near_miss
from configs.schema import Part
from ensemble.data.registry import SOURCES
from ensemble.faces.registry import DETECTORS
from heads.registry import HEADS

_SETTING = "setting:"  # before the dotted path, in the names that argparse keeps


class _Formatter(argparse.HelpFormatter):
    """Shows a flag's value once, after its last name, and starts all texts in one column."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `ConfigError`, with near misses."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **kwargs)
        self.register("type", Path, _path)  # what `type=Path` calls

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            self._reject(rest)
        return parsed

    def _print_message(self, message: str, file: Any = None) -> None:
        print(message, end="", file=file)  # argparse's own hides that the disk is full

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:1].upper()}{message[1:]}. See {self.prog} --help.")

    def _reject(self, words: Sequence[str]) -> NoReturn:
        flags = [word.split("=")[0] for word in words if word.startswith("-")]
        if not flags:
            self.error(f"unexpected argument {words[0]!r}")
        known = list(self._option_string_actions)
        sentences = []
        for flag in flags:
            close = near_miss(flag, known)
            hint = f"Did you mean {close}?" if close else f"See {self.prog} --help."
            sentences.append(f"Unknown flag {flag}. {hint}")
        raise ConfigError("\n".join(sentences))


def describe_parts() -> str:
    """Returns the parts known for --branches, --head, --source and --faces, for the help."""
    lines = [
        f"branches: {', '.join(BRANCHES.names())} (python -m ensemble.branches lists them)",
        "",
        "heads, with their options as --model.head.OPTION VALUE:",
    ]
    for spec in HEADS:
        options = options_model(spec.build).model_fields.items()
        lines += [f"  {spec.name:<14}{spec.summary}"]
        lines += [f"{'':<16}" + " ".join(f"{name}={info.default}" for name, info in options)]
    return "\n".join([*lines, "", describe_sources()])


def describe_sources() -> str:
    """Returns the parts known for --source and --faces, for the help."""
    sources, detectors = (
        [f"  {spec.name:<14}{spec.summary}" for spec in parts] for parts in (SOURCES, DETECTORS)
    )
    return "\n".join(["sources of data:", *sources, "", "face detectors:", *detectors, ""])


def add_prediction_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags for finding faces in predictions and for uncertain predictions."""
    parser.add_argument(
        "--min-confidence",
        type=_probability,
        default=0.0,
        metavar="P",
        help="a prediction of a lower probability is `uncertain`, 0 to 1 (default: 0)",
    )
    parser.add_argument(
        "--faces",
        default="auto",
        metavar="NAME",
        help=f"{', '.join(DETECTORS.names())} or auto: as the model was trained; for a model "
        "trained on crops yunet, else haar, and an image that is a crop is taken whole "
        "(default: auto)",
    )
    parser.add_argument("--face-model", type=Path, metavar="FILE", help="the detector's model")
    parser.add_argument(
        "--face-threshold", type=float, metavar="S", help="lowest score of a face, in its own scale"
    )
    parser.add_argument("--largest", action="store_true", help="take only the largest face")


class SettingsParser(Parser):
    """A parser with a flag for every leaf of a schema and for every option of a part.

    Args:
        schema: The settings.
        parts: Returns the help text about parts, below the flags.
    """

    def __init__(
        self, schema: type[BaseModel], *, parts: Callable[[], str] = describe_parts, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._parts = parts
        self._part_paths: list[str] = []
        self._add(schema)

    def parse_settings(self, argv: Sequence[str] | None) -> tuple[Any, dict[str, Any]]:
        """Returns the other arguments, and the settings: dotted path to text or value."""
        parsed, rest = self.parse_known_args(argv)
        settings = {
            name.removeprefix(_SETTING): text
            for name, text in vars(parsed).items()
            if name.startswith(_SETTING)
        }
        return parsed, {**settings, **dict(self._options(list(rest)))}

    def format_help(self) -> str:
        return f"{super().format_help()}\n{self._parts()}"

    def _add(self, schema: type[BaseModel], prefix: str = "") -> None:
        title = prefix.removesuffix(".") or "run"
        summary = (schema.__doc__ or "").partition("\n")[0]  # `python -OO` removes docstrings
        group = self.add_argument_group(title, summary or None)
        sections = {name: section_of(info) for name, info in schema.model_fields.items()}
        for name, info in schema.model_fields.items():
            if sections[name] is None:
                self._add_leaf(f"{prefix}{name}", info, group)
        for name, section in sections.items():
            if section is not None:
                self._add(section, f"{prefix}{name}.")

    def _add_leaf(self, path: str, info: FieldInfo, group: Any) -> None:
        extra: Any = info.json_schema_extra or {}
        names = [f"--{extra['flag']}"] if "flag" in extra else []
        names += [f"--{path}"] if f"--{path}" not in names else []
        options: dict[str, Any] = {"nargs": "?", "const": "true"} if info.annotation is bool else {}
        group.add_argument(
            *names,
            dest=f"{_SETTING}{path}",
            default=argparse.SUPPRESS,
            metavar=extra.get("metavar") or _metavar(info),
            help=f"{info.description}{_default(info)}",
            **options,
        )
        for flag, option in extra.get("options", {}).items():
            group.add_argument(
                f"--{flag}",
                dest=f"{_SETTING}{path}.{option}",
                default=argparse.SUPPRESS,
                metavar="NAME",
                help=f"the same as --{path}.{option}",
            )
        if info.annotation is Part:
            self._part_paths.append(path)

    def _options(self, words: list[str]) -> Iterator[tuple[str, Any]]:
        while words:
            word = words.pop(0)
            flag, has_value, value = word.partition("=")
            if not any(flag.startswith(f"--{path}.") for path in self._part_paths):
                self._reject([word, *words])
            if not has_value:
                if not words or words[0].startswith("--"):
                    self.error(f"argument {flag}: expected a value")
                value = words.pop(0)
            try:
                yield flag.removeprefix("--"), load_yaml(value)
            except yaml.YAMLError as error:
                self.error(f"argument {flag}: {value!r} is not valid YAML: {yaml_problem(error)}")


def _metavar(info: FieldInfo) -> str:
    kind = info.annotation
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    if get_origin(kind) in {Union, types.UnionType}:
        kind = get_args(kind)[0]
    names = {bool: "true|false", int: "N", float: "X"}
    return names.get(kind, "NAME") if isinstance(kind, type) else "NAME"


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None or value in ([], {}):
        return ""
    shown = value.name if isinstance(value, Part) else value
    text = ",".join(map(str, shown)) if isinstance(shown, list) else str(shown)
    return f" (default: {text})".replace("%", "%%")


def _path(text: str) -> Path:
    try:
        return expand_home(text)
    except HomeError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"a probability is 0 to 1, received {text}")
    return value
