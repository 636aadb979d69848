"""Sections as text for the console and as Markdown whose source reads as text too."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ensemble.metrics.sections import Block, Facts, Figure, Markdown, Notice, Section, Table
from ensemble.system.text import table


def as_text(sections: Sequence[Section]) -> str:
    """Returns sections as text; figures are left out."""
    return "\n\n".join("\n".join(_text_lines(section)) for section in sections)


def as_markdown(sections: Sequence[Section], level: int = 2) -> str:
    """Returns sections as Markdown with headings from a level on.

    Figures are shown from PNG files of their name beside the text.
    """
    parts = []
    for section in sections:
        parts.append(f"{'#' * level} {escape(section.heading)}")
        parts += [_markdown(block, level) for block in section.blocks]
    return "\n\n".join(part for part in parts if part)


def escape(text: str) -> str:
    """Makes a name from outside safe within a line or a cell of Markdown."""
    return re.sub(r"([\\`*<|\[\]])", r"\\\1", " ".join(text.split()))


def _text_lines(section: Section) -> Iterator[str]:
    yield section.heading
    for block in section.blocks:
        match block:
            case Section():
                yield from _text_lines(block)
            case Table():
                yield from table([block.header, *block.rows])
            case Facts():
                yield from (f"{name}: {value}" for name, value in block.items.items())
            case Notice(text) | Markdown(text):
                yield text
            case str():
                yield block


def _markdown(block: Block, level: int) -> str:
    match block:
        case Section():
            return as_markdown([block], level + 1)
        case Table():
            return _markdown_table(block)
        case Facts():
            return "\n".join(_markdown_facts(block.items))
        case Notice(text):
            return f"> **Warning.** {escape(text)}"
        case Figure():
            return f"![{escape(block.alt)}]({block.name}.png)"
        case Markdown(text):
            return text
        case str():
            return escape(block)


def _markdown_table(block: Table) -> str:
    names = block.text_columns
    rows = [list(map(escape, block.header))]
    rows += [[*map(escape, row[:names]), *row[names:]] for row in block.rows]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    is_text = [index < names for index in range(len(widths))]
    rules = ["-" * width for width in widths[:names]]
    rules += ["-" * (width - 1) + ":" for width in widths[names:]]
    lines = [
        [
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, is_text, strict=True)
        ]
        for row in [rows[0], rules, *rows[1:]]
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _markdown_facts(items: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in items.items():
        if isinstance(value, Mapping):
            yield f"{indent}- **{escape(name)}**:"
            yield from _markdown_facts(value, f"{indent}  ")
        else:
            yield f"{indent}- **{escape(name)}**: {escape(str(value))}"
