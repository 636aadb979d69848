"""RAF-DB, with its list of labels or in folders of its codes.

Li et al., Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression
Recognition in the Wild, CVPR 2017.
"""

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from configs.errors import DataError
from ensemble.data.files import Files, is_image, open_files
from ensemble.data.registry import (
    Collection,
    DatasetSpec,
    Location,
    Problem,
    Record,
    register_source,
)
from ensemble.data.sources.folder import find_layouts, read_records

EMOTIONS = dict(
    enumerate(
        ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"),
        start=1,
    )
)

_LIST = re.compile(r"list_par?tition_label\.txt", re.IGNORECASE)  # published without the first r
_IMAGE = re.compile(r"((train|test)_\d+)(_aligned)?", re.IGNORECASE)


def matches(location: Location) -> bool:
    """Returns whether there is the list of labels, or images in folders of its codes."""
    if location.labels:
        return bool(_LIST.fullmatch(location.labels.name))
    images = list(filter(is_image, location.files.names()))
    return bool(_find_lists(location.files) or (images and all(map(_is_coded, images))))


def load(location: Location) -> Collection:
    """Reads the aligned faces where they are there, else the original photos.

    Raises:
        DataError: If there are several lists.
    """
    files = location.files
    if location.labels and location.labels.is_file():
        if not files.roots:
            files = open_files([location.labels.parent])
        name, text = location.labels.name, location.labels.read_bytes()
    elif lists := _find_lists(files):
        if len(lists) > 1:
            raise DataError(f"Several lists fit: {', '.join(lists)}. Name one with --labels.")
        name, text = lists[0], files.read(lists[0])
    else:
        return _load_folders(files)
    codes, problems = _read_codes(name, text.decode("utf-8-sig", "replace"))
    images = _find_images(files)
    records = [
        Record(images[key], EMOTIONS[code], _read_split(key))
        for key, code in codes.items()
        if key in images
    ]
    counts = {
        f"rows of {name} have no image": len(codes.keys() - images.keys()),
        f"images without a row in {name} are ignored": len(images.keys() - codes.keys()),
    }
    notes = [f"{count} {what}" for what, count in counts.items() if count]
    return Collection(files, records, files.problems + problems, files.notes + notes)


def _find_lists(files: Files) -> list[str]:
    return [name for name in files.names() if _LIST.fullmatch(PurePosixPath(name).name)]


def _read_codes(name: str, text: str) -> tuple[dict[str, int], list[Problem]]:
    codes, problems = {}, []
    for number, line in enumerate(text.splitlines(), start=1):
        image, _, code = line.strip().rpartition(" ")
        found = _IMAGE.fullmatch(Path(image.strip()).stem)
        if found and code.isdecimal() and int(code) in EMOTIONS:
            codes[found[1].lower()] = int(code)
        elif line.strip():
            reason = f"'{line.strip()[:80]}' is not an image and a code from 1 to {len(EMOTIONS)}"
            problems.append(Problem(f"{name}:{number}", reason))
    return codes, problems


def _find_images(files: Files) -> dict[str, str]:
    """Returns the key of each image, such as "train_00001", to its name; aligned ones win."""
    images: dict[str, str] = {}
    for name in filter(is_image, files.names()):
        found = _IMAGE.fullmatch(PurePosixPath(name).stem)
        if found and (found[3] or found[1].lower() not in images):
            images[found[1].lower()] = name
    return images


def _load_folders(files: Files) -> Collection:
    records, problems = [], []
    for record in read_records(files, find_layouts(files)):
        if record.label in map(str, EMOTIONS):
            split = record.split or _read_split(PurePosixPath(record.name).stem)
            records.append(replace(record, label=EMOTIONS[int(record.label)], split=split))
        else:
            problems.append(Problem(record.name, f"'{record.label}' is not a code of RAF-DB"))
    return Collection(files, records, files.problems + problems, files.notes)


def _is_coded(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(_IMAGE.fullmatch(path.stem)) and path.parent.name in map(str, EMOTIONS)


def _read_split(stem: str) -> str | None:
    found = _IMAGE.fullmatch(stem)
    return found[2].lower() if found else None


register_source(
    DatasetSpec(
        name="rafdb",
        summary="RAF-DB: its images with list_patition_label.txt, or in folders 1 to 7",
        matches=matches,
        load=load,
        priority=22,
    )
)
