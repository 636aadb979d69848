"""FER2013 as a CSV of pixels, and FER+, the votes of ten people on its images.

Goodfellow et al., Challenges in Representation Learning, ICONIP 2013, arXiv:1307.0414.
Barsoum et al., Training Deep Networks for Facial Expression Recognition with
Crowd-Sourced Label Distribution, ICMI 2016, arXiv:1608.01041.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from configs.errors import DataError
from configs.schema import VoteProtocol
from ensemble.data.files import Files, is_image, is_table
from ensemble.data.named_files import normalise_path
from ensemble.data.registry import (
    Collection,
    DatasetSpec,
    Location,
    Problem,
    Record,
    register_source,
)
from ensemble.data.splits import find_split
from ensemble.data.tables import Table, find_table, find_tables, open_images

# An emotion's place is its number in the CSV of pixels.
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

# The columns of votes; those of `NO_EMOTIONS` are not kept.
VOTES = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "nf"),
)
NO_EMOTIONS = {"unknown": "unknown", "nf": "not a face"}
_EMOTIONS = len(VOTES) - len(NO_EMOTIONS)  # the first columns

_NO_WINNER = {
    "majority": "without a majority",
    "plurality": "without a vote",
    "distribution": "without a majority for emotions",
}


@dataclass(frozen=True)
class PixelStore:
    """Images that stand in a table, as arrays of shape `(height, width)`, uint8."""

    arrays: Mapping[str, np.ndarray]

    def read(self, name: str) -> np.ndarray:
        """Returns an image by its name.

        Raises:
            OSError: If there is none of that name.
        """
        if name not in self.arrays:
            raise FileNotFoundError(f"there is no image '{name}'")
        return self.arrays[name]


def count_votes(votes: np.ndarray, protocol: VoteProtocol) -> np.ndarray:
    """Returns the votes that count, of which labels and targets are made.

    A single vote in a column is taken for a slip, as by Barsoum et al. 2016; under
    "plurality" every vote counts.

    Args:
        votes: Counts of shape `(images, columns)`, >= 0.
        protocol: See `elect`.
    """
    return votes if protocol == "plurality" else np.where(votes == 1, 0, votes)


def elect(counted: np.ndarray, protocol: VoteProtocol) -> np.ndarray:
    """Returns the column that wins the votes on each image.

    Args:
        counted: From `count_votes`, shape `(images, 10)`, in the order of `VOTES`.
        protocol: "majority": the column with more than half of the votes, as in the mode
            of that name of Barsoum et al. 2016. "plurality": the column with the most.
            "distribution": the emotion with the most, where all emotions together
            have more than half, so that their shares say something.

    Returns:
        Column indices of shape `(images,)`, the first one of a tie; -1 where no column wins.
    """
    total = counted.sum(axis=1)
    if protocol == "distribution":
        counted = counted[:, :_EMOTIONS]
        wins = 2 * counted.sum(axis=1) > total
    elif protocol == "majority":
        wins = 2 * counted.max(axis=1) > total
    else:
        wins = total > 0
    return np.where(wins, counted.argmax(axis=1), -1)


def has_pixels(location: Location) -> bool:
    """Returns whether a location has a table of emotions and pixels."""
    return bool(find_tables(location, _is_pixels))


def load_fer2013(location: Location) -> Collection:
    """Reads the CSV `emotion,pixels,Usage`, whose images are square and grey.

    Raises:
        DataError: If there is not exactly one such table.
    """
    table = find_table(location, _is_pixels, "emotion,pixels,Usage")
    arrays, records, problems = {}, [], []
    for number, row in table.rows():
        name = table.row_name(number)
        try:
            label = _read_emotion(row[table.meanings["label"]])
            record = Record(name, label, _read_usage(table, row))
            arrays[name] = _read_pixels(row["pixels"])
            records.append(record)
        except ValueError as error:
            problems.append(Problem(name, str(error)))
    return Collection(PixelStore(arrays), records, problems)


def has_votes(location: Location) -> bool:
    """Returns whether a location has a table of FER+ votes."""
    return bool(find_tables(location, _choose_votes(location)))


def load_ferplus(location: Location) -> Collection:
    """Reads the votes of FER+ and keeps the images on which an emotion wins.

    Votes are joined to image files by file name, where a later row replaces an
    earlier one, and to the CSV of FER2013 row by row.

    Raises:
        DataError: If there is not exactly one table of votes, if it lacks a column,
            or if its rows do not follow those of the CSV of FER2013.
    """
    header = f"Usage,Image name,{','.join(VOTES)}"
    table = find_table(location, _choose_votes(location), header)
    lacking = [column for column in VOTES if column not in table.columns]
    lacking += [] if "path" in table.meanings else ["Image name"]
    if lacking:
        raise DataError(
            f"{table.name} looks like a table of votes and lacks the columns "
            f"{', '.join(lacking)}. Add them, with 0 where there is no vote."
        )
    ballots, problems = _read_ballots(table, location.protocol)
    beside = replace(location, labels=None)
    if has_pixels(beside):
        return _join_pixels(load_fer2013(beside), ballots, problems, location.protocol)
    return _join_files(open_images(location, table), ballots, problems, location.protocol)


@dataclass(frozen=True)
class _Ballot:
    """One row of votes: the image it is on, what counts of them, the column that wins, if any."""

    image: str
    split: str | None
    votes: Mapping[str, int]
    winner: str | None


def _is_pixels(table: Table) -> bool:
    return "label" in table.meanings and "pixels" in table.columns


def _choose_votes(location: Location) -> Callable[[Table], bool]:
    """Returns what a table of votes is; one that the user names may lack a few columns."""
    named = location.labels is not None or any(map(is_table, location.roots))
    return _resembles_votes if named else _is_votes


def _is_votes(table: Table) -> bool:
    return "path" in table.meanings and set(VOTES) <= set(table.columns)


def _resembles_votes(table: Table) -> bool:
    emotions = set(VOTES[:_EMOTIONS]) & set(table.columns)
    return _is_votes(table) or (len(emotions) > _EMOTIONS // 2 and "label" not in table.meanings)


def _read_emotion(code: str) -> str:
    if code not in map(str, range(len(EMOTIONS))):
        raise ValueError(f"the emotion '{code}' is no number from 0 to {len(EMOTIONS) - 1}")
    return EMOTIONS[int(code)]


def _read_usage(table: Table, row: Mapping[str, str]) -> str | None:
    usage = row.get(table.meanings.get("split", ""), "")
    if usage and find_split(usage) is None:
        raise ValueError(f"the usage '{usage}' is neither Training, PublicTest nor PrivateTest")
    return find_split(usage)


def _read_pixels(text: str) -> np.ndarray:
    with warnings.catch_warnings():
        # Older NumPy stops at text that is no number with a warning only.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            pixels = np.fromstring(text, np.int32, sep=" ")
        except (ValueError, DeprecationWarning):
            raise ValueError("its pixels are not all numbers") from None
    side = math.isqrt(pixels.size)
    if side == 0 or side * side != pixels.size:
        raise ValueError(f"{pixels.size} pixels make no square")
    if pixels.min() < 0 or pixels.max() > 255:
        raise ValueError("its pixels are not all within 0..255")
    return pixels.astype(np.uint8).reshape(side, side)


def _read_ballots(table: Table, protocol: VoteProtocol) -> tuple[dict[int, _Ballot], list[Problem]]:
    """Returns row number to ballot, and the rows that cannot be read."""
    rows, counts, problems = {}, [], []
    for number, row in table.rows():
        try:
            split = _read_usage(table, row)
            counts.append([_read_count(row[column]) for column in VOTES])
            image = row[table.meanings["path"]]
            rows[number] = (image and normalise_path(image), split)
        except ValueError as error:
            problems.append(Problem(table.row_name(number), str(error)))
    counted = count_votes(np.array(counts, np.int64).reshape(-1, len(VOTES)), protocol)
    winners = elect(counted, protocol)
    # The last place, -1, is that of no winner.
    columns = (*VOTES, None)
    ballots = {
        number: _Ballot(image, split, dict(zip(VOTES, votes, strict=True)), columns[winner])
        for (number, (image, split)), votes, winner in zip(
            rows.items(), counted.tolist(), winners, strict=True
        )
    }
    return ballots, problems


def _read_count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"'{text}' is no count of votes")
    return int(text)


def _join_files(
    files: Files,
    ballots: Mapping[int, _Ballot],
    problems: list[Problem],
    protocol: VoteProtocol,
) -> Collection:
    named = [ballot for ballot in ballots.values() if ballot.image]
    by_image = {ballot.image: ballot for ballot in named}
    images = [name for name in files.names() if is_image(name)]
    found = {name: _find_ballot(by_image, name) for name in images}
    records, notes, facts = _count_out(found, protocol)
    counts = {
        "name no image": len(ballots) - len(named),
        "are replaced by a later one": len(named) - len(by_image),
        "have no image": len(
            by_image.keys() - {ballot.image for ballot in found.values() if ballot}
        ),
    }
    notes += [f"{count} rows of votes {what}" for what, count in counts.items() if count]
    return Collection(files, records, files.problems + problems, notes, facts)


def _find_ballot(by_image: Mapping[str, _Ballot], name: str) -> _Ballot | None:
    """Returns the votes on an image by its path, or by as much of the end as a row gives."""
    parts = normalise_path(name).split("/")
    endings = ("/".join(parts[place:]) for place in range(len(parts)))
    return next((by_image[ending] for ending in endings if ending in by_image), None)


def _join_pixels(
    pixels: Collection,
    ballots: Mapping[int, _Ballot],
    problems: list[Problem],
    protocol: VoteProtocol,
) -> Collection:
    found = {}
    for record in pixels.records:
        row = int(record.name.rpartition(":")[2])
        ballot = found[record.name] = ballots.get(row)
        if ballot and record.split and ballot.split != record.split:
            raise DataError(
                f"The rows of votes do not follow those of the pixels: {record.name} is of "
                f"{record.split}, its votes are of {ballot.split}. Use both files as published."
            )
    records, notes, facts = _count_out(found, protocol)
    return Collection(pixels.images, records, pixels.problems + problems, notes, facts)


def _count_out(
    found: Mapping[str, _Ballot | None], protocol: VoteProtocol
) -> tuple[list[Record], list[str], dict[str, str]]:
    """Returns a record for each image on which an emotion wins, and counts for screen and report.

    Args:
        found: Image to its ballot, None where it has none.
        protocol: That of the ballots.
    """
    records = []
    left_out: Counter[str] = Counter()
    for name, ballot in found.items():
        if ballot is None:
            left_out["without votes"] += 1
        elif ballot.winner is None:
            left_out[_NO_WINNER[protocol]] += 1
        elif ballot.winner in NO_EMOTIONS:
            left_out[f"voted {NO_EMOTIONS[ballot.winner]}"] += 1
        else:
            records.append(Record(name, ballot.winner, ballot.split, votes=ballot.votes))
    splits = Counter(record.split or "not yet split" for record in records)
    kept = ", ".join(f"{count:,} {split}" for split, count in sorted(splits.items()))
    others = ", ".join(f"{count:,} {what}" for what, count in left_out.most_common())
    text = f"{protocol}, which leaves {len(records):,} of {len(found):,} images ({kept or 'none'})"
    text += f" and leaves out {others}" if others else ""
    notes = [f"{count} images {what} are left out" for what, count in left_out.items()]
    return records, notes, {"Protocol of the votes": text}


register_source(
    DatasetSpec(
        name="ferplus",
        summary="FER2013 images, as files or as the CSV of pixels, with the votes of FER+",
        matches=has_votes,
        load=load_ferplus,
        priority=10,
    )
)
register_source(
    DatasetSpec(
        name="fer2013",
        summary="the CSV of FER2013: emotion,pixels,Usage",
        matches=has_pixels,
        load=load_fer2013,
        priority=20,
    )
)
