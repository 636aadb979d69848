"""The page: one HTML file that needs nothing else, neither network nor script."""

from collections.abc import Iterator, Sequence
from importlib import resources

from ensemble.commands.report.comparisons import describe_comparison
from ensemble.commands.report.elements import Markup, Node, element
from ensemble.commands.report.reading import RunRecord
from ensemble.commands.report.sections import describe_run

# Nothing is fetched and nothing runs, whatever a name in the data may try.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_page(records: Sequence[RunRecord]) -> str:
    """Returns a page about some runs, compared with the first one where they are several.

    Args:
        records: What the runs keep, one at least.
    """
    several = len(records) > 1
    title = f"{len(records)} runs" if several else records[0].name
    parts = list(_parts(records))
    links = [element("a", name, href=f"#{anchor}") for name, anchor, _ in parts if anchor]
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("link", rel="icon", href="data:,"),
        element("title", f"Report: {title}"),
        element("style", Markup(_style())),
    ]
    body = [
        element(
            "header",
            element("h1", title),
            element("p", ", ".join(one.name for one in records), class_="faint")
            if several
            else None,
            element("nav", links, aria_label="Sections"),
        ),
        element("main", [content for _, _, content in parts]),
    ]
    page = element("html", element("head", head), element("body", body), lang="en")
    return f"<!doctype html>\n{page}\n"


def _parts(records: Sequence[RunRecord]) -> Iterator[tuple[str, str, Node]]:
    """Yields text and anchor of each link, and what it leads to; an empty anchor has no link."""
    several = len(records) > 1
    if several:
        content = describe_comparison([record.candidate for record in records])
        yield "Comparison", "comparison", _card("Comparison", content, "comparison")
    for number, record in enumerate(records, 1):
        if several:
            yield (
                record.name,
                f"run-{number}",
                element("h2", record.name, id=f"run-{number}", class_="run"),
            )
        for place, (name, content) in enumerate(describe_run(record), 1):
            anchor = f"run-{number}-{place}"
            yield name, "" if several else anchor, _card(name, content, anchor)


def _card(name: str, content: Node, anchor: str) -> Markup:
    return element(
        "section", element("h2", name, id=f"{anchor}-name"), content,
        class_="card", id=anchor, aria_labelledby=f"{anchor}-name",
    )  # fmt: skip


def _style() -> str:
    return (resources.files("ensemble.commands.report") / "page.css").read_text("utf-8")
