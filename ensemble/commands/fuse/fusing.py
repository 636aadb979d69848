"""Finished runs fused into one run, whose model is an ensemble like any other."""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from branches.builder import freeze
from branches.checksums import architecture_checksum, weights_checksum
from configs.errors import RunError
from ensemble.commands.compare.candidates import FUSION_FILE
from ensemble.commands.fuse.rules import Mean, Method, Rule, fit_rule, predict_out_of_fold
from ensemble.data.loading import Split
from ensemble.data.reading import inspect
from ensemble.metrics.calibration import calibrate
from ensemble.metrics.comparison import Comparison, compare
from ensemble.metrics.evaluating import recorded_majority, write_report
from ensemble.metrics.predictions import Predictions, read_predictions
from ensemble.metrics.report import Report
from ensemble.metrics.report_sections import summarize
from ensemble.model.composition import MultiBranchModel, compose
from ensemble.model.layers import class_probabilities, mean_logits
from ensemble.runs.environment import describe_environment
from ensemble.runs.recorded_split import recorded_split
from ensemble.runs.records import save_model
from ensemble.runs.run import Run

log = logging.getLogger(__name__)

_HEADER = f"# Settings of the first of the runs that are fused; {FUSION_FILE} names all of them.\n"


@dataclass(frozen=True)
class FuseResult:
    """The result of a late fusion.

    Args:
        run: The folder that holds everything.
        ensemble: The fused model.
        report: On the validation images; of a rule that was fitted, out of fold.
        best: Name of the most accurate member.
        over_best: The fused model compared with that member.
    """

    run: Run
    ensemble: MultiBranchModel
    report: Report
    best: str
    over_best: Comparison

    def summary(self) -> str:
        """Returns the metrics, the comparison with the best member and the run folder, as lines."""
        return (
            f"{summarize(self.report)}\n"
            f"Against {self.best}, the best member: {self.over_best}\n"
            f"{self.run.folder}/ holds model.keras, report.md, confusion.png and more"
        )


def fuse_runs(
    runs: Sequence[Run], method: Method, *, output: Path | None = None, name: str | None = None
) -> FuseResult:
    """Fuses the predictions of finished runs into one model and writes a run folder.

    Args:
        runs: Two or more, of the same classes, images and image size.
        method: "average", "weighted" or "stacking"; see `ensemble.commands.fuse.rules`.
        output: Folder in which the run is kept; None: that of the first run's settings.
        name: Of the run's folder; None: data, method and time.

    Raises:
        RunError: If there are too few runs or they do not go together.
        DataError: If the images are not available, or too few to fit the rule.
    """
    first = runs[0]
    config = first.config.model_copy(update={"name": name})
    config = config.model_copy(update={"output": output}) if output else config
    Run.check_name(config)
    _check_same_images(runs)
    classes = read_predictions(first.folder).classes
    recorded = recorded_split(first, "validation", classes)
    log.info("%s", recorded.facts["Split"])
    split = inspect(recorded.split, config.data.image_size).readable
    probabilities = _read_probabilities(runs, classes, split)
    out_of_fold = predict_out_of_fold(
        method,
        probabilities,
        split.labels,
        classes=classes,
        groups=split.groups,
        seed=config.seed,
    )
    rule = fit_rule(method, probabilities, split.labels)
    temperature, calibrated = calibrate(split.labels, out_of_fold, fit=config.training.calibrate)
    fused = fuse_models([run.load_model() for run in runs], rule)
    ensemble = fused.with_temperature(temperature)

    run = Run.create(config, f"{recorded.name}-{method}-of-{len(runs)}")
    run.write("config.yaml", _HEADER + (run.folder / "config.yaml").read_text("utf-8"))
    run.write_json(FUSION_FILE, _record(run, runs, method, rule, ensemble))
    environment = {**describe_environment(), "seed": config.seed}
    run.write_json("environment.json", environment)
    run.save("split.csv", lambda path: shutil.copyfile(first.folder / "split.csv", path))
    members = [member.name for member in runs]
    save_model(run, ensemble, environment, data=recorded.name, method=method, members=members)
    report = Report(
        f"{run.name} on {recorded.name}, validation",
        Predictions(classes, split.names, split.labels, calibrated),
        majority=recorded_majority(first, classes),
        temperature=temperature,
        same_images=True,
        facts=_facts(runs, method, rule),
    )
    write_report(run, report, split, config.data.image_size)
    hits = [float(np.mean(member.argmax(axis=1) == split.labels)) for member in probabilities]
    best = int(np.argmax(hits))
    over_best = compare(split.labels, probabilities[best].argmax(axis=1), calibrated.argmax(axis=1))
    return FuseResult(run, ensemble, report, runs[best].name, over_best)


def fuse_models(members: Sequence[MultiBranchModel], rule: Rule) -> MultiBranchModel:
    """Composes models into one, which combines their probabilities by a rule.

    A branch that several members share, with the same weights, runs once.

    Args:
        members: Models of the same classes and image size.
        rule: Of as many models and classes.

    Returns:
        An ensemble: its extractor has the members' branches, its classifier the
        members' classifiers and the rule after them.
    """
    image = keras.Input(members[0].extractor.input_shape[1:], name="image")
    maps: dict[str, Any] = {}
    known: dict[tuple[str, ...], str] = {}
    readers = []  # for each member, its own label of a branch to the label here
    for member in members:
        labels = {}
        for label, feature_map in member.extractor.output.items():
            branch = keras.Model(member.extractor.inputs, feature_map)
            identity = (
                architecture_checksum(branch),
                weights_checksum(branch),
                str(feature_map.shape),
            )
            if identity not in known:
                known[identity] = _free_label(label, maps)
                branch.name = known[identity].replace(":", "_")
                maps[known[identity]] = branch(image)
            labels[label] = known[identity]
        readers.append(labels)
    extractor = freeze(keras.Model(image, maps, name="extractor"))

    inputs = {label: keras.Input(m.shape[1:], name=label) for label, m in extractor.output.items()}
    outputs = []
    for number, (member, labels) in enumerate(zip(members, readers, strict=True), start=1):
        own = member.classifier
        classifier = keras.Model(own.input, own.output, name=f"member_{number}")
        outputs.append(classifier({name: inputs[label] for name, label in labels.items()}))
    logits = _apply(rule, outputs)
    classifier = keras.Model(inputs, class_probabilities(logits), name="classifier")
    return compose(extractor, classifier, members[0].classes)


def _apply(rule: Rule, outputs: list[Any]) -> Any:
    if isinstance(rule, Mean):
        return mean_logits(outputs, rule.weights.tolist())
    dense = keras.layers.Dense(len(rule.bias), dtype="float32", name="stacking")
    logits = dense(keras.layers.Concatenate(name="member_probabilities")(outputs))
    dense.set_weights([rule.kernel, rule.bias])
    return logits


def _free_label(label: str, taken: dict[str, Any]) -> str:
    number, free = 1, label
    while free in taken:
        number += 1
        free = f"{label}_{number}" if ":" in label else f"{label}:{number}"
    return free


def _check_same_images(runs: Sequence[Run]) -> None:
    if len(runs) < 2:
        raise RunError(f"A fusion needs two runs at least. Received: {runs[0].folder}.")
    first = runs[0].config.data
    for run in runs[1:]:
        data = run.config.data
        for what, own, other in (
            ("image size", data.image_size, first.image_size),
            ("face detection", data.faces, first.faces),
        ):
            if own != other:
                raise RunError(
                    f"{run.folder} has another {what} than {runs[0].folder}: {own} and not "
                    f"{other}. Fuse runs that see the same images."
                )


def _read_probabilities(runs: Sequence[Run], classes: Sequence[str], split: Split) -> np.ndarray:
    """Returns what the runs predict for the images of a split, shape `(runs, n, c)`."""
    digests = read_predictions(runs[0].folder).digests
    nothing = np.zeros((len(split), len(classes)))
    wanted = Predictions(classes, split.names, split.labels, nothing, digests)
    found = []
    for run in runs:
        predictions = read_predictions(run.folder)
        if predictions.classes != classes:
            raise RunError(
                f"{run.folder} has the classes {', '.join(predictions.classes)} and "
                f"{runs[0].folder} has {', '.join(classes)}. Fuse runs of the same classes in the "
                "same order."
            )
        arranged = predictions.arranged_as(wanted)
        if arranged is None:
            raise RunError(
                f"{run.folder} was not validated on the images of {runs[0].folder} as they are "
                f"now. Train both on one split, as --labels {runs[0].folder / 'split.csv'} does."
            )
        found.append(arranged.probabilities)
    return np.stack(found)


def _record(
    run: Run, runs: Sequence[Run], method: Method, rule: Rule, ensemble: MultiBranchModel
) -> dict[str, Any]:
    start = run.folder.resolve()
    return {
        "method": method,
        "members": [os.path.relpath(member.folder.resolve(), start) for member in runs],
        "branches": list(ensemble.extractor.output),
        **{name: values.tolist() for name, values in vars(rule).items()},
    }


def _facts(runs: Sequence[Run], method: Method, rule: Rule) -> dict[str, str]:
    facts = {"Late fusion": f"{method} of {', '.join(run.name for run in runs)}"}
    if isinstance(rule, Mean):
        facts["Weights"] = ", ".join(f"{weight:.3f}" for weight in rule.weights)
    if method != "average":
        facts["Evaluated"] = (
            "out of fold: each image by a rule fitted without it. The rule in model.keras was "
            "fitted on all of these images; its scores on them would be optimistic"
        )
    return facts
