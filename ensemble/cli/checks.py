"""Validation of settings against the registered parts, before anything heavy is imported."""

import copy
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from branches.registry import BRANCHES, check_size, check_stages
from branches.weights import check_file
from configs.errors import ConfigError, UserError
from configs.fields import describe_errors, options_model, read_options
from configs.files import expand_home
from configs.registry import unknown
from configs.schema import ExperimentConfig, FaceConfig, ModelConfig
from configs.search import SearchExperiment
from ensemble.cli.effects import find_settings_without_effect
from ensemble.data.registry import SOURCES
from ensemble.faces.crops import AUTO
from ensemble.faces.registry import DETECTORS
from ensemble.metrics.metrics import METRICS, objectives
from heads.registry import HEADS

log = logging.getLogger(__name__)

Experiment = TypeVar("Experiment", bound=ExperimentConfig)

_TRACKER_PACKAGES = {"tensorboard": ("tensorflow", "tensorboard"), "mlflow": ("mlflow",)}


def check_settings(
    values: dict[str, Any], schema: type[Experiment], *, effects: bool = False
) -> Experiment:
    """Reads settings and checks them against the registered parts.

    Args:
        values: Nested, as in a file.
        schema: What reads them.
        effects: Whether a setting without any effect is an error.

    Raises:
        ConfigError: With all errors at once.
    """
    errors: list[str] = []
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        errors = describe_errors(error, schema)
        try:
            config = schema.model_validate(_without(values, error))
        except ValidationError:
            raise ConfigError("\n".join(errors)) from error
    try:
        load_plugins(config.plugins)
        errors += find_errors(config)
        errors += find_settings_without_effect(config) if effects else ()
    except UserError as error:  # without its plugin a part would be reported as unknown
        errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    return config


def find_errors(config: ExperimentConfig) -> list[str]:
    """Returns what the schema cannot know to be invalid: names of parts, options, limits."""
    errors = [
        *_branch_errors(config),
        *_head_errors(config.model),
        *_unfreeze_errors(config),
        *_training_errors(config),
    ]
    if config.data.source != "auto" and config.data.source not in SOURCES:
        errors.append(unknown("source", config.data.source, ["auto", *SOURCES.names()]))
    errors += find_face_errors(config.data.faces)
    if isinstance(config, SearchExperiment) and config.search.objective not in objectives():
        errors.append(unknown("objective", config.search.objective, objectives()))
    return list(dict.fromkeys(errors))  # a backbone used twice causes its errors twice


def find_face_errors(faces: FaceConfig, *, automatic: bool = False) -> list[str]:
    """Returns what is invalid about the detector's name and file.

    Args:
        faces: The settings.
        automatic: Whether the detector may be "auto".
    """
    errors = []
    known = [*DETECTORS.names(), *([AUTO] if automatic else [])]
    if faces.detector not in known:
        errors.append(unknown("face detector", faces.detector, known))
    if faces.model is not None and not faces.model.is_file():
        errors.append(
            f"There is no file {faces.model}. Name the detector's model with --face-model, or "
            "leave it out."
        )
    return errors


def check_face_flags(
    name: str, model: Path | None, threshold: float | None, *, largest: bool
) -> FaceConfig:
    """Returns the settings of the flags that `add_prediction_flags` adds for finding faces.

    Raises:
        ConfigError: With all errors at once.
    """
    errors = find_face_errors(FaceConfig(detector=name, model=model), automatic=True)
    if name == "none":
        given = {
            "--face-model": model is not None,
            "--face-threshold": threshold is not None,
            "--largest": largest,
        }
        errors += [
            f"{flag} has no effect with --faces none. Name a face detector, or leave {flag} out."
            for flag, is_given in given.items()
            if is_given
        ]
    if threshold is not None and not threshold >= 0:
        errors.append(f"--face-threshold is a score, 0 or more. Received: {threshold}.")
    if errors:
        raise ConfigError("\n".join(errors))
    several: Literal["largest", "all"] = "largest" if largest else "all"
    return FaceConfig(detector=name, model=model, threshold=threshold, several=several)


def load_plugins(plugins: list[str]) -> None:
    """Imports modules or .py files, and warns of those that register no part of their own.

    Raises:
        ConfigError: If one cannot be imported.
    """
    for plugin in plugins:
        parts, modules = _count_parts(), len(sys.modules)
        try:
            if plugin.endswith(".py"):
                _import_file(expand_home(plugin).resolve())
            else:
                importlib.import_module(plugin)
        except UserError:
            raise
        except Exception as error:  # whatever the user's module raises
            raise ConfigError(
                f"The plugin {plugin!r} cannot be imported ({type(error).__name__}: {error}). "
                "Name a module on the Python path or a .py file."
            ) from error
        if len(sys.modules) > modules and _count_parts() == parts:
            log.warning(
                "the plugin %r registers no branch, head, source, face detector or metric, "
                "so it has no effect",
                plugin,
            )


def _count_parts() -> int:
    parts = sum(len(registry.names()) for registry in (BRANCHES, HEADS, SOURCES, DETECTORS))
    return parts + len(METRICS)


def _import_file(path: Path) -> None:
    name = f"_plugin_{path.stem}_{sha256(bytes(path)).hexdigest()[:12]}"
    imported = getattr(sys.modules.get(path.stem), "__file__", None)
    if name in sys.modules or (imported and Path(imported).resolve() == path):
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    if path.stem.isidentifier() and path.stem not in sys.modules:
        found = importlib.util.find_spec(path.stem)
        if found and found.origin and Path(found.origin).resolve() == path:
            sys.modules[path.stem] = module  # a later import finds the parts registered


def _branch_errors(config: ExperimentConfig) -> Iterator[str]:
    size = config.data.image_size
    for branch in config.model.branches:
        if branch.backbone not in BRANCHES:
            yield unknown("branch", branch.backbone, BRANCHES.names())
            continue
        yield from _error_of(check_size, BRANCHES.get(branch.backbone), (size, size, 3))
        weights = config.model.weights_of(branch.label)
        if weights not in {"imagenet", "random"}:
            yield from _error_of(check_file, weights, branch.label)


def _unfreeze_errors(config: ExperimentConfig) -> Iterator[str]:
    backbones = {branch.label: branch.backbone for branch in config.model.branches}
    for label, stages in config.unfrozen.items():
        if backbones[label] in BRANCHES:
            yield from _error_of(check_stages, BRANCHES.get(backbones[label]), stages)
    for label in sorted(set(config.training.fine_tuning.factors) - set(backbones)):
        yield (
            f"`training.fine_tuning.factors` has {label!r}, which is not a branch of this model "
            f"({', '.join(backbones)})."
        )
    if config.from_scratch and config.model.standardize:
        yield (
            "--standardize measures the features of frozen branches, and here all of them learn "
            "from random weights. Leave it out."
        )


def _training_errors(config: ExperimentConfig) -> Iterator[str]:
    if config.data.protocol == "distribution" and config.targets == "label":
        yield (
            "--protocol distribution keeps images that many people read differently, and --targets "
            "label would learn one reading of them as certain. Leave --targets out, or use "
            "--protocol plurality."
        )
    for tracker in config.training.trackers:
        for package in _TRACKER_PACKAGES[tracker]:
            if importlib.util.find_spec(package) is None:
                yield (
                    f"The tracker {tracker!r} needs the package {package!r}, which is not "
                    f"installed: pip install {package}, or leave out --track {tracker}."
                )


def _head_errors(model: ModelConfig) -> Iterator[str]:
    if model.head.name not in HEADS:
        yield unknown("head", model.head.name, HEADS.names())
        return
    spec = HEADS.get(model.head.name)
    try:
        read_options(spec.build, model.head.options)
    except ValidationError as error:
        yield from describe_errors(error, options_model(spec.build), prefix=("model", "head"))
    if spec.spatial and model.fusion != "grid":
        yield (
            f"Head {spec.name!r} looks at neighbouring positions, but fusion {model.fusion!r} "
            "leaves a single one. Use --fusion grid."
        )


def _error_of(check: Callable[..., object], *arguments: Any) -> Iterator[str]:
    """Yields the text of the user error that a check raises."""
    try:
        check(*arguments)
    except UserError as error:
        yield str(error)


def _without(values: dict[str, Any], error: ValidationError) -> dict[str, Any]:
    """Returns settings without the invalid ones, so that the rest can be checked too."""
    kept = copy.deepcopy(values)
    for found in error.errors():
        place = kept
        *sections, leaf = map(str, found["loc"])
        for section in sections:
            if not isinstance(place.get(section), dict):
                leaf = section
                break
            place = place[section]
        place.pop(leaf, None)
    return kept
