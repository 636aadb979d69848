"""Laws of Markdown on a page."""

import html

from ensemble.commands.report.markdown import to_html
from ensemble.metrics.markdown import escape, table


def test_the_title_is_left_out_and_other_headings_find_their_level():
    text = "# Title\n\n## Part\n\nOne **two**\n\n### Smaller\n"

    assert to_html(text) == ("<h3>Part</h3>\n<p>One <strong>two</strong></p>\n<h4>Smaller</h4>\n")


def test_a_text_without_a_title_loses_nothing():
    assert to_html("- one\n") == "<ul>\n<li>one</li>\n</ul>\n"
    assert to_html("") == ""


def test_an_escaped_name_comes_back_as_it_was():
    name = 'a|b `c` *d* [e](f) <i onclick="x"> & \\'
    page = to_html("# Title\n\n" + table(["Name", "N"], [[escape(name), "1"]]))
    cell = page.partition("<td>")[2].partition("</td>")[0]

    assert html.unescape(cell) == name
    assert "<i" not in page


def test_html_is_shown_and_not_obeyed():
    assert "&lt;script&gt;" in to_html("# Title\n\n<script>alert(1)</script>\n")
