"""A picture of which classes are taken for which."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ensemble.plots.figures import (
    FAINT,
    GAP,
    HEADING,
    INK,
    MARGIN,
    RULE,
    TITLE_HEIGHT,
    add_panel,
    key_height,
    label_classes,
    lettering,
    start_figure,
    text_width,
)

_SHADES = LinearSegmentedColormap.from_list("shades", ["#FFFFFF", "#56B4E9", "#0072B2", "#003A5D"])
_DARK = 0.55  # shades above it carry white text


def plot_confusion(
    counts: np.ndarray | Sequence[Sequence[int]], classes: Sequence[str], title: str = ""
) -> Figure:
    """Draws a confusion matrix as counts and, beside it, as shares of each true class.

    Args:
        counts: Shape `(c, c)`; row: true class, column: predicted class.
        classes: Names of the `c` classes.
        title: What was evaluated on what.
    """
    counts = np.asarray(counts)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    count_texts = [[f"{count:,}" for count in row] for row in counts]
    share_texts = [
        [f"{share:.0%}" if total else "–" for share in row]
        for row, total in zip(shares, totals, strict=True)
    ]

    labels, key = label_classes(classes)
    names = [labels[name] for name in classes]
    longest = text_width(names)
    cell = min(0.95, max(0.45, 4 / len(names)))  # inches
    slanted = longest > 0.95 * cell
    below = (longest * math.sqrt(0.5) if slanted else 0.1) + 0.6
    side, left, top, between = cell * len(names), MARGIN + 0.35 + longest, TITLE_HEIGHT + 0.5, 0.3
    height = top + side + below + key_height(key)
    figure = start_figure(left + 2 * side + between + MARGIN, height, title)
    figure.text(0.02, GAP / height, key, va="bottom", parse_math=False, **lettering())
    panels = [
        add_panel(figure, left + index * (side + between), top, side, side) for index in (0, 1)
    ]

    size = min(HEADING, 0.75 * cell / text_width([f"{counts.max():,}", "100%"], size=1))
    _draw_matrix(panels[0], counts / max(1, counts.max()), count_texts, size, "Images")
    _draw_matrix(panels[1], shares, share_texts, size, "Share of the true class")
    for axes in panels:
        _name_columns(axes, names, slanted)
    _name_rows(panels[0], names)
    panels[1].set_yticks([])
    return figure


def _draw_matrix(
    axes: Axes, shades: np.ndarray, texts: Sequence[Sequence[str]], size: float, heading: str
) -> None:
    """Draws cells in shades of 0..1 with a text in each."""
    num_classes = len(shades)
    axes.pcolormesh(shades, cmap=_SHADES, vmin=0, vmax=1, edgecolors=RULE, linewidth=0.5)
    axes.set(xlim=(0, num_classes), ylim=(num_classes, 0))
    for row, column in np.ndindex(shades.shape):
        shade = shades[row, column]
        axes.text(
            column + 0.5,
            row + 0.5,
            texts[row][column],
            ha="center",
            va="center_baseline",
            **lettering(size, "white" if shade > _DARK else INK if shade else FAINT),
        )
    axes.set_title(heading, loc="left", **lettering(HEADING))
    axes.tick_params(length=0)


def _name_columns(axes: Axes, names: Sequence[str], slanted: bool) -> None:
    places = np.arange(len(names)) + 0.5
    turn: dict[str, Any] = {"rotation": 45, "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(places, names, ha="right" if slanted else "center", parse_math=False, **turn)
    axes.set_xlabel("Predicted class", **lettering())


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)) + 0.5, names, parse_math=False)
    axes.set_ylabel("True class", labelpad=7, **lettering())
