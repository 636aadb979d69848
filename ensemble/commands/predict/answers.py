"""Predictions as text: for a screen, a table and a program."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ensemble.commands.predict.predictor import Prediction


def table_rows(predictions: Sequence[Prediction]) -> list[tuple[str, ...]]:
    """Returns a header and a row for each answer, for the screen."""
    header = ("photo", "answer", "box", "note")
    return [header, *(_cells(answer) for answer in predictions)]


def as_json(
    model: str, detector: str, classes: Sequence[str], predictions: Sequence[Prediction]
) -> str:
    """Returns all answers as JSON, with the probabilities of all classes."""
    content = {
        "model": model,
        "face_detector": detector,
        "classes": list(classes),
        "predictions": [as_record(answer) for answer in predictions],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_record(answer: Prediction) -> dict[str, Any]:
    """Returns one answer as plain values, ready for JSON."""
    return {
        "photo": answer.name,
        "status": answer.status,
        "label": answer.label,
        "confidence": answer.confidence,
        "probabilities": dict(answer.probabilities) if answer.probabilities else None,
        "box": answer.box._asdict() if answer.box else None,
        "face_score": answer.score,
        "reason": answer.reason,
    }


def as_csv(detector: str, classes: Sequence[str], predictions: Sequence[Prediction]) -> str:
    """Returns one CSV row for each answer.

    Columns are photo, status, label, confidence, left, top, width and height of the
    face's box, reason, face_detector, and the probability of each class under `p:` and
    its name. What there is not is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    box = ("left", "top", "width", "height")
    names = [f"p:{name}" for name in classes]
    notes = ("reason", "face_detector")
    writer.writerow(["photo", "status", "label", "confidence", *box, *notes, *names])
    for answer in predictions:
        shares = answer.probabilities or {}
        writer.writerow(
            [
                answer.name,
                answer.status,
                answer.label,
                answer.confidence,
                *(answer.box or [None] * len(box)),
                answer.reason,
                detector,
                *(shares.get(name) for name in classes),
            ]
        )
    return text.getvalue()


def summarize(detector: str, predictions: Sequence[Prediction]) -> str:
    """Returns a line such as "3 photos: 4 predicted, 1 unreadable; face detector: yunet"."""
    photos = len({answer.name for answer in predictions})
    counts = Counter(answer.status.replace("_", " ") for answer in predictions)
    listed = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"{photos} photo{'' if photos == 1 else 's'}: {listed}; face detector: {detector}"


def _cells(answer: Prediction) -> tuple[str, ...]:
    box = " ".join(f"{value:.0f}" for value in answer.box) if answer.box else "-"
    return answer.name, answer.caption, box, answer.reason
