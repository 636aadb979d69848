"""Markdown as HTML for a page that has headings of its own."""

from markdown_it import MarkdownIt

from ensemble.commands.report.elements import Markup

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_HEADING = 3  # tokens: where it begins, its text, where it ends


def to_html(text: str) -> Markup:
    """Returns a Markdown text as HTML; HTML in it is shown, not obeyed.

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
