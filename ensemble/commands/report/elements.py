"""HTML made of elements: whatever is no markup already is escaped."""

import html
from collections.abc import Iterable, Sequence
from typing import TypeAlias

_VOID = {"img", "link", "meta"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Node: TypeAlias = "str | Iterable[Node] | None"


def render(node: Node) -> Markup:
    """Returns a text, escaped unless it is markup, or several of them one after the other."""
    if isinstance(node, Markup):
        return node
    if isinstance(node, str):
        return Markup(html.escape(node))
    return Markup("".join(map(render, node or ())))


def element(tag: str, *children: Node, **attributes: object) -> Markup:
    """Returns an element.

    Args:
        tag: Its name.
        children: What is in it.
        attributes: By name, with `_` for `-` and one at the end for Python's own words;
            those that are None are left out.
    """
    texts = [
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    ]
    start = f"<{tag}{''.join(texts)}>"
    return Markup(start if tag in _VOID else f"{start}{render(children)}</{tag}>")


def table(
    rows: Sequence[Sequence[Node]], title: str, *, text_columns: int = 1, class_: str | None = None
) -> Markup:
    """Returns a table in a frame of its own, which scrolls where the table is too wide.

    Args:
        rows: The first one is the header.
        title: What the table shows, for those who do not see it.
        text_columns: Number of columns, from the left, that hold text; the others are
            set to the right.
        class_: Of the table.
    """

    def cells(tag: str, row: Sequence[Node], **first: str) -> list[Markup]:
        sides = [None if index < text_columns else "number" for index in range(len(row))]
        return [
            element("th" if first and not index else tag, cell, class_=side)
            for index, (cell, side) in enumerate(zip(row, sides, strict=True))
        ]

    header, *body = rows
    return scroll(
        element(
            "table",
            element("thead", element("tr", cells("th", header))),
            element("tbody", [element("tr", cells("td", row)) for row in body]),
            class_=class_,
        ),
        title,
    )


def scroll(content: Node, title: str) -> Markup:
    """Returns a frame that scrolls to the side, by keyboard too."""
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=title)


def definitions(rows: Iterable[tuple[str, Node]]) -> Markup:
    """Returns a list of headings, each with what belongs to it."""
    return element(
        "dl",
        [element("div", element("dt", name), element("dd", text)) for name, text in rows],
    )


def folded(title: str, *content: Node) -> Markup:
    """Returns what is shown when its title is chosen, and in print."""
    return element("details", element("summary", title), *content)


def warning(text: str) -> Markup:
    """Returns what a reader must not miss."""
    return element("p", element("strong", "Warning. "), text, class_="warning")
