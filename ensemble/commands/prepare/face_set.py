"""A folder of raw photos becomes a set of faces that can be trained on.

FACES/train/happy/party-1a2b3c4d.png    a face; without splits or labels the folders are fewer
FACES/manifest.csv                      path, label, split, group, status, box, score, source
FACES/left_out.csv                      what has no face in the set, and why
FACES/contact_sheet.png                 some faces of each class
"""

import hashlib
import io
import os
import posixpath
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from branches.checksums import file_checksum
from configs.errors import DataError
from configs.schema import FaceConfig, FaceSetConfig
from ensemble.commands.prepare.journal import Journal
from ensemble.commands.prepare.sheet import draw_sheet
from ensemble.commands.prepare.tables import (
    CutFace,
    Photo,
    describe,
    group_photos,
    table_left_out,
    table_set,
)
from ensemble.data.files import is_image, open_files
from ensemble.data.image_hashes import perceptual_hash
from ensemble.data.labels import fold
from ensemble.data.loading import find_source, load_collection
from ensemble.data.reading import map_ahead
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
from ensemble.system.progress import progress_bar

_JOURNAL = ".journal.jsonl"
_PARTS = ".parts"  # where files are written before they appear


def prepare_faces(raw: Sequence[Path], output: Path, settings: FaceSetConfig) -> str:
    """Cuts the faces out of photos and writes them as a set of images.

    Interrupted or killed, it goes on where it was when called again with the same
    arguments; called again after photos have come or gone, it adds and removes
    their faces. No file of the set is ever half written.

    Args:
        raw: Photos in any layout that a training reads, or a folder without labels.
        output: Folder of the set, new or begun by an earlier call.
        settings: Detector, labels and so on.

    Returns:
        Lines that say what was done and what was left out, for the screen.

    Raises:
        UserError: If photos, detector or output cannot be used, or if a photo has
            no face and that is an error.
    """
    faces = settings.faces
    name, detector = choose_detector(faces.detector, faces.model, faces.threshold)
    faces = faces.model_copy(update={"detector": name})
    _refuse_output(raw, output)
    collection = read_photos(raw, settings)
    _make_folder(output)
    journal = Journal(output / _JOURNAL)
    with journal.opened(_decisive(faces)):
        before = {name: Photo.read(entry) for name, entry in journal.records.items()}
        cutter = _Cutter(collection.images, output, detector, faces, before)
        photos = []
        for photo in cutter.cut_all(collection.records):
            photos.append(photo)
            if before.get(photo.name) != photo:
                journal.add(asdict(photo))
        grouped = group_photos(photos, within=settings.near_duplicates)
        _remove(output, [*before.values(), *grouped.duplicates], grouped.kept)
        cutter.write("manifest.csv", table_set(grouped).encode())
        cutter.write("left_out.csv", table_left_out(grouped, collection.problems).encode())
        cutter.write("contact_sheet.png", draw_sheet(output, grouped.kept))
        shutil.rmtree(output / _PARTS)
    done = sum(before.get(photo.name) == photo for photo in photos)
    notes = [f"face detector: {name}", *collection.notes]
    return "\n".join([*notes, *describe(grouped, collection.problems, output, done)])


def read_photos(raw: Sequence[Path], settings: FaceSetConfig) -> Collection:
    """Lists photos with their labels; with empty ones where they have no known layout.

    Raises:
        DataError: If there is no photo, or the labels cannot be read.
    """
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
        raise DataError(f"'{settings.labels}' is no table of labels for {shown} that is known.")
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


class _Cutter:
    """Turns photos into files. Safe to use from several threads.

    Args:
        images: The photos.
        output: Folder of the set.
        detector: Finds faces; None: the whole photo is one.
        settings: How faces are cut.
        before: Photos that an earlier call has done, by name.
    """

    def __init__(
        self,
        images: ImageStore,
        output: Path,
        detector: Detector | None,
        settings: FaceConfig,
        before: Mapping[str, Photo],
    ) -> None:
        self._images = images
        self._output = output
        self._detector = detector
        self._settings = settings
        self._before = before

    def cut_all(self, records: Sequence[Record]) -> Iterator[Photo]:
        """Yields all photos with their faces, which are files then."""
        if any(record.split for record in records):
            records = [replace(record, split=record.split or "train") for record in records]
        with progress_bar("Cutting faces", len(records)) as bar:
            for photo in map_ahead(self._cut, records):
                yield photo
                bar.update()

    def write(self, name: str, content: bytes) -> None:
        """Writes a file of the set, whole or not at all.

        Raises:
            DataError: If it cannot be written.
        """
        path = self._output / name
        part = self._output / _PARTS / path.name
        try:
            part.parent.mkdir(exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            raise DataError(
                f"'{path}' cannot be written ({error.strerror or error}). "
                "Free some space or choose another --output."
            ) from error

    def _cut(self, record: Record) -> Photo:
        photo = Photo(record.name, record.label, record.split, record.group)
        try:
            source = self._images.read(record.name)
        except OSError as error:
            return replace(photo, status="unreadable", reason=error.strerror or str(error))
        content = source if isinstance(source, bytes) else source.tobytes()
        photo = replace(photo, digest=hashlib.sha256(content).hexdigest())
        return self._find_done(photo) or self._cut_anew(photo, source)

    def _find_done(self, photo: Photo) -> Photo | None:
        """Returns the photo as an earlier call left it, if all of that still holds."""
        done = self._before.get(photo.name)
        if done is None or any(
            getattr(done, key) != getattr(photo, key)
            for key in ("label", "split", "group", "digest")
        ):
            return None
        return done if all((self._output / face.path).is_file() for face in done.faces) else None

    def _cut_anew(self, photo: Photo, source: bytes | np.ndarray) -> Photo:
        result = crop_faces(source, self._detector, self._settings, photo.name)
        faces = []
        for number, crop in enumerate(result.crops, start=1):
            path = _place(photo, number)
            file = io.BytesIO()
            Image.fromarray(crop.pixels).save(file, "PNG")
            self.write(path, file.getvalue())
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


def _place(photo: Photo, number: int) -> str:
    """Returns where a face goes, as in `train/happy/party-1a2b3c4d-2.png`."""
    mark = hashlib.sha256(photo.name.encode()).hexdigest()[:8]
    name = f"{_slug(posixpath.splitext(posixpath.basename(photo.name))[0])[:60]}-{mark}"
    folders = [photo.split, photo.label and _slug(fold(photo.label))]
    return "/".join(
        [*filter(None, folders), f"{name}-{number}.png" if number > 1 else f"{name}.png"]
    )


def _slug(text: str) -> str:
    """Returns a text as it may stand in a path, whatever the system."""
    return re.sub(r"[^\w+-]+", "-", text).strip("-") or "_"


def _decisive(faces: FaceConfig) -> dict[str, Any]:
    """Returns the settings that decide what the faces look like."""
    model = faces.model and file_checksum(faces.model)
    own = DETECTORS.get(faces.detector).threshold
    threshold = own if faces.threshold is None else faces.threshold
    return {**faces.model_dump(mode="json"), "model": model, "threshold": threshold}


def _refuse_output(raw: Sequence[Path], output: Path) -> None:
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
            f"'{output}' is there already and is no set of faces. "
            "Choose another --output or remove that folder."
        )


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"The folder '{output}' cannot be made ({error.strerror}). Choose another --output."
        ) from error


def _remove(output: Path, photos: Sequence[Photo], kept: Sequence[Photo]) -> None:
    """Removes faces that belong to the set no more, and folders left empty."""
    wanted = {face.path for photo in kept for face in photo.faces}
    for photo in photos:
        for face in photo.faces:
            if face.path not in wanted:
                path = output / face.path
                path.unlink(missing_ok=True)
                for folder in path.relative_to(output).parents:
                    if folder.name and (output / folder).is_dir():
                        if any((output / folder).iterdir()):
                            break
                        (output / folder).rmdir()
