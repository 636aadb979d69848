"""Figures of calibration: reliability diagram and risk-coverage curve."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator, PercentFormatter

from ensemble.plots.figures import (
    BLUE,
    FAINT,
    HEADING,
    INK,
    MARGIN,
    VERMILION,
    add_legend,
    add_panel,
    lettering,
    set_rules,
    start_figure,
)

_EDGE: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.8}
_FIRST = 0.02  # share of the images from which on risks set the scale; few are noise


def plot_reliability(panels: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Draws accuracy against confidence, and below it the distribution of confidences.

    The top of a bar is the accuracy, or the confidence where the model is overconfident.

    Args:
        panels: Heading to number of images, mean confidence and accuracy of each bin, shape
            `(bins, 3)`. The bins divide 0..1 evenly; without images the latter two are NaN.
        title: What was evaluated on what.
    """
    side, low, left, top, between = 2.9, 0.75, 0.75, 1.25, 0.2  # inches
    figure = start_figure(
        len(panels) * (left + side) + MARGIN, top + side + between + low + 0.65, title
    )
    highest = max(bins[:, 0].max() / bins[:, 0].sum() for bins in panels.values())
    for column, (heading, bins) in enumerate(panels.items()):
        x = left + column * (left + side)
        images, confidences, accuracies = bins.T
        error = np.nansum(images * np.abs(accuracies - confidences)) / images.sum()
        axes = add_panel(figure, x, top, side, side)
        axes.set_title(heading, loc="left", **lettering(HEADING))
        axes.set_title(f"ECE {error:.3f}", loc="right", **lettering())
        _draw_reliability(axes, confidences, accuracies)
        shares = add_panel(figure, x, top + side + between, side, low)
        _draw_shares(shares, images / images.sum(), highest)
    add_legend(figure)
    return figure


def plot_risk_coverage(risks: np.ndarray, title: str = "") -> Figure:
    """Draws the proportion of mistakes among the most confident images, for every share of them.

    Args:
        risks: Proportion of mistakes among the `k + 1` most confident images, shape `(n,)`.
        title: What was evaluated on what.
    """
    width, height, left, top = 4.6, 2.9, 0.75, 1.25  # inches
    figure = start_figure(left + width + MARGIN, top + height + 0.65, title)
    axes = add_panel(figure, left, top, width, height)
    coverages = np.arange(1, len(risks) + 1) / len(risks)
    axes.axhline(
        risks[-1], color=FAINT, lw=1, ls=(0, (4, 3)), label=f"All images: {risks[-1]:.1%} wrong"
    )
    axes.plot(coverages, risks, color=BLUE, lw=1.6, label="Most confident images")
    axes.set_title("Mistakes", loc="left", **lettering(HEADING))
    axes.set_title(f"area {risks.mean():.3f}", loc="right", **lettering())
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(0.02, min(1.0, 1.1 * risks[int(_FIRST * len(risks)) :].max())))
    axes.set_xlabel("Share of images predicted, the most confident first", **lettering())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    axes.xaxis.set_major_locator(MultipleLocator(0.2))
    set_rules(axes, "both")
    add_legend(figure)
    return figure


def _draw_reliability(axes: Axes, confidences: np.ndarray, accuracies: np.ndarray) -> None:
    width = 1 / len(confidences)
    for index in np.flatnonzero(~np.isnan(accuracies)):
        middle, accuracy, confidence = (index + 0.5) * width, accuracies[index], confidences[index]
        common = min(accuracy, confidence)
        axes.bar(middle, common, width, color=BLUE, label="Accuracy", **_EDGE)
        for gap, colour, label in (
            (confidence - accuracy, VERMILION, "Overconfident"),
            (accuracy - confidence, BLUE, "Underconfident"),
        ):
            if gap > 0:
                style = {"color": colour, "alpha": 0.4, "label": label, **_EDGE}
                axes.bar(middle, gap, width, bottom=common, **style)
    axes.plot([0, 1], [0, 1], color=INK, lw=1, ls=(0, (4, 3)))
    axes.set_ylabel("Accuracy", **lettering())
    axes.set(ylim=(0, 1))
    axes.yaxis.set_major_locator(MultipleLocator(0.2))
    _set_confidences(axes)
    axes.tick_params(labelbottom=False)


def _draw_shares(axes: Axes, shares: np.ndarray, highest: float) -> None:
    middles = (np.arange(len(shares)) + 0.5) / len(shares)
    axes.bar(middles, shares, 1 / len(shares), color=FAINT, **_EDGE)
    axes.set_ylim(0, 1.1 * highest)
    axes.set_ylabel("Images", **lettering())
    axes.set_xlabel("Confidence", **lettering())
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 5, 10]))
    _set_confidences(axes)


def _set_confidences(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_locator(MultipleLocator(0.2))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    set_rules(axes, "y")
