"""What a source finds: labelled images, and what it left out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

_MAX_REASONS = 5  # on one line


class ImageStore(Protocol):
    """Where the images of a collection lie. Safe to read from several threads."""

    def read(self, name: str) -> bytes | np.ndarray:
        """Returns an encoded file, or pixels of shape `(height, width[, 3])`, uint8.

        Raises:
            OSError: If the image cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled image.

    Args:
        name: The image's name in its store, unique there; a path as a person reads it.
        label: The class as found in the data.
        split: "train", "validation", "test", or None where the data does not say.
        group: Images of one group (a person, a video) never cross splits; None: no group.
        weight: How much the image counts in the loss, >= 0.
        votes: Label to the number of people who gave it; None: the data does not say.
    """

    name: str
    label: str
    split: str | None = None
    group: str | None = None
    weight: float = 1.0
    votes: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """An image or a row that is left out, and why."""

    name: str
    reason: str


def count_reasons(problems: Iterable[Problem]) -> str:
    """Returns a text such as "not an image (2), it is encrypted (1)", the commonest first."""
    counts = Counter(problem.reason for problem in problems).most_common()
    listed = [f"{reason} ({count:,})" for reason, count in counts[:_MAX_REASONS]]
    others = sum(count for _, count in counts[_MAX_REASONS:])
    return ", ".join([*listed, *([f"other reasons ({others:,})"] if others else [])])


@dataclass(frozen=True)
class Collection:
    """What a source found.

    Args:
        images: Reads an image by its record's name.
        records: All labelled images, in an order that depends on the data alone.
        problems: What was left out, and why.
        notes: Lines for the screen that say what was joined or ignored, with counts.
        facts: Lines for reports: heading to text.
        synthetic: True where random weights are good enough: synthetic images.
    """

    images: ImageStore
    records: list[Record]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: Mapping[str, str] = field(default_factory=dict)
    synthetic: bool = False
