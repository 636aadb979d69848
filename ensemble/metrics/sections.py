"""Content of reports as plain data: sections of paragraphs, warnings, tables and figures.

`ensemble.metrics.rendering` renders them as text and Markdown, `ensemble.commands.report.page` as
HTML.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import matplotlib.figure


@dataclass(frozen=True)
class Notice:
    """A warning that a reader must not miss."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table of texts; its first `text_columns` hold names, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1


@dataclass(frozen=True)
class Facts:
    """Headings, each with a text or with facts of its own."""

    items: Mapping[str, Any]


@dataclass(frozen=True)
class Markdown:
    """Text that is Markdown already."""

    text: str


@dataclass(frozen=True)
class Figure:
    """A figure of plain data.

    Args:
        name: Name of its file, without the ending.
        title: Title of the drawing, where it stands alone.
        alt: Description for readers who cannot see it.
        plot: Draws it.
        data: Arguments of `plot`.
    """

    name: str
    title: str
    alt: str
    plot: Callable[..., "matplotlib.figure.Figure"]
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Pictures(Figure):
    """Images `(height, width, 3)` with names and lines of captions, which a page arranges."""

    images: Sequence[np.ndarray]
    captions: Sequence[Sequence[str]]
    names: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A part of a report; a text is a paragraph, and a page shows folded content on demand."""

    heading: str
    blocks: Sequence["Block"]
    folded: bool = False


Block: TypeAlias = str | Notice | Table | Facts | Markdown | Figure | Section


def find_figures(sections: Iterable[Section]) -> Iterator[Figure]:
    """Yields all figures in order."""
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                yield block
            elif isinstance(block, Section):
                yield from find_figures([block])
