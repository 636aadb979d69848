"""Pictures of the data, of a training and of its mistakes.

Figures are built without pyplot and its global state: they need no display, and
several threads may draw at once. Every part is placed in inches and every name
is measured before it is placed, so that nothing overlaps, however many classes
there are and however long their names. The colours of lines are those of Okabe
and Ito (Color Universal Design, 2008), which colour-blind readers tell apart.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

MOST_ERRORS = 24  # pictures in `plot_errors`
MOST_IMAGES = 10  # pictures of one class in `plot_contact_sheet`
MOST_HISTORIES = 21  # settings in `plot_histories`

_DPI = 150
INK, FAINT, _RULE, _SHADE = "#222222", "#767676", "#E4E4E4", "#F1F1F1"
BLUE, VERMILION = "#0072B2", "#D55E00"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)))  # one for each round of the colours
_SHADES = LinearSegmentedColormap.from_list("shades", ["#FFFFFF", "#56B4E9", "#0072B2", "#003A5D"])
_DARK = 0.55  # shades above it carry white text
_FONT = "DejaVu Sans"  # comes with Matplotlib
_TITLE, HEADING, _TEXT = 12, 10, 8.5  # points
MARGIN, _TITLE_HEIGHT, _GAP, _LINE = 0.25, 0.4, 0.12, 0.15  # inches
_LONGEST_NAME = 28  # characters of a class name
_LONGEST_SETTING = 56  # and of a setting


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
            axes.axvspan(fine_tuned_from - 0.5, end, color=_SHADE, zorder=0, label="Fine-tuning")
    accuracy, loss = figure.axes
    _set_percent_axis(accuracy)
    loss.yaxis.set_major_formatter("{x:.5g}")  # short, whether it is tiny or has diverged
    add_legend(figure)
    return figure


def plot_confusion(
    counts: np.ndarray | Sequence[Sequence[int]], classes: Sequence[str], title: str = ""
) -> Figure:
    """Draws a confusion matrix as counts and, beside it, as shares of each true class.

    Args:
        counts: Shape `(c, c)`; row: true class, column: predicted class.
        classes: Names of the `c` classes.
        title: What was judged on what.
    """
    counts = np.asarray(counts)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    count_texts = [[f"{count:,}" for count in row] for row in counts]
    share_texts = [
        [f"{share:.0%}" if total else "–" for share in row]
        for row, total in zip(shares, totals, strict=True)
    ]

    names = [_shorten(name) for name in classes]
    longest = _width(names)
    cell = min(0.95, max(0.45, 4 / len(names)))  # inches
    slanted = longest > 0.95 * cell
    below = (longest * math.sqrt(0.5) if slanted else 0.1) + 0.6
    side, left, top, between = cell * len(names), MARGIN + 0.35 + longest, _TITLE_HEIGHT + 0.5, 0.3
    figure = start_figure(left + 2 * side + between + MARGIN, top + side + below, title)
    panels = [
        add_panel(figure, left + index * (side + between), top, side, side) for index in (0, 1)
    ]

    size = min(HEADING, 0.75 * cell / _width([f"{counts.max():,}", "100%"], size=1))
    _draw_matrix(panels[0], counts / max(1, counts.max()), count_texts, size, "Images")
    _draw_matrix(panels[1], shares, share_texts, size, "Share of the true class")
    for axes in panels:
        _name_columns(axes, names, slanted)
    _name_rows(panels[0], names)
    panels[1].set_yticks([])
    return figure


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
        title: What was judged on what.
    """
    if not len(images):
        return _note("No mistakes.", title)
    side, columns = 1.5, min(6, len(images))  # inches, pictures
    images = images[:MOST_ERRORS]
    captions = _captions(truths, predictions, confidences, side)[:MOST_ERRORS]
    lines = max(caption.count("\n") + 1 for caption in captions)
    right = max(side, _width(captions)) + _GAP
    down = side + _LINE * lines + 2 * _GAP
    rows = -(-len(captions) // columns)

    figure, sheet = _sheet(columns * right - _GAP, rows * down - _GAP, title)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        _paste(sheet, image, column * right, row * down, side)
        _write(sheet, column * right, row * down + side + _LINE, caption)
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
        return _note("No images.", title)
    side, names = 0.95, [_shorten(name) for name in images_by_class]  # inches
    left, pitch = _width(names) + 2 * _GAP, side + _GAP

    figure, sheet = _sheet(
        left + min(columns, MOST_IMAGES) * pitch - _GAP, len(names) * pitch - _GAP, title
    )
    for row, (name, images) in enumerate(zip(names, images_by_class.values(), strict=True)):
        _write(sheet, 0, row * pitch + (side + _LINE / 2) / 2, name)
        for column, image in enumerate(images[:MOST_IMAGES]):
            _paste(sheet, image, left + column * pitch, row * pitch, side)
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
    names = [_shorten(name, _LONGEST_SETTING) for name in list(histories)[:MOST_HISTORIES]]
    aside = _width(names) + 0.75
    rows = max(2 * height + apart, (_LINE + 0.03) * len(names))
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
                _set_percent_axis(axes)
            else:
                axes.yaxis.set_major_formatter("{x:.5g}")
    _add_key(figure, names, 2 * (left + width) + 0.2, top)
    return figure


def plot_tradeoff(
    names: Sequence[str],
    groups: Sequence[int],
    scores: Mapping[str, Sequence[tuple[float, float, float]]],
    costs: Mapping[str, Sequence[float]],
    title: str = "",
) -> Figure:
    """Draws how good models are against what they cost, each with its interval.

    Args:
        names: Of the models; a number stands for each in the panels.
        groups: The number of branches of each, which has a colour.
        scores: Heading such as "Accuracy" to value, lower and upper end, each in 0..1; a row
            of panels each.
        costs: Heading such as "Parameters (millions)" to values above 0, on a logarithmic
            scale; a column of panels each.
        title: What was judged on what.
    """
    width, height, left, top, apart = 3.2, 2.6, 0.7, 0.95, 0.75  # inches
    shown = (_shorten(name, _LONGEST_SETTING) for name in names)
    entries = [f"{number}  {name}" for number, name in enumerate(shown, start=1)]
    aside = max(_width(entries), 1.2) + 0.35
    rows = len(scores) * (height + apart) - apart
    rows = max(rows, (_LINE + 0.03) * (len(entries) + len(set(groups)) + 1))
    figure = start_figure(len(costs) * (left + width) + aside + MARGIN, top + rows + 0.65, title)
    for row, (score, values) in enumerate(scores.items()):
        for column, (cost, amounts) in enumerate(costs.items()):
            place = left + column * (left + width), top + row * (height + apart)
            axes = add_panel(figure, *place, width, height)
            _draw_points(axes, amounts, values, groups)
            axes.set_title(score, loc="left", **lettering(HEADING))
            axes.set_xlabel(cost, **lettering())
    x, y = len(costs) * (left + width) + 0.2, top
    full_width, full_height = figure.get_size_inches()
    for group in sorted(set(groups)):
        colour = _COLOURS[(group - 1) % len(_COLOURS)]
        text = f"{group} branch" if group == 1 else f"{group} branches"
        style = lettering() | {"color": colour, "fontweight": "bold"}
        figure.text(x / full_width, 1 - y / full_height, text, va="top", **style)
        y += _LINE + 0.03
    for entry, group in zip(entries, groups, strict=True):
        y += _LINE + 0.03
        style = lettering() | {"color": _COLOURS[(group - 1) % len(_COLOURS)]}
        figure.text(x / full_width, 1 - y / full_height, entry, va="top", parse_math=False, **style)
    return figure


def png(figure: Figure) -> bytes:
    """Returns a figure as the bytes of a PNG file, 150 pixels to the inch."""
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def start_figure(width: float, height: float, title: str) -> Figure:
    """Starts a figure with its title, in inches; it is made as wide as the title at least."""
    width = max(width, _width([title], _TITLE) + 2 * MARGIN)
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    figure.text(
        MARGIN / width,
        1 - MARGIN / height,
        title,
        va="top",
        parse_math=False,
        **lettering(_TITLE),
    )
    return figure


def add_panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Adds axes to a figure, in inches from its upper left corner."""
    full_width, full_height = figure.get_size_inches()
    axes = figure.add_axes(
        (
            left / full_width,
            1 - (top + height) / full_height,
            width / full_width,
            height / full_height,
        )
    )
    axes.set_facecolor("white")
    axes.tick_params(colors=INK, labelsize=_TEXT, labelfontfamily=_FONT, width=0.6, length=3)
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)
    return axes


def _sheet(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Starts a figure with blank axes whose unit is the inch, with y downwards."""
    top = MARGIN + (_TITLE_HEIGHT if title else 0)
    figure = start_figure(width + 2 * MARGIN, top + height + MARGIN, title)
    axes = add_panel(figure, MARGIN, top, width, height)
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.set_axis_off()
    return figure, axes


def _note(text: str, title: str) -> Figure:
    figure, sheet = _sheet(max(3.0, _width([text])), _LINE, title)
    _write(sheet, 0, _LINE, text)
    return figure


def _paste(sheet: Axes, image: np.ndarray, x: float, y: float, side: float) -> None:
    """Draws an image as large as fits a square, in its own proportions, at its middle."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    left, top = x + (side - width * scale) / 2, y + (side - height * scale) / 2
    extent = (left, left + width * scale, top + height * scale, top)
    sheet.imshow(image, extent=extent, aspect="auto", origin="upper")


def _write(sheet: Axes, x: float, y: float, text: str) -> None:
    """Writes lines of text, the first one on a baseline at `y`."""
    for number, line in enumerate(text.split("\n")):
        sheet.text(x, y + number * _LINE, line, va="baseline", parse_math=False, **lettering())


def _captions(
    truths: Sequence[str], predictions: Sequence[str], confidences: Sequence[float], width: float
) -> list[str]:
    """Returns "true → predicted 0.93" on one line, or on two where one would be too wide."""
    answers = [
        (_shorten(truth), f"→ {_shorten(prediction)} {confidence:.2f}")
        for truth, prediction, confidence in zip(truths, predictions, confidences, strict=True)
    ]
    captions = [" ".join(answer) for answer in answers]
    return captions if _width(captions) <= width else ["\n".join(answer) for answer in answers]


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
    """Draws a line for each curve, told apart by colour and then by dashes."""
    epochs = max([1, *map(len, curves)])
    for index, values in enumerate(curves[:MOST_HISTORIES]):
        colour, dashes = _line_style(index)
        marker = "o" if len(values) == 1 else ""
        steps = range(1, len(values) + 1)
        axes.plot(steps, values, color=colour, ls=dashes, lw=1.4, marker=marker, markersize=3.5)
    _set_epochs(axes, epochs)


def _draw_points(
    axes: Axes,
    amounts: Sequence[float],
    values: Sequence[tuple[float, float, float]],
    groups: Sequence[int],
) -> None:
    for turn, index in enumerate(np.argsort(amounts, kind="stable")):
        amount, (value, low, high) = amounts[index], values[index]
        colour = _COLOURS[(groups[index] - 1) % len(_COLOURS)]
        axes.plot([amount, amount], [low, high], color=colour, lw=1.1, alpha=0.55)
        axes.plot(amount, value, "o", color=colour, markersize=4.5, markeredgecolor="white")
        above = turn % 2 == 0  # at the other end in turns, as neighbours would cover each other
        axes.annotate(
            str(index + 1),
            (amount, high if above else low),
            (0, 2 if above else -2),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            **lettering(7, colour),
        )
    axes.margins(y=0.08)
    axes.set_xscale("log")
    axes.set_xlim(0.8 * min(amounts), 1.25 * max(amounts))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter("{x:.2f}")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.set_ylim(*_at_least_apart(*axes.get_ylim(), 0.07))
    set_rules(axes, "both")


def _set_epochs(axes: Axes, epochs: int) -> None:
    """Labels epochs in whole numbers."""
    room = 0.5 if epochs == 1 else min(0.9, 0.03 * (epochs - 1))
    axes.set_xlim(1 - room, epochs + room)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.set_xlabel("Epoch", **lettering())
    set_rules(axes, "y")


def set_rules(axes: Axes, axis: Literal["y", "both"]) -> None:
    axes.grid(axis=axis, color=_RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _line_style(index: int) -> tuple[str, Any]:
    return _COLOURS[index % len(_COLOURS)], _DASHES[index // len(_COLOURS) % len(_DASHES)]


def _add_key(figure: Figure, names: Sequence[str], x: float, y: float) -> None:
    """Names lines beside the panels, in inches from the figure's upper left corner."""
    width, height = figure.get_size_inches()
    for index, name in enumerate(names):
        colour, dashes = _line_style(index)
        level = 1 - (y + (index + 0.5) * (_LINE + 0.03)) / height
        ends = [x / width, (x + 0.35) / width]
        figure.add_artist(Line2D(ends, [level, level], color=colour, ls=dashes, lw=1.6))
        figure.text((x + 0.45) / width, level, name, va="center", parse_math=False, **lettering())


def _set_percent_axis(axes: Axes) -> None:
    """Labels a share in whole percents, over 10 of them at least."""
    axes.set_ylim(*_at_least_apart(*axes.get_ylim(), 0.1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))


def _at_least_apart(low: float, high: float, least: float) -> tuple[float, float]:
    room = max(0.0, least - (high - low)) / 2
    return low - room, high + room


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


def add_legend(figure: Figure) -> None:
    """Names the curves of all panels once, below the title."""
    lines = {
        label: line
        for axes in figure.axes
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    width, height = figure.get_size_inches()
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="upper left",
        bbox_to_anchor=(MARGIN / width, 1 - (MARGIN + _TITLE_HEIGHT) / height),
        ncols=len(lines),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.8,
        labelcolor=INK,
        prop=FontProperties(family=_FONT, size=_TEXT),
    )


def _draw_matrix(
    axes: Axes, shades: np.ndarray, texts: Sequence[Sequence[str]], size: float, heading: str
) -> None:
    """Draws cells in shades of 0..1 with a text in each."""
    num_classes = len(shades)
    axes.pcolormesh(shades, cmap=_SHADES, vmin=0, vmax=1, edgecolors=_RULE, linewidth=0.5)
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


def lettering(size: float = _TEXT, color: str = INK) -> dict[str, Any]:
    return {"fontsize": size, "color": color, "fontfamily": _FONT}


def _shorten(name: str, longest: int = _LONGEST_NAME) -> str:
    """Cuts a long name in its middle, since names of a kind differ at an end."""
    if len(name) <= longest:
        return name
    half = longest // 2
    return f"{name[:half].rstrip()}…{name[1 - half :].lstrip()}"


def _width(texts: Iterable[str], size: float = _TEXT) -> float:
    """Returns the width of the widest of some lines of text, in inches."""
    letters = FontProperties(family=_FONT, size=size)
    lines = [line for text in texts for line in text.split("\n")]
    widths = [
        text_to_path.get_text_width_height_descent(line, letters, ismath=False)[0] for line in lines
    ]
    return max(widths, default=0) / 72
