"""JAFFE: images whose names hold the subject and the emotion, as in KA.AN1.39.tiff.

Lyons et al., Coding Facial Expressions with Gabor Wavelets, Face and Gesture 1998.
"""

import re
from pathlib import PurePosixPath

from ensemble.data.files import is_image
from ensemble.data.registry import (
    Collection,
    DatasetSpec,
    Location,
    Record,
    register_source,
)

EMOTIONS = {
    **{"AN": "anger", "DI": "disgust", "FE": "fear", "HA": "happiness"},
    **{"NE": "neutral", "SA": "sadness", "SU": "surprise"},
}

_IMAGE = re.compile(rf"([A-Z]{{2}})\.({'|'.join(EMOTIONS)})\d*\.\d+", re.IGNORECASE)


def matches(location: Location) -> bool:
    """Returns whether all images are called as in JAFFE."""
    if location.labels:
        return False
    images = list(filter(is_image, location.files.names()))
    return bool(images) and all(_IMAGE.fullmatch(PurePosixPath(name).stem) for name in images)


def load(location: Location) -> Collection:
    """Reads label and subject from each name; the group of an image is its subject."""
    files = location.files
    images = list(filter(is_image, files.names()))
    records = []
    for name in images:
        if found := _IMAGE.fullmatch(PurePosixPath(name).stem):
            records.append(Record(name, EMOTIONS[found[2].upper()], group=found[1].upper()))
    ignored = len(images) - len(records)
    notes = [f"{ignored} images with other names are ignored"] if ignored else []
    return Collection(files, records, files.problems, files.notes + notes)


register_source(
    DatasetSpec(
        name="jaffe",
        summary="JAFFE: images called KA.AN1.39.tiff",
        matches=matches,
        load=load,
        priority=27,
    )
)
