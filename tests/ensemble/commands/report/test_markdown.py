"""Laws of Markdown on a page."""

import html

from ensemble.commands.report.html import markdown_to_html
from ensemble.metrics.rendering import as_markdown
from ensemble.metrics.sections import Section, Table


def test_the_title_is_left_out_and_other_headings_find_their_level():
    text = "# Title\n\n## Part\n\nOne **two**\n\n### Smaller\n"

    page = markdown_to_html(text)
    assert page == "<h3>Part</h3>\n<p>One <strong>two</strong></p>\n<h4>Smaller</h4>\n"


def test_a_text_without_a_title_loses_nothing():
    assert markdown_to_html("- one\n") == "<ul>\n<li>one</li>\n</ul>\n"
    assert markdown_to_html("") == ""


def test_an_escaped_name_comes_back_as_it_was():
    name = 'a|b `c` *d* [e](f) <i onclick="x"> & \\'
    page = markdown_to_html(as_markdown([Section("Title", [Table(["Name", "N"], [[name, "1"]])])]))
    cell = page.partition("<td>")[2].partition("</td>")[0]

    assert html.unescape(cell) == name
    assert "<i" not in page


def test_html_is_shown_as_text():
    assert "&lt;script&gt;" in markdown_to_html("# Title\n\n<script>alert(1)</script>\n")
