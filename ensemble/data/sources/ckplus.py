"""CK+: frames called S005_001_00000011.png, labelled by files of emotions or by folders.

Lucey et al., The Extended Cohn-Kanade Dataset (CK+), CVPR Workshops 2010.
"""

import re
from pathlib import PurePosixPath

from ensemble.data.files import Files, is_image
from ensemble.data.registry import (
    Collection,
    DatasetSpec,
    Location,
    Problem,
    Record,
    register_source,
)
from ensemble.data.sources.folder import find_layouts, read_records

# An emotion's place is its code.
EMOTIONS = (
    *("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"),
)

_IMAGE = re.compile(r"(S\d{3})_\d{3}_\d{8}", re.IGNORECASE)
_EMOTION = "_emotion.txt"


def matches(location: Location) -> bool:
    """Returns whether all images are called as in CK+ and have labels."""
    if location.labels:
        return False
    images = list(filter(is_image, location.files.names()))
    named = bool(images) and all(_IMAGE.fullmatch(PurePosixPath(name).stem) for name in images)
    return named and (bool(_find_emotions(location.files)) or len(_read_folders(location)) > 0)


def load(location: Location) -> Collection:
    """Reads the frames that have a file of their emotion, else class folders.

    The group of an image is its subject, so that no subject crosses splits.
    """
    files = location.files
    emotions = _find_emotions(files)
    if not emotions:
        return Collection(files, _read_folders(location), files.problems, files.notes)
    records, problems, unlabelled = [], [], 0
    for name in filter(is_image, files.names()):
        stem = PurePosixPath(name).stem
        if stem not in emotions:
            unlabelled += 1
            continue
        try:
            records.append(Record(name, _read_emotion(files, emotions[stem]), group=stem[:4]))
        except (OSError, ValueError) as error:
            problems.append(Problem(emotions[stem], str(error)))
    notes = [f"{unlabelled} frames without a file of their emotion are ignored"]
    return Collection(
        files, records, files.problems + problems, files.notes + notes * bool(unlabelled)
    )


def _find_emotions(files: Files) -> dict[str, str]:
    """Returns the stem of a frame to the name of the file of its emotion."""
    names = [name for name in files.names() if name.lower().endswith(_EMOTION)]
    return {PurePosixPath(name).name[: -len(_EMOTION)]: name for name in names}


def _read_emotion(files: Files, name: str) -> str:
    text = files.read(name).decode("ascii", "replace").strip()
    try:
        return EMOTIONS[int(float(text))]
    except (ValueError, IndexError):
        raise ValueError(f"'{text}' is no code from 0 to {len(EMOTIONS) - 1}") from None


def _read_folders(location: Location) -> list[Record]:
    found = read_records(location.files, find_layouts(location.files))
    return [Record(r.name, r.label, r.split, PurePosixPath(r.name).name[:4].upper()) for r in found]


register_source(
    DatasetSpec(
        name="ckplus",
        summary="CK+: S005_001_00000011.png with S005_001_00000011_emotion.txt, or class folders",
        matches=matches,
        load=load,
        priority=26,
    )
)
