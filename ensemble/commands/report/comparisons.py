"""Runs side by side on a page."""

from collections.abc import Sequence

from configs.errors import DataError
from ensemble.commands.compare.candidates import Candidate
from ensemble.commands.compare.tables import (
    Table,
    figure_table,
    gain_table,
    report_table,
    seed_table,
    short_names,
)
from ensemble.commands.compare.verdicts import (
    Standing,
    compare_candidates,
    gains_of_fusion,
    spread_over_seeds,
)
from ensemble.commands.report.charts import draw_interval
from ensemble.commands.report.elements import Node, element, table, warning
from ensemble.commands.report.wording import percents


def describe_comparison(candidates: Sequence[Candidate]) -> Node:
    """Returns what several runs come to against the first one, or why that cannot be told."""
    try:
        standings = compare_candidates(candidates)
    except DataError as error:
        return warning(f"Not compared: {error}")
    spreads, gains = spread_over_seeds(standings), gains_of_fusion(standings)
    tables = [figure_table(standings), *([seed_table(spreads)] if spreads else [])]
    tables += [gain_table(gains)] if gains else []
    tables.append(report_table(standings))
    return [_standings(standings), *map(_comparison_table, tables)]


def _standings(standings: Sequence[Standing]) -> Node:
    names = short_names(standings)
    first = standings[0].metrics.accuracy
    rows: list[list[Node]] = [["Run", "", "Accuracy", "95 % interval"]]
    for name, standing in zip(names, standings, strict=True):
        accuracy, interval = standing.metrics.accuracy, standing.intervals.accuracy
        chart = draw_interval(accuracy, interval.low, interval.high, reference=first)
        rows.append([name, chart, f"{accuracy:.2%}", percents(interval)])
    verdicts = [
        element(
            "li",
            element("strong", name),
            f": {paired.verdict}; McNemar p {paired.mcnemar.p_value:.3g}",
        )
        for name, standing in zip(names, standings, strict=True)
        if (paired := standing.against_first)
    ]
    told = f"In accuracy, against {names[0]} (dashed), image by image:"
    return [
        [element("p", told), element("ul", verdicts)] if verdicts else None,
        table(rows, "Accuracy of the runs", class_="charted"),
    ]


def _comparison_table(shown: Table) -> Node:
    return [
        element("h3", shown.title),
        table(shown.rows, shown.title, text_columns=len(shown.rows[0]), class_="dense"),
        element("p", shown.note, class_="faint") if shown.note else None,
    ]
