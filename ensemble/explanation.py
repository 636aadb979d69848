"""Which parts of an image decided, for each branch and for the fused answer.

Occlusion (Zeiler and Fergus, Visualizing and understanding convolutional networks,
ECCV 2014): a part is hidden, and what the answer loses is what the part gave. It
needs no gradient, hence no backend's own tape, and takes the model as it is, with
any fusion and any head. Parts are hidden softly and overlap, as in RISE (Petsiuk
et al., BMVC 2018), since hard edges would be features of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ensemble.model import MultiBranchModel

GRID = 8  # parts in a row and in a column

_BATCH = 16  # hidden images at a time
_TINY = 1e-30  # stands for a probability of 0, whose logarithm is not finite


@dataclass(frozen=True, eq=False)
class Explanation:
    """What hiding each part of an image takes from the answer.

    Values are changes of the log odds of the answer, in nats: above 0 the part
    speaks for the class, below 0 against it.

    Args:
        label: The class that is explained.
        fused: Shape `(grid, grid)`, float32: the part is hidden from all branches.
        branches: Branch label to such a map: the part is hidden from that branch alone,
            while the others see the whole image.
    """

    label: str
    fused: np.ndarray
    branches: Mapping[str, np.ndarray]


def explain(
    ensemble: MultiBranchModel, image: np.ndarray, label: str | None = None, grid: int = GRID
) -> Explanation:
    """Explains an answer by hiding the parts of an image one by one.

    A hidden part shows the mean colour of the image. The extractor runs `grid`
    squared plus one times, whatever the number of branches; the rest is the head's.

    Args:
        ensemble: The model.
        image: Shape `(size, size, 3)`, RGB of 0..255, of the model's size.
        label: The class to explain; None: the most probable one.
        grid: Parts in a row and in a column.

    Raises:
        ValueError: If the model has no such class.
    """
    pixels = image.astype(np.float32)
    seen = _extract(ensemble, pixels[None])
    probabilities = _classify(ensemble, seen)
    if label is None:
        label = ensemble.classes[int(probabilities[0].argmax())]
    target = ensemble.classes.index(label)
    before = _log_odds(probabilities, target)

    batches = [
        _extract(ensemble, _hide(pixels, masks)) for masks in _in_batches(part_masks(grid, pixels))
    ]
    hidden = {name: np.concatenate([batch[name] for batch in batches]) for name in seen}
    whole = {name: np.repeat(maps, grid * grid, axis=0) for name, maps in seen.items()}

    def loss(features: Mapping[str, np.ndarray]) -> np.ndarray:
        after = _log_odds(_classify(ensemble, features), target)
        return (before - after).reshape(grid, grid).astype(np.float32)

    branches = {name: loss({**whole, name: hidden[name]}) for name in seen}
    return Explanation(label, loss(hidden), branches)


def part_masks(grid: int, image: np.ndarray) -> np.ndarray:
    """Returns how much of each pixel each part covers, shape `(grid * grid, h, w)`, 0..1.

    A part is covered wholly; at its rim the cover falls off over the width of one part.

    Args:
        grid: Parts in a row and in a column.
        image: Shape `(h, w, 3)`.
    """
    rows, columns = (_windows(grid, length) for length in image.shape[:2])
    return np.einsum("ih,jw->ijhw", rows, columns).reshape(grid * grid, *image.shape[:2])


def _windows(grid: int, length: int) -> np.ndarray:
    """Returns how much of a line of pixels each of `grid` parts covers, shape `(grid, length)`."""
    places = (np.arange(length) + 0.5) * grid / length - 0.5  # 0: the middle of the first part
    distances = np.abs(places - np.arange(grid)[:, None])
    return np.clip(1.5 - distances, 0, 1).astype(np.float32)


def _hide(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    cover = masks[..., None]
    return image * (1 - cover) + image.mean(axis=(0, 1)) * cover


def _in_batches(masks: np.ndarray) -> list[np.ndarray]:
    return [masks[start : start + _BATCH] for start in range(0, len(masks), _BATCH)]


def _extract(ensemble: MultiBranchModel, images: np.ndarray) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(maps) for name, maps in ensemble.extractor.predict_on_batch(images).items()
    }


def _classify(ensemble: MultiBranchModel, features: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(ensemble.classifier.predict_on_batch(dict(features)), np.float64)


def _log_odds(probabilities: np.ndarray, target: int) -> np.ndarray:
    """Returns log(p / sum of the others); unlike log(p / (1 - p)) exact for p next to 1."""
    others = np.delete(probabilities, target, axis=1).sum(axis=1)
    return np.log(probabilities[:, target] + _TINY) - np.log(others + _TINY)
