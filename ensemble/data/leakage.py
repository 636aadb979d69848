"""Leakage: duplicates shared by several splits, which make scores optimistic."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from configs.errors import DataError
from ensemble.data.image_hashes import near_duplicates
from ensemble.data.reading import Inspection, map_ahead, read_image

Kind = Literal["exact", "near", "mirrored"]
KINDS: tuple[Kind, ...] = ("exact", "near", "mirrored")  # the closest first

DUPLICATE_COLUMNS = ("path", "split", "repeats", "in", "kind")

# Tuned by eye on pairs of FER+ faces, and on synthetic faces, none of which is there twice. Hashes
# alone take smooth pictures of two people for one; so do coarse shapes, which are taken away.
_MAX_BITS = 60  # of 256
_MAX_COLOUR = 10.0  # of 255, between the colours of two copies; a stronger tint hides one
_MIN_CORRELATION = 0.92
_SIDE = 32  # pixels that are compared, in height and width
_COARSE = 3.0  # standard deviation in those pixels; what is smoother is taken away
_SHIFT = 2  # pixels; copies may be cut a little differently
_FIELDS = 8  # whose colours are compared, in height and width
_GREY = 2.0  # of 255; a picture of less colour may be a copy of any
_BLOCK = 2**11  # pairs compared at a time


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An image of one split whose exact, near or mirrored duplicate is in another split.

    Args:
        name: The image.
        split: Its split; before `other_split` in the order train, validation, test.
        other_name: The duplicate.
        other_split: The split of the duplicate.
        kind: "exact": the same pixels at the size of the model; "near": the same picture,
            saved, sized, lit or cut a little differently; "mirrored": the same as its
            mirror image.
    """

    name: str
    split: str
    other_name: str
    other_split: str
    kind: Kind


def find_duplicates(parts: Mapping[str, Inspection]) -> list[Duplicate]:
    """Finds exact, near and mirrored duplicates shared by several splits.

    Copies that were mirrored, compressed or resized are found by the perceptual hash, and
    confirmed by their colours and the correlation of their pixels, since faces resemble each
    other.

    Args:
        parts: The splits by name, training first.

    Raises:
        DataError: If an image can no longer be read.
    """
    duplicates = []
    for (split, first), (other_split, second) in combinations(parts.items(), 2):
        duplicates += [
            Duplicate(first.readable.names[i], split, second.readable.names[j], other_split, kind)
            for i, j, kind in sorted(_pairs(first, second))
        ]
    return duplicates


def count_copies(inspection: Inspection) -> int:
    """Returns how many images of a split have the pixels of an earlier one of it."""
    return len(inspection.fingerprints) - len({seen.pixels for seen in inspection.fingerprints})


def without_duplicates(train: Inspection, duplicates: Sequence[Duplicate]) -> Inspection:
    """Returns the training images without those that have a duplicate in another split.

    Args:
        train: The training images.
        duplicates: From `find_duplicates`, where they are called "train".
    """
    repeated = {duplicate.name for duplicate in duplicates if duplicate.split == "train"}
    names = train.readable.names
    return train.select([i for i, name in enumerate(names) if name not in repeated])


def check_no_duplicates(duplicates: Sequence[Duplicate]) -> None:
    """Checks that no image is in several splits.

    Raises:
        DataError: If one does.
    """
    if duplicates:
        raise DataError(
            f"{describe_duplicates(duplicates)}. Use --duplicates drop to leave them out of "
            "training, or --duplicates warn to keep them."
        )


def describe_duplicates(duplicates: Sequence[Duplicate]) -> str:
    """Returns a sentence without full stop that counts the duplicates of each two splits.

    Args:
        duplicates: One at least.
    """
    parts = []
    for (split, other_split), held_out in _by_splits(duplicates).items():
        kinds = Counter(held_out.values())
        of_kinds = ", ".join(f"{kinds[kind]:,} {kind}" for kind in KINDS if kinds[kind])
        verb = "image is" if len(held_out) == 1 else "images are"
        parts.append(f"{len(held_out):,} {other_split} {verb} also in {split} ({of_kinds})")
    first = duplicates[0]
    return f"{'; '.join(parts)}, such as {first.other_name} as {first.name}"


def duplicate_rows(duplicates: Sequence[Duplicate]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yields duplicates as rows of a table, in `DUPLICATE_COLUMNS`."""
    for duplicate in duplicates:
        yield (
            duplicate.name,
            duplicate.split,
            duplicate.other_name,
            duplicate.other_split,
            duplicate.kind,
        )


def _by_splits(duplicates: Sequence[Duplicate]) -> dict[tuple[str, str], dict[str, Kind]]:
    """Returns, for each two splits, the closest kind of each repeated image of the second."""
    found: dict[tuple[str, str], dict[str, Kind]] = defaultdict(dict)
    for duplicate in sorted(duplicates, key=lambda duplicate: KINDS.index(duplicate.kind)):
        found[duplicate.split, duplicate.other_split].setdefault(
            duplicate.other_name, duplicate.kind
        )
    return found


def _pairs(first: Inspection, second: Inspection) -> set[tuple[int, int, Kind]]:
    """Returns the places of images that are the same, each pair once, and how alike they are."""
    places = defaultdict(list)
    for place, fingerprint in enumerate(first.fingerprints):
        places[fingerprint.pixels].append(place)
    exact = {
        (i, j)
        for j, fingerprint in enumerate(second.fingerprints)
        for i in places.get(fingerprint.pixels, ())
    }

    hashes = [fingerprint.perceptual for fingerprint in first.fingerprints]
    upright = [fingerprint.perceptual for fingerprint in second.fingerprints]
    mirrored = [fingerprint.mirrored for fingerprint in second.fingerprints]
    near = set(near_duplicates(hashes, _MAX_BITS, upright)) - exact
    turned = set(near_duplicates(hashes, _MAX_BITS, mirrored)) - exact
    looks = _look_at(first, {i for i, _ in near | turned})
    others = _look_at(second, {j for _, j in near | turned})
    alike = _confirm(near, looks, others)
    flipped = {place: look.mirrored() for place, look in others.items()}
    alike_turned = _confirm(turned - alike, looks, flipped)
    kinds: tuple[tuple[Kind, set[tuple[int, int]]], ...] = (
        ("exact", exact),
        ("near", alike),
        ("mirrored", alike_turned),
    )
    return {(i, j, kind) for kind, pairs in kinds for i, j in pairs}


class _Look(NamedTuple):
    """What two images are compared by.

    Args:
        detail: Grey values without what is smooth, float32, shape `(32, 32)`.
        colours: What red and blue have more than green, float32, shape `(8, 8, 2)`.
    """

    detail: np.ndarray
    colours: np.ndarray

    def mirrored(self) -> "_Look":
        return _Look(self.detail[:, ::-1], self.colours[:, ::-1])


def _look_at(inspection: Inspection, places: set[int]) -> dict[int, _Look]:
    def look(place: int) -> _Look:
        image = Image.fromarray(read_image(inspection.readable, place, _SIDE))
        grey = np.asarray(image.convert("L"), np.float32)
        fields = image.resize((_FIELDS, _FIELDS), Image.Resampling.BOX)
        red, green, blue = np.moveaxis(np.asarray(fields, np.float32), -1, 0)
        return _Look(
            grey - gaussian_filter(grey, _COARSE), np.stack([red - green, blue - green], axis=-1)
        )

    order = sorted(places)
    return dict(zip(order, map_ahead(look, order), strict=True))


def _confirm(
    pairs: set[tuple[int, int]], first: Mapping[int, _Look], second: Mapping[int, _Look]
) -> set[tuple[int, int]]:
    """Returns the pairs of like colours whose details correlate, where one fits the other best."""
    order, confirmed = sorted(pairs), set()
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        alike = _colours_agree(
            np.stack([first[i].colours for i, _ in block]),
            np.stack([second[j].colours for _, j in block]),
        )
        block = [block[place] for place in np.flatnonzero(alike)]
        if not block:
            continue
        middles = _normalise(np.stack([_cut(first[i].detail, _SHIFT, _SHIFT) for i, _ in block]))
        likeness = np.full(len(block), -1.0)
        for y, x in np.ndindex(2 * _SHIFT + 1, 2 * _SHIFT + 1):
            moved = _normalise(np.stack([_cut(second[j].detail, y, x) for _, j in block]))
            likeness = np.maximum(likeness, np.einsum("nij,nij->n", middles, moved))
        confirmed |= {block[place] for place in np.flatnonzero(likeness >= _MIN_CORRELATION)}
    return confirmed


def _colours_agree(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns for each pair whether its colours differ little, or one of the two has none."""
    strengths = np.minimum(_strength(first), _strength(second))
    return (_strength(first - second) <= _MAX_COLOUR) | (strengths < _GREY)


def _strength(colours: np.ndarray) -> np.ndarray:
    """Returns the root mean square of each image's colours, shape `(n,)`."""
    return np.sqrt(np.mean(np.square(colours), axis=(1, 2, 3)))


def _cut(detail: np.ndarray, y: int, x: int) -> np.ndarray:
    side = _SIDE - 2 * _SHIFT
    return detail[y : y + side, x : x + side]


def _normalise(values: np.ndarray) -> np.ndarray:
    """Gives each of some pictures mean 0 and length 1; one of a single grey becomes 0."""
    values = values - values.mean(axis=(1, 2), keepdims=True)
    lengths = np.linalg.norm(values, axis=(1, 2), keepdims=True)
    return values / np.maximum(lengths, 1e-3)
