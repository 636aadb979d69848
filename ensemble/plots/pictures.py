"""Figures of images: samples of the data, and misclassified images."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ensemble.plots.figures import (
    GAP,
    LINE,
    draw_note,
    label_classes,
    paste,
    start_sheet,
    text_width,
    write,
)

MAX_ERRORS = 24  # images in `plot_errors`
MAX_IMAGES = 10  # images of one class in `plot_contact_sheet`


def plot_errors(
    images: Sequence[np.ndarray],
    truths: Sequence[str],
    predictions: Sequence[str],
    confidences: Sequence[float],
    title: str = "",
) -> Figure:
    """Draws misclassified images with their true class, the predicted one and its probability.

    Args:
        images: Pixels of shape `(height, width, 3)`, uint8; the first 24 are drawn.
        truths: Names of the true classes, one per image.
        predictions: Names of the predicted classes.
        confidences: Probabilities of the predicted classes.
        title: Text above the figure.
    """
    if not len(images):
        return draw_note("No mistakes.", title)
    side, columns = 1.5, min(6, len(images))  # inches, pictures
    images = images[:MAX_ERRORS]
    labels, key = label_classes(sorted({*truths, *predictions}))
    triples = zip(truths, predictions, confidences, strict=True)
    lines = [(labels[truth], f"→ {labels[guess]} {share:.2f}") for truth, guess, share in triples]
    captions = [" ".join(pair) for pair in lines]
    if text_width(captions) > side:
        captions = ["\n".join(pair) for pair in lines]
    captions = captions[:MAX_ERRORS]
    right = max(side, text_width(captions)) + GAP
    down = side + LINE * (captions[0].count("\n") + 1) + 2 * GAP
    rows = -(-len(captions) // columns)

    width, height = columns * right - GAP, rows * down - GAP
    figure, sheet = start_sheet(width, height, title, key)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        paste(sheet, image, column * right, row * down, side)
        write(sheet, column * right, row * down + side + LINE, caption)
    return figure


def plot_contact_sheet(
    images_by_class: Mapping[str, Sequence[np.ndarray]], title: str = ""
) -> Figure:
    """Draws a row of images per class.

    Args:
        images_by_class: Class name to pixels of shape `(height, width, 3)`, uint8;
            the first 10 of each class are drawn.
        title: Text above the figure.
    """
    columns = max((len(images) for images in images_by_class.values()), default=0)
    if not columns:
        return draw_note("No images.", title)
    labels, key = label_classes(list(images_by_class))
    side, names = 0.95, list(labels.values())  # inches
    left, pitch = text_width(names) + 2 * GAP, side + GAP

    width, height = left + min(columns, MAX_IMAGES) * pitch - GAP, len(names) * pitch - GAP
    figure, sheet = start_sheet(width, height, title, key)
    for row, (name, images) in enumerate(zip(names, images_by_class.values(), strict=True)):
        write(sheet, 0, row * pitch + (side + LINE / 2) / 2, name)
        for column, image in enumerate(images[:MAX_IMAGES]):
            paste(sheet, image, left + column * pitch, row * pitch, side)
    return figure
