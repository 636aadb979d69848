"""A backbone's weights: ImageNet, a file, or seeded random numbers. Imports no Keras."""

import random
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from branches.registry import BranchSpec
from configs.errors import WeightsError, reason_of
from configs.files import expand_home

if TYPE_CHECKING:
    import keras

_TIMEOUT = 20  # seconds without a byte before a download is given up

Build = Callable[..., "keras.Model"]


def weighted_backbone(
    spec: BranchSpec,
    build: Build,
    *,
    input_shape: tuple[int | None, int | None, int],
    weights: str,
    seed: str,
) -> "keras.Model":
    """Builds a backbone with its weights.

    Args:
        spec: The branch.
        build: Its builder, called as those of `keras.applications` are.
        input_shape: `(height, width, 3)`.
        weights: "imagenet", "random" or the path of a file: an `.h5` as `keras.applications`
            publishes it, with or without the classifier on top, or a `.weights.h5` of the
            backbone or of a saved branch.
        seed: Seed of random weights.

    Raises:
        WeightsError: If the weights are not available or do not fit.
    """
    with _seeded(seed):  # initial weights are sampled even where others replace them
        if weights == "imagenet":
            return _download(spec, build, input_shape)
        backbone = build(include_top=False, weights=None, input_shape=input_shape)
        if weights != "random":
            _load(backbone, spec, build, check_file(weights, spec.name))
    return backbone


def check_file(weights: str, branch: str) -> Path:
    """Returns the path of a weights file.

    Raises:
        WeightsError: If there is no such file or its name has another ending.
    """
    path = expand_home(weights)
    if not path.is_file():
        raise WeightsError(
            f"Weights of branch {branch!r} are neither 'imagenet' nor 'random' nor a file. "
            f"Received: {weights}. Name an .h5 or .weights.h5 file that exists."
        )
    if path.suffix != ".h5":
        raise WeightsError(
            f"Weights of branch {branch!r} must be an .h5 or .weights.h5 file. Received: {weights}."
        )
    return path


@contextmanager
def _seeded(seed: str) -> Iterator[None]:
    """Seeds Keras initializers that have no seed of their own.

    Keras takes their seeds from Python's generator, whose state is restored afterwards; no other
    random state of the caller changes.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _download(
    spec: BranchSpec, build: Build, input_shape: tuple[int | None, int | None, int]
) -> "keras.Model":
    if spec.weights_licence is None:
        raise WeightsError(
            f"Branch {spec.name!r} has no published ImageNet weights. "
            f"Use --weights {spec.name}=random or --weights {spec.name}=FILE.h5."
        )
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)  # Keras sets none and would wait forever
    try:
        return build(include_top=False, weights="imagenet", input_shape=input_shape)
    except Exception as error:  # Keras raises a plain Exception when a download fails
        raise WeightsError(
            f"The ImageNet weights of branch {spec.name!r} cannot be downloaded "
            f"({reason_of(error)}). Three ways on: connect to the network once, as Keras "
            f"keeps them in ~/.keras/models; give a file with "
            f"--weights {spec.name}=FILE.h5; or start from random weights with --weights random."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _load(backbone: "keras.Model", spec: BranchSpec, build: Build, path: Path) -> None:
    from branches.preprocessing import with_scaling

    attempts = [lambda: backbone.load_weights(path)]
    if path.name.endswith(".weights.h5"):
        attempts.append(lambda: with_scaling(backbone, "none", name="branch").load_weights(path))
    else:
        attempts.append(lambda: _load_below_top(backbone, build, path))
    reasons = []
    for attempt in attempts:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # Keras only warns of skipped layers
                return attempt()
        except Exception as error:  # h5py and Keras raise OSError, ValueError, KeyError, TypeError
            reasons.append(reason_of(error))
    raise WeightsError(
        f"The weights in {path} do not fit branch {spec.name!r} ({reasons[0]}). "
        f"Use a file saved from this backbone, or --weights {spec.name}=imagenet."
    )


def _load_below_top(backbone: "keras.Model", build: Build, path: Path) -> None:
    """Loads a file of the whole ImageNet classifier and keeps the weights below its top."""
    whole = build(include_top=True, weights=None)
    whole.load_weights(path)
    for layer, source in zip(backbone.layers, whole.layers, strict=False):
        layer.set_weights(source.get_weights())
