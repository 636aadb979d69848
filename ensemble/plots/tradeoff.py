"""A picture of how good models are against what they cost."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from scipy.optimize import isotonic_regression

from ensemble.plots.figures import (
    COLOURS,
    HEADING,
    LINE,
    LONGEST_SETTING,
    MARGIN,
    add_panel,
    lettering,
    set_rules,
    shorten,
    start_figure,
    text_width,
    without_duplicates,
)

_APART = 0.17  # inches between two points, so that their numbers do not touch
_ROOM = 0.22  # of the logarithm, beside the outermost points


def plot_tradeoff(
    names: Sequence[str],
    groups: Sequence[int],
    scores: Mapping[str, Sequence[tuple[float, float, float]]],
    costs: Mapping[str, Sequence[float]],
    title: str = "",
) -> Figure:
    """Draws how good models are against what they cost, each with its interval.

    Models whose costs would lie upon each other stand side by side, in the order given.

    Args:
        names: Of the models; a number stands for each in the panels.
        groups: The number of branches of each, which has a colour.
        scores: Heading such as "Accuracy" to value, lower and upper end, each in 0..1; a row
            of panels each.
        costs: Heading such as "Parameters (millions)" to values above 0, on a logarithmic
            scale; a column of panels each.
        title: What was evaluated on what.
    """
    width, height, left, top, apart = 3.2, 2.6, 0.7, 0.95, 0.75  # inches
    shown = (shorten(name, LONGEST_SETTING) for name in names)
    entries = [f"{number}  {name}" for number, name in enumerate(shown, start=1)]
    aside = max(text_width(entries), 1.2) + 0.35
    rows = len(scores) * (height + apart) - apart
    rows = max(rows, (LINE + 0.03) * (len(entries) + len(set(groups)) + 1))
    figure = start_figure(len(costs) * (left + width) + aside + MARGIN, top + rows + 0.65, title)
    for row, (score, values) in enumerate(scores.items()):
        for column, (cost, amounts) in enumerate(costs.items()):
            place = left + column * (left + width), top + row * (height + apart)
            axes = add_panel(figure, *place, width, height)
            _draw_points(axes, amounts, values, groups, width)
            axes.set_title(score, loc="left", **lettering(HEADING))
            axes.set_xlabel(cost, **lettering())
    x, y = len(costs) * (left + width) + 0.2, top
    full_width, full_height = figure.get_size_inches()
    for group in sorted(set(groups)):
        colour = COLOURS[(group - 1) % len(COLOURS)]
        text = f"{group} branch" if group == 1 else f"{group} branches"
        style = lettering() | {"color": colour, "fontweight": "bold"}
        figure.text(x / full_width, 1 - y / full_height, text, va="top", **style)
        y += LINE + 0.03
    for entry, group in zip(entries, groups, strict=True):
        y += LINE + 0.03
        style = lettering() | {"color": COLOURS[(group - 1) % len(COLOURS)]}
        figure.text(x / full_width, 1 - y / full_height, entry, va="top", parse_math=False, **style)
    return figure


def _draw_points(
    axes: Axes,
    amounts: Sequence[float],
    values: Sequence[tuple[float, float, float]],
    groups: Sequence[int],
    width: float,
) -> None:
    places, limits = _place(amounts, width)
    for index, (place, (value, low, high)) in enumerate(zip(places, values, strict=True)):
        colour = COLOURS[(groups[index] - 1) % len(COLOURS)]
        axes.plot([place, place], [low, high], color=colour, lw=1.1, alpha=0.55)
        axes.plot(place, value, "o", color=colour, markersize=4.5, markeredgecolor="white")
        axes.annotate(
            str(index + 1),
            (place, high),
            (0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            **lettering(7, colour),
        )
    axes.margins(y=0.08)
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    within_a_decade = limits[1] < 10 * limits[0]
    ticks = (
        MaxNLocator(nbins=5, steps=[1, 2, 5, 10]) if within_a_decade else LogLocator(subs=(1, 2, 5))
    )
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter("{x:.2f}")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.set_ylim(*without_duplicates(*axes.get_ylim(), 0.07))
    set_rules(axes, "both")


def _place(amounts: Sequence[float], width: float) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns where points go on a logarithmic scale as wide as that, and the scale's limits.

    They go as near to their amounts as leaves `_APART` between any two.
    """
    logs = np.log(amounts)
    order = np.argsort(logs, kind="stable")
    low, high = logs.min() - _ROOM, logs.max() + _ROOM
    for _ in range(5):  # a longer scale takes more of it for the same distance
        apart = min(_APART, 0.9 * width / len(logs)) / width * (high - low)
        steps = apart * np.arange(len(logs))
        placed = isotonic_regression(logs[order] - steps).x + steps
        low = min(low, placed[0] - apart)
        high = max(high, placed[-1] + apart)
    places = np.empty_like(logs)
    places[order] = placed
    return np.exp(places), (float(np.exp(low)), float(np.exp(high)))
