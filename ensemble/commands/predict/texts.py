"""Predictions as text: for a screen, a table and a program."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ensemble.commands.predict.predictor import Prediction
from ensemble.faces.registry import Box
from ensemble.system.text import csv_text, plural


def table_rows(predictions: Sequence[Prediction]) -> list[tuple[str, ...]]:
    """Returns a header and a row per prediction, for the screen."""
    return [("photo", "prediction", "box", "note"), *map(_cells, predictions)]


def as_json(
    model: str, detector: str, classes: Sequence[str], predictions: Sequence[Prediction]
) -> str:
    """Returns all predictions as JSON, with the probabilities of all classes."""
    content = {
        "model": model,
        "face_detector": detector,
        "classes": list(classes),
        "predictions": [as_record(prediction) for prediction in predictions],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_record(prediction: Prediction) -> dict[str, Any]:
    """Returns a prediction as plain values, ready for JSON."""
    return {
        "photo": prediction.name,
        "status": prediction.status,
        "label": prediction.label,
        "confidence": prediction.confidence,
        "probabilities": dict(prediction.probabilities) if prediction.probabilities else None,
        "box": prediction.box._asdict() if prediction.box else None,
        "face_score": prediction.score,
        "reason": prediction.reason,
    }


def as_csv(detector: str, classes: Sequence[str], predictions: Sequence[Prediction]) -> str:
    """Returns one CSV row per prediction; the probability of class X is in the column `p:X`."""
    header = ["photo", "status", "label", "confidence", *Box._fields, "reason", "face_detector"]
    rows = [
        [
            *(prediction.name, prediction.status, prediction.label, prediction.confidence),
            *(prediction.box or [None] * len(Box._fields)),
            *(prediction.reason, detector),
            *((prediction.probabilities or {}).get(name) for name in classes),
        ]
        for prediction in predictions
    ]
    return csv_text([*header, *(f"p:{name}" for name in classes)], rows)


def summarize(detector: str, predictions: Sequence[Prediction]) -> str:
    """Returns a line such as "3 photos: 4 predicted, 1 unreadable; face detector: yunet"."""
    photos = plural(len({prediction.name for prediction in predictions}), "photo")
    counts = Counter(prediction.status.replace("_", " ") for prediction in predictions)
    listed = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"{photos}: {listed}; face detector: {detector}"


def _cells(prediction: Prediction) -> tuple[str, ...]:
    box = " ".join(f"{value:.0f}" for value in prediction.box) if prediction.box else "-"
    return prediction.name, prediction.caption, box, prediction.reason
