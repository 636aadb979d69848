"""The model card of a run: what the model is, what it was made of, what it is for.

Mitchell et al., Model cards for model reporting, FAccT 2019.
"""

from branches.registry import BRANCHES
from configs.schema import ExperimentConfig
from ensemble.metrics.calibration import FITTED_ON, Calibration
from ensemble.metrics.markdown import escape, table
from ensemble.metrics.report import Report

_USE = """\
Meant for research and teaching on images like those it was trained on: one answer for each
image, with a probability for each class, for a person to weigh.

Not meant for decisions about people, nor for images of people who do not know of it."""

_LIMITS = """\
- The figures above hold for the images that were judged. Other cameras, poses, ages, skin
  tones and cultures may fare worse, which `python -m ensemble.evaluate RUN --data OTHER` measures.
- A probability is the model's own estimate. What belongs to no class is given one all the same;
  `--min-confidence` makes doubtful answers `uncertain`.
- Where the classes are expressions: a face shows an expression, not a feeling. The same face is
  read differently by different people, and labels are what some of them read (Barrett et al.,
  Emotional expressions reconsidered, Psychological Science in the Public Interest 20, 2019).
- Heat maps show what moved the answer, not whether it is right."""

_LAW = """\
Where the model is used to infer emotions of people, law may forbid or bind it. In the European
Union, Regulation (EU) 2024/1689 (AI Act):

- Art. 5(1)(f) prohibits systems that infer emotions at the workplace and in education, except
  for medical or safety reasons;
- Annex III, point 1(c), counts other emotion recognition among the high-risk uses;
- Art. 50(3) asks that people who are exposed to it be told.

Pictures of faces are personal data (GDPR). Other countries have rules of their own. This is a
pointer, not legal advice."""


def write_card(config: ExperimentConfig, report: Report) -> str:
    """Returns the model card of a trained ensemble, as Markdown.

    Args:
        config: The settings that made it, with the weights that were used.
        report: Its answers on the validation images.
    """
    facts = "\n".join(f"- **{name}**: {escape(text)}" for name, text in report.facts.items())
    sections = {
        "Classes": _classes(config, report),
        "Figures": _figures(report),
        "Confidence": _confidence(report.calibration),
        "Data and model": facts,
        "Faces": _faces(config),
        "Weights": _weights(config),
        "Intended use": _USE,
        "Limits": _LIMITS,
        "Law": _LAW,
    }
    head = (
        f"# Model card: {escape(report.subject)}\n\n`model.keras` classifies an image into one of "
        f"{len(report.classes)} classes. It takes RGB images of {config.data.image_size} x "
        f"{config.data.image_size} pixels, values 0 to 255; scaling is inside."
    )
    return "\n\n".join([head, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def _classes(config: ExperimentConfig, report: Report) -> str:
    names = ", ".join(escape(name) for name in report.classes)
    merged = [
        f"{escape(name)} is {', '.join(escape(part) for part in parts)}"
        for name, parts in config.data.merge.items()
    ]
    return f"In this order: {names}." + (f" Joined: {'; '.join(merged)}." if merged else "")


def _figures(report: Report) -> str:
    metrics, accuracy = report.metrics, report.intervals.accuracy
    rows = [
        ["all classes", f"{metrics.accuracy:.1%}", f"{metrics.macro.f1:.3f}", str(metrics.images)],
        *(
            [escape(scores.name), f"{scores.recall:.1%}", f"{scores.f1:.3f}", str(scores.support)]
            for scores in metrics.per_class
        ),
    ]
    lines = table(["", "Recognised", "F1", "Images"], rows)
    text = (
        f"On validation images, which chose the epoch; `report.md` holds more.\n\n{lines}\n\n"
        f"The 95 % interval of the whole is {accuracy.low:.1%} to {accuracy.high:.1%}."
    )
    text += "".join(f" {escape(warning)}" for warning in report.warnings)
    if metrics.baseline:
        text += (
            f"\n\nAlways answering {escape(metrics.baseline.name)} would recognise "
            f"{metrics.baseline.accuracy:.1%}."
        )
    return text


def _confidence(calibration: Calibration) -> str:
    before, after = calibration.before, calibration.after
    if not calibration.fitted:
        return (
            "The probabilities are not calibrated. Their expected calibration error on validation "
            f"images is {after.ece:.3f}: by so much confidence and accuracy differ in the mean."
        )
    return (
        f"Calibrated: the logits are divided by a temperature of {calibration.temperature:.3f}, "
        f"fitted on {FITTED_ON} images (Guo et al., On calibration of modern neural networks, "
        "ICML 2017). By it the expected calibration error on the same images, by which "
        f"confidence and accuracy differ in the mean, went from {before.ece:.3f} to "
        f"{after.ece:.3f}; on other images it may be larger."
    )


def _faces(config: ExperimentConfig) -> str:
    faces = config.data.faces
    if faces.detector == "none":
        return "Trained on whole images; photos of people are to be cut to the face first."
    return f"Trained on the largest face of each photo, found by {faces.detector}."


def _weights(config: ExperimentConfig) -> str:
    rows = []
    for branch in config.model.branches:
        spec = BRANCHES.get(branch.backbone)
        source = config.model.weights_of(branch.label)
        terms = {"random": "none, trained from random weights", "imagenet": spec.weights_licence}
        licence = terms.get(source, "those of the file's owner") or "unknown"
        rows.append([escape(cell) for cell in (branch.label, source, licence, spec.reference)])
    lines = table(["Branch", "Weights", "Licence of the weights", "Reference"], rows, 4)
    return f"{lines}\n\nThe terms of ImageNet's images, and of the data above, come on top."
