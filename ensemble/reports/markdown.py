"""Markdown as HTML for a page that has headings of its own."""

from markdown_it import MarkdownIt

from ensemble.reports.elements import Markup

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_TITLE = 3  # tokens: where a heading begins, its text, its end


def to_html(text: str, *, level: int = 3) -> Markup:
    """Returns a Markdown text as HTML; HTML in it is shown, not obeyed.

    Args:
        text: CommonMark with tables, which begins with a heading `#`: the title of a
            file, which is left out.
        level: Of the heading that `##` makes.
    """
    tokens = _MARKDOWN.parse(text)[_TITLE:]
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{int(token.tag[1:]) - 2 + level}"
    return Markup(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))
