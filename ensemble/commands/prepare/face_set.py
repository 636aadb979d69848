"""A set of faces for training, cut out of raw photos.

FACES/train/happy/party-1a2b3c4d.png    a face; without splits or labels the folders are fewer
FACES/manifest.csv                      path, label, split, group, status, box, score, source
FACES/left_out.csv                      photos without a face in the set, and the reasons
FACES/contact_sheet.png                 some faces of each class
"""

import hashlib
import io
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from branches.checksums import file_checksum
from configs.errors import DataError
from configs.schema import FaceConfig, FaceSetConfig
from ensemble.commands.prepare.journal import Journal
from ensemble.commands.prepare.sheet import draw_sheet
from ensemble.commands.prepare.tables import (
    CutFace,
    PreparedPhoto,
    describe,
    group_photos,
    table_left_out,
    table_set,
)
from ensemble.data.files import is_image, open_files
from ensemble.data.image_hashes import perceptual_hash
from ensemble.data.labels import fold
from ensemble.data.loading import find_source, load_collection
from ensemble.data.reading import content_digest, map_ahead
from ensemble.data.registry import (
    SOURCES,
    Collection,
    ImageStore,
    Location,
    Problem,
    Record,
    count_reasons,
)
from ensemble.faces.crops import choose_detector, crop_faces
from ensemble.faces.registry import DETECTORS, Detector
from ensemble.system.files import make_folder, remove_parts, write_atomic
from ensemble.system.progress import progress_bar

_JOURNAL = ".journal.jsonl"


def prepare_faces(raw: Sequence[Path], output: Path, settings: FaceSetConfig) -> str:
    """Cuts the faces out of photos and writes them as a set of images.

    Called again with the same arguments, it resumes an interrupted call, and adds and removes
    the faces of photos that have come or gone. Files are written whole or not at all.

    Args:
        raw: Photos in any layout that a training reads, or a folder without labels.
        output: Folder of the set, new or begun by an earlier call.
        settings: Detector, labels and so on.

    Returns:
        Lines for the screen that count what is in the set and what was left out.

    Raises:
        UserError: If photos, detector or output cannot be used, or if a photo has
            no face and that is an error.
    """
    faces = settings.faces
    name, detector = choose_detector(faces.detector, faces.model, faces.threshold)
    faces = faces.model_copy(update={"detector": name})
    _check_output(raw, output)
    collection = _read_photos(raw, settings)
    make_folder(output)
    journal = Journal(output / _JOURNAL)
    with journal.opened(_decisive(faces)):
        before = {name: PreparedPhoto.read(entry) for name, entry in journal.records.items()}
        cutter = _Cutter(collection.images, output, detector, faces, before)
        photos = []
        for photo in cutter.cut_all(collection.records):
            photos.append(photo)
            if before.get(photo.name) != photo:
                journal.add(asdict(photo))
        grouped = group_photos(photos, within=settings.near_duplicates)
        _remove(output, [*before.values(), *grouped.duplicates], grouped.kept)
        _write(output / "manifest.csv", table_set(grouped).encode())
        _write(output / "left_out.csv", table_left_out(grouped, collection.problems).encode())
        _write(output / "contact_sheet.png", draw_sheet(output, grouped.kept))
        remove_parts(output)
    done = sum(before.get(photo.name) == photo for photo in photos)
    notes = [f"face detector: {name}", *collection.notes]
    return "\n".join([*notes, *describe(grouped, collection.problems, output, done)])


def _read_photos(raw: Sequence[Path], settings: FaceSetConfig) -> Collection:
    """Lists photos with their labels; with empty ones where they have no known layout."""
    location = Location(tuple(raw), settings.labels)
    spec = None
    if settings.source != "auto":
        spec = SOURCES.get(settings.source)
    elif not settings.unlabelled:
        spec = find_source(location)
    if spec is not None:
        collection = load_collection(location, spec)
        return replace(collection, records=_unify_labels(collection.records))
    shown = ", ".join(f"'{root}'" for root in raw)
    if settings.labels is not None:
        raise DataError(f"'{settings.labels}' is not a known table of labels for {shown}.")
    files = open_files(raw)
    records = [Record(name, "") for name in files.names() if is_image(name)]
    others = [Problem(name, "not an image") for name in files.names() if not is_image(name)]
    problems = [*files.problems, *others]
    if not records:
        why = f" Left out: {count_reasons(problems)}." if problems else ""
        raise DataError(f"There is no image in {shown}.{why}")
    notes = [*files.notes, f"{len(records)} photos without labels"]
    return Collection(files, records, problems, notes)


def _unify_labels(records: Sequence[Record]) -> list[Record]:
    """Spells each class in one way, the most frequent one."""
    counts = Counter(record.label.strip() for record in records)
    spellings = {fold(label): label for label in sorted(counts, key=lambda label: counts[label])}
    return [replace(record, label=spellings[fold(record.label)]) for record in records]


@dataclass(frozen=True)
class _Cutter:
    """Turns photos into files of faces. Safe to use from several threads.

    Args:
        images: The photos.
        output: Folder of the set.
        detector: Finds faces; None: the whole photo is one.
        settings: How faces are cut.
        before: Photos finished by an earlier call, by name.
    """

    images: ImageStore
    output: Path
    detector: Detector | None
    settings: FaceConfig
    before: Mapping[str, PreparedPhoto]

    def cut_all(self, records: Sequence[Record]) -> Iterator[PreparedPhoto]:
        """Yields all photos once the files of their faces are written."""
        if any(record.split for record in records):
            records = [replace(record, split=record.split or "train") for record in records]
        with progress_bar("Cutting faces", len(records)) as bar:
            for photo in map_ahead(self._cut, records):
                yield photo
                bar.update()

    def _cut(self, record: Record) -> PreparedPhoto:
        photo = PreparedPhoto(record.name, record.label, record.split, record.group)
        try:
            source = self.images.read(record.name)
        except OSError as error:
            return replace(photo, status="unreadable", reason=error.strerror or str(error))
        photo = replace(photo, digest=content_digest(source).hex())
        done = self.before.get(photo.name)
        if done and done.has_inputs_of(photo) and self._has_files_of(done):
            return done
        result = crop_faces(source, self.detector, self.settings, photo.name)
        faces = []
        for number, crop in enumerate(result.crops, start=1):
            path = _place(photo, number)
            file = io.BytesIO()
            Image.fromarray(crop.pixels).save(file, "PNG")
            _write(self.output / path, file.getvalue())
            left, top, width, height = map(round, crop.box)
            faces.append(CutFace(path, left, top, width, height, round(crop.score, 3)))
        return replace(
            photo,
            status=result.status,
            reason=result.reason,
            found=result.found,
            fingerprint=perceptual_hash(source).hex() if faces else "",
            faces=tuple(faces),
        )

    def _has_files_of(self, photo: PreparedPhoto) -> bool:
        return all((self.output / face.path).is_file() for face in photo.faces)


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be written ({error.strerror or error}). "
            "Free some space or choose another --output."
        ) from error


def _place(photo: PreparedPhoto, number: int) -> str:
    """Returns the path of a face, as in `train/happy/party-1a2b3c4d-2.png`."""
    mark = hashlib.sha256(photo.name.encode()).hexdigest()[:8]
    name = f"{_slug(posixpath.splitext(posixpath.basename(photo.name))[0])[:60]}-{mark}"
    folders = [photo.split, photo.label and _slug(fold(photo.label))]
    return "/".join(
        [*filter(None, folders), f"{name}-{number}.png" if number > 1 else f"{name}.png"]
    )


def _slug(text: str) -> str:
    """Returns a text that is a valid part of a path on all systems."""
    return re.sub(r"[^\w+-]+", "-", text).strip("-") or "_"


def _decisive(faces: FaceConfig) -> dict[str, Any]:
    """Returns the settings that decide what the faces look like."""
    model = faces.model and file_checksum(faces.model)
    own = DETECTORS.get(faces.detector).threshold
    threshold = own if faces.threshold is None else faces.threshold
    return {**faces.model_dump(mode="json"), "model": model, "threshold": threshold}


def _check_output(raw: Sequence[Path], output: Path) -> None:
    home = output.resolve()
    for root in raw:
        if home == root.resolve() or root.resolve() in home.parents:
            raise DataError(
                f"The faces would be written among the photos in '{root}'. "
                f"Received: --output {output}. Choose a folder outside."
            )
    if output.exists() and not output.is_dir():
        raise DataError(f"'{output}' is a file. Name a folder with --output.")
    if output.is_dir() and any(output.iterdir()) and not (output / _JOURNAL).is_file():
        raise DataError(
            f"'{output}' is there already and is not a set of faces. "
            "Choose another --output or remove that folder."
        )


def _remove(output: Path, photos: Sequence[PreparedPhoto], kept: Sequence[PreparedPhoto]) -> None:
    """Removes faces that no longer belong to the set, and folders left empty."""
    wanted = {face.path for photo in kept for face in photo.faces}
    for path in {face.path for photo in photos for face in photo.faces} - wanted:
        (output / path).unlink(missing_ok=True)
        with suppress(OSError):  # a folder that is not empty, at the latest the set's own
            for folder in Path(path).parents:
                (output / folder).rmdir()
