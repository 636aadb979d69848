"""The parts of a page about one run, in their order."""

from collections.abc import Iterator
from pathlib import Path

from ensemble.commands.report.charts import draw_epochs
from ensemble.commands.report.elements import Node, element, folded, scroll
from ensemble.commands.report.judgements import describe_details, describe_figures
from ensemble.commands.report.markdown import to_html
from ensemble.commands.report.origins import describe_data, describe_environment, describe_facts
from ensemble.commands.report.pictures import read_picture, read_pictures
from ensemble.commands.report.reading import Judgement, RunRecord
from ensemble.plots.pictures import MOST_ERRORS


def describe_run(record: RunRecord) -> Iterator[tuple[str, Node]]:
    """Yields heading and content of each section of a run."""
    candidate, judgement = record.candidate, record.judgement
    yield "Figures", describe_figures(judgement)
    if candidate.history:
        yield "Training", _training(record)
    yield from describe_details(judgement)
    yield "Worst mistakes", _mistakes(record)
    for evaluation in record.evaluations:
        yield f"On other images: {evaluation.folder.name}", _evaluation(evaluation)
    yield "Data and model", describe_data(record)
    yield "Settings and environment", describe_environment(record)
    if record.card is not None:
        yield (
            "Model card",
            folded(
                "What it is, what it is for, limits and law",
                scroll(to_html(record.card), "Model card"),
            ),
        )


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
    addresses = read_pictures(record.candidate.run, answers.classes, names)
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
    details = [[element("h3", name), content] for name, content in describe_details(judgement)]
    mistakes = [element("h3", "Worst mistakes"), _error_sheet(judgement.folder)]
    return [
        describe_figures(judgement),
        describe_facts(judgement.facts),
        folded("Classes, confusion and mistakes", details, mistakes),
    ]
