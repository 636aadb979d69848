"""Pictures of how far probabilities can be taken at their word."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator, PercentFormatter

from ensemble.evaluation.calibration import Bin, Calibration, calibration_error
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


def plot_reliability(calibration: Calibration, title: str = "") -> Figure:
    """Draws accuracy against confidence, and below it how many images have that confidence.

    The top of a bar is the accuracy, or the confidence where the model is too sure.

    Args:
        calibration: Drawn before and after its temperature, side by side, or once
            where it has none.
        title: What was judged on what.
    """
    columns = [("Model", calibration.bins)]
    if calibration.fitted:
        columns = [
            ("Before", calibration.bins_before),
            (f"After, temperature {calibration.temperature:.2f}", calibration.bins),
        ]
    side, low, left, top, between = 2.9, 0.75, 0.75, 1.25, 0.2  # inches
    figure = start_figure(
        len(columns) * (left + side) + MARGIN, top + side + between + low + 0.65, title
    )
    heights = [found.images for _, bins in columns for found in bins]
    most = max(heights) / sum(found.images for found in calibration.bins)
    for column, (heading, bins) in enumerate(columns):
        x = left + column * (left + side)
        axes = add_panel(figure, x, top, side, side)
        axes.set_title(heading, loc="left", **lettering(HEADING))
        axes.set_title(f"ECE {calibration_error(bins):.3f}", loc="right", **lettering())
        _draw_reliability(axes, bins)
        _draw_shares(add_panel(figure, x, top + side + between, side, low), bins, most)
    add_legend(figure)
    return figure


def plot_risk_coverage(calibration: Calibration, title: str = "") -> Figure:
    """Draws the share of mistakes among the most confident images, for every share of them.

    Args:
        calibration: Its risks are drawn.
        title: What was judged on what.
    """
    width, height, left, top = 4.6, 2.9, 0.75, 1.25  # inches
    figure = start_figure(left + width + MARGIN, top + height + 0.65, title)
    axes = add_panel(figure, left, top, width, height)
    risks = calibration.risks
    coverages = np.arange(1, len(risks) + 1) / len(risks)
    axes.axhline(
        risks[-1], color=FAINT, lw=1, ls=(0, (4, 3)), label=f"All images: {risks[-1]:.1%} wrong"
    )
    axes.plot(coverages, risks, color=BLUE, lw=1.6, label="Most confident images")
    axes.set_title("Mistakes", loc="left", **lettering(HEADING))
    axes.set_title(f"area {calibration.aurc:.3f}", loc="right", **lettering())
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(0.02, min(1.0, 1.1 * risks[int(_FIRST * len(risks)) :].max())))
    axes.set_xlabel("Share of images answered, the most confident first", **lettering())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    axes.xaxis.set_major_locator(MultipleLocator(0.2))
    set_rules(axes, "both")
    add_legend(figure)
    return figure


def _draw_reliability(axes: Axes, bins: Sequence[Bin]) -> None:
    for found in bins:
        if found.accuracy is None or found.confidence is None:
            continue
        middle, width = (found.lower + found.upper) / 2, found.upper - found.lower
        common = min(found.accuracy, found.confidence)
        axes.bar(middle, common, width, color=BLUE, label="Accuracy", **_EDGE)
        for gap, colour, label in (
            (found.confidence - found.accuracy, VERMILION, "Too sure"),
            (found.accuracy - found.confidence, BLUE, "Too doubtful"),
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


def _draw_shares(axes: Axes, bins: Sequence[Bin], most: float) -> None:
    total = sum(found.images for found in bins)
    middles = [(found.lower + found.upper) / 2 for found in bins]
    shares = [found.images / total for found in bins]
    axes.bar(middles, shares, 1 / len(bins), color=FAINT, **_EDGE)
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
