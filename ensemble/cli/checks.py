"""Settings held against the registered parts, before anything heavy is imported."""

import copy
import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from branches.registry import BRANCHES, check_size, check_stages
from branches.weights import check_file
from configs.errors import ConfigError, UserError
from configs.mistakes import describe
from configs.options import options_model, read_options
from configs.paths import expand_home
from configs.registry import unknown
from configs.schema import Branch, ExperimentConfig, FaceConfig, ModelConfig
from ensemble.cli.effects import find_settings_without_effect
from ensemble.data.registry import SOURCES
from ensemble.faces.crops import AUTO
from ensemble.faces.registry import DETECTORS
from heads.registry import HEADS

log = logging.getLogger(__name__)

Experiment = TypeVar("Experiment", bound=ExperimentConfig)

_TRACKER_PACKAGES = {"tensorboard": ("tensorflow", "tensorboard"), "mlflow": ("mlflow",)}


def check_settings(
    values: dict[str, Any], schema: type[Experiment], *, effects: bool = False
) -> Experiment:
    """Reads settings and holds them against the registered parts.

    Args:
        values: Nested, as in a file.
        schema: What reads them.
        effects: Whether a setting without any effect is a mistake.

    Raises:
        ConfigError: With all mistakes at once.
    """
    try:
        config, mistakes = schema.model_validate(values), []
    except ValidationError as error:
        mistakes = list(describe(error, schema))
        try:
            config = schema.model_validate(_without(values, error))
        except ValidationError:
            raise ConfigError("\n".join(mistakes)) from error
    try:
        load_plugins(config.plugins)
        mistakes += find_mistakes(config)
        mistakes += find_settings_without_effect(config) if effects else ()
    except UserError as error:  # without its plugin a part would be called unknown
        mistakes.append(str(error))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config


def load_plugins(plugins: list[str]) -> None:
    """Imports modules or .py files, and warns of those that register no part of their own.

    Raises:
        ConfigError: If one cannot be imported.
    """
    for plugin in plugins:
        parts, modules = _count_parts(), len(sys.modules)
        try:
            _load_plugin(plugin)
        except UserError:
            raise
        except Exception as error:  # whatever the user's module raises
            raise ConfigError(
                f"The plugin {plugin!r} cannot be imported ({type(error).__name__}: {error}). "
                "Name a module on the Python path or a .py file."
            ) from error
        if len(sys.modules) > modules and _count_parts() == parts:
            log.warning(
                "the plugin %r registers no branch, head, source or face detector, "
                "so it has no effect",
                plugin,
            )


def find_mistakes(config: ExperimentConfig) -> list[str]:
    """Returns what the schema cannot know to be wrong: names of parts, options, limits."""
    mistakes = [
        mistake for branch in config.model.branches for mistake in _branch_mistakes(branch, config)
    ]
    mistakes += _head_mistakes(config.model)
    mistakes += _unfreeze_mistakes(config)
    mistakes += _target_mistakes(config)
    mistakes += _tracker_mistakes(config)
    if config.data.source != "auto" and config.data.source not in SOURCES:
        mistakes.append(unknown("source", config.data.source, ["auto", *SOURCES.names()]))
    mistakes += find_face_mistakes(config.data.faces)
    return list(dict.fromkeys(mistakes))  # a backbone used twice makes its mistakes twice


def find_face_mistakes(faces: FaceConfig, *, automatic: bool = False) -> list[str]:
    """Returns what is wrong with the detector's name and file.

    Args:
        faces: The settings.
        automatic: Whether the detector may be "auto".
    """
    mistakes = []
    known = [*DETECTORS.names(), *([AUTO] if automatic else [])]
    if faces.detector not in known:
        mistakes.append(unknown("face detector", faces.detector, known))
    if faces.model is not None and not faces.model.is_file():
        mistakes.append(
            f"There is no file {faces.model}. Name the detector's model with --face-model, or "
            "leave it out."
        )
    return mistakes


def check_face_flags(
    name: str, model: Path | None, threshold: float | None, *, largest: bool
) -> None:
    """Checks how faces are to be found in prediction.

    Args:
        name: A detector, or "auto".
        model: Its file, if one is given.
        threshold: Least score of a face, if one is given.
        largest: Whether only the largest face is taken.

    Raises:
        ConfigError: With every mistake in them.
    """
    mistakes = find_face_mistakes(FaceConfig(detector=name, model=model), automatic=True)
    if name == "none":
        given = {
            "--face-model": model,
            "--face-threshold": threshold,
            "--largest": largest or None,
        }
        mistakes += [
            f"{flag} has no effect with --faces none. Name a face detector, or leave {flag} out."
            for flag, value in given.items()
            if value is not None
        ]
    if threshold is not None and not threshold >= 0:
        mistakes.append(f"--face-threshold is a score, 0 or more. Received: {threshold}.")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _count_parts() -> int:
    return sum(len(registry.names()) for registry in (BRANCHES, HEADS, SOURCES, DETECTORS))


def _load_plugin(plugin: str) -> None:
    if not plugin.endswith(".py"):
        importlib.import_module(plugin)
        return
    path = expand_home(plugin).resolve()
    name = f"_plugin_{path.stem}_{sha256(bytes(path)).hexdigest()[:12]}"
    if name in sys.modules or _is_imported(path):
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


def _is_imported(path: Path) -> bool:
    """Returns whether a file is the module of its own name already."""
    file = getattr(sys.modules.get(path.stem), "__file__", None)
    return file is not None and Path(file).resolve() == path


def _branch_mistakes(branch: Branch, config: ExperimentConfig) -> Iterator[str]:
    if branch.backbone not in BRANCHES:
        yield unknown("branch", branch.backbone, BRANCHES.names())
        return
    size, weights = config.data.image_size, config.model.weights_of(branch.label)
    try:
        check_size(BRANCHES.get(branch.backbone), (size, size, 3))
        if weights not in {"imagenet", "random"}:
            check_file(weights, branch.label)
    except UserError as error:
        yield str(error)


def _unfreeze_mistakes(config: ExperimentConfig) -> Iterator[str]:
    backbones = {branch.label: branch.backbone for branch in config.model.branches}
    for label, stages in config.unfrozen.items():
        if backbones[label] in BRANCHES:
            try:
                check_stages(BRANCHES.get(backbones[label]), stages)
            except UserError as error:
                yield str(error)
    for label in sorted(set(config.training.fine_tuning.factors) - set(backbones)):
        yield (
            f"`training.fine_tuning.factors` has {label!r}, which is no branch of this model "
            f"({', '.join(backbones)})."
        )
    if config.from_scratch and config.model.standardize:
        yield (
            "--standardize measures the features of frozen branches, and here all of them learn "
            "from random weights. Leave it out."
        )


def _target_mistakes(config: ExperimentConfig) -> Iterator[str]:
    if config.data.protocol == "distribution" and config.targets == "label":
        yield (
            "--protocol distribution keeps images that many people read differently, and --targets "
            "label would learn one reading of them as certain. Leave --targets out, or use "
            "--protocol plurality."
        )


def _tracker_mistakes(config: ExperimentConfig) -> Iterator[str]:
    for tracker in config.training.trackers:
        for package in _TRACKER_PACKAGES[tracker]:
            if importlib.util.find_spec(package) is None:
                yield (
                    f"The tracker {tracker!r} needs the package {package!r}, which is not "
                    f"installed: pip install {package}, or leave out --track {tracker}."
                )


def _head_mistakes(model: ModelConfig) -> Iterator[str]:
    if model.head.name not in HEADS:
        yield unknown("head", model.head.name, HEADS.names())
        return
    spec = HEADS.get(model.head.name)
    try:
        read_options(spec.build, model.head.options)
    except ValidationError as error:
        yield from describe(error, options_model(spec.build), prefix=("model", "head"))
    if spec.spatial and model.fusion != "grid":
        yield (
            f"Head {spec.name!r} looks at neighbouring positions, but fusion {model.fusion!r} "
            "leaves a single one. Use --fusion grid."
        )


def _without(values: dict[str, Any], error: ValidationError) -> dict[str, Any]:
    """Returns settings without those that are wrong, so that the rest can be checked too."""
    kept = copy.deepcopy(values)
    for mistake in error.errors():
        place = kept
        *sections, leaf = map(str, mistake["loc"])
        for section in sections:
            if not isinstance(place.get(section), dict):
                leaf = section
                break
            place = place[section]
        place.pop(leaf, None)
    return kept
