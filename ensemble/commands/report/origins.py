"""What a run comes from, on a page: data, settings, environment."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ensemble.commands.report.charts import draw_share
from ensemble.commands.report.elements import Markup, Node, definitions, element, folded, table
from ensemble.commands.report.reading import Judgement, RunRecord

_LISTED = 50  # rows of a long list; the run's files hold all of them


def describe_data(record: RunRecord) -> Node:
    """Returns the data sheet: what was learned from, how often, and what was not."""
    return [
        describe_facts(record.judgement.facts),
        _counts(record) if record.counts else None,
        _left_out(record.judgement),
        _repeats(record.repeats),
    ]


def describe_facts(facts: Mapping[str, str]) -> Node:
    """Returns a report's lines about data and model."""
    return definitions(facts.items()) if facts else None


def _counts(record: RunRecord) -> Node:
    parts = [part for part in ("train", "validation", "test") if part in record.counts]
    classes = record.judgement.classes
    totals = {name: sum(record.counts[part][name] for part in parts) for name in classes}
    most = max(totals.values()) or 1
    rows: list[list[Node]] = [["Class", "", *parts, "all"]]
    for name in classes:
        numbers = [record.counts[part][name] for part in parts]
        row: list[Node] = [name, draw_share(totals[name] / most)]
        rows.append([*row, *(f"{number:,}" for number in [*numbers, totals[name]])])
    sums = [sum(record.counts[part].values()) for part in parts]
    row = [element("em", "all"), None]
    rows.append([*row, *(f"{number:,}" for number in [*sums, sum(sums)])])
    return [element("h3", "Images"), table(rows, "Images of each class", class_="charted")]


def _left_out(judgement: Judgement) -> Node:
    problems = judgement.problems
    rows = [["Image", "Reason"], *([one.name, one.reason] for one in problems[:_LISTED])]
    return [
        element("h3", "Left out"),
        _listed(rows, len(problems), "images or rows could not be used") if problems else _none(),
    ]


def _repeats(repeats: Sequence[Mapping[str, str]]) -> Node:
    columns = ("path", "split", "repeats", "in", "kind")
    kinds = Counter((row.get("split"), row.get("in"), row.get("kind")) for row in repeats)
    rows = [list(columns), *([row.get(name, "") for name in columns] for row in repeats[:_LISTED])]
    told = "; ".join(
        f"{count:,} of {one} in {other} too ({kind})" for (one, other, kind), count in kinds.items()
    )
    return [
        element("h3", "In several splits"),
        [element("p", f"{told}."), _listed(rows, len(repeats), "repeats")] if repeats else _none(),
    ]


def _listed(rows: Sequence[Sequence[Node]], count: int, what: str) -> Node:
    first = f", the first {_LISTED}" if count > _LISTED else ""
    return folded(f"{count:,} {what}{first}", table(rows, what, text_columns=len(rows[0])))


def _none() -> Markup:
    return element("p", "None recorded.", class_="faint")


def describe_environment(record: RunRecord) -> Node:
    """Returns the settings, and what a result depends on beside them."""
    return [
        folded("Settings", element("pre", record.settings, tabindex="0")),
        folded("Environment", _tree(record.environment)) if record.environment else None,
    ]


def _tree(values: Mapping[str, Any]) -> Node:
    """Returns a record as nested lists of headings."""

    def show(name: str, value: Any) -> Node:
        if isinstance(value, dict):
            return _tree(value)
        if isinstance(value, list):
            words = list(map(str, value))
            return element("code", shlex.join(words) if name == "command" else ", ".join(words))
        return element("code", value if isinstance(value, str) else json.dumps(value))

    return definitions((name, show(name, value)) for name, value in values.items())
