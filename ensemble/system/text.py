"""Text for screens and files: aligned tables, CSV, and counts with their noun."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields the lines of a table, cells that begin with a digit set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        )
        yield "  ".join(cells).rstrip()


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table as CSV; None becomes an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def plural(count: int, noun: str) -> str:
    """Returns a count with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
