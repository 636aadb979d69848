"""Settings that have no effect beside the others, and when they would have one."""

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, NamedTuple

from configs.fields import leaf_paths
from configs.schema import AugmentConfig, ExperimentConfig, FaceConfig, FineTuningConfig, Settings
from configs.search import SearchExperiment


class Condition(NamedTuple):
    """When some settings have an effect.

    Args:
        needs: Leaves that decide it.
        holds: Returns whether they have one under these settings.
        text: The condition, for the message.
    """

    needs: tuple[str, ...]
    holds: Callable[[Any], bool]
    text: str


def _fine_tuned(text: str) -> Condition:
    return Condition(_UNFREEZE, lambda config: bool(config.training.unfreeze), text)


def _pretrained(text: str) -> Condition:
    return Condition(
        (*_UNFREEZE, "model.weights", "model.branches"), lambda c: not c.from_scratch, text
    )


def _leaves(schema: type[Settings], section: str, *without: str) -> tuple[str, ...]:
    return tuple(f"{section}.{leaf}" for leaf in leaf_paths(schema) if leaf not in without)


def _face_effect(section: str) -> tuple[tuple[str, ...], Condition]:
    detector = f"{section}.detector"
    text = "with a face detector: --faces NAME"
    uses_detector = Condition((detector,), lambda config: _value(config, detector) != "none", text)
    return _leaves(FaceConfig, section, "detector"), uses_detector


_UNFREEZE = ("training.unfreeze",)
_EFFECTS: tuple[tuple[tuple[str, ...], Condition], ...] = (
    (
        _leaves(AugmentConfig, "data.augment", "rotation", "horizontal_flip"),
        _fine_tuned("in fine-tuning, which augments images anew in each epoch: --unfreeze STAGE"),
    ),
    (
        ("data.augment.rotation", "data.augment.horizontal_flip"),
        Condition(
            ("data.views", *_UNFREEZE),
            lambda config: config.data.views > 1 or bool(config.training.unfreeze),
            "with --views 2 or more, or with --unfreeze STAGE",
        ),
    ),
    (
        _leaves(FineTuningConfig, "training.fine_tuning"),
        _fine_tuned("in fine-tuning: --unfreeze STAGE"),
    ),
    (
        ("training.fine_tuning.epochs", "training.fine_tuning.learning_rate"),
        _pretrained(
            "in a second phase; --weights random --unfreeze all has one phase, which follows "
            "--epochs and --learning-rate"
        ),
    ),
    (
        ("training.fine_tuning.batch_norm",),
        _pretrained(
            "with pretrained weights; BatchNorm of a branch trained from scratch always learns"
        ),
    ),
    (
        ("data.views", "features.dtype", "features.engine", "features.precision"),
        _pretrained(
            "where branches are frozen, but --weights random --unfreeze all trains all of them"
        ),
    ),
    (
        ("training.warmup_epochs",),
        Condition(
            ("training.schedule",),
            lambda config: config.training.schedule == "cosine",
            "with --schedule cosine",
        ),
    ),
    (
        ("search.factor",),
        Condition((), lambda config: config.search.tuner == "hyperband", "with --tuner hyperband"),
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
    for leaves, condition in _EFFECTS:
        changed = [
            leaf
            for leaf in leaves
            if leaf in known and (leaf in varied or _value(config, leaf) != _value(defaults, leaf))
        ]
        if changed and varied.isdisjoint(condition.needs) and not condition.holds(config):
            for leaf in changed:
                yield f"`{leaf}` has no effect here. It works only {condition.text}."
    if isinstance(config, ExperimentConfig) and config.training.unfreeze:
        labels = {branch.label for branch in config.model.branches}
        factors = set(config.training.fine_tuning.factors)
        for label in sorted(labels & factors - set(config.unfrozen)):
            yield (
                f"`training.fine_tuning.factors` has no effect on {label!r}, which is frozen. It "
                f"works only with --unfreeze {label}:STAGE."
            )


def _value(config: Settings, path: str) -> Any:
    return reduce(getattr, path.split("."), config)
