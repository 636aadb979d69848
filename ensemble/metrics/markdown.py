"""Markdown that reads as text too."""

import re
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Sets a Markdown table whose source reads as a table too.

    Args:
        header: A heading for each column.
        rows: Cells, each row as long as the header; already escaped.
        text_columns: Number of columns, from the left, that hold text; numbers
            follow, set to the right.
    """
    widths = [max(3, *map(len, column)) for column in zip(header, *rows, strict=True)]
    rules = [
        "-" * width if index < text_columns else "-" * (width - 1) + ":"
        for index, width in enumerate(widths)
    ]
    lines = [
        [
            cell.ljust(width) if index < text_columns else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in [header, rules, *rows]
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def escape(text: str) -> str:
    """Makes a name from outside safe within a line or a cell of Markdown."""
    return re.sub(r"([\\`*<|\[\]])", r"\\\1", " ".join(text.split()))
