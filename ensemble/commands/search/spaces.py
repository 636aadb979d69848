"""The search space: which leaves vary, as hyperparameters and as the settings of a trial."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from operator import getitem
from typing import TYPE_CHECKING, Any

from configs.errors import ConfigError
from configs.fields import leaf_paths, options_model, put_leaf
from configs.files import write_config
from configs.registry import near_miss
from configs.schema import ExperimentConfig, Part
from configs.search import SearchExperiment, Space
from ensemble.cli.checks import check_settings
from heads.registry import HEADS

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

_WITHOUT_EFFECT = ("output", "name", "plugins", "features.directory", "training.trackers")
_NEEDS_IMAGES = ("training.unfreeze", "training.fine_tuning.")
_DETERMINES_FEATURES = ("data.", "seed", "model.weights", "model.fusion", "features.")
_MAX_FEATURE_SETS = 64  # of one search
_DEFAULT_TRIALS = 30
_EPOCHS = "tuner/epochs"  # Hyperband's hyperparameter for the length of a trial
_ABSENT = ""  # hyperparameter value of a leaf that a trial does not have


@dataclass(frozen=True)
class Dimension:
    """A leaf that varies.

    Args:
        path: Dotted, such as "training.learning_rate".
        space: Its values.
        values: The single values, None for a range.
        optional: Whether some trials lack this leaf.
    """

    path: str
    space: Space
    values: tuple[Any, ...] | None
    optional: bool = False

    @property
    def tokens(self) -> list[Any]:
        """The single values as KerasTuner takes them: numbers of one type, or else texts."""
        values = self.values or ()
        if self.optional:
            return [*map(label, values), _ABSENT]
        if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            return list(values)
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            return [float(value) for value in values]
        return [label(value) for value in values]

    def value_of(self, token: Any) -> Any:
        """Returns the value of a token, which KerasTuner may have rounded to 32 bits."""
        if self.values is None:
            return token if isinstance(token, int) else float(f"{token:.6g}")
        if isinstance(token, str):
            return self.values[self.tokens.index(token)]
        return min(self.values, key=lambda value: abs(value - token))

    def token_of(self, values: Mapping[str, Any]) -> Any:
        """Returns the token of this leaf's value among a trial's values."""
        if self.path not in values:
            return _ABSENT
        return self.tokens[list(map(label, self.values or ())).index(label(values[self.path]))]

    def declare(self, hp: "HyperParameters") -> None:
        """Registers the leaf as a hyperparameter."""
        space = self.space
        if space.kind in {"choice", "subsets"}:
            hp.Choice(self.path, self.tokens)
        elif space.kind == "int":
            low, high = map(int, space.values)
            hp.Int(self.path, low, high, step=int(space.step or 1))
        else:
            sampling = "log" if space.kind == "log" else "linear"
            hp.Float(self.path, *space.values, step=space.step, sampling=sampling)

    def probes(self) -> list[Any]:
        """Returns the values to validate: all of them, or the ends of a range."""
        return list(self.values or self.space.values)


class SearchSpace:
    """The leaves that vary, and the settings around them.

    Args:
        config: Settings, which must be valid.

    Raises:
        ConfigError: With every leaf that is unknown, cannot vary or has invalid values.
    """

    def __init__(self, config: SearchExperiment) -> None:
        self.config = config
        self._grids = [
            [_dimension(path, space) for path, space in spaces.items()] for spaces in config.grids
        ]
        self.dimensions = [dimension for grid in self._grids for dimension in grid]
        errors = dict.fromkeys(self._errors())
        if errors:
            raise ConfigError("\n".join(errors))
        if len(self._grids) > 1:
            self.dimensions = _span(list(self.combinations()))

    @property
    def trials(self) -> int | None:
        """Maximum number of trials; None: as many as the tuner proposes."""
        search = self.config.search
        if search.trials is None and search.tuner in {"bayesian", "random"}:
            return _DEFAULT_TRIALS
        return search.trials

    def declare(self, hp: "HyperParameters") -> None:
        """Registers every leaf that varies as a hyperparameter of KerasTuner."""
        for dimension in self.dimensions:
            dimension.declare(hp)

    def values_of(self, hp: "HyperParameters") -> dict[str, Any]:
        """Returns dotted leaf to value for a trial with these hyperparameters."""
        given = hp.values
        values = {
            dimension.path: dimension.value_of(given[dimension.path])
            for dimension in self.dimensions
            if given[dimension.path] != _ABSENT
        }
        if _EPOCHS in given:
            values["training.epochs"] = int(given[_EPOCHS])
        return values

    def config_of(self, values: Mapping[str, Any]) -> ExperimentConfig:
        """Returns the settings of a trial, as `ensemble.train` takes them.

        Args:
            values: Dotted leaf to its value.

        Raises:
            ConfigError: If they do not go together.
        """
        settings = self._settings(values)
        branches = settings["model"]["branches"]
        weights = settings["model"]["weights"]
        if isinstance(weights, dict) and isinstance(branches, list):
            kept = {name: weights[name] for name in branches if name in weights}
            settings["model"]["weights"] = kept or "imagenet"
        return check_settings(settings, ExperimentConfig)

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yields dotted leaf to value for all combinations of each grid, none of them twice.

        A leaf that varies in another grid alone has the value of the settings around
        them; an option that the trial's head does not take is left out.
        """
        known = set()
        for grid in self._grids:
            for values in _combine(grid):
                if len(self._grids) > 1:
                    values = self._complete(values)
                    if _identity(values) in known:
                        continue
                    known.add(_identity(values))
                yield values

    def feature_configs(self) -> list[ExperimentConfig]:
        """Returns settings for each set of stored features, with all branches that may occur."""
        wanted: dict[Hashable, tuple[dict[str, Any], dict[str, None]]] = {}
        for grid in self._grids:
            for named in _combine([d for d in grid if d.path.startswith(_DETERMINES_FEATURES)]):
                _, labels = wanted.setdefault(_identity(named), (named, {}))
                labels.update(dict.fromkeys(self._branch_labels(grid)))
        sets: list[ExperimentConfig] = []
        for named, labels in wanted.values():
            fitting = [
                name for name in labels if not self._error_with({**named, "model.branches": [name]})
            ]
            if fitting:
                config = self.config_of({**named, "model.branches": fitting})
                if not any(serves(one, config) for one in sets):
                    sets.append(config)
        return sets

    @property
    def _place(self) -> str:
        return "search.grids" if self.config.search.grids else "search.spaces"

    def _complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Adds the values of leaves that vary in other grids alone."""
        settings = self._settings(values)
        paths = list(dict.fromkeys(dimension.path for dimension in self.dimensions))
        known = {**_head_leaves(Part.model_validate(settings["model"]["head"]), paths), **values}
        known |= {
            path: reduce(getitem, path.split("."), settings)
            for path in paths
            if path not in known and not path.startswith("model.head.")
        }
        return {path: known[path] for path in paths if path in known}

    def _settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        settings = self.config.model_dump(mode="json", exclude={"search"})
        for path in sorted(values, key=lambda path: path.count(".")):  # a part before its options
            put_leaf(settings, path.split("."), values[path])
        return settings

    def _branch_labels(self, grid: Sequence[Dimension]) -> list[str]:
        for dimension in grid:
            if dimension.path == "model.branches":
                return [
                    name.strip()
                    for value in dimension.probes()
                    for name in (value.split(",") if isinstance(value, str) else value)
                ]
        return [branch.label for branch in self.config.model.branches]

    def _errors(self) -> Iterator[str]:
        if not self.dimensions:
            yield (
                "`search.spaces` is empty. Name leaves and their values in a .yaml file, "
                "such as `search: {spaces: {training.learning_rate: [1.0e-3, 1.0e-4]}}`."
            )
        if self.config.training.unfreeze:
            yield _needs_images("training.unfreeze")
        known = [dimension for dimension in self.dimensions if dimension.path in _searchable()]
        for dimension in self.dimensions:
            path = dimension.path
            if path not in _searchable():
                yield _unknown_path(path, self._place)
            elif dimension.values is None and path.startswith(_DETERMINES_FEATURES):
                yield (
                    f"`{self._place}.{path}` determines which features are stored. "
                    "Name its values one by one: [a, b, ...]."
                )
            elif dimension.values is None and self.config.search.tuner == "grid":
                yield (
                    f"`{self._place}.{path}` is continuous, which a grid cannot try. Name its "
                    "values one by one, or give {float: [low, high]} a step."
                )
            else:
                yield from self._value_errors(dimension, known)
        count = len(self.feature_configs()) if known == self.dimensions else 0
        if count > _MAX_FEATURE_SETS:
            yield (
                f"The spaces ask for {count} sets of stored features; at most {_MAX_FEATURE_SETS} "
                "are possible. Name fewer values of seed, data, weights, fusion and features."
            )

    def _value_errors(self, dimension: Dimension, known: Sequence[Dimension]) -> Iterator[str]:
        """Yields what is wrong with values that fit neither alone nor beside any other value."""
        beside: list[dict[str, Any]] = [{}]
        beside += [{other.path: value} for other in known for value in other.probes()]
        for value in dimension.probes():
            reasons = []
            for others in beside:
                reason = self._error_with({**others, dimension.path: value})
                if reason is None:
                    break
                reasons.append(reason)
            else:
                yield f"`{self._place}.{dimension.path}` has {label(value)}: {reasons[0]}"

    def _error_with(self, values: Mapping[str, Any]) -> str | None:
        try:
            self.config_of(values)
        except ConfigError as error:
            return str(error).splitlines()[0]
        return None


def serves(features: ExperimentConfig, trial: ExperimentConfig) -> bool:
    """Returns whether a trial can read the features stored for other settings."""
    labels = [branch.label for branch in trial.model.branches]
    return (
        _features_of(features) == _features_of(trial)
        and {branch.label for branch in features.model.branches} >= set(labels)
        and all(features.model.weights_of(name) == trial.model.weights_of(name) for name in labels)
    )


def _features_of(config: ExperimentConfig) -> tuple[object, ...]:
    return config.data, config.seed, config.features, config.model.fusion


def label(value: Any) -> str:
    """Returns a value as a word of a table: `vgg16+densenet121`, `0.001`, `dense`."""
    if isinstance(value, list):
        return "+".join(map(label, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str | int):
        return str(value)
    return write_config(value).replace("\n", ", ").removesuffix(", ").removesuffix(", ...")


def _dimension(path: str, space: Space) -> Dimension:
    values = space.candidates()
    return Dimension(path, space, None if values is None else tuple(values))


def _combine(dimensions: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    """Yields every combination of values, the last leaf varying fastest."""
    for values in product(*(dimension.probes() for dimension in dimensions)):
        yield dict(zip((d.path for d in dimensions), values, strict=True))


def _span(combinations: Sequence[Mapping[str, Any]]) -> list[Dimension]:
    """Returns the leaves of combinations, with all values that occur."""
    dimensions = []
    for path in dict.fromkeys(path for values in combinations for path in values):
        found = [values[path] for values in combinations if path in values]
        distinct = list({label(value): value for value in found}.values())
        dimension = _dimension(path, Space(kind="choice", values=distinct))
        dimensions.append(replace(dimension, optional=len(found) < len(combinations)))
    return dimensions


def _head_leaves(head: Part, paths: Sequence[str]) -> dict[str, Any]:
    """Returns a head without the options that are leaves by themselves, and all its options."""
    fields = options_model(HEADS.get(head.name).build).model_fields
    rest = {
        name: value for name, value in head.options.items() if f"model.head.{name}" not in paths
    }
    return {
        "model.head": {"name": head.name, **rest} if rest else head.name,
        **{
            f"model.head.{name}": head.options.get(name, field.get_default())
            for name, field in fields.items()
        },
    }


def _identity(values: Mapping[str, Any]) -> Hashable:
    return tuple((path, label(value)) for path, value in values.items())


def _searchable() -> list[str]:
    options = {
        f"model.head.{name}" for spec in HEADS for name in options_model(spec.build).model_fields
    }
    return [
        path
        for path in [*leaf_paths(ExperimentConfig), *sorted(options)]
        if path not in _WITHOUT_EFFECT and not path.startswith(_NEEDS_IMAGES)
    ]


def _unknown_path(path: str, place: str) -> str:
    if path.startswith(_NEEDS_IMAGES):
        return _needs_images(f"{place}.{path}")
    if path in _WITHOUT_EFFECT:
        return f"`{place}.{path}` does not affect the result of a trial. Leave it out."
    hint = near_miss(path, _searchable())
    return f"Unknown setting `{place}.{path}`." + (
        f" Did you mean `{hint}`?" if hint else " Name a leaf, such as training.learning_rate."
    )


def _needs_images(path: str) -> str:
    return (
        f"`{path}` needs the images, and trials read stored features only. Leave it out, and "
        "unfreeze the winner: python -m ensemble.train --config WINNER/config.yaml --unfreeze "
        "STAGES."
    )
