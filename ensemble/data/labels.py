"""From labels as found in the data to the classes of a model."""

import difflib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from configs.errors import DataError
from configs.registry import unknown

_SYNONYMS = (
    {"anger", "angry"},
    {"contempt", "contemptuous"},
    {"disgust", "disgusted"},
    {"fear", "fearful", "afraid"},
    {"happiness", "happy", "joy"},
    {"sadness", "sad"},
    {"surprise", "surprised"},
)

# How alike two names are from which on the smaller class may be the other one misspelt,
# whatever the sizes (one typo in five letters), and where it has few images for it.
_TYPO, _ALIKE, _FEW = 0.85, 0.75, 3


@dataclass(frozen=True)
class ClassMap:
    """The classes of a model and the labels that mean them.

    Args:
        names: The classes; a class's place is its index.
        indices: Folded label (see `fold`) to the index of its class. Labels of
            classes that are left out are absent.
        notes: Lines for the screen that say what was read as what.
    """

    names: tuple[str, ...]
    indices: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def index(self, label: str) -> int | None:
        """Returns the class of a label as found in the data; None: it is left out."""
        return self.indices.get(fold(label))


def fold(label: str) -> str:
    """Returns a label without case, outer blanks and differences of Unicode form."""
    return unicodedata.normalize("NFC", label.strip()).casefold()


def is_emotion(label: str) -> bool:
    """Returns whether a label is a usual name of an emotion, such as "happy" or "anger"."""
    return any(fold(label) in group for group in ({"neutral"}, *_SYNONYMS))


def map_classes(
    found: Iterable[str],
    *,
    classes: Sequence[str] = (),
    merge: Mapping[str, Sequence[str]] | None = None,
) -> ClassMap:
    """Decides which classes there are, in which order, and which labels mean them.

    Spellings that differ in case or outer blanks are one class. A class asked
    for under another name of the same emotion ("happy" for "happiness") is
    found if only one class of the data can be meant.

    Args:
        found: The label of each image. The commonest spelling names a class, in lower
            case where spellings vary and one of them is in lower case.
        classes: The classes to keep, in this order and under these names. Empty
            keeps all, sorted without regard to case.
        merge: New class to its members, which are then no classes of their own.
            The new name may be that of a class, whose images then belong to it.

    Raises:
        DataError: If a class or a member is not in the data or occurs twice, or
            if fewer than two classes are left.
    """
    spellings = _spellings(found)
    names = _name_classes(spellings)
    notes = _note_spellings(spellings)
    known, members = _merge(names, merge or {}, notes)
    notes += _note_near_misses(
        known, {key: spellings[key].total() for key in known & spellings.keys()}
    )
    if classes:
        chosen = [_resolve(name, known, notes) for name in classes]
        _check_unique(chosen, known)
        final = tuple(name.strip() for name in classes)
    else:
        chosen = sorted(known, key=lambda key: known[key].casefold())
        final = tuple(known[key] for key in chosen)
        notes += _note_synonyms(known)
    if len(final) < 2:
        raise DataError(
            f"Two classes are needed at least. Received: {_quote(final)}. "
            f"Classes of the data: {_quote(names.values())}."
        )
    indices = {label: index for index, key in enumerate(chosen) for label in members[key]}
    return ClassMap(final, indices, tuple(notes))


def share_classes(
    found: Iterable[str], *, classes: Sequence[str], mapping: Mapping[str, Sequence[str]]
) -> ClassMap:
    """Decides which classes of a model other data shares, and which of its labels mean them.

    A class is shared if a label is mapped to it, or if one has its name or is the only
    other name of the same emotion. Labels of no shared class are left out.

    Args:
        found: The label of each image.
        classes: The classes of the model.
        mapping: Class of the model to the labels that mean it.

    Returns:
        The shared classes, in the order of the model.

    Raises:
        DataError: If a class is not the model's, a label is not in the data or stands
            twice, or fewer than two classes are shared.
    """
    spellings = _spellings(found)
    names = _name_classes(spellings)
    own = {fold(name): name for name in classes}
    for name in mapping:
        if fold(name) not in own:
            raise DataError(unknown("class of the model", name.strip(), list(classes)))
    mapping = {own[fold(name)]: labels for name, labels in mapping.items()}
    known, _ = _merge(names, mapping, [])
    shared = [name for name in classes if _find(name, known)]
    if len(shared) < 2:
        raise DataError(
            f"The model and the data share {_quote(shared) or 'no class'}, and two classes are "
            f"needed at least. Classes of the model: {_quote(classes)}; labels of the data: "
            f"{_quote(names.values())}. Say what means what with --map CLASS=LABEL+LABEL,..."
        )
    return map_classes(found, classes=shared, merge=mapping)


def _merge(
    names: Mapping[str, str], merge: Mapping[str, Sequence[str]], notes: list[str]
) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Returns key to name and key to the folded labels of each class after merging."""
    groups = {
        new.strip(): [_resolve(member, names, notes) for member in group]
        for new, group in merge.items()
    }
    moved = [key for group in groups.values() for key in group]
    _check_unique(moved, names)
    known = {key: name for key, name in names.items() if key not in moved}
    members = {key: {key} for key in known}
    for new, group in groups.items():
        labels = set(group)
        home = _find(new, known)
        if home is not None:
            del known[home]
            labels |= members.pop(home)
        known[fold(new)] = new
        members[fold(new)] = labels
        notes.append(f"{new} joins {_quote(names[label] for label in sorted(labels))}")
    return known, members


def _spellings(found: Iterable[str]) -> dict[str, Counter[str]]:
    """Returns folded label to how often each of its spellings stands in the data."""
    spellings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, count in Counter(found).items():
        spellings[fold(label)][label.strip()] += count
    return dict(sorted(spellings.items()))


def _name_classes(spellings: Mapping[str, Counter[str]]) -> dict[str, str]:
    """Returns folded label to the commonest spelling, all in lower case where spellings vary."""
    names = {
        key: min(counter, key=lambda spelling: (-counter[spelling], spelling))
        for key, counter in spellings.items()
    }
    varied = any(len(counter) > 1 for counter in spellings.values())
    if varied and any(spelling.islower() for counter in spellings.values() for spelling in counter):
        return {key: name.lower() for key, name in names.items()}
    return names


def _note_spellings(spellings: Mapping[str, Counter[str]]) -> list[str]:
    total = sum(map(len, spellings.values()))
    if total == len(spellings):
        return []
    return [f"{total} spellings are read as {len(spellings)} classes without regard to case"]


def _note_synonyms(known: Mapping[str, str]) -> list[str]:
    groups = [sorted(group & known.keys()) for group in _SYNONYMS]
    return [
        f"{_quote(known[key] for key in group)} are kept apart; --merge can join them"
        for group in groups
        if len(group) > 1
    ]


def _note_near_misses(known: Mapping[str, str], counts: Mapping[str, int]) -> list[str]:
    """Returns a note for each class that may be a larger one misspelt."""
    notes = []
    for key, count in counts.items():
        if any(map(str.isdigit, key)):  # numbered names are alike by design
            continue
        larger = [other for other in counts if (counts[other], other) > (count, key)]
        much_larger = [other for other in larger if counts[other] >= _FEW * count]
        close = difflib.get_close_matches(key, larger, n=1, cutoff=_TYPO)
        close += difflib.get_close_matches(key, much_larger, n=1, cutoff=_ALIKE)
        if close:
            name, other = known[key], known[close[0]]
            notes.append(
                f"'{name}' is a class of {count} images beside '{other}' of {counts[close[0]]}. "
                f"If it is misspelt, join it with --merge {other}={name}"
            )
    return notes


def _find(name: str, known: Iterable[str]) -> str | None:
    """Returns the known class that a name means: itself or its only synonym."""
    key = fold(name)
    synonyms = next((group for group in _SYNONYMS if key in group), set())
    candidates = [other for other in known if other in synonyms]
    if key in known:
        return key
    return candidates[0] if len(candidates) == 1 else None


def _resolve(name: str, names: Mapping[str, str], notes: list[str]) -> str:
    key = _find(name, names)
    if key is None:
        raise DataError(unknown("class", name.strip(), list(names.values())))
    if key != fold(name):
        notes.append(f"{name.strip()} reads '{names[key]}'")
    return key


def _check_unique(keys: Sequence[str], names: Mapping[str, str]) -> None:
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise DataError(f"The class '{names[twice]}' is asked for twice. Name it once.")


def _quote(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
