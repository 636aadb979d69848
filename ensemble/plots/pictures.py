"""Pictures of images: a look at the data, and the worst mistakes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ensemble.plots.figures import (
    GAP,
    LINE,
    draw_note,
    key_height,
    label_classes,
    paste,
    start_sheet,
    text_width,
    write,
)

MAX_ERRORS = 24  # pictures in `plot_errors`
MAX_IMAGES = 10  # pictures of one class in `plot_contact_sheet`


def plot_errors(
    images: Sequence[np.ndarray],
    truths: Sequence[str],
    predictions: Sequence[str],
    confidences: Sequence[float],
    title: str = "",
) -> Figure:
    """Draws mistakes: each picture with its true class, the predicted one and its probability.

    Args:
        images: Pixels of shape `(height, width, 3)`, uint8; the first 24 are drawn.
        truths: Names of the true classes, one for each image.
        predictions: Names of the predicted classes.
        confidences: Probabilities of the predicted classes.
        title: What was evaluated on what.
    """
    if not len(images):
        return draw_note("No mistakes.", title)
    side, columns = 1.5, min(6, len(images))  # inches, pictures
    images = images[:MAX_ERRORS]
    labels, key = label_classes(sorted({*truths, *predictions}))
    captions = _captions(
        [labels[name] for name in truths],
        [labels[name] for name in predictions],
        confidences,
        side,
    )[:MAX_ERRORS]
    lines = max(caption.count("\n") + 1 for caption in captions)
    right = max(side, text_width(captions)) + GAP
    down = side + LINE * lines + 2 * GAP
    rows = -(-len(captions) // columns)

    width, height = columns * right - GAP, rows * down - GAP
    figure, sheet = start_sheet(width, height + key_height(key), title)
    write(sheet, 0, height + key_height(key) - LINE * key.count("\n"), key)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        paste(sheet, image, column * right, row * down, side)
        write(sheet, column * right, row * down + side + LINE, caption)
    return figure


def plot_contact_sheet(
    images_by_class: Mapping[str, Sequence[np.ndarray]], title: str = ""
) -> Figure:
    """Draws a look at the data: a row of pictures for each class.

    Args:
        images_by_class: Class name to pixels of shape `(height, width, 3)`, uint8;
            the first 10 of each class are drawn.
        title: Which data it is.
    """
    columns = max((len(images) for images in images_by_class.values()), default=0)
    if not columns:
        return draw_note("No images.", title)
    labels, key = label_classes(list(images_by_class))
    side, names = 0.95, list(labels.values())  # inches
    left, pitch = text_width(names) + 2 * GAP, side + GAP

    width, height = left + min(columns, MAX_IMAGES) * pitch - GAP, len(names) * pitch - GAP
    figure, sheet = start_sheet(width, height + key_height(key), title)
    write(sheet, 0, height + key_height(key) - LINE * key.count("\n"), key)
    for row, (name, images) in enumerate(zip(names, images_by_class.values(), strict=True)):
        write(sheet, 0, row * pitch + (side + LINE / 2) / 2, name)
        for column, image in enumerate(images[:MAX_IMAGES]):
            paste(sheet, image, left + column * pitch, row * pitch, side)
    return figure


def _captions(
    truths: Sequence[str], predictions: Sequence[str], confidences: Sequence[float], width: float
) -> list[str]:
    """Returns "true → predicted 0.93" on one line, or on two where one would be too wide."""
    answers = [
        (truth, f"→ {prediction} {confidence:.2f}")
        for truth, prediction, confidence in zip(truths, predictions, confidences, strict=True)
    ]
    captions = [" ".join(answer) for answer in answers]
    return captions if text_width(captions) <= width else ["\n".join(answer) for answer in answers]
