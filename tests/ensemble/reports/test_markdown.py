"""Laws of Markdown on a page."""

from ensemble.evaluation.markdown import escape, table
from ensemble.reports.markdown import to_html


def test_the_blocks_of_a_card_become_html():
    text = "# Title\n\n## Part\n\nOne\n**two** `a*b`:\n- x\n  y\n- *z*\n\n> quoted\n"

    assert to_html(text) == (
        "<h3>Part</h3><p>One <strong>two</strong> <code>a*b</code>:</p>"
        "<ul><li>x y</li><li><em>z</em></li></ul><blockquote>quoted</blockquote>"
    )


def test_an_escaped_name_comes_back_as_it_was():
    name = "a|b `c` *d* [e] <i> \\"
    html = to_html(table(["Name", "N"], [[escape(name), "1"]]))

    shown = name.replace("<", "&lt;").replace(">", "&gt;")
    assert f'<td>{shown}</td><td class="number">1</td>' in html
