"""Pictures of epochs: of one training, or of several in the same panels."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ensemble.plots.figures import (
    BLUE,
    COLOURS,
    FAINT,
    HEADING,
    LINE,
    LONGEST_SETTING,
    MARGIN,
    SHADE,
    VERMILION,
    add_legend,
    add_panel,
    lettering,
    set_percent_axis,
    set_rules,
    shorten,
    start_figure,
    text_width,
)

MAX_HISTORIES = 21  # settings in `plot_histories`

_DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)))  # one for each round of the colours


def plot_curves(
    history: Mapping[str, Sequence[float]],
    best_epoch: int | None = None,
    title: str = "",
    *,
    fine_tuned_from: int | None = None,
) -> Figure:
    """Draws accuracy and loss of training and validation over the epochs.

    Args:
        history: Values of each epoch under "accuracy", "val_accuracy", "loss" and
            "val_loss"; a curve that is missing is left out, other entries too.
        best_epoch: The epoch whose weights were kept, counted from 1; it is marked
            by a line and its validation values are written above the panels.
        title: What was trained.
        fine_tuned_from: The epoch with which the second phase begins, which is shaded.
    """
    width, height, left, top = 3.85, 2.6, 0.65, 1.25  # inches, of a panel
    figure = start_figure(2 * (left + width) + MARGIN, top + height + 0.65, title)
    for index, (name, heading, style) in enumerate(
        (("accuracy", "Accuracy", ".1%"), ("loss", "Loss", ".3f"))
    ):
        axes = add_panel(figure, left + index * (left + width), top, width, height)
        axes.set_title(heading, loc="left", **lettering(HEADING))
        validation = history.get(f"val_{name}", ())
        _draw_curves(axes, history.get(name, ()), validation)
        if best_epoch is not None:
            _mark_best(axes, best_epoch, validation, style)
        if fine_tuned_from is not None:
            end = axes.get_xlim()[1]
            axes.axvspan(fine_tuned_from - 0.5, end, color=SHADE, zorder=0, label="Fine-tuning")
    accuracy, loss = figure.axes
    set_percent_axis(accuracy)
    loss.yaxis.set_major_formatter("{x:.5g}")  # short, whether it is tiny or has diverged
    add_legend(figure)
    return figure


def plot_histories(
    histories: Mapping[str, Mapping[str, Sequence[float]]], title: str = ""
) -> Figure:
    """Draws the epochs of several trainings into the same panels, a line for each of them.

    Accuracy is above, loss below, training at the left, validation at the right,
    on common scales, so that a line can be followed from one panel to the next.

    Args:
        histories: Name of a setting to a history as in `plot_curves`; the first 21 are drawn.
        title: What was trained.
    """
    width, height, left, top, apart = 3.6, 2.3, 0.65, 0.95, 0.85  # inches
    names = [shorten(name, LONGEST_SETTING) for name in list(histories)[:MAX_HISTORIES]]
    aside = text_width(names) + 0.75
    rows = max(2 * height + apart, (LINE + 0.03) * len(names))
    figure = start_figure(2 * (left + width) + aside + MARGIN, top + rows + 0.65, title)
    for row, (name, heading) in enumerate((("accuracy", "accuracy"), ("loss", "loss"))):
        panels = []
        for column, (prefix, part) in enumerate((("", "Training"), ("val_", "Validation"))):
            place = left + column * (left + width), top + row * (height + apart)
            axes = add_panel(figure, *place, width, height)
            axes.set_title(f"{part} {heading}", loc="left", **lettering(HEADING))
            _draw_lines(axes, [history.get(prefix + name, ()) for history in histories.values()])
            panels.append(axes)
        limits = [limit for axes in panels for limit in axes.get_ylim()]
        for axes in panels:
            axes.set_ylim(min(limits), max(limits))
            if name == "accuracy":
                set_percent_axis(axes)
            else:
                axes.yaxis.set_major_formatter("{x:.5g}")
    _add_key(figure, names, 2 * (left + width) + 0.2, top)
    return figure


def _draw_curves(axes: Axes, training: Sequence[float], validation: Sequence[float]) -> None:
    epochs = max(len(training), len(validation), 1)
    marker = "o" if epochs <= 15 else ""
    for values, colour, label in (
        (training, BLUE, "Training"),
        (validation, VERMILION, "Validation"),
    ):
        if len(values):
            steps = range(1, len(values) + 1)
            axes.plot(
                steps, values, color=colour, label=label, marker=marker, markersize=3.5, lw=1.6
            )
    _set_epochs(axes, epochs)


def _draw_lines(axes: Axes, curves: Sequence[Sequence[float]]) -> None:
    """Draws a line for each curve, distinguished by colour, then by dashes."""
    epochs = max([1, *map(len, curves)])
    for index, values in enumerate(curves[:MAX_HISTORIES]):
        colour, dashes = _line_style(index)
        marker = "o" if len(values) == 1 else ""
        steps = range(1, len(values) + 1)
        axes.plot(steps, values, color=colour, ls=dashes, lw=1.4, marker=marker, markersize=3.5)
    _set_epochs(axes, epochs)


def _set_epochs(axes: Axes, epochs: int) -> None:
    """Labels epochs in whole numbers."""
    room = 0.5 if epochs == 1 else min(0.9, 0.03 * (epochs - 1))
    axes.set_xlim(1 - room, epochs + room)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.set_xlabel("Epoch", **lettering())
    set_rules(axes, "y")


def _line_style(index: int) -> tuple[str, Any]:
    return COLOURS[index % len(COLOURS)], _DASHES[index // len(COLOURS) % len(_DASHES)]


def _add_key(figure: Figure, names: Sequence[str], x: float, y: float) -> None:
    """Names lines beside the panels, in inches from the figure's upper left corner."""
    width, height = figure.get_size_inches()
    for index, name in enumerate(names):
        colour, dashes = _line_style(index)
        level = 1 - (y + (index + 0.5) * (LINE + 0.03)) / height
        ends = [x / width, (x + 0.35) / width]
        figure.add_artist(Line2D(ends, [level, level], color=colour, ls=dashes, lw=1.6))
        figure.text((x + 0.45) / width, level, name, va="center", parse_math=False, **lettering())


def _mark_best(axes: Axes, epoch: int, validation: Sequence[float], style: str) -> None:
    """Draws a line at the best epoch and writes its validation value above the panel."""
    axes.axvline(epoch, color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="Best epoch")
    if epoch <= len(validation):
        value = validation[epoch - 1]
        axes.plot(epoch, value, "o", color=VERMILION, markersize=5.5, markeredgecolor="white")
        axes.set_title(
            f"{value:{style}} at epoch {epoch}",
            loc="right",
            **(lettering() | {"color": VERMILION}),
        )
