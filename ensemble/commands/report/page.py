"""A page about runs: one HTML file that needs nothing else, neither network nor script."""

from collections.abc import Sequence
from importlib import resources

from configs.errors import DataError
from ensemble.commands.compare.candidates import Candidate
from ensemble.commands.compare.results import compare_candidates
from ensemble.commands.compare.sections import comparison_sections
from ensemble.commands.report.html import Markup, element, section_to_html
from ensemble.commands.report.run_sections import run_sections
from ensemble.metrics.sections import Notice, Section

# Nothing is loaded and nothing runs, whatever a name in the data contains.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_page(candidates: Sequence[Candidate]) -> str:
    """Returns a page about some runs, compared with the first one where there are several.

    Args:
        candidates: The runs, one at least.

    Raises:
        RunError: If a file of a run is damaged.
    """
    several = len(candidates) > 1
    title = f"{len(candidates)} runs" if several else candidates[0].name
    links, cards = [], []
    if several:
        links.append(("comparison", "Comparison"))
        cards.append(section_to_html(_comparison(candidates), "comparison"))
    for number, candidate in enumerate(candidates, 1):
        if several:
            links.append((f"run-{number}", candidate.name))
            cards.append(element("h2", candidate.name, id=f"run-{number}", class_="run"))
        for place, section in enumerate(run_sections(candidate), 1):
            anchor = f"run-{number}-{place}"
            links += [] if several else [(anchor, section.heading)]
            cards.append(section_to_html(section, anchor))
    style = (resources.files("ensemble.commands.report") / "page.css").read_text("utf-8")
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("link", rel="icon", href="data:,"),
        element("title", f"Report: {title}"),
        element("style", Markup(style)),
    ]
    names = ", ".join(candidate.name for candidate in candidates)
    header = [
        element("h1", title),
        element("p", names, class_="faint") if several else None,
        element(
            "nav",
            [element("a", name, href=f"#{anchor}") for anchor, name in links],
            aria_label="Sections",
        ),
    ]
    body = [element("header", header), element("main", cards)]
    page = element("html", element("head", head), element("body", body), lang="en")
    return f"<!doctype html>\n{page}\n"


def _comparison(candidates: Sequence[Candidate]) -> Section:
    try:
        sections = comparison_sections(compare_candidates(candidates))
    except DataError as error:
        return Section("Comparison", [Notice(f"Not compared: {error}")])
    return Section("Comparison", sections)
