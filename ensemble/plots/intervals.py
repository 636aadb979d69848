"""Figure of values with their intervals, one line for each name."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ensemble.plots.figures import (
    BLUE,
    FAINT,
    GAP,
    HEADING,
    MARGIN,
    add_panel,
    key_height,
    label_classes,
    lettering,
    set_rules,
    start_figure,
    text_width,
)


def plot_intervals(
    names: Sequence[str],
    scores: Mapping[str, Sequence[tuple[float, float, float]]],
    reference: int | None = None,
    title: str = "",
) -> Figure:
    """Draws values as dots on their intervals, a panel for each score.

    Args:
        names: Name of each line.
        scores: Heading to value, lower and upper end of each line, in 0..1.
        reference: The line whose value is drawn across the others; None: none.
        title: What was evaluated on what.
    """
    labels, key = label_classes(names)
    shown = [labels[name] for name in names]
    left, top, width = MARGIN + 0.1 + text_width(shown), 0.95, 3.4  # inches
    height, below = 0.26 * max(2, len(names)), 0.45
    full_height = top + height + below + key_height(key)
    figure = start_figure(left + len(scores) * (width + 0.3) + MARGIN, full_height, title)
    figure.text(0.02, GAP / full_height, key, va="bottom", parse_math=False, **lettering())
    for column, (heading, values) in enumerate(scores.items()):
        axes = add_panel(figure, left + column * (width + 0.3), top, width, height)
        axes.set_title(heading, loc="left", **lettering(HEADING))
        if reference is not None:
            axes.axvline(values[reference][0], color=FAINT, lw=1, ls=(0, (4, 3)))
        for place, (value, low, high) in enumerate(values):
            axes.plot([low, high], [place, place], color=BLUE, lw=3, alpha=0.4)
            axes.plot(value, place, "o", color=BLUE, markersize=6, markeredgecolor="white")
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_yticks(range(len(names)), [] if column else shown, parse_math=False)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        axes.margins(x=0.05)
        set_rules(axes, "x")
    return figure
