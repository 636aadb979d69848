"""What a branch is, and the registry that knows all of them. Imports no Keras."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from configs.errors import ConfigError
from configs.registry import Registry

Scaling = Literal["caffe", "torch", "tf", "none"]
ImageShape = tuple[int | None, int | None, int]


@dataclass(frozen=True)
class BranchSpec:
    """A backbone that can be a branch.

    Args:
        name: As in `--branches`; lower case.
        builder: "module:function", resolved when the branch is built, or the
            function itself. It is called as those of `keras.applications` are,
            with `input_shape=`, `include_top=False`, `weights=None` or
            "imagenet", and returns a model from an image to a feature map of
            shape `(batch, h, w, c)`.
        preprocessing: How the backbone wants pixels of 0..255 scaled:
            "caffe" (BGR, mean subtracted), "torch" (0..1, mean and deviation),
            "tf" (-1..1) or "none" (the builder does it).
        min_size: Smallest height and width in pixels.
        reference: The paper that describes it.
        weights_licence: Terms of the published ImageNet weights; None: there
            are none, so weights are "random" or a file.
    """

    name: str
    builder: str | Callable[..., Any]
    preprocessing: Scaling
    min_size: int
    reference: str
    weights_licence: str | None = None


BRANCHES: Registry[BranchSpec] = Registry(
    "branch",
    package="branches",
    machinery={"registry", "builder", "preprocessing", "weights", "checksums", "checks"},
)


def register_branch(spec: BranchSpec) -> BranchSpec:
    """Registers a branch, so that its name works in `--branches` and everywhere else."""
    return BRANCHES.register(spec)


def branch_names() -> list[str]:
    """Returns the names of all known branches, sorted."""
    return BRANCHES.names()


def check_size(spec: BranchSpec, input_shape: ImageShape) -> None:
    """Checks that an image is large enough for a branch.

    Raises:
        ConfigError: If height or width is below `spec.min_size`, or the image
            has not three channels.
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
