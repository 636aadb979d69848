"""The model card of a run: what the model is, what it was made of, what it is for.

Mitchell et al., Model cards for model reporting, FAccT 2019.
"""

from branches.registry import BRANCHES
from configs.schema import ExperimentConfig
from ensemble.metrics.calibration import FITTED_ON, Calibration
from ensemble.metrics.rendering import as_markdown
from ensemble.metrics.report import Report
from ensemble.metrics.report_sections import score_table
from ensemble.metrics.sections import Facts, Markdown, Section, Table

_USE = """\
Meant for research and teaching on images like those it was trained on: one class for each
image, with a probability for each class, for a person to weigh.

Not meant for decisions about people, nor for images of people who do not know of it."""

_LIMITS = """\
- The metrics above hold for the evaluated images. Other cameras, poses, ages, skin tones and
  cultures may fare worse, which `python -m ensemble.evaluate RUN --data OTHER` measures.
- A probability is the model's own estimate. What belongs to no class is given one all the same;
  `--min-confidence` makes doubtful predictions `uncertain`.
- Where the classes are expressions: a face shows an expression, not a feeling. The same face is
  read differently by different people, and labels are what some of them read (Barrett et al.,
  Emotional expressions reconsidered, Psychological Science in the Public Interest 20, 2019).
- Heat maps show what influenced the prediction, not whether it is correct."""

_LAW = """\
Where the model is used to infer emotions of people, law may forbid or bind it. In the European
Union, Regulation (EU) 2024/1689 (AI Act):

- Art. 5(1)(f) prohibits systems that infer emotions at the workplace and in education, except
  for medical or safety reasons;
- Annex III, point 1(c), counts other emotion recognition among the high-risk uses;
- Art. 50(3) requires that people who are exposed to it be informed.

Pictures of faces are personal data (GDPR). Other countries have rules of their own. This is a
pointer, not legal advice."""


def write_card(config: ExperimentConfig, report: Report) -> str:
    """Returns the model card of a trained ensemble, as Markdown.

    Args:
        config: The settings that made it, with the weights that were used.
        report: Its evaluation on the validation images.
    """
    size = config.data.image_size
    intro = (
        f"`model.keras` classifies an image into one of {len(report.classes)} classes. It takes "
        f"RGB images of {size} x {size} pixels, values 0 to 255; scaling is inside."
    )
    sections = [
        Section("Classes", [_classes(config, report)]),
        _metric_section(report),
        Section("Confidence", [_confidence(report.calibration)]),
        Section("Data and model", [Facts(report.facts)]),
        Section("Faces", [_faces(config)]),
        _weights(config),
        Section("Intended use", [Markdown(_USE)]),
        Section("Limits", [Markdown(_LIMITS)]),
        Section("Law", [Markdown(_LAW)]),
    ]
    card = Section(f"Model card: {report.subject}", [Markdown(intro), *sections])
    return as_markdown([card], level=1) + "\n"


def _classes(config: ExperimentConfig, report: Report) -> str:
    text = f"In this order: {', '.join(report.classes)}."
    merged = [f"{name} is {', '.join(parts)}" for name, parts in config.data.merge.items()]
    return f"{text} Merged: {'; '.join(merged)}." if merged else text


def _metric_section(report: Report) -> Section:
    rows = [
        [scores.name, f"{scores.recall:.1%}", f"{scores.f1:.3f}", str(scores.support)]
        for scores in report.metrics.per_class
    ]
    text = "On validation images, which selected the epoch; report.md holds more."
    table = Table(["Class", "Recall", "F1", "Images"], rows)
    return Section("Metrics", [text, score_table(report.metrics), table, *report.warnings])


def _confidence(calibration: Calibration) -> str:
    before, after = calibration.before, calibration.after
    if not calibration.fitted:
        return (
            "The probabilities are not calibrated. Their expected calibration error, the mean "
            f"distance of confidence and accuracy, is {after.ece:.3f} on validation images."
        )
    return (
        f"Calibrated: the logits are divided by a temperature of {calibration.temperature:.3f}, "
        f"fitted on {FITTED_ON} images (Guo et al., On calibration of modern neural networks, "
        "ICML 2017). It changes the expected calibration error, the mean distance of confidence "
        f"and accuracy, from {before.ece:.3f} to {after.ece:.3f} on the same images; on other "
        "images it may be larger."
    )


def _faces(config: ExperimentConfig) -> str:
    faces = config.data.faces
    if faces.detector == "none":
        return "Trained on whole images; crop photos of people to the face first."
    return f"Trained on the largest face of each photo, found by {faces.detector}."


def _weights(config: ExperimentConfig) -> Section:
    rows = []
    for branch in config.model.branches:
        spec = BRANCHES.get(branch.backbone)
        source = config.model.weights_of(branch.label)
        terms = {"random": "none, trained from random weights", "imagenet": spec.weights_licence}
        licence = terms.get(source, "those of the file's owner") or "unknown"
        rows.append([branch.label, source, licence, spec.reference])
    table = Table(["Branch", "Weights", "Licence of the weights", "Reference"], rows, 4)
    note = "The terms of ImageNet's images, and of the data above, apply as well."
    return Section("Weights", [table, note])
