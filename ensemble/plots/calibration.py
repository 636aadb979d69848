"""Pictures of how far probabilities can be taken at their word."""

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
_FIRST = 0.02  # share of the images from which on risks decide the scale; few say little


def plot_reliability(panels: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Draws accuracy against confidence, and below it how many images have that confidence.

    The top of a bar is the accuracy, or the confidence where the model is too sure.

    Args:
        panels: Heading to bins of equal width in order, shape `(bins, 5)`: lower and upper
            edge, number of images, mean confidence, accuracy; the last two are NaN in a
            bin without images. The panels stand side by side.
        title: What was evaluated on what.
    """
    side, low, left, top, between = 2.9, 0.75, 0.75, 1.25, 0.2  # inches
    figure = start_figure(
        len(panels) * (left + side) + MARGIN, top + side + between + low + 0.65, title
    )
    most = max((bins[:, 2] / bins[:, 2].sum()).max() for bins in panels.values())
    for column, (heading, bins) in enumerate(panels.items()):
        x = left + column * (left + side)
        axes = add_panel(figure, x, top, side, side)
        axes.set_title(heading, loc="left", **lettering(HEADING))
        gaps = np.abs(bins[:, 3] - bins[:, 4])
        ece = np.nansum(bins[:, 2] * gaps) / bins[:, 2].sum()
        axes.set_title(f"ECE {ece:.3f}", loc="right", **lettering())
        _draw_reliability(axes, bins)
        _draw_shares(add_panel(figure, x, top + side + between, side, low), bins, most)
    add_legend(figure)
    return figure


def plot_risk_coverage(risks: np.ndarray, title: str = "") -> Figure:
    """Draws the share of mistakes among the most confident images, for every share of them.

    Args:
        risks: Share of mistakes among the most confident images, shape `(images,)`.
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
    axes.set_xlabel("Share of images answered, the most confident first", **lettering())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    axes.xaxis.set_major_locator(MultipleLocator(0.2))
    set_rules(axes, "both")
    add_legend(figure)
    return figure


def _draw_reliability(axes: Axes, bins: np.ndarray) -> None:
    for lower, upper, _, confidence, accuracy in bins[bins[:, 2] > 0].tolist():
        middle, width = (lower + upper) / 2, upper - lower
        common = min(accuracy, confidence)
        axes.bar(middle, common, width, color=BLUE, label="Accuracy", **_EDGE)
        for gap, colour, label in (
            (confidence - accuracy, VERMILION, "Too sure"),
            (accuracy - confidence, BLUE, "Too doubtful"),
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


def _draw_shares(axes: Axes, bins: np.ndarray, most: float) -> None:
    middles = bins[:, :2].mean(axis=1)
    axes.bar(middles, bins[:, 2] / bins[:, 2].sum(), 1 / len(bins), color=FAINT, **_EDGE)
    axes.set_ylim(0, 1.1 * most)
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
