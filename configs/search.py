"""The typed settings of a search: which leaves vary, and what proposes their values."""

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BeforeValidator, model_serializer, model_validator

from configs.files import load_yaml, yaml_problem
from configs.schema import ExperimentConfig, Settings, setting

Kind = Literal["choice", "subsets", "int", "float", "log"]

_FORMS = (
    "a space is written [a, b, ...], {subsets: [a, b, ...]}, {int: [low, high]}, "
    "{float: [low, high]} or {log: [low, high]}, the int and the float perhaps with a step"
)


def _number(value: Any) -> Any:
    """Reads 1e-5, which YAML takes for a text, as a number."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


class Space(Settings):
    """The values that a search may give to one leaf.

    Args:
        kind: "choice" of single values, all non-empty "subsets" of a list, or a range: "int",
            "float", or "log", whose logarithm is sampled uniformly.
        values: The values, the members, or the lowest and the highest value.
        step: Between two values of a range; None: 1 for "int", any number for "float".
    """

    kind: Kind
    values: list[Any]
    step: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, list):
            value = {"choice": value}
        if not isinstance(value, Mapping):
            raise ValueError(f"{_FORMS}. Received: {value}")
        if "kind" not in value:
            kinds = [kind for kind in get_args(Kind) if kind in value]
            if len(kinds) != 1 or set(value) - {*kinds, "step"}:
                raise ValueError(f"{_FORMS}. Received: {dict(value)}")
            value = {"kind": kinds[0], "values": value[kinds[0]], "step": value.get("step")}
        if not isinstance(value["values"], list):
            raise ValueError(f"{value['kind']} takes a list. Received: {value['values']}")
        return {**value, "values": [_number(each) for each in value["values"]]}

    @model_validator(mode="after")
    def _check(self) -> "Space":
        if self.kind in {"choice", "subsets"}:
            self._check_members()
        else:
            self._check_range()
        return self

    @model_serializer
    def _write(self) -> dict[str, Any]:
        return {self.kind: self.values, **({} if self.step is None else {"step": self.step})}

    def candidates(self) -> list[Any] | None:
        """Returns the single values, None for a continuous range."""
        match self.kind:
            case "choice":
                return list(self.values)
            case "subsets":
                sizes = range(1, len(self.values) + 1)
                return [list(part) for size in sizes for part in combinations(self.values, size)]
            case "int":
                low, high = map(int, self.values)
                return list(range(low, high + 1, int(self.step or 1)))
            case "float" if self.step:
                low, high = self.values
                steps = range(int((high - low) / self.step + 1e-9) + 1)
                return [float(f"{low + self.step * number:.12g}") for number in steps]
            case _:
                return None

    def _check_members(self) -> None:
        if not self.values:
            raise ValueError(f"the {self.kind} is empty; name at least one value")
        if self.step is not None:
            raise ValueError("only int and float take a step")
        texts = [str(value) for value in self.values]
        twice = [text for text in texts if texts.count(text) > 1]
        if twice:
            raise ValueError(f"the value {twice[0]} occurs twice")

    def _check_range(self) -> None:
        numbers = [value for value in self.values if isinstance(value, int | float)]
        if len(numbers) != 2 or len(self.values) != 2 or not numbers[0] < numbers[1]:
            raise ValueError(
                f"{self.kind} takes the lowest and the highest value. Received: {self.values}"
            )
        if self.kind == "log" and numbers[0] <= 0:
            raise ValueError(f"the lowest value of a log must be above 0. Received: {numbers[0]}")
        whole = [*numbers, self.step or 1]
        if self.kind == "int" and any(value != int(value) for value in whole):
            raise ValueError(f"int takes whole numbers. Received: {whole}")
        if self.step is not None and (self.kind == "log" or self.step <= 0):
            raise ValueError(f"a step is above 0 and only int and float take one. Got: {self.step}")


def _read_text(value: Any) -> Any:
    try:
        return load_yaml(value) if isinstance(value, str) else value
    except yaml.YAMLError as error:
        raise ValueError(f"{value!r} is not valid YAML: {yaml_problem(error)}") from error


class SearchConfig(Settings):
    """Which leaves of the settings vary, what proposes their values, and what is optimized."""

    tuner: Literal["bayesian", "grid", "hyperband", "random"] = setting(
        "bayesian", "what proposes the next trial", "tuner"
    )
    objective: str = setting(
        "val_macro_f1",
        "metric of the validation images at the best epoch that is optimized: val_accuracy, "
        "val_macro_f1, val_log_loss, val_ with another metric of report.json, or val_loss",
        "objective",
    )
    trials: int | None = setting(
        None, "upper limit; none: all of grid and hyperband, else 30", "trials", ge=1
    )
    factor: int = setting(
        3, "hyperband continues one trial in so many, with so many times the epochs", ge=2
    )
    seeds: int = setting(1, "seeds per setting of a grid, for mean and deviation", "seeds", ge=1)
    workers: int | None = setting(
        None,
        "parallel trials; none: one per core, up to 8, or one on a GPU",
        "workers",
        ge=1,
        le=64,
    )
    spaces: Annotated[dict[str, Space], BeforeValidator(_read_text)] = setting(
        {}, "dotted leaf to its values; best written in a .yaml file", metavar="YAML"
    )
    grids: Annotated[list[dict[str, Space]], BeforeValidator(_read_text)] = setting(
        [], "in place of spaces: several, whose combinations a grid tries once each", metavar="YAML"
    )

    @model_validator(mode="after")
    def _check(self) -> "SearchConfig":
        if self.grids and self.spaces:
            raise ValueError("grids stand in place of spaces; leave out search.spaces")
        if self.grids and self.tuner != "grid":
            raise ValueError(f"grids need the tuner grid. Received: {self.tuner}")
        if self.seeds > 1 and self.tuner != "grid":
            raise ValueError(
                f"{self.seeds} seeds need the tuner grid, which tries each setting with every "
                f"seed. Received: {self.tuner}"
            )
        if self.seeds > 1 and any("seed" in spaces for spaces in [self.spaces, *self.grids]):
            raise ValueError("seed varies already; leave out search.seeds")
        return self


class SearchExperiment(ExperimentConfig):
    """An experiment some of whose leaves vary; its seed is also the tuner's."""

    search: SearchConfig = SearchConfig()

    @property
    def grids(self) -> list[dict[str, Space]]:
        """The spaces that are searched, with the seed among the leaves if several are asked for."""
        grids = self.search.grids or [self.search.spaces]
        if self.search.seeds == 1:
            return grids
        seeds = list(range(self.seed, self.seed + self.search.seeds))
        return [{**spaces, "seed": Space(kind="choice", values=seeds)} for spaces in grids]
