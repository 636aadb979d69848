"""The sections of a page about one run, read from its files."""

import base64
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs.errors import RunError, UserError
from ensemble.commands.compare.candidates import Candidate
from ensemble.data.decoding import ImageError, decode
from ensemble.data.leakage import DUPLICATE_COLUMNS, duplicate_rows
from ensemble.metrics.report import Report
from ensemble.metrics.report_sections import learning_curves, report_sections, worst_mistakes
from ensemble.metrics.sections import Block, Facts, Markdown, Section, Table
from ensemble.plots.pictures import MAX_ERRORS
from ensemble.runs.recorded_split import read_duplicates, recorded_split
from ensemble.runs.run import Run
from ensemble.system.text import plural

_LARGEST = 160  # pixels of a picture
_MAX_ROWS = 50  # of a long list; the run's files hold all of them
_FENCE = "~" * 12


def run_sections(candidate: Candidate) -> list[Section]:
    """Returns the sections of a run.

    Raises:
        RunError: If a file of the run is damaged.
    """
    run, report = candidate.run, Report.read(candidate.run.folder)
    pictures = _pictures(run, report)
    sections = report_sections(report, pictures, learning_curves(report, candidate.epochs))
    for path in sorted(run.folder.glob("evaluations/*/report.json")):
        sections.append(_evaluation(path.parent.name, Run(path.parent)))
    sections += [
        *_image_counts(run, report.classes),
        *_duplicates(run),
        Section("Settings and environment", list(_origin(run))),
    ]
    if _has(run, "card.md"):
        card = Section(
            "What it is, use, limits and law", [Markdown(_read_text(run, "card.md"))], folded=True
        )
        sections.append(Section("Model card", [card]))
    return sections


def _pictures(run: Run, report: Report) -> Block:
    """Returns the worst mistakes, or the file that shows them where the images are gone."""
    size = min(run.config.data.image_size, _LARGEST)
    names = [report.predictions.names[index] for index in report.predictions.worst(MAX_ERRORS)]
    try:
        images = recorded_split(run, "validation", report.classes).split.images
        return worst_mistakes(report, [decode(images.read(name), size) for name in names])
    except (UserError, ImageError, OSError, KeyError):
        return _error_sheet(run)


def _error_sheet(run: Run) -> Block:
    if not _has(run, "errors.png"):
        return "The images are no longer where they were."
    content = base64.b64encode((run.folder / "errors.png").read_bytes()).decode("ascii")
    return Markdown(f"![The most confident mistakes](data:image/png;base64,{content})")


def _evaluation(name: str, folder: Run) -> Section:
    report = Report.read(folder.folder)
    metrics, *details = report_sections(report, _error_sheet(folder))
    folded = Section("Classes, confusion and mistakes", details, folded=True)
    return Section(f"On other images: {name}", [report.subject, *metrics.blocks, folded])


def _image_counts(run: Run, classes: Sequence[str]) -> Iterator[Section]:
    if not _has(run, "split.csv"):
        return
    rows = run.read_table("split.csv")
    counts = Counter((row.get("split"), row.get("label")) for row in rows)
    parts = [part for part in ("train", "validation", "test") if any(p == part for p, _ in counts)]
    numbers = {name: [counts[part, name] for part in parts] for name in classes}
    numbers["all"] = [sum(counts[part, name] for name in classes) for part in parts]
    cells = [[name, *(f"{n:,}" for n in [*row, sum(row)])] for name, row in numbers.items()]
    yield Section("Images of each class", [Table(["Class", *parts, "all"], cells)])


def _duplicates(run: Run) -> Iterator[Section]:
    duplicates = read_duplicates(run)
    if not duplicates:
        return
    kinds = Counter(
        (duplicate.split, duplicate.other_split, duplicate.kind) for duplicate in duplicates
    )
    counts = [f"{n:,} of {one} in {other} too ({kind})" for (one, other, kind), n in kinds.items()]
    rows = [list(row) for row in duplicate_rows(duplicates[:_MAX_ROWS])]
    table = Table(DUPLICATE_COLUMNS, rows, len(DUPLICATE_COLUMNS))
    first = f", the first {_MAX_ROWS}" if len(duplicates) > _MAX_ROWS else ""
    folded = Section(f"{plural(len(duplicates), 'duplicate')}{first}", [table], folded=True)
    yield Section("In several splits", [f"{'; '.join(counts)}.", folded])


def _origin(run: Run) -> Iterator[Section]:
    settings = Markdown(f"{_FENCE}\n{_read_text(run, 'config.yaml')}\n{_FENCE}")
    yield Section("Settings", [settings], folded=True)
    if _has(run, "environment.json"):
        environment = Facts(_plain(run.read_json("environment.json")))
        yield Section("Environment", [environment], folded=True)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record whose values are texts and records."""

    def show(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _plain(value)
        if isinstance(value, list):
            words = list(map(str, value))
            return shlex.join(words) if name == "command" else ", ".join(words)
        return value if isinstance(value, str) else json.dumps(value)

    return {name: show(name, value) for name, value in values.items()}


def _has(run: Run, name: str) -> bool:
    return (run.folder / name).is_file()


def _read_text(run: Run, name: str) -> str:
    path = run.folder / name
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}).") from error
