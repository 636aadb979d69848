"""The photos of a face set: their groups, tables and summary."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ensemble.data.image_hashes import join_pairs, near_duplicates
from ensemble.data.labels import fold
from ensemble.data.registry import Problem, count_reasons
from ensemble.system.text import csv_text

_SET_COLUMNS = (
    *("path", "label", "split", "group"),
    *("status", "left", "top", "width", "height", "score", "source"),
)
_LEFT_OUT_COLUMNS = ("source", "label", "split", "status", "reason")

# Near-duplicates are kept in the split that comes last, so that evaluation data stays as it was.
_SPLITS = (None, "train", "validation", "test")

_STATUSES = {
    "no_face": "have no face",
    "unreadable": "cannot be read",
    "duplicate": "are near-duplicates of a photo in another split",
}


@dataclass(frozen=True)
class CutFace:
    """A face of a set.

    Args:
        path: Path of its file, relative to the set's folder.
        left: Left side of the detector's box in the upright photo, in pixels.
        top: Its upper side.
        width: Its width.
        height: Its height.
        score: The detector's score.
    """

    path: str
    left: int
    top: int
    width: int
    height: int
    score: float


@dataclass(frozen=True)
class PreparedPhoto:
    """A raw photo and its faces.

    Args:
        name: Name in the raw data.
        label: Its class there; empty: none.
        split: "train", "validation", "test" or None.
        group: Its group there.
        digest: SHA-256 of its bytes, in hexadecimal.
        status: As in `FaceResult`, or "duplicate".
        reason: Why there is no face of it.
        found: Number of faces in it, including those that are not wanted.
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
    def read(cls, entry: Mapping[str, Any]) -> "PreparedPhoto":
        """Returns the photo that `dataclasses.asdict` turned into a record."""
        return cls(**{**entry, "faces": tuple(CutFace(**face) for face in entry["faces"])})

    def has_inputs_of(self, other: "PreparedPhoto") -> bool:
        """Returns whether both were read from the same content with the same annotations."""
        return (self.label, self.split, self.group, self.digest) == (
            *(other.label, other.split, other.group, other.digest),
        )


@dataclass(frozen=True)
class GroupedPhotos:
    """The photos of a set.

    Args:
        kept: Those with faces in the set; their groups never cross splits.
        left_out: Those without a face.
        duplicates: Those left out as near-duplicates of one in another split.
        repeated: The labels of each set of near-duplicates.
    """

    kept: tuple[PreparedPhoto, ...]
    left_out: tuple[PreparedPhoto, ...]
    duplicates: tuple[PreparedPhoto, ...]
    repeated: tuple[tuple[str, ...], ...]


def group_photos(photos: Sequence[PreparedPhoto], *, within: int) -> GroupedPhotos:
    """Joins near-duplicates and the groups of the data into groups.

    Near-duplicates in several splits are left out of all but the one that comes
    last of training, validation and test. A group has the name that the data
    gave it, or that of its first photo.

    Args:
        photos: All photos, sorted by name.
        within: Bits in which perceptual hashes of near-duplicates differ at most.
    """
    usable = [photo for photo in photos if photo.faces]
    pairs = near_duplicates([bytes.fromhex(photo.fingerprint) for photo in usable], within)
    numbers = join_pairs(len(usable), pairs)
    alike: defaultdict[int, list[PreparedPhoto]] = defaultdict(list)
    for photo, number in zip(usable, numbers, strict=True):
        alike[number].append(photo)
    keepers = {
        number: max(members, key=lambda photo: _SPLITS.index(photo.split))
        for number, members in alike.items()
    }
    kept, duplicates = [], []
    for photo, number in zip(usable, numbers, strict=True):
        keeper = keepers[number]
        if photo.split == keeper.split:
            kept.append((photo, number))
        else:
            reason = f"nearly the same as {keeper.name} in {keeper.split}"
            duplicates.append(replace(photo, status="duplicate", reason=reason))
    return GroupedPhotos(
        tuple(_name_groups(kept)),
        tuple(photo for photo in photos if not photo.faces),
        tuple(duplicates),
        tuple(
            tuple(photo.label for photo in members)
            for members in alike.values()
            if len(members) > 1
        ),
    )


def table_set(grouped: GroupedPhotos) -> str:
    """Returns the faces of a set as CSV; without labels there is no column of them."""
    labelled = any(photo.label for photo in grouped.kept)
    columns = [column for column in _SET_COLUMNS if labelled or column != "label"]
    cells = [
        {**vars(photo), **vars(face), "source": photo.name}
        for photo in grouped.kept
        for face in photo.faces
    ]
    return csv_text(columns, [[row[column] for column in columns] for row in cells])


def table_left_out(grouped: GroupedPhotos, problems: Iterable[Problem]) -> str:
    """Returns the photos, and rows of tables, that have no face in the set, as CSV."""
    photos = sorted((*grouped.left_out, *grouped.duplicates), key=lambda photo: photo.name)
    rows = [(photo.name, photo.label, photo.split, photo.status, photo.reason) for photo in photos]
    refused = [(problem.name, None, None, "refused", problem.reason) for problem in problems]
    return csv_text(_LEFT_OUT_COLUMNS, [*rows, *refused])


def describe(
    grouped: GroupedPhotos, problems: Sequence[Problem], folder: Path, done: int
) -> Iterator[str]:
    """Yields lines that count what a set contains and what was left out.

    Args:
        grouped: The photos.
        problems: Other files and rows of the data.
        folder: Folder of the set.
        done: Number of photos that an earlier call finished.
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


def _name_groups(photos: Sequence[tuple[PreparedPhoto, int]]) -> Iterator[PreparedPhoto]:
    """Yields photos with the names of their groups.

    Args:
        photos: Photos, with the number that near-duplicates share.
    """
    first: dict[int | str, int] = {}
    pairs = [
        (first.setdefault(mark, place), place)
        for place, (photo, number) in enumerate(photos)
        for mark in (number, photo.group)
        if mark is not None
    ]
    joined = join_pairs(len(photos), pairs)
    given: defaultdict[int, set[str]] = defaultdict(set)
    for (photo, _), number in zip(photos, joined, strict=True):
        if photo.group is not None:
            given[number].add(photo.group)
    for (photo, _), number in zip(photos, joined, strict=True):
        yield replace(photo, group=min(given[number], default=photos[number][0].name))
