"""Names of splits, and the draw of validation images where the data has none."""

from collections.abc import Sequence

import numpy as np

from configs.errors import DataError

# With the words of FER2013 and the folders of FER+.
_WORDS = {
    "train": ("train", "training", "fer2013train"),
    "validation": ("val", "valid", "validation", "publictest", "fer2013valid"),
    "test": ("test", "testing", "privatetest", "fer2013test"),
}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}


def find_split(word: str) -> str | None:
    """Returns "train", "validation" or "test" as meant by a folder or a table cell."""
    return _SPLITS.get(word.strip().lower())


def draw_validation(
    labels: np.ndarray, groups: Sequence[str | None], fraction: float, seed: int
) -> np.ndarray:
    """Draws a share of every class, without parting a group.

    Groups come in random order, large ones first, and each is taken if the
    classes then come closer to their share. An image without a group is a group
    of its own, so that without groups every class gets its share exactly. The
    last images of a class are never taken from training.

    Args:
        labels: Class indices of shape `(n,)`.
        groups: The group of each image, or None.
        fraction: Share to draw, between 0 and 1.
        seed: Decides the draw together with the order of the images.

    Returns:
        Whether an image is drawn, of shape `(n,)`.

    Raises:
        DataError: If all images are of one group, so that nothing can be drawn.
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
    drawn = np.zeros(len(counts), bool)
    for group in order:
        count = counts[group]
        # By how much the squared distance to the share changes.
        change = scale @ (count * (count + 2 * (taken - share)))
        spares_training = np.all((taken + count < totals) | (count == 0))
        if change < 0 and spares_training:
            taken += count
            drawn[group] = True
    if not drawn.any():
        drawn[_smallest_spare(counts, order)] = True
    return drawn[numbers]


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
            "No validation images can be drawn without parting a group or emptying a class. "
            "Bring images of more groups or name the splits in the data."
        )
    return int(spare[-1])
