"""Evaluation of a run's model on labelled images, and the files of its report."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from configs.errors import DataError
from configs.schema import DataConfig
from ensemble.data.inspection import log_problems
from ensemble.data.leakage import DUPLICATE_COLUMNS, duplicate_rows
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
from ensemble.runs.recorded_split import RecordedSplit, read_split_rows, recorded_split
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
    classes: Sequence[str] = ensemble.classes
    if data is None:
        part = part or "validation"
        images = _own_images(run, part, classes)
    else:
        labelled = _read_other(run, data, classes, shared)
        part, classes = part or _best_part(labelled), labelled.classes
        images = _other_images(run, labelled, part)
    source = data or run.config.data
    cells = read_column(locate(source), group) if group else {}
    inspection = _inspect(images, part, ensemble.image_size)
    readable = inspection.readable
    probabilities = predict_split(ensemble, readable, flip=flip)
    facts = dict(images.facts)
    if flip:
        facts["Predictions"] = "mean over each image and its mirror image"
    if shared is not None:
        facts["Shared classes"] = describe_restriction(
            probabilities, readable.labels, ensemble.classes, classes
        )
        probabilities = restrict(probabilities, ensemble.classes, classes)
    predictions = Predictions(classes, readable.names, readable.labels, probabilities)
    report = Report(
        f"{run.name} on {images.name}, {part}" + (", with mirror images" if flip else ""),
        predictions,
        majority=recorded_majority(run, classes),
        temperature=ensemble.temperature,
        same_images=data is None and part == "validation",
        facts=facts,
        problems=[*images.problems, *inspection.problems],
        groups=_group(predictions, group, cells, images.current) if group else None,
        trained_on=recorded_trained_on(run, part, readable.names)
        if data is None
        else find_trained_on(run, inspection, ensemble.image_size, ensemble.classes),
    )
    options = (data is None, part, flip, shared, group)
    source = source.model_copy(update={"faces": run.config.data.faces})
    digest = _digest_inputs(inspection, images.problems, source, options)
    kinds = f"{'-shared' if shared else ''}{'-flip' if flip else ''}"
    folder = f"evaluations/{images.name}-{part}{kinds}-{digest}"
    write_report(run, report, readable, ensemble.image_size, folder)
    if report.trained_on.duplicates:
        rows = duplicate_rows(report.trained_on.duplicates)
        run.write_table(f"{folder}/duplicates.csv", DUPLICATE_COLUMNS, rows)
    return report, folder


def _inspect(images: RecordedSplit, part: str, image_size: int) -> Inspection:
    """Reads all images once; raises DataError where there is nothing to evaluate."""
    if not len(images.split):
        raise DataError(
            f"{images.name} has no {part} images. Choose another --split or leave it out."
        )
    inspection = inspect(images.split, image_size)
    if not len(inspection.readable):
        raise DataError(
            f"None of the {len(images.split)} images of {images.name}, {part}, can be read."
        )
    return inspection


def _own_images(run: Run, part: str, classes: Sequence[str]) -> RecordedSplit:
    if part == "all":
        raise DataError("A run's own data has train, validation and test images. Choose one split.")
    recorded = recorded_split(run, part, classes)
    log.info("%s", recorded.facts["Split"])
    return recorded


def _read_other(
    run: Run,
    data: DataConfig,
    classes: Sequence[str],
    shared: Mapping[str, Sequence[str]] | None,
) -> Labelled:
    labelled = load_labelled(
        locate(data),
        source=data.source,
        classes=classes,
        merge=data.merge or run.config.data.merge,
        shared=shared,
    )
    for note in labelled.notes:
        log.info("%s", note)
    log_problems(labelled.problems, "; all are in report.json")
    return labelled


def _other_images(run: Run, labelled: Labelled, part: str) -> RecordedSplit:
    split = labelled.select(part)
    notes = {"Labels": "; ".join(labelled.notes)} if labelled.notes else {}
    return RecordedSplit(
        labelled.name,
        replace(split, images=face_images(split.images, run.config.data.faces)),
        current={},
        problems=labelled.problems,
        facts={**labelled.facts, **notes},
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


def recorded_majority(run: Run, classes: Sequence[str]) -> str:
    """Returns the majority class of a run's training images.

    Raises:
        RunError: If the run's split cannot be read.
    """
    counts = Counter(row["label"] for row in read_split_rows(run, "train"))
    return majority_class(classes, [counts[name] for name in classes])


def _best_part(labelled: Labelled) -> str:
    return next((part for part in ("test", "validation") if part in labelled.parts), "all")
