"""Markdown as the project writes it, as HTML: headings, paragraphs, lists, tables, quotes."""

import re
from collections.abc import Iterator

from ensemble.reports.elements import Markup, Node, element, render, table

_INLINE = re.compile(r"\\(?P<plain>.)|`(?P<code>[^`]+)`|\*\*(?P<strong>.+?)\*\*|\*(?P<em>[^*]+)\*")
_CELL = re.compile(r"(?<!\\)\|")


def to_html(text: str, *, level: int = 3) -> Markup:
    """Returns a Markdown text as HTML; HTML in it is shown, not obeyed.

    Args:
        text: Blocks with an empty line between them.
        level: Of the heading that `##` makes; `#`, the title of a file, is left out.
    """
    blocks = re.split(r"\n\s*\n", text.strip())
    return render([_block(block.splitlines(), level) for block in blocks])


def _block(lines: list[str], level: int) -> Node:
    first = lines[0]
    if first.startswith("# "):
        return None
    if first.startswith("#"):
        return element(f"h{level}", _inline(first.lstrip("# ")))
    if first.startswith("- "):
        return element("ul", [element("li", _inline(item)) for item in _items(lines)])
    if first.startswith("|"):
        rows = [[_inline(cell.strip()) for cell in _CELL.split(line)[1:-1]] for line in lines]
        number_columns = sum(cell.strip().endswith("-:") for cell in _CELL.split(lines[1]))
        return table([rows[0], *rows[2:]], "Table", text_columns=len(rows[0]) - number_columns)
    if first.startswith(">"):
        return element("blockquote", _inline(" ".join(line.lstrip("> ") for line in lines)))
    head, items = _paragraph(lines)
    return [
        element("p", _inline(" ".join(head))),
        element("ul", [element("li", _inline(item)) for item in _items(items)]) if items else None,
    ]


def _paragraph(lines: list[str]) -> tuple[list[str], list[str]]:
    """Returns the lines of a paragraph, and those of a list that follows at once."""
    start = next((i for i, line in enumerate(lines) if line.startswith("- ")), len(lines))
    return lines[:start], lines[start:]


def _items(lines: list[str]) -> Iterator[str]:
    """Yields the items of a list, whose further lines are indented."""
    text = "\n".join(lines)
    for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]:
        yield " ".join(item.split())


def _inline(text: str) -> Markup:
    parts: list[Node] = []
    end = 0
    for match in _INLINE.finditer(text):
        parts.append(text[end : match.start()])
        kind = match.lastgroup or ""
        found = match[kind]
        parts.append(
            {"plain": found, "code": element("code", found)}.get(kind)
            or element(kind, _inline(found))
        )
        end = match.end()
    return render([*parts, text[end:]])
