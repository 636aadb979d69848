"""Settings that have no effect beside the others: which ones, and when they would have one."""

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, NamedTuple

from configs.leaves import leaf_paths
from configs.schema import AugmentConfig, ExperimentConfig, FaceConfig, Settings
from configs.search import SearchExperiment


class Effect(NamedTuple):
    """When some settings have an effect.

    Args:
        leaves: Their dotted paths.
        needs: Leaves that decide whether they have one.
        present: Returns whether they have one under these settings.
        when: The condition, for the message.
    """

    leaves: tuple[str, ...]
    needs: tuple[str, ...]
    present: Callable[[Any], bool]
    when: str


def _leaves(schema: type[Settings], section: str, *without: str) -> tuple[str, ...]:
    return tuple(f"{section}.{leaf}" for leaf in leaf_paths(schema) if leaf not in without)


def _face_effect(section: str) -> Effect:
    detector = f"{section}.detector"
    return Effect(
        _leaves(FaceConfig, section, "detector"),
        (detector,),
        lambda config: _value(config, detector) != "none",
        "with a face detector: --faces NAME",
    )


_UNFREEZE = ("training.unfreeze",)
_SCRATCH = ("training.unfreeze", "model.weights", "model.branches")
_FROZEN = "where branches are frozen, but --weights random --unfreeze all trains all of them"
_EFFECTS = (
    Effect(
        _leaves(AugmentConfig, "data.augment", "rotation", "horizontal_flip"),
        _UNFREEZE,
        lambda config: bool(config.training.unfreeze),
        "in fine-tuning, which augments images anew in each epoch: --unfreeze STAGE",
    ),
    Effect(
        ("data.augment.rotation", "data.augment.horizontal_flip"),
        ("data.views", *_UNFREEZE),
        lambda config: config.data.views > 1 or bool(config.training.unfreeze),
        "with --views 2 or more, or with --unfreeze STAGE",
    ),
    Effect(
        _leaves(type(ExperimentConfig().training.fine_tuning), "training.fine_tuning"),
        _UNFREEZE,
        lambda config: bool(config.training.unfreeze),
        "in fine-tuning: --unfreeze STAGE",
    ),
    Effect(
        ("training.fine_tuning.epochs", "training.fine_tuning.learning_rate"),
        _SCRATCH,
        lambda config: not config.from_scratch,
        "in a second phase; --weights random --unfreeze all has one phase, which follows "
        "--epochs and --learning-rate",
    ),
    Effect(
        ("training.fine_tuning.batch_norm",),
        _SCRATCH,
        lambda config: not config.from_scratch,
        "with pretrained weights; BatchNorm of a branch trained from scratch always learns",
    ),
    Effect(
        ("data.views", "features.dtype", "features.engine", "features.precision"),
        _SCRATCH,
        lambda config: not config.from_scratch,
        _FROZEN,
    ),
    Effect(
        ("training.warmup_epochs",),
        ("training.schedule",),
        lambda config: config.training.schedule == "cosine",
        "with --schedule cosine",
    ),
    Effect(
        ("search.factor",),
        (),
        lambda config: config.search.tuner == "hyperband",
        "with --tuner hyperband",
    ),
    _face_effect("data.faces"),
    _face_effect("faces"),
)


def find_settings_without_effect(config: Settings) -> Iterator[str]:
    """Yields a sentence for each setting that differs from its default without any effect.

    In a search, a setting that varies may take any of its values.

    Args:
        config: An experiment, a search or the settings of a set of faces.
    """
    schema, defaults = type(config), type(config)()
    known = set(leaf_paths(schema))
    grids = config.grids if isinstance(config, SearchExperiment) else []
    varied = {path for spaces in grids for path in spaces}
    for effect in _EFFECTS:
        leaves = [
            leaf
            for leaf in effect.leaves
            if leaf in known and (leaf in varied or _value(config, leaf) != _value(defaults, leaf))
        ]
        if leaves and varied.isdisjoint(effect.needs) and not effect.present(config):
            for leaf in leaves:
                yield f"`{leaf}` has no effect here. It works only {effect.when}."
    if isinstance(config, ExperimentConfig) and config.training.unfreeze:
        yield from _factors_of_frozen_branches(config)


def _factors_of_frozen_branches(config: ExperimentConfig) -> Iterator[str]:
    labels = {branch.label for branch in config.model.branches}
    for label in sorted(labels & set(config.training.fine_tuning.factors) - set(config.unfrozen)):
        yield (
            f"`training.fine_tuning.factors` has no effect on {label!r}, which is frozen. It works "
            f"only with --unfreeze {label}:STAGE."
        )


def _value(config: Settings, path: str) -> Any:
    return reduce(getattr, path.split("."), config)
