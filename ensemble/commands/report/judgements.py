"""A report's figures on a page: headline, classes, confusion, calibration, groups."""

from collections.abc import Iterator

from ensemble.commands.report.charts import draw_interval, draw_reliability
from ensemble.commands.report.elements import Markup, Node, element, scroll, table, warning
from ensemble.commands.report.reading import Judgement
from ensemble.commands.report.wording import percents, shares
from ensemble.metrics.calibration import FITTED_ON, Calibration
from ensemble.metrics.groups import GroupReport, describe_gaps
from ensemble.metrics.intervals import METHOD, Interval
from ensemble.metrics.metrics import Metrics, Scores


def describe_figures(judgement: Judgement) -> Node:
    """Returns the headline: warnings, then figures with intervals, and what they are of."""
    metrics, intervals, baseline = (
        judgement.metrics,
        judgement.intervals,
        judgement.metrics.baseline,
    )
    scores = (
        ("Accuracy", metrics.accuracy, intervals.accuracy),
        ("Balanced accuracy", metrics.balanced_accuracy, intervals.balanced_accuracy),
        ("Macro-F1", metrics.macro.f1, intervals.macro_f1),
    )
    majority = (
        (baseline.accuracy, baseline.balanced_accuracy, baseline.macro_f1)
        if baseline
        else (None, None, None)
    )
    tiles = [_tile(*score, other) for score, other in zip(scores, majority, strict=True)]
    more = [f"{metrics.images:,} images", f"log loss {metrics.log_loss:.3f} nats"]
    if metrics.top2_accuracy is not None:
        more.insert(1, f"top-2 accuracy {metrics.top2_accuracy:.2%}")
    text = (
        f"{judgement.subject}: {', '.join(more)}. {METHOD}. They describe what other images of the "
        "same kind would change, not what another seed would."
    )
    if baseline:
        text += (
            f" The dashed line is what always answering {baseline.name} scores, the most frequent "
            "class in training."
        )
    return [
        [warning(line) for line in judgement.warnings],
        element("div", tiles, class_="tiles"),
        element("p", text, class_="faint"),
    ]


def _tile(name: str, value: float, interval: Interval, baseline: float | None) -> Markup:
    return element(
        "div",
        element("span", name, class_="name"),
        element("strong", f"{value:.2%}"),
        draw_interval(value, interval.low, interval.high, reference=baseline),
        element("span", f"95 %: {percents(interval)}"),
        None
        if baseline is None
        else element("span", f"majority class: {baseline:.2%}", class_="faint"),
        class_="tile",
    )


def describe_details(judgement: Judgement) -> Iterator[tuple[str, Node]]:
    """Yields heading and content of what is told of the classes, confidences and groups."""
    yield "Classes", _classes(judgement)
    yield "Confusion", _confusion(judgement)
    yield "Calibration", _calibration(judgement.calibration)
    if judgement.groups:
        yield "Groups", _groups(judgement.groups)


def _classes(judgement: Judgement) -> Node:
    metrics, intervals = judgement.metrics, judgement.intervals
    header: list[Node] = ["Class", "", "F1", "95 % of F1"]
    rows = [[*header, "Precision", "Recall", "95 % of recall", "Images"]]
    for scores, f1, recall in zip(
        metrics.per_class, intervals.class_f1, intervals.class_recall, strict=True
    ):
        chart = draw_interval(scores.f1, f1.low, f1.high)
        row: list[Node] = [scores.name, chart, f"{scores.f1:.3f}", shares(f1)]
        row += [f"{scores.precision:.3f}", f"{scores.recall:.3f}", shares(recall)]
        rows.append([*row, f"{scores.support:,}"])
    mean = draw_interval(metrics.macro.f1, intervals.macro_f1.low, intervals.macro_f1.high)
    rows.append(_average("macro average", metrics, metrics.macro, mean, intervals.macro_f1))
    rows.append(_average("weighted average", metrics, metrics.weighted))
    return table(rows, "Precision, recall and F1 of each class", class_="charted")


def _average(
    name: str,
    metrics: Metrics,
    mean: Scores,
    chart: Node = None,
    interval: Interval | None = None,
) -> list[Node]:
    text = shares(interval) if interval else ""
    row: list[Node] = [element("em", name), chart, f"{mean.f1:.3f}", text]
    return [*row, f"{mean.precision:.3f}", f"{mean.recall:.3f}", "", f"{metrics.images:,}"]


def _confusion(judgement: Judgement) -> Node:
    names = judgement.classes
    header = [element("td", "true \\ predicted", class_="faint")]
    header += [element("th", element("span", name), scope="col", title=name) for name in names]
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
        rows.append(element("tr", element("th", name, scope="row", title=name), cells))
    matrix = element(
        "table",
        element("thead", element("tr", header)),
        element("tbody", rows),
        class_="confusion",
    )
    note = "Numbers of images; a row is a true class, a fuller colour a larger share of it."
    return [scroll(matrix, "Confusion matrix"), element("p", note, class_="faint")]


def _calibration(calibration: Calibration) -> Node:
    fitted, before, after = calibration.fitted, calibration.before, calibration.after
    rows: list[list[Node]] = [["", "Before", "After"] if fitted else ["", "Model"]]
    for name, without, with_it in (
        ("Expected calibration error", before.ece, after.ece),
        ("Log loss (nats)", before.nll, after.nll),
        ("Brier score", before.brier, after.brier),
    ):
        rows.append([name, *([f"{without:.4f}"] if fitted else []), f"{with_it:.4f}"])
    name = "Area under the risk-coverage curve"
    rows.append([name, *([""] if fitted else []), f"{calibration.aurc:.4f}"])
    text = "No temperature was fitted: confidences are the model's own."
    if fitted:
        text = (
            f"Logits are divided by the temperature {calibration.temperature:.3f}, fitted on "
            f"{FITTED_ON} images, which moves confidences and no answer."
        )
    if calibration.same_images:
        text += " It was fitted on the very images that are judged here, which flatters it."
    chart = draw_reliability(calibration.bins, calibration.bins_before if fitted else ())
    return [
        element("p", text),
        element(
            "div",
            element("div", chart, class_="square"),
            table(rows, "Calibration"),
            class_="pair",
        ),
    ]


def _groups(report: GroupReport) -> Node:
    rows: list[list[Node]] = [[report.column, "", "Accuracy", "95 %", "Macro-F1", "95 %", "Images"]]
    for group in report.groups:
        first, second = group.accuracy_interval, group.macro_f1_interval
        row: list[Node] = [
            group.name,
            draw_interval(group.accuracy, first.low, first.high),
            f"{group.accuracy:.2%}",
            percents(first),
        ]
        rows.append([*row, f"{group.macro_f1:.3f}", shares(second), f"{group.images:,}"])
    return [
        table(rows, "Figures by group", class_="charted"),
        element("p", describe_gaps(report)),
    ]
