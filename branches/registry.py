"""The specification of a branch and the registry of all branches. Imports no Keras."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from configs.errors import ConfigError
from configs.registry import Registry, unknown

Scaling = Literal["caffe", "torch", "tf", "none"]
ImageShape = tuple[int | None, int | None, int]


@dataclass(frozen=True)
class BranchSpec:
    """A backbone that can be a branch.

    Args:
        name: As in `--branches`; lower case.
        builder: "module:function", resolved when the branch is built, or the function itself.
            It is called as those of `keras.applications` are, with `input_shape=`,
            `include_top=False`, `weights=None` or "imagenet", and returns a model from an image
            to a feature map of shape `(batch, h, w, c)`.
        preprocessing: Scaling of pixels of 0..255 that the backbone needs: "caffe" (BGR, mean
            subtracted), "torch" (0..1, mean and deviation), "tf" (-1..1) or "none".
        min_size: Smallest height and width in pixels.
        reference: The paper that describes it.
        weights_licence: Terms of the published ImageNet weights; None: there are none.
        stages: Parts that can be unfrozen by name, from the image to the feature map: name of
            the stage to the name of its last layer in the backbone. A stage is all layers after
            the previous stage up to that one, in the order of `backbone.layers`; the last stage
            ends with the backbone. Empty: only "all" and "last:N" work.
    """

    name: str
    builder: str | Callable[..., Any]
    preprocessing: Scaling
    min_size: int
    reference: str
    weights_licence: str | None = None
    stages: Mapping[str, str] = field(default_factory=dict, hash=False)


BRANCHES: Registry[BranchSpec] = Registry("branch", package="branches.families")


def register_branch(spec: BranchSpec) -> BranchSpec:
    """Registers a branch, so that its name works in `--branches` and everywhere else."""
    return BRANCHES.register(spec)


def branch_names() -> list[str]:
    """Returns the names of all known branches, sorted."""
    return BRANCHES.names()


def spec_of_model(model_name: str) -> BranchSpec:
    """Returns the spec of a built branch, whose model is called `name` or `name_tag`.

    Raises:
        ConfigError: If no registered branch is called so.
    """
    names = [name for name in branch_names() if f"{model_name}_".startswith(f"{name}_")]
    return BRANCHES.get(max(names, key=len, default=model_name))


def check_size(spec: BranchSpec, input_shape: ImageShape) -> None:
    """Checks that an image has three channels and is large enough for a branch.

    Raises:
        ConfigError: If it is not.
    """
    height, width, channels = input_shape
    if channels != 3:
        raise ConfigError(f"Branches look at RGB images of 3 channels. Received: {channels}.")
    smallest = min(side for side in (height, width, 2**31) if side is not None)
    if smallest < spec.min_size:
        raise ConfigError(
            f"`data.image_size` must be at least {spec.min_size} for branch {spec.name!r}. "
            f"Received: {smallest}. Use --image-size {spec.min_size} or leave out {spec.name!r}."
        )


def check_stages(spec: BranchSpec, stages: Sequence[str]) -> None:
    """Checks the stages to unfreeze, as far as that needs no network; see `branches.unfreeze`.

    Raises:
        ConfigError: With all errors at once.
    """
    if isinstance(stages, str):
        raise ConfigError(f"Stages to unfreeze are a list. Received: {stages!r}. Use [{stages!r}].")
    errors = [error for stage in stages if (error := _stage_error(spec, stage))]
    if errors:
        raise ConfigError(" ".join(errors))


def layers_from_end(stage: str) -> int | None:
    """Returns the N of "last:N"; 0 if N is not a whole number, None for any other stage."""
    if not stage.startswith("last:"):
        return None
    count = stage.removeprefix("last:")
    return int(count) if count.isdecimal() else 0


def _stage_error(spec: BranchSpec, stage: str) -> str | None:
    count = layers_from_end(stage)
    if stage == "all" or stage in spec.stages or count:
        return None
    if count == 0:
        return (
            f"The N of 'last:N' is a whole number of layers of branch {spec.name!r}, 1 or more. "
            f"Received: {stage!r}. Use, for example, last:10."
        )
    if not spec.stages:
        return (
            f"Branch {spec.name!r} has no named stages, so only 'all' and 'last:N' work. "
            f"Received: {stage!r}."
        )
    return unknown(f"{spec.name} stage", stage, [*spec.stages, "all", "last:N"])
