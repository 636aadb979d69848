"""Sections as HTML: everything that is not markup already is escaped."""

import base64
import html
import io
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from markdown_it import MarkdownIt
from PIL import Image

from ensemble.metrics.sections import (
    Block,
    Facts,
    Figure,
    Markdown,
    Notice,
    Pictures,
    Section,
    Table,
)
from ensemble.plots.figures import svg

_VOID = {"img", "link", "meta"}
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_HEADING = 3  # tokens: its start, its text, its end
_JPEG_QUALITY = 85


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
        children: Its content.
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


def markdown_to_html(text: str) -> Markup:
    """Returns a Markdown text as HTML; HTML in it is shown as text.

    Args:
        text: CommonMark with tables. A heading `#` at its beginning, the title of a
            file, is left out; `##` becomes `h3`, and so on.
    """
    tokens = _MARKDOWN.parse(text)
    if tokens and tokens[0].tag == "h1":
        tokens = tokens[_HEADING:]
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(6, int(token.tag[1:]) + 1)}"
    return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))


def section_to_html(section: Section, anchor: str) -> Markup:
    """Returns a section as a card that links can lead to."""
    return element(
        "section",
        element("h2", section.heading, id=f"{anchor}-name"),
        [_block(block, section.heading, 3) for block in section.blocks],
        class_="card",
        id=anchor,
        aria_labelledby=f"{anchor}-name",
    )


def _block(block: Block, heading: str, level: int) -> Node:
    match block:
        case Section():
            content = [_block(each, block.heading, level + 1) for each in block.blocks]
            if block.folded:
                return element("details", element("summary", block.heading), content)
            return [element(f"h{level}", block.heading), content]
        case Notice(text):
            return element("p", element("strong", "Warning. "), text, class_="warning")
        case Table():
            return _scroll(_table(block), heading)
        case Facts(items):
            return _facts(items)
        case Markdown(text):
            return _scroll(markdown_to_html(text), heading)
        case Pictures():
            return [_pictures(block), element("p", block.alt, class_="faint")]
        case Figure():
            return _scroll(Markup(svg(block.plot(**block.data), block.alt)), block.alt)
        case str():
            return element("p", block)


def _scroll(content: Node, title: str) -> Markup:
    """Returns a frame that scrolls to the side, by keyboard too."""
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=title)


def _table(block: Table) -> Markup:
    sides = [None if index < block.text_columns else "number" for index in range(len(block.header))]
    header = [
        element("th", name, class_=side, scope="col")
        for name, side in zip(block.header, sides, strict=True)
    ]
    rows = [
        [
            element("td" if index else "th", cell, class_=side, scope=None if index else "row")
            for index, (cell, side) in enumerate(zip(row, sides, strict=True))
        ]
        for row in block.rows
    ]
    return element(
        "table",
        element("thead", element("tr", header)),
        element("tbody", [element("tr", row) for row in rows]),
    )


def _facts(items: Mapping[str, Any]) -> Markup:
    rows = [
        element(
            "div",
            element("dt", name),
            element("dd", _facts(value) if isinstance(value, Mapping) else str(value)),
        )
        for name, value in items.items()
    ]
    return element("dl", rows)


def _pictures(block: Pictures) -> Markup:
    figures = [
        element(
            "figure",
            element("img", src=_jpeg(image), alt=f"{name}: {' '.join(lines)}", title=name),
            element("figcaption", [element("span", line) for line in lines]),
        )
        for image, lines, name in zip(block.images, block.captions, block.names, strict=True)
    ]
    return element("div", figures, class_="pictures")


def _jpeg(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
