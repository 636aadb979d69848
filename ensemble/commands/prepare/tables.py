"""What became of each photo of a face set: groups, tables and a summary."""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ensemble.data.image_hashes import join_pairs, near_duplicates
from ensemble.data.labels import fold
from ensemble.data.registry import Problem, count_reasons

SET_COLUMNS = (
    *("path", "label", "split", "group"),
    *("status", "left", "top", "width", "height", "score", "source"),
)
LEFT_OUT_COLUMNS = ("source", "label", "split", "status", "reason")

# Of near-duplicates in several splits the highest one is kept: what is judged on
# stays as it was, and what is learned from gives way.
_RANKS = {"train": 0, "validation": 1, "test": 2}

_STATUSES = {
    "no_face": "have no face",
    "unreadable": "cannot be read",
    "duplicate": "nearly repeat a photo of another split",
}


@dataclass(frozen=True)
class CutFace:
    """A face of a set.

    Args:
        path: Of its file, relative to the set's folder.
        left: Of the detector's box in the upright photo, in pixels, as the next ones.
        top: See `left`.
        width: See `left`.
        height: See `left`.
        score: How sure the detector is.
    """

    path: str
    left: int
    top: int
    width: int
    height: int
    score: float


@dataclass(frozen=True)
class Photo:
    """A raw photo and what became of it.

    Args:
        name: In the raw data.
        label: Its class as found there; empty: none.
        split: "train", "validation", "test" or None.
        group: Its group as found there.
        digest: SHA-256 of its bytes, in hexadecimal.
        status: As in `FaceResult`, or "duplicate".
        reason: Why there is no face of it.
        found: Faces in it, those that are not wanted included.
        fingerprint: Perceptual hash in hexadecimal; empty without a face.
        faces: Its faces in the set.
    """

    name: str
    label: str = ""
    split: str | None = None
    group: str | None = None
    digest: str = ""
    status: str = ""
    reason: str = ""
    found: int = 0
    fingerprint: str = ""
    faces: tuple[CutFace, ...] = ()

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> "Photo":
        """Returns the photo that `dataclasses.asdict` has made an entry of."""
        return cls(**{**entry, "faces": tuple(CutFace(**face) for face in entry["faces"])})


@dataclass(frozen=True)
class GroupedPhotos:
    """The photos of a set.

    Args:
        kept: Those with faces in the set; their groups are what never crosses splits.
        left_out: Those without a face.
        duplicates: Those left out since they nearly repeat one of another split.
        repeated: The labels of each group of two near-duplicates and more.
    """

    kept: tuple[Photo, ...]
    left_out: tuple[Photo, ...]
    duplicates: tuple[Photo, ...]
    repeated: tuple[tuple[str, ...], ...]


def group_photos(photos: Sequence[Photo], *, within: int) -> GroupedPhotos:
    """Joins near-duplicates and what the data says belongs together into groups.

    Near-duplicates in several splits are left out of all but the one that comes
    last of training, validation and test. A group has the name that the data
    gave it, or that of its first photo.

    Args:
        photos: All photos, sorted by name.
        within: Bits in which perceptual hashes of near-duplicates differ at most.
    """
    usable = [photo for photo in photos if photo.faces]
    pairs = near_duplicates([bytes.fromhex(photo.fingerprint) for photo in usable], within)
    alike = join_pairs(len(usable), pairs)
    keepers = _keepers(usable, alike)
    dropped = [
        replace(
            photo,
            status="duplicate",
            reason=f"nearly the same as {keepers[number].name} in {keepers[number].split}",
        )
        for photo, number in zip(usable, alike, strict=True)
        if photo.split != keepers[number].split
    ]
    places = [
        place for place, number in enumerate(alike) if usable[place].split == keepers[number].split
    ]
    kept = [usable[place] for place in places]
    marks = [[("alike", alike[place]), ("group", usable[place].group)] for place in places]
    names = _name_groups(kept, marks)
    return GroupedPhotos(
        tuple(replace(photo, group=name) for photo, name in zip(kept, names, strict=True)),
        tuple(photo for photo in photos if not photo.faces),
        tuple(dropped),
        tuple(
            tuple(usable[place].label for place in members) for members in _members(alike).values()
        ),
    )


def table_set(grouped: GroupedPhotos) -> str:
    """Returns the faces of a set as CSV; without labels there is no column of them."""
    rows = [
        {
            **vars(face),
            "label": photo.label,
            "split": photo.split,
            "group": photo.group,
            "status": photo.status,
            "source": photo.name,
        }
        for photo in grouped.kept
        for face in photo.faces
    ]
    labelled = any(photo.label for photo in grouped.kept)
    return _csv([column for column in SET_COLUMNS if labelled or column != "label"], rows)


def table_left_out(grouped: GroupedPhotos, problems: Iterable[Problem]) -> str:
    """Returns the photos, and rows of tables, that have no face in the set, as CSV."""
    rows = [
        {
            "source": photo.name,
            "label": photo.label,
            "split": photo.split,
            "status": photo.status,
            "reason": photo.reason,
        }
        for photo in sorted((*grouped.left_out, *grouped.duplicates), key=lambda photo: photo.name)
    ]
    rows += [
        {"source": problem.name, "status": "refused", "reason": problem.reason}
        for problem in problems
    ]
    return _csv(LEFT_OUT_COLUMNS, rows)


def describe(
    grouped: GroupedPhotos, problems: Sequence[Problem], folder: Path, done: int
) -> Iterator[str]:
    """Yields lines that say what a set holds and what it lacks.

    Args:
        grouped: The photos.
        problems: What the data held beside them.
        folder: Of the set.
        done: How many photos an earlier call had done.
    """
    kept = grouped.kept
    faces = sum(len(photo.faces) for photo in kept)
    yield f"{faces:,} faces of {len(kept):,} photos are in {folder}"
    if done:
        yield f"{done:,} photos were done already"
    counts = Counter(photo.label for photo in kept for _ in photo.faces)
    if set(counts) - {""}:
        yield ", ".join(f"{label} {count:,}" for label, count in sorted(counts.items()))
    lost = Counter(photo.status for photo in (*grouped.left_out, *grouped.duplicates))
    for status, words in _STATUSES.items():
        if lost[status]:
            yield f"left out: {lost[status]:,} photos that {words}"
    if problems:
        yield f"left out: {len(problems):,} files or rows: {count_reasons(problems)}"
    if lost or problems:
        yield f"{folder / 'left_out.csv'} names each with the reason"
    further = [photo.found - len(photo.faces) for photo in kept if photo.found > len(photo.faces)]
    if further:
        yield (
            f"left out: {sum(further):,} smaller faces of {len(further):,} photos; "
            "--faces.several all takes them"
        )
    whole = sum(photo.status == "whole" for photo in kept)
    if whole:
        yield f"{whole:,} photos are taken whole"
    if grouped.repeated:
        yield (
            f"{sum(map(len, grouped.repeated)):,} photos are near-duplicates, in "
            f"{len(grouped.repeated):,} groups that never cross splits"
        )
        torn = sum(len(set(map(fold, labels))) > 1 for labels in grouped.repeated)
        if torn:
            yield f"{torn:,} of these groups have more than one label"
    yield f"look at {folder / 'contact_sheet.png'} before you train"


def _keepers(photos: Sequence[Photo], alike: Sequence[int]) -> dict[int, Photo]:
    """Returns the photo that is kept in any case, for each number of near-duplicates."""
    keepers: dict[int, Photo] = {}
    for photo, number in zip(photos, alike, strict=True):
        present = keepers.setdefault(number, photo)
        if _RANKS[photo.split or "train"] > _RANKS[present.split or "train"]:
            keepers[number] = photo
    return keepers


def _name_groups(
    photos: Sequence[Photo], marks: Sequence[Sequence[tuple[str, object]]]
) -> list[str]:
    """Returns the name of each photo's group; photos that share a mark share a group."""
    first: dict[tuple[str, object], int] = {}
    pairs = [
        (first.setdefault(mark, place), place)
        for place, own in enumerate(marks)
        for mark in own
        if mark[1] is not None
    ]
    numbers = join_pairs(len(photos), pairs)
    given: defaultdict[int, set[str]] = defaultdict(set)
    for photo, number in zip(photos, numbers, strict=True):
        if photo.group is not None:
            given[number].add(photo.group)
    return [min(given[number], default=photos[number].name) for number in numbers]


def _members(numbers: Sequence[int]) -> dict[int, list[int]]:
    """Returns the places of each number that stands twice or more."""
    places = defaultdict(list)
    for place, number in enumerate(numbers):
        places[number].append(place)
    return {number: members for number, members in places.items() if len(members) > 1}


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
