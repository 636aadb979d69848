"""Charts as SVG within a page: real text, and colours that follow the page's.

Colours are classes of `page.css`, so that one drawing serves light, dark and print.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ensemble.commands.report.elements import Markup, Node, element
from ensemble.metrics.calibration import Bin

_WIDTH, _HEIGHT = 360, 230
_MOST_DOTS = 60  # on a line
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 26, 36  # between the drawing's edges and its frame


@dataclass(frozen=True)
class _Scale:
    """Maps values to places."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


def draw_epochs(
    name: str,
    training: Sequence[float],
    validation: Sequence[float],
    best_epoch: int | None,
    *,
    percent: bool = False,
    fine_tuned_from: int | None = None,
) -> Markup:
    """Draws a figure of training and validation over the epochs.

    Args:
        name: Of the figure.
        training: A value for each epoch; one that is not finite leaves a gap.
        validation: As before.
        best_epoch: Counted from 1; marked by a line.
        percent: Whether values are shares, written in per cent.
        fine_tuned_from: The epoch with which the second phase begins, which is shaded.
    """
    epochs = max(len(training), len(validation))
    values = [value for value in (*training, *validation) if math.isfinite(value)]
    marks = _ticks(min(values, default=0.0), max(values, default=1.0), 5)
    x = _Scale(0.5, epochs + 0.5, _LEFT, _WIDTH - _RIGHT)
    y = _Scale(marks[0], marks[-1], _HEIGHT - _BOTTOM, _TOP)
    parts: list[Node] = []
    if fine_tuned_from is not None:
        left = x(fine_tuned_from - 0.5)
        parts.append(_box(left, _TOP, _WIDTH - _RIGHT - left, y.start - _TOP, "shade"))
        parts.append(_text(left + 4, y.start - 6, "fine-tuning", "label"))
    parts += _rules(y, marks, percent)
    step = max(1, round(_nice(epochs / 8)))
    for epoch in range(step if step > 1 else 1, epochs + 1, step):
        parts.append(_text(x(epoch), y.start + 15, str(epoch), "label middle"))
    parts.append(_text((x.start + x.end) / 2, _HEIGHT - 4, "epoch", "label middle"))
    if best_epoch is not None:
        parts.append(_line(x(best_epoch), y.end, x(best_epoch), y.start, "best"))
    for row, series in ((training, "training"), (validation, "validation")):
        parts += _path([(x(epoch), value, 2.6) for epoch, value in enumerate(row, 1)], y, series)
    parts.append(_text(_LEFT, 14, name, "heading"))
    parts += _key(("training", "validation"))
    best = "" if best_epoch is None else f", best epoch {best_epoch}"
    return _svg(
        _WIDTH, _HEIGHT, f"{name} of training and validation over {epochs} epochs{best}", parts
    )


def draw_interval(
    value: float, low: float, high: float, *, reference: float | None = None
) -> Markup:
    """Draws a share in 0..1 as a dot on its interval, as wide as the cell that it stands in.

    Args:
        value: The share.
        low: Lower end of its interval.
        high: Upper end.
        reference: A share to be held against, such as what the majority class scores.
    """

    def place(share: float) -> str:
        return f"{3 + 94 * share:.2f}%"  # the dot stays inside

    parts = [
        element("line", x1=place(0), x2=place(1), y1=9, y2=9, class_="rule"),
        None
        if reference is None
        else element("line", x1=place(reference), x2=place(reference), y1=1, y2=17, class_="best"),
        element("line", x1=place(low), x2=place(high), y1=9, y2=9, class_="whisker"),
        element("circle", cx=place(value), cy=9, r=4.5, class_="dot"),
    ]
    return element("svg", parts, class_="interval", height=18, width="100%", aria_hidden="true")


def draw_reliability(bins: Sequence[Bin], bins_before: Sequence[Bin]) -> Markup:
    """Draws accuracy against confidence, before and after calibration, and images below.

    Dots grow with the number of images, so that a bin of few of them is not taken for much.

    Args:
        bins: After.
        bins_before: Before; may be empty.
    """
    side, foot = 300, 70
    width, height = _LEFT + side + 2 * _RIGHT, _TOP + side + 34 + foot
    x, y = _Scale(0, 1, _LEFT, _LEFT + side), _Scale(0, 1, _TOP + side, _TOP)
    parts: list[Node] = _rules(y, [0, 0.2, 0.4, 0.6, 0.8, 1], True, right=_LEFT + side)
    for mark in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(_text(x(mark), y.start + 15, f"{mark:.0%}", "label middle"))
    parts.append(_line(x(0), y(0), x(1), y(1), "best"))
    largest = max((one.images for one in (*bins, *bins_before)), default=0) or 1
    for several, series in ((bins_before, "training"), (bins, "validation")):
        points = [
            (x(one.confidence), one.accuracy, 2 + 4 * math.sqrt(one.images / largest))
            for one in several
            if one.confidence is not None and one.accuracy is not None
        ]
        parts += _path(points, y, series)
    most = max((one.images for one in bins), default=0) or 1
    count = _Scale(0, most, height - 16, height - 10 - foot + 14)
    for one in bins:
        left, top = x(one.lower), count(one.images)
        parts.append(_box(left + 1, top, x(one.upper) - left - 2, count.start - top, "bar"))
    parts.append(_line(x(0), count.start, x(1), count.start, "rule"))
    parts.append(_text(_LEFT, 14, "Accuracy by confidence", "heading"))
    parts += _key(("before", "after") if bins_before else ("after",), right=_LEFT + side)
    note = f"confidence; bars: images, up to {most:,}"
    parts.append(_text(_LEFT + side / 2, height - 3, note, "label middle"))
    drawn = "; ".join(
        f"confidence {one.confidence:.2f}, accuracy {one.accuracy:.2f}, {one.images} images"
        for one in bins
        if one.confidence is not None and one.accuracy is not None
    )
    return _svg(width, height, f"Reliability diagram. {drawn}", parts)


def draw_share(share: float) -> Markup:
    """Draws a share in 0..1 as a bar, as wide as the cell that it stands in."""
    bar = element("rect", x=0, y=3, width=f"{100 * share:.2f}%", height=12, class_="bar")
    return element("svg", bar, class_="interval", height=18, width="100%", aria_hidden="true")


def _svg(width: float, height: float, title: str, parts: Sequence[Node]) -> Markup:
    return element(
        "svg", parts, viewBox=f"0 0 {width} {height}", role="img", aria_label=title, class_="chart"
    )


def _text(x: float, y: float, text: str, class_: str) -> Markup:
    return element("text", text, x=x, y=y, class_=class_)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _box(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    return element("rect", x=x, y=y, width=max(0, width), height=max(0, height), class_=class_)


def _rules(
    y: _Scale, marks: Sequence[float], percent: bool, right: float = _WIDTH - _RIGHT
) -> list[Node]:
    digits = max(0, -math.floor(math.log10(marks[1] - marks[0])) - (2 if percent else 0))
    parts: list[Node] = []
    for mark in marks:
        parts.append(_line(_LEFT, y(mark), right, y(mark), "rule"))
        text = f"{mark:.{digits}%}" if percent else f"{mark:,.{digits}f}"
        parts.append(_text(_LEFT - 6, y(mark) + 4, text, "label end"))
    return parts


def _path(points: Sequence[tuple[float, float, float]], y: _Scale, series: str) -> list[Node]:
    """Draws a line with a dot at each point; where a value is not finite, it is broken.

    Args:
        points: Place, value and radius of the dot.
        y: Maps values to places.
        series: Names the colour.
    """
    pieces: list[list[str]] = [[]]
    dots: list[Node] = []
    for x, value, radius in points:
        if not math.isfinite(value):
            pieces.append([])
            continue
        pieces[-1].append(f"{x},{y(value)}")
        dots.append(
            element("circle", cx=x, cy=y(value), r=round(radius, 1), class_=f"dot-{series}")
        )
    lines = [
        element("polyline", points=" ".join(piece), class_=f"line-{series}") for piece in pieces
    ]
    return [*lines, *(dots if len(dots) <= _MOST_DOTS else [])]


def _key(names: Sequence[str], right: float = _WIDTH - _RIGHT) -> list[Node]:
    """Names the lines, from the right: the last one is that of validation."""
    parts: list[Node] = []
    for name, series in zip(reversed(names), ("validation", "training"), strict=False):
        parts.append(_text(right, 14, name, "label end"))
        right -= 5.4 * len(name) + 6
        parts.append(_line(right - 16, 10, right, 10, f"line-{series}"))
        right -= 28
    return parts


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Returns round values, about `count`, the first and last of which hold all between them."""
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    step = _nice((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * index, 12) for index in range(first, last + 1)]


def _nice(step: float) -> float:
    """Returns the smallest of 1, 2, 5, 10, ... (by powers of ten) that is no less than a step."""
    power = 10 ** math.floor(math.log10(step))
    return next(power * nice for nice in (1, 2, 5, 10) if power * nice >= step * (1 - 1e-9))
