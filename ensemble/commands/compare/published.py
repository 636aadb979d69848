"""Published figures of the study, beside the runs of a comparison that are comparable with it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from configs.errors import DataError
from configs.files import load_yaml
from ensemble.commands.compare.candidates import Candidate
from ensemble.commands.compare.results import Result
from ensemble.commands.search.spaces import label
from ensemble.data.labels import share_classes
from ensemble.metrics.sections import Section, Table

_REPORT_SETTINGS = {"training.learning_rate": 1e-3, "training.epsilon": 1e-7}


def read_published() -> dict[str, Any]:
    """Returns the published figures; the file describes them."""
    path = resources.files("configs") / "published" / "study.yaml"
    return load_yaml(path.read_text("utf-8"))


def published_sections(results: Sequence[Result]) -> Iterator[Section]:
    """Yields the study's tables of which at least two rows were run, with our accuracies."""
    study = read_published()
    for table in study["tables"]:
        section = _table_section(study, table, results)
        if section is not None:
            yield section


def published_rows(results: Sequence[Result]) -> list[list[str]]:
    """Returns the study's scores of each class for settings that were run."""
    study, rows = read_published(), []
    for report in study["reports"]:
        settings = {
            **study["settings"],
            **_REPORT_SETTINGS,
            "model.head.kernel_initializer": report["initializer"],
        }
        if _matching(results, report["branch"], settings, study["classes"]):
            rates = [" / ".join(f"{rate:.2f}" for rate in rates) for rates in report["classes"]]
            name = f"the study: {report['branch']}, {report['initializer']}"
            rows.append([name, *rates, f"{report['accuracy']:.3f}"])
    return rows


def _table_section(
    study: Mapping[str, Any], table: Mapping[str, Any], results: Sequence[Result]
) -> Section | None:
    branches = study["branches"]
    header = [f"{part} {branch}" for part in ("training", "validation") for branch in branches]
    rows, matched = [], 0
    for row in table["rows"]:
        settings = {**study["settings"], **table["settings"], table["leaf"]: row["value"]}
        ours = [_matching(results, branch, settings, study["classes"]) for branch in branches]
        matched += any(ours)
        cells = [
            _beside(figure, [each.candidate.training_accuracy for each in found])
            for figure, found in zip(row["training"], ours, strict=True)
        ]
        cells += [
            _beside(figure, [each.metrics.accuracy for each in found])
            for figure, found in zip(row["validation"], ours, strict=True)
        ]
        rows.append([label(row["value"]), *cells])
    if matched < 2:
        return None
    note = (
        "Accuracy in %: the study's / ours, over several seeds with its standard deviation. "
        "Training accuracy is that of the best epoch. The study's are single runs."
    )
    shown = Table([table["leaf"].split(".")[-1], *header], rows)
    return Section(f"The study's {table['title']}", [shown, note])


def _matching(
    results: Sequence[Result], branch: str, settings: Mapping[str, Any], classes: Sequence[str]
) -> list[Result]:
    """Returns the candidates of the first setting that fits, one for each seed."""
    fitting = [
        each
        for each in results
        if each.candidate.branches == [branch]
        and _is_comparable(each.candidate, classes)
        and all(_equal(each.candidate.settings.get(path), v) for path, v in settings.items())
    ]
    return [each for each in fitting if each.candidate.setting == fitting[0].candidate.setting]


def _is_comparable(candidate: Candidate, published: Sequence[str]) -> bool:
    """Returns whether a run has the study's classes, photos and frozen, pretrained branches."""
    config, classes = candidate.config, candidate.predictions.classes
    try:
        shared = share_classes(classes, classes=published, mapping={}).names
    except DataError:
        return False
    return (
        len(classes) == len(shared) == len(published)
        and candidate.fusion is None
        and bool(config.data.root)
        and config.data.source != "demo"
        and not config.training.unfreeze
        and all(config.model.weights_of(name) != "random" for name in candidate.branches)
    )


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, float | int) and isinstance(second, float | int):
        return math.isclose(first, second, rel_tol=1e-6)
    return first == second


def _beside(published: float, ours: Sequence[float | None]) -> str:
    known = [100 * value for value in ours if value is not None]
    if not known:
        return f"{published:.2f} / -"
    deviation = f" +- {np.std(known, ddof=1):.2f}" if len(known) > 1 else ""
    return f"{published:.2f} / {np.mean(known):.2f}{deviation}"
