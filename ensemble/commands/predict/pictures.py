"""Annotated photos and heat maps of a prediction, as files."""

import re
from pathlib import Path

import numpy as np

from ensemble.commands.predict.annotation import annotate, draw_explanation
from ensemble.commands.predict.predictor import Faces, Prediction, Predictor
from ensemble.data.decoding import ImageError
from ensemble.data.formats import image_suffixes
from ensemble.runs.run import Run

_LONGEST = 60  # characters of a photo's name in a file's name


class PictureFolder:
    """A folder of pictures, numbered as the photos come.

    Args:
        folder: Where `pictures/` and `heat_maps/` are written, each file whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Run(folder)
        self._number = 0

    def add(self, faces: Faces, answers: list[Prediction], predictor: Predictor | None) -> None:
        """Writes `pictures/00001-NAME.jpg` and `heat_maps/00001-NAME-face1.png`.

        Args:
            faces: Of one photo. One that cannot be read has no picture.
            answers: To them.
            predictor: Explains each answer; None: there are no heat maps.

        Raises:
            RunError: If a file cannot be written.
        """
        self._number += 1
        source = faces.source
        if faces.missing == "unreadable" or isinstance(source, ImageError):
            return
        title = f"{self._number:05}-{_file_name(faces.name)}"
        data: bytes | np.ndarray = source.read_bytes() if isinstance(source, Path) else source
        self._folder.write(f"pictures/{title}.jpg", annotate(data, answers))
        if predictor is None or faces.missing:
            return
        for number, (crop, answer) in enumerate(zip(faces.crops, answers, strict=True), start=1):
            sheet = draw_explanation(crop, predictor.explain(crop), answer.caption)
            self._folder.write(f"heat_maps/{title}-face{number}.png", sheet)


def _file_name(name: str) -> str:
    """Returns what is left of a photo's name in which no character can mislead a file system."""
    path = Path(name)
    kept = path.stem if path.suffix.lower() in image_suffixes() else path.name
    return re.sub(r"[^\w.#-]+", "_", kept)[-_LONGEST:].strip(".") or "photo"
