"""Basis of all figures: panels, sheets, fonts and colours.

Figures are built without pyplot and its global state: they need no display, and
several threads may draw at once. Every part is placed in inches and every name
is measured before it is placed, so that nothing overlaps, however many classes
there are and however long their names. The colours of lines are those of Okabe
and Ito (Color Universal Design, 2008), which colour-blind readers can distinguish.
"""

import html
import io
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator, PercentFormatter

_DPI = 150
INK, FAINT, RULE, SHADE = "#222222", "#767676", "#E4E4E4", "#F1F1F1"
BLUE, VERMILION = "#0072B2", "#D55E00"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
TITLE, HEADING, TEXT = 12, 10, 8.5  # points
MARGIN, TITLE_HEIGHT, GAP, LINE = 0.25, 0.4, 0.12, 0.15  # inches
LONGEST_SETTING = 56  # characters of a setting's name

_FONT = "DejaVu Sans"  # comes with Matplotlib
_PLACEHOLDERS = "Last Resort"  # a font that has a box for every letter
_LONGEST_NAME = 28  # characters of a class name

_families = [_FONT]  # grows by the fonts that texts need


def png(figure: Figure) -> bytes:
    """Returns a figure as the bytes of a PNG file, 150 pixels to the inch."""
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def svg(figure: Figure, alt: str) -> str:
    """Returns a figure as an SVG element with real text on no background, cut to its content.

    Args:
        figure: The figure.
        alt: Description for readers who cannot see it.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        FigureCanvasSVG(figure).print_figure(
            file, facecolor="none", bbox_inches="tight", pad_inches=0.05, metadata=nothing
        )
    _, _, content = file.getvalue().partition("<svg ")
    attributes, _, content = content.partition(">")
    width = attributes.partition('width="')[2].partition('"')[0]
    start = f'<svg class="chart" role="img" style="--width: {width}" {attributes}>'
    return f"{start}<title>{html.escape(alt)}</title>{content}"


def start_figure(width: float, height: float, title: str) -> Figure:
    """Starts a figure with its title, in inches; it is made as wide as the title at least."""
    title = legible(title)
    width = max(width, text_width([title], TITLE) + 2 * MARGIN)
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    figure.text(
        MARGIN / width,
        1 - MARGIN / height,
        title,
        va="top",
        parse_math=False,
        **lettering(TITLE),
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
    axes.patch.set_visible(False)
    axes.tick_params(
        colors=INK, labelsize=TEXT, labelfontfamily=list(_families), width=0.6, length=3
    )
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)
    return axes


def start_sheet(width: float, height: float, title: str, key: str = "") -> tuple[Figure, Axes]:
    """Starts a figure with blank axes whose unit is the inch, with y downwards.

    Args:
        width: Width of the axes.
        height: Height of the axes above the key.
        title: Text above them.
        key: Lines that explain labels; see `label_classes`.
    """
    height += key_height(key)
    top = MARGIN + (TITLE_HEIGHT if title else 0)
    figure = start_figure(width + 2 * MARGIN, top + height + MARGIN, title)
    axes = add_panel(figure, MARGIN, top, width, height)
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.set_axis_off()
    write(axes, 0, height - LINE * key.count("\n"), key)
    return figure, axes


def draw_note(text: str, title: str) -> Figure:
    """Draws a line of text where there is nothing else to be drawn."""
    figure, sheet = start_sheet(max(3.0, text_width([text])), LINE, title)
    write(sheet, 0, LINE, text)
    return figure


def paste(sheet: Axes, image: np.ndarray, x: float, y: float, side: float) -> None:
    """Draws an image as large as fits a square, in its own proportions, at its middle."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    left, top = x + (side - width * scale) / 2, y + (side - height * scale) / 2
    extent = (left, left + width * scale, top + height * scale, top)
    sheet.imshow(image, extent=extent, aspect="auto", origin="upper")


def write(sheet: Axes, x: float, y: float, text: str) -> None:
    """Writes lines of text, the first one on a baseline at `y`."""
    for number, line in enumerate(text.splitlines()):
        sheet.text(x, y + number * LINE, line, va="baseline", parse_math=False, **lettering())


def set_rules(axes: Axes, axis: Literal["x", "y", "both"]) -> None:
    """Rules a panel along one axis or both, and takes its upper and right frame away."""
    axes.grid(axis=axis, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def set_percent_axis(axes: Axes) -> None:
    """Labels a share in whole percents, over 10 of them at least."""
    axes.set_ylim(*without_duplicates(*axes.get_ylim(), 0.1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))


def without_duplicates(low: float, high: float, least: float) -> tuple[float, float]:
    """Returns limits of a scale, moved apart until it is as long as the least length."""
    room = max(0.0, least - (high - low)) / 2
    return low - room, high + room


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
        bbox_to_anchor=(MARGIN / width, 1 - (MARGIN + TITLE_HEIGHT) / height),
        ncols=len(lines),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.8,
        labelcolor=INK,
        prop=FontProperties(family=list(_families), size=TEXT),
    )


def lettering(size: float = TEXT, color: str = INK) -> dict[str, Any]:
    """Returns how a text is set, its size in points."""
    return {"fontsize": size, "color": color, "fontfamily": list(_families)}


def shorten(name: str, longest: int = _LONGEST_NAME) -> str:
    """Cuts a long name in its middle, since names of a kind differ at an end."""
    name = legible(name)
    if len(name) <= longest:
        return name
    half = longest // 2
    return f"{name[:half].rstrip()}…{name[1 - half :].lstrip()}"


def legible(text: str) -> str:
    """Returns a text with escapes for letters that no installed font has.

    Fonts that have letters which the main one lacks are used from then on.
    """
    fonts = {letter: _font_of(letter) for letter in text}
    _families.extend(sorted({font for font in fonts.values() if font} - set(_families)))
    return "".join(letter if fonts[letter] else ascii(letter)[1:-1] for letter in text)


def choose_font(text: str) -> tuple[str, str]:
    """Returns the file of one font for a text, and the text with escapes for letters it lacks.

    That is the first installed font with all letters, else the one with the most.
    """
    letters = {ord(letter) for letter in text}
    paths = [path for _, path in _installed_fonts()]
    path = next((path for path in paths if letters <= _letters_of(path)), None)
    path = path or max(paths, key=lambda path: len(letters & _letters_of(path)))
    known = _letters_of(path)
    return path, "".join(letter if ord(letter) in known else ascii(letter)[1:-1] for letter in text)


def label_classes(classes: Sequence[str]) -> tuple[dict[str, str], str]:
    """Returns how figures name classes, with numbers for names that no installed font can show.

    Args:
        classes: Names of the classes.

    Returns:
        Class name to label, and lines of text that explain the numbers; "" if there are none.
    """
    labels = {
        name: shorten(name) if legible(name) == name else str(number)
        for number, name in enumerate(classes, start=1)
    }
    hidden = [name for name in classes if legible(name) != name]
    return labels, "\n".join(f"{labels[name]} = {shorten(name)}" for name in hidden)


def key_height(key: str) -> float:
    """Returns the height of lines that explain labels, in inches."""
    return GAP + LINE * len(key.split("\n")) if key else 0.0


@cache
def _font_of(letter: str) -> str | None:
    """Returns the family of a font that has a letter, the main one if it does."""
    for family, path in _installed_fonts():
        if ord(letter) in _letters_of(path):
            return family
    return None


@cache
def _installed_fonts() -> list[tuple[str, str]]:
    """Returns family and file of the upright fonts, the main one first."""
    fonts = {
        entry.name: entry.fname
        for entry in sorted(fontManager.ttflist, key=lambda entry: entry.fname)
        if entry.style == "normal"
        and str(entry.weight) in {"400", "normal", "regular"}
        and not entry.name.startswith(_PLACEHOLDERS)
    }
    return sorted(fonts.items(), key=lambda font: (font[0] != _FONT, font[0]))


@cache
def _letters_of(path: str) -> frozenset[int]:
    try:
        font = get_font(path)
    except (OSError, RuntimeError):  # a font that was removed, or is of an unknown format
        return frozenset()
    return frozenset(font.get_charmap() if font.scalable else ())  # a bitmap font has few sizes


def text_width(texts: Iterable[str], size: float = TEXT) -> float:
    """Returns the width of the widest of some lines of text, in inches."""
    letters = FontProperties(family=list(_families), size=size)
    lines = [line for text in texts for line in text.split("\n")]
    widths = [
        text_to_path.get_text_width_height_descent(line, letters, ismath=False)[0] for line in lines
    ]
    return max(widths, default=0) / 72
