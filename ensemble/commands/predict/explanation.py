"""Which parts of an image contribute to a prediction, fused and for each branch.

Occlusion (Zeiler and Fergus, Visualizing and understanding convolutional networks,
ECCV 2014): a part is hidden, and its contribution is what the log odds lose. It
needs no gradient, hence works with any backend, fusion and head. Parts are hidden softly
and overlap, as in RISE (Petsiuk et al., BMVC 2018), since hard edges would be features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from ensemble.model.composition import MultiBranchModel, logits_of

GRID = 8  # parts in a row and in a column

_BATCH = 16  # hidden images at a time


@dataclass(frozen=True, eq=False)
class Explanation:
    """Contribution of each part of an image to the log odds of a class, in nats.

    Above 0 the part speaks for the class, below 0 against it.

    Args:
        label: The class that is explained.
        fused: Shape `(grid, grid)`, float32: the part is hidden from all branches.
        branches: Branch label to such a map: the part is hidden from that branch only.
    """

    label: str
    fused: np.ndarray
    branches: Mapping[str, np.ndarray]


class Explainer:
    """Explains predictions by replacing the parts of an image by its mean colour, one by one.

    The extractor runs `grid` squared plus one times per image, whatever the number of branches.
    """

    def __init__(self, ensemble: MultiBranchModel, grid: int = GRID) -> None:
        self._ensemble = ensemble
        self._grid = grid
        classifier = ensemble.classifier
        # Not the probabilities: where the model is sure they no longer move.
        self._logits = keras.Model(classifier.input, logits_of(classifier), name="explained")

    def explain(self, image: np.ndarray, label: str | None = None) -> Explanation:
        """Explains the prediction for an image.

        Args:
            image: Shape `(size, size, 3)`, RGB of 0..255, of the model's size.
            label: The class to explain; None: the most probable one.

        Raises:
            ValueError: If the model has no such class.
        """
        pixels = image.astype(np.float32)
        seen = self._extract(pixels[None])
        logits = self._classify(seen)
        classes = self._ensemble.classes
        target = int(logits.argmax()) if label is None else classes.index(label)
        before = _log_odds(logits, target)

        masks = part_masks(self._grid, pixels)
        starts = range(0, len(masks), _BATCH)
        batches = [self._extract(_hide(pixels, masks[at : at + _BATCH])) for at in starts]
        hidden = {name: np.concatenate([batch[name] for batch in batches]) for name in seen}
        whole = {name: np.repeat(maps, self._grid**2, axis=0) for name, maps in seen.items()}

        def loss(features: Mapping[str, np.ndarray]) -> np.ndarray:
            after = _log_odds(self._classify(features), target)
            return (before - after).reshape(self._grid, self._grid).astype(np.float32)

        branches = {name: loss({**whole, name: hidden[name]}) for name in seen}
        return Explanation(classes[target], loss(hidden), branches)

    def _extract(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return self._ensemble.extractor.predict_on_batch(images)

    def _classify(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(self._logits.predict_on_batch(dict(features)), np.float64)


def part_masks(grid: int, image: np.ndarray) -> np.ndarray:
    """Returns how much of each pixel each part covers, shape `(grid * grid, h, w)`, 0..1.

    At the edge of a part the cover falls off over the width of one part.
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


def _log_odds(logits: np.ndarray, target: int) -> np.ndarray:
    """Returns log(p / (1 - p)) of a class, exact for p next to 0 and to 1, shape `(batch,)`."""
    others = np.delete(logits, target, axis=1)
    largest = others.max(axis=1)
    return logits[:, target] - largest - np.log(np.exp(others - largest[:, None]).sum(axis=1))
