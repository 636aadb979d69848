"""Names of splits, and sampling of validation images where the data has none."""

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from configs.errors import DataError

# The public test split of FER2013 is used for validation, as by its authors.
_WORDS = {
    "train": "train|training|trn",
    "validation": "val|valid|validate|validation|dev|devel|development|publictest",
    "test": "test|testing|tst|holdout|privatetest",
}
_AROUND = (  # what may stand around these words, as in `train_images` or `FER2013Valid`
    "set|sets|split|data|dataset|folder|image|images|img|imgs|picture|pictures|pics|photo|photos|"
    r"face|faces|sample|samples|fer|\d+"
)
_PATTERNS = {
    split: re.compile(rf"(?:{_AROUND})*(?:{words})(?:{_AROUND})*")
    for split, words in _WORDS.items()
}
_HINT = re.compile(
    rf"{'|'.join(_WORDS.values())}|eval|evaluation|train(s|val|test|i[a-z]*)|valid[a-z]*|tests"
)
_VARIANT = re.compile(  # what may stand beside these words in a name that is no known split
    rf"{_AROUND}|my|v|ver|version|x|new|old|final|raw|clean|cleaned|aug|augmented|original|aligned|"
    "cropped|resized|balanced|small|full|extra|fold|part|copy"
)
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@lru_cache(2**10)
def find_split(word: str) -> str | None:
    """Returns "train", "validation" or "test" as meant by a folder or a table cell.

    Example:
        >>> find_split("TrainingSet"), find_split("val_images"), find_split("happy")
        ('train', 'validation', None)
    """
    letters = re.sub(r"[\W_]", "", word).lower()
    return next((split for split, p in _PATTERNS.items() if p.fullmatch(letters)), None)


def resembles_split(word: str) -> bool:
    """Returns whether a name is a split's with an addition, as `train_augmented`.

    Example:
        >>> resembles_split("train_v2"), resembles_split("training_shoes")
        (True, False)
    """
    parts = [part.lower() for part in _PARTS.findall(word)]
    others = [part for part in parts if not _HINT.fullmatch(part)]
    known = len(others) < len(parts) and all(map(_VARIANT.fullmatch, others))
    return find_split(word) is not None or known


def sample_validation(
    labels: np.ndarray, groups: Sequence[str | None], fraction: float, seed: int
) -> np.ndarray:
    """Samples a share of every class, without splitting a group.

    Groups come in random order, large ones first, and each is taken if the
    classes then come closer to their share. An image without a group is a group
    of its own, so that without groups every class gets its share exactly. The
    last images of a class are never taken from training.

    Args:
        labels: Class indices of shape `(n,)`.
        groups: The group of each image, or None.
        fraction: Share to sample, between 0 and 1.
        seed: Random seed; the sample also depends on the order of the images.

    Returns:
        Whether an image is sampled, shape `(n,)`.

    Raises:
        DataError: If all images are of one group, so that nothing can be sampled.
    """
    numbers = _number_groups(groups)
    counts = np.zeros((numbers.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (numbers, labels), 1)
    totals = counts.sum(axis=0)
    share = np.clip(np.round(fraction * totals), 1, np.maximum(totals - 1, 1))

    # An error weighs as a part of its class, so that rare classes matter as much.
    scale = 1 / np.maximum(totals, 1)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    taken = np.zeros_like(totals)
    sampled = np.zeros(len(counts), bool)
    for group in order:
        count = counts[group]
        # By how much the squared distance to the share changes.
        change = scale @ (count * (count + 2 * (taken - share)))
        spares_training = np.all((taken + count < totals) | (count == 0))
        if change < 0 and spares_training:
            taken += count
            sampled[group] = True
    if not sampled.any():
        sampled[_smallest_spare(counts, order)] = True
    return sampled[numbers]


def _number_groups(groups: Sequence[str | None]) -> np.ndarray:
    numbers: dict[object, int] = {}
    keys = ((place,) if group is None else group for place, group in enumerate(groups))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def _smallest_spare(counts: np.ndarray, order: np.ndarray) -> int:
    """Returns the smallest group without which training still has every class."""
    totals = counts.sum(axis=0)
    spare = [group for group in order if np.all((counts[group] < totals) | (counts[group] == 0))]
    if not spare:
        raise DataError(
            "No validation images can be sampled without splitting a group or emptying a class. "
            "Bring images of more groups or name the splits in the data."
        )
    return int(spare[-1])
