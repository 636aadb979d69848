"""Evaluation of a run's model on labelled images, and the files of its report."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from configs.errors import DataError, RunError
from configs.schema import DataConfig
from ensemble.data.inspection import log_problems
from ensemble.data.leakage import REPEAT_COLUMNS, repeat_rows
from ensemble.data.loading import Labelled, Split, load_labelled, locate
from ensemble.data.reading import Inspection, inspect, read_image, stream
from ensemble.data.registry import Problem
from ensemble.data.sources.manifest import read_column
from ensemble.faces.store import face_images
from ensemble.metrics.groups import GroupReport, measure_groups
from ensemble.metrics.metrics import majority_class
from ensemble.metrics.predictions import Predictions
from ensemble.metrics.rendering import as_markdown, escape
from ensemble.metrics.report import Report
from ensemble.metrics.report_sections import learning_curves, report_sections, worst_mistakes
from ensemble.metrics.sections import find_figures
from ensemble.metrics.shared_classes import describe_restriction, restrict
from ensemble.metrics.trained_on import find_trained_on, recorded_trained_on
from ensemble.model.composition import MultiBranchModel
from ensemble.plots.figures import png
from ensemble.plots.pictures import MAX_ERRORS
from ensemble.runs.epochs import read_epochs
from ensemble.runs.recorded_split import recorded_split
from ensemble.runs.run import Run
from ensemble.system.progress import progress_bar

log = logging.getLogger(__name__)

_BATCH = 64  # images at a time


def evaluate_run(
    run: Run,
    data: DataConfig | None = None,
    *,
    part: str | None = None,
    flip: bool = False,
    shared: Mapping[str, Sequence[str]] | None = None,
    group: str | None = None,
) -> tuple[Report, str]:
    """Evaluates a run's model on labelled images and writes the report into the run.

    Args:
        run: A finished run.
        data: Where the images are and which classes are merged; None for the
            images that the run was made with.
        part: "train", "validation", "test" or "all". None: for the run's own data the validation
            images; for other data the test images, else the validation images,
            else all.
        flip: Whether probabilities are means over an image and its mirror image.
        shared: Class of the model to the labels of other data that mean it; classes that
            the data lacks are then left out. None: it must have all of them.
        group: Column of the data's table by which metrics are grouped too; None: none.

    Returns:
        The report, and the name of its folder in the run.

    Raises:
        DataError: If the images are not available or lack the model's classes, or no table
            with such a column names them.
        RunError: If the run is damaged.
    """
    ensemble = run.load_model()
    images = (
        _own_images(run, part or "validation", ensemble.classes)
        if data is None
        else _other_images(run, data, part, ensemble.classes, shared)
    )
    if not len(images.split):
        raise DataError(
            f"{images.name} has no {images.part} images. Choose another --split or leave it out."
        )
    source = data or run.config.data
    cells = read_column(locate(source), group) if group else {}

    inspection = inspect(images.split, ensemble.image_size)
    readable = inspection.readable
    if not len(readable):
        raise DataError(
            f"None of the {len(images.split)} images of {images.name}, {images.part}, can be read."
        )
    probabilities = predict_split(ensemble, readable, flip=flip)
    facts = dict(images.facts)
    if flip:
        facts["Predictions"] = "mean over each image and its mirror image"
    if shared is not None:
        facts["Shared classes"] = describe_restriction(
            probabilities, readable.labels, ensemble.classes, images.classes
        )
        probabilities = restrict(probabilities, ensemble.classes, images.classes)
    predictions = Predictions(images.classes, readable.names, readable.labels, probabilities)
    report = Report(
        f"{run.name} on {images.name}, {images.part}" + (", with mirror images" if flip else ""),
        predictions,
        majority=majority_class(images.classes, training_counts(run, images.classes)),
        temperature=ensemble.temperature,
        same_images=data is None and images.part == "validation",
        facts=facts,
        problems=[*images.problems, *inspection.problems],
        groups=_group(predictions, group, cells, images.current) if group else None,
        trained_on=recorded_trained_on(run, images.part, readable.names)
        if data is None
        else find_trained_on(run, inspection, ensemble.image_size, ensemble.classes),
    )
    options = (data is None, images.part, flip, shared, group)
    source = source.model_copy(update={"faces": run.config.data.faces})
    digest = _digest_inputs(inspection, images.problems, source, options)
    folder = "-".join(
        [
            f"evaluations/{images.name}-{images.part}",
            *(["shared"] if shared else []),
            *(["flip"] if flip else []),
            digest,
        ]
    )
    write_report(run, report, readable, ensemble.image_size, folder)
    if report.trained_on.repeats:
        rows = repeat_rows(report.trained_on.repeats)
        run.write_table(f"{folder}/duplicates.csv", REPEAT_COLUMNS, rows)
    return report, folder


@dataclass(frozen=True, eq=False)
class _Images:
    """The images of an evaluation.

    Args:
        name: Short name of the data.
        part: "train", "validation", "test" or "all".
        classes: Evaluated classes, in the order of the model.
        split: The images.
        facts: Lines about the data: heading to text.
        problems: Images and rows that are left out, and why.
        current: Name in `split` to the name in the data, where they differ.
    """

    name: str
    part: str
    classes: Sequence[str]
    split: Split
    facts: Mapping[str, str]
    problems: Sequence[Problem]
    current: Mapping[str, str] = field(default_factory=dict)


def _own_images(run: Run, part: str, classes: Sequence[str]) -> _Images:
    if part == "all":
        raise DataError("A run's own data has train, validation and test images. Choose one split.")
    recorded = recorded_split(run, part, classes)
    log.info("%s", recorded.facts["Split"])
    return _Images(
        recorded.name,
        part,
        classes,
        recorded.split,
        recorded.facts,
        recorded.problems,
        recorded.current,
    )


def _other_images(
    run: Run,
    data: DataConfig,
    part: str | None,
    classes: Sequence[str],
    shared: Mapping[str, Sequence[str]] | None,
) -> _Images:
    config = run.config.data
    labelled = load_labelled(
        locate(data),
        source=data.source,
        classes=classes,
        merge=data.merge or config.merge,
        shared=shared,
    )
    for note in labelled.notes:
        log.info("%s", note)
    log_problems(labelled.problems, "; all are in report.json")
    notes = {"Labels": "; ".join(labelled.notes)} if labelled.notes else {}
    part = part or _best_part(labelled)
    split = labelled.select(part)
    return _Images(
        labelled.name,
        part,
        labelled.classes,
        replace(split, images=face_images(split.images, config.faces)),
        {**labelled.facts, **notes},
        labelled.problems,
    )


def _digest_inputs(
    inspection: Inspection, problems: Sequence[Problem], data: DataConfig, options: Sequence[object]
) -> str:
    """Returns a short digest of what an evaluation is made of, for the name of its folder."""
    settings = data.model_dump(mode="json", exclude={"root", "labels"})
    paths = [str(path.absolute()) if path else None for path in (data.labels, *data.root)]
    left_out = [problem.name for problem in (*problems, *inspection.problems)]
    split = inspection.readable
    digests = [digest.hex() for digest in inspection.digests]
    content = [settings, paths, options, left_out, split.names, split.labels.tolist(), digests]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _group(
    found: Predictions, column: str, cells: Mapping[str, str], current: Mapping[str, str]
) -> GroupReport:
    members = [cells.get(current.get(name, name), "") for name in found.names]
    if not any(members):
        raise DataError(f"The column {column!r} is empty for all evaluated images.")
    return measure_groups(column, members, found.labels, found.predicted, len(found.classes))


def predict_split(ensemble: MultiBranchModel, split: Split, *, flip: bool = False) -> np.ndarray:
    """Returns the composed model's probabilities, shape `(images, num_classes)`.

    Args:
        ensemble: The model.
        split: The images.
        flip: Whether to return the mean of the probabilities of each image and of
            its mirror image, which takes twice the time.
    """
    batches = []
    with progress_bar("Evaluating", len(split)) as bar:
        for _, pixels in stream(split, ensemble.image_size, batch_size=_BATCH):
            images = pixels.astype("float32")
            probabilities = ensemble(images)
            if flip:
                mirrored = np.ascontiguousarray(images[:, :, ::-1])
                probabilities = (probabilities + ensemble(mirrored)) / 2
            batches.append(probabilities)
            bar.update(len(images))
    return np.concatenate(batches)


def write_report(
    run: Run, report: Report, split: Split, image_size: int, folder: str = "."
) -> None:
    """Writes a report into a run: JSON, Markdown, CSV and figures.

    Args:
        run: The run.
        report: The report.
        split: The evaluated images, for pictures of the worst mistakes.
        image_size: Height and width of those pictures, in pixels.
        folder: Relative to the run's folder.
    """
    worst = report.predictions.worst(MAX_ERRORS)
    pictures = worst_mistakes(report, [read_image(split, index, image_size) for index in worst])
    sections = report_sections(report, pictures, learning_curves(report, read_epochs(run)))
    for figure in find_figures(sections):
        drawing = figure.plot(**figure.data, title=f"{figure.title}: {report.subject}")
        run.write(f"{folder}/{figure.name}.png", png(drawing))
    rows = zip(report.classes, report.metrics.confusion, strict=True)
    run.write_table(
        f"{folder}/confusion.csv", ["true", *report.classes], ([name, *row] for name, row in rows)
    )
    write_results(run, report, folder)
    run.write(f"{folder}/report.md", f"# {escape(report.subject)}\n\n{as_markdown(sections)}\n")


def write_results(run: Run, report: Report, folder: str = ".") -> None:
    """Writes what `Report.read` reads: `report.json` and `predictions.csv`."""
    found = report.predictions
    run.write_table(f"{folder}/predictions.csv", found.header(), found.rows())
    run.write(f"{folder}/report.json", report.as_json())


def training_counts(run: Run, classes: Sequence[str]) -> list[int]:
    """Returns the number of training images of each class.

    Raises:
        RunError: If the run's split cannot be read.
    """
    rows = run.read_table("split.csv")
    try:
        counts = Counter(row["label"] for row in rows if row["split"] == "train")
    except KeyError as error:
        raise RunError(f"{run.folder / 'split.csv'} has no column {error}.") from error
    return [counts[name] for name in classes]


def _best_part(labelled: Labelled) -> str:
    return next((part for part in ("test", "validation") if part in labelled.parts), "all")
