"""The parts of a page: each turns what a run keeps into headings, charts and tables."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import DataError
from ensemble.comparison.candidates import Candidate
from ensemble.comparison.tables import (
    Table,
    figure_table,
    gain_table,
    report_table,
    seed_table,
    short_names,
)
from ensemble.comparison.verdicts import (
    Standing,
    compare_candidates,
    gains_of_fusion,
    spread_over_seeds,
)
from ensemble.evaluation.intervals import Interval
from ensemble.evaluation.plots import MOST_ERRORS
from ensemble.reports.charts import draw_epochs, draw_interval, draw_reliability, draw_share
from ensemble.reports.elements import Markup, Node, definitions, element, folded, scroll, table
from ensemble.reports.markdown import to_html
from ensemble.reports.pictures import read_picture, read_pictures
from ensemble.reports.reading import Calibration, Group, Judgement, RunRecord

_LISTED = 50  # rows of a long list; the run's files hold all of them
_FIGURES = {"ece": "Expected calibration error", "nll": "Log loss (nats)", "brier": "Brier score"}

Sections = Iterator[tuple[str, Node]]  # heading and content


def describe_run(record: RunRecord) -> Sections:
    """Yields the sections of one run."""
    candidate, judgement = record.candidate, record.judgement
    yield "Figures", _figures(judgement)
    if candidate.history:
        yield "Training", _training(record)
    yield from _details(judgement)
    yield "Worst mistakes", _mistakes(record)
    for evaluation in record.evaluations:
        yield f"On other images: {evaluation.folder.name}", _evaluation(evaluation)
    yield "Data", _data(record)
    yield "Settings and environment", _environment(record)
    if record.card is not None:
        yield "Model card", folded("The model card", to_html(record.card))


def describe_comparison(candidates: Sequence[Candidate]) -> Node:
    """Returns what several runs come to against the first one, or why that cannot be told."""
    try:
        standings = compare_candidates(candidates)
    except DataError as error:
        return _warning(f"Not compared: {error}")
    spreads, gains = spread_over_seeds(standings), gains_of_fusion(standings)
    tables = [figure_table(standings), *([seed_table(spreads)] if spreads else [])]
    tables += [gain_table(gains)] if gains else []
    tables.append(report_table(standings))
    return [_forest(standings), *map(_comparison_table, tables)]


def _forest(standings: Sequence[Standing]) -> Node:
    rows: list[list[Node]] = [["Run", "Accuracy", "95 % interval", ""]]
    for name, standing in zip(short_names(standings), standings, strict=True):
        accuracy, interval = standing.metrics.accuracy, standing.intervals.accuracy
        first = standings[0].metrics.accuracy
        chart = draw_interval(accuracy, interval.low, interval.high, reference=first)
        rows.append([name, f"{accuracy:.2%}", _percents(interval), chart])
    return [
        table(rows, "Accuracy of the runs", class_="charted last"),
        element("p", "The dashed line is the first run.", class_="faint"),
    ]


def _comparison_table(shown: Table) -> Node:
    return [
        element("h3", shown.title),
        table(shown.rows, shown.title, text_columns=len(shown.rows[0])),
        element("p", shown.note, class_="faint") if shown.note else None,
    ]


def _figures(judgement: Judgement) -> Node:
    metrics, intervals, baseline = (
        judgement.metrics,
        judgement.intervals,
        judgement.metrics.baseline,
    )
    tiles = [
        _tile("Accuracy", metrics.accuracy, intervals.accuracy, baseline and baseline.accuracy),
        _tile(
            "Balanced accuracy",
            metrics.balanced_accuracy,
            intervals.balanced_accuracy,
            baseline and baseline.balanced_accuracy,
        ),
        _tile("Macro-F1", metrics.macro.f1, intervals.macro_f1, baseline and baseline.macro_f1),
    ]
    more = [f"{metrics.images:,} images", f"log loss {metrics.log_loss:.3f} nats"]
    if metrics.top2_accuracy is not None:
        more.insert(1, f"top-2 accuracy {metrics.top2_accuracy:.2%}")
    text = (
        f"{judgement.subject}: {', '.join(more)}. Intervals are by bootstrap over these images: "
        "they tell what other images of the same kind would change, not what another seed would."
    )
    if baseline:
        text += (
            f" The dashed line is what always answering {baseline.name} scores, the most frequent "
            "class in training."
        )
    return [
        [_warning(line) for line in judgement.warnings],
        element("div", tiles, class_="tiles"),
        element("p", text, class_="faint"),
    ]


def _tile(name: str, value: float, interval: Interval, baseline: float | None) -> Markup:
    return element(
        "div",
        element("span", name, class_="name"),
        element("strong", f"{value:.2%}"),
        draw_interval(value, interval.low, interval.high, reference=baseline),
        element("span", f"95 %: {_percents(interval)}"),
        None
        if baseline is None
        else element("span", f"majority class: {baseline:.2%}", class_="faint"),
        class_="tile",
    )


def _details(judgement: Judgement) -> Sections:
    yield "Classes", _classes(judgement)
    yield "Confusion", _confusion(judgement)
    if judgement.calibration:
        yield "Calibration", _calibration(judgement.calibration)
    if judgement.groups:
        yield "Groups", _groups(judgement.groups)


def _classes(judgement: Judgement) -> Node:
    metrics, intervals = judgement.metrics, judgement.intervals
    rows: list[list[Node]] = [["Class", "", "F1", "95 % of F1", "Precision", "Recall", "Images"]]
    for scores, interval in zip(metrics.per_class, intervals.class_f1, strict=True):
        rates = [f"{rate:.3f}" for rate in (scores.precision, scores.recall)]
        chart = draw_interval(scores.f1, interval.low, interval.high)
        row: list[Node] = [scores.name, chart, f"{scores.f1:.3f}", _shares(interval)]
        rows.append([*row, *rates, f"{scores.support:,}"])
    interval = intervals.macro_f1
    for name, mean, chart, text in (
        (
            "macro average",
            metrics.macro,
            draw_interval(metrics.macro.f1, interval.low, interval.high),
            _shares(interval),
        ),
        ("weighted average", metrics.weighted, None, ""),
    ):
        averages: list[Node] = [element("em", name), chart, f"{mean.f1:.3f}", text]
        averages += [f"{mean.precision:.3f}", f"{mean.recall:.3f}", f"{metrics.images:,}"]
        rows.append(averages)
    return table(rows, "Precision, recall and F1 of each class", class_="charted")


def _confusion(judgement: Judgement) -> Node:
    names = judgement.classes
    header = [element("td", "true \\ predicted", class_="faint")]
    header += [element("th", element("span", name), scope="col") for name in names]
    rows = []
    for name, counts in zip(names, judgement.metrics.confusion, strict=True):
        total = sum(counts) or 1
        cells = [
            element(
                "td",
                f"{count:,}",
                style=f"--share: {count / total:.3f}",
                class_="strong" if count / total > 0.5 else None,
                title=f"{name} answered as {other}: {count:,} of {sum(counts):,}",
            )
            for other, count in zip(names, counts, strict=True)
        ]
        rows.append(element("tr", element("th", name, scope="row"), cells))
    matrix = element(
        "table",
        element("thead", element("tr", header)),
        element("tbody", rows),
        class_="confusion",
    )
    note = "Numbers of images; a row is a true class, and the darker, the larger its share."
    return [scroll(matrix, "Confusion matrix"), element("p", note, class_="faint")]


def _calibration(calibration: Calibration) -> Node:
    rows: list[list[Node]] = [["", "Before", "After"]]
    for key, name in _FIGURES.items():
        if key in calibration.before and key in calibration.after:
            before, after = calibration.before[key], calibration.after[key]
            rows.append([name, f"{before:.4f}", f"{after:.4f}"])
    text = (
        f"Logits are divided by the temperature {calibration.temperature:.3f}, fitted on "
        f"{calibration.fitted_on}, which changes confidences and no answer."
    )
    if calibration.aurc is not None:
        text += f" Area under the risk-coverage curve: {calibration.aurc:.4f}."
    chart = draw_reliability(calibration.bins, calibration.bins_before)
    return [
        element("p", text),
        element(
            "div",
            element("div", chart, class_="square"),
            table(rows, "Calibration before and after"),
            class_="pair",
        ),
    ]


def _groups(groups: Sequence[Group]) -> Node:
    rows: list[list[Node]] = [["Group", "", "Accuracy", "95 %", "Macro-F1", "95 %", "Images"]]
    for group in groups:
        first, second = group.accuracy_interval, group.macro_f1_interval
        row: list[Node] = [
            group.name,
            draw_interval(group.accuracy, first.low, first.high) if first else None,
            f"{group.accuracy:.2%}",
            _percents(first) if first else "",
        ]
        row += [f"{group.macro_f1:.3f}", _shares(second) if second else "", f"{group.images:,}"]
        rows.append(row)
    best = max(groups, key=lambda group: group.accuracy)
    worst = min(groups, key=lambda group: group.accuracy)
    gap = 100 * (best.accuracy - worst.accuracy)
    note = f"Largest gap in accuracy: {gap:.1f} points, between {best.name} and {worst.name}."
    return [table(rows, "Figures by group", class_="charted"), element("p", note)]


def _training(record: RunRecord) -> Node:
    candidate, training = record.candidate, record.judgement.training
    charts = [
        draw_epochs(
            name,
            candidate.history[key],
            candidate.history.get(f"val_{key}", ()),
            candidate.best_epoch,
            percent=key == "accuracy",
            fine_tuned_from=record.fine_tuned_from,
        )
        for name, key in (("Accuracy", "accuracy"), ("Loss", "loss"))
        if candidate.history.get(key)
    ]
    text = ""
    if training:
        text = (
            f"Trained for {training.epochs} epochs; the weights are those of epoch "
            f"{training.best_epoch} (dashed), the best by {training.monitor}."
        )
    return [element("div", charts, class_="pair"), element("p", text, class_="faint")]


def _mistakes(record: RunRecord) -> Node:
    judgement, answers = record.judgement, record.judgement.answers
    worst = judgement.worst(MOST_ERRORS)
    if not worst:
        return element("p", "There are none.")
    names = [answers.names[index] for index in worst]
    addresses = read_pictures(record.candidate.config.data, names)
    if addresses is None:
        return _error_sheet(judgement.folder)
    figures = []
    for index, name, address in zip(worst, names, addresses, strict=True):
        true = answers.classes[answers.labels[index]]
        answer = answers.classes[answers.predicted[index]]
        sure = answers.probabilities[index].max()
        figures.append(
            element(
                "figure",
                element("img", src=address, alt=f"{name}: {true} taken for {answer}", title=name),
                element(
                    "figcaption", element("span", true), element("span", f"→ {answer} {sure:.0%}")
                ),
            )
        )
    note = (
        "The most confident mistakes: the true class, and below it the answer and its confidence."
    )
    return [
        element("div", figures, class_="pictures"),
        element("p", note, class_="faint"),
    ]


def _error_sheet(folder: Path) -> Node:
    address = read_picture(folder / "errors.png")
    if address is None:
        return element("p", "The images are no longer where they were.", class_="faint")
    return element("img", src=address, alt="The most confident mistakes", class_="sheet")


def _evaluation(judgement: Judgement) -> Node:
    details = [[element("h3", name), content] for name, content in _details(judgement)]
    mistakes = [element("h3", "Worst mistakes"), _error_sheet(judgement.folder)]
    return [
        _figures(judgement),
        _facts(judgement.facts),
        folded("Classes, confusion and mistakes", details, mistakes),
    ]


def _data(record: RunRecord) -> Node:
    return [
        _facts(record.judgement.facts),
        _counts(record) if record.counts else None,
        _left_out(record.judgement),
        _repeats(record.repeats),
    ]


def _facts(facts: Mapping[str, str]) -> Node:
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
        f"{count:,} {kind} of {one} in {other}" for (one, other, kind), count in kinds.items()
    )
    return [
        element("h3", "In several splits"),
        [element("p", f"{told}."), _listed(rows, len(repeats), "repeats")] if repeats else _none(),
    ]


def _listed(rows: Sequence[Sequence[Node]], count: int, what: str) -> Node:
    first = f", the first {_LISTED}" if count > _LISTED else ""
    return folded(f"{count:,} {what}{first}", table(rows, what, text_columns=len(rows[0])))


def _none() -> Markup:
    return element("p", "None found.", class_="faint")


def _environment(record: RunRecord) -> Node:
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


def _warning(text: str) -> Markup:
    return element("p", element("strong", "Warning. "), text, class_="warning")


def _percents(interval: Interval) -> str:
    return f"{interval.low:.1%} to {interval.high:.1%}"


def _shares(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"
