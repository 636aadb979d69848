"""How many faces the detectors find, and how long they take.

    python benchmarks/faces.py --photos photos/ --boxes boxes.csv --crops faces.zip
    python benchmarks/faces.py --photos photos/ --boxes boxes.csv --face-model yunet.onnx

--photos are whole photos, a folder or a .zip; --boxes a CSV `name,left,top,width,height`
of all faces in those that it names, and `name` alone for a photo without one. A
face is found where boxes share 30 % of what they cover together; what else is found is
false. --crops are images of one face each: tight crops, as data sets have them. The
same search as in training and preparing is measured, decoding left out.
"""

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from machine import describe_machine

from configs.errors import UserError
from configs.schema import FaceConfig
from ensemble.data.decoding import decode_whole
from ensemble.data.files import is_image, open_files
from ensemble.faces.crops import FaceResult, build_detector, crop_faces
from ensemble.faces.registry import DETECTORS, Box

OVERLAP = 0.3
THRESHOLDS = {"yunet": (0.5, 0.6, 0.7, 0.8, 0.9), "haar": (2, 3, 5)}


class Photo(NamedTuple):
    """A photo, and the boxes of its faces; None: nobody has counted them."""

    pixels: np.ndarray
    boxes: list[Box] | None


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the face detectors.")
    parser.add_argument("--photos", type=Path, help="folder or .zip")
    parser.add_argument("--boxes", type=Path, help="CSV of the faces in them")
    parser.add_argument("--crops", type=Path, nargs="*", default=[], help="folders or .zip files")
    parser.add_argument("--most", type=int, default=400, help="images of each --crops")
    parser.add_argument("--face-model", type=Path, help="file of YuNet")
    args = parser.parse_args()
    print(describe_machine())
    marked = read_boxes(args.boxes) if args.boxes else {}
    photos = [
        Photo(pixels, marked.get(Path(name).name))
        for name, pixels in (read(args.photos, 10_000) if args.photos else ())
    ]
    crops = {root.stem: [pixels for _, pixels in read(root, args.most)] for root in args.crops}
    total = sum(len(photo.boxes or ()) for photo in photos)
    heads = [f"{'detector':<10} {'least':>5}  {'found':>8} {'false':>5} {'ms':>6}"]
    heads += [f"{name[:16] + ': one':>21} {'none':>4} {'more':>4} {'ms':>6}" for name in crops]
    print("  ".join(heads))
    for name in DETECTORS.names():
        for threshold in THRESHOLDS.get(name, (None,)):
            model = args.face_model if name == "yunet" else None
            try:
                detector = build_detector(name, model, threshold)
            except UserError as error:
                print(f"{name:<10} {error}")
                break
            if detector is not None:
                cells = [f"{name:<10} {threshold:>5}", evaluate(detector, photos, total)]
                cells += [count(detector, images) for images in crops.values()]
                print("  ".join(cells))


def evaluate(detector, photos: Sequence[Photo], total: int) -> str:
    """Returns how many marked faces are found, how many others, and the time a photo takes."""
    found = false = 0
    results, milliseconds = search(detector, [photo.pixels for photo in photos])
    for result, photo in zip(results, photos, strict=True):
        if photo.boxes is None:
            continue
        hits = {
            max(range(len(photo.boxes)), key=lambda place: overlap(crop.box, photo.boxes[place]))
            for crop in result.crops
            if any(overlap(crop.box, box) >= OVERLAP for box in photo.boxes)
        }
        found += len(hits)
        false += len(result.crops) - len(hits)
    return f"{found:>4}/{total:<3} {false:>5} {milliseconds:>6.1f}"


def count(detector, images: Sequence[np.ndarray]) -> str:
    """Returns in how many images there is one face, none or more, and the time one takes."""
    results, milliseconds = search(detector, images)
    counts = [len(result.crops) for result in results]
    one, none = counts.count(1), counts.count(0)
    return f"{one:>17}/{len(images)} {none:>4} {len(images) - one - none:>4} {milliseconds:>6.1f}"


def search(detector, images: Sequence[np.ndarray]) -> tuple[list[FaceResult], float]:
    """Returns what is found, and the milliseconds that an image takes."""
    started = time.perf_counter()
    results = [crop_faces(pixels, detector, FaceConfig(several="all")) for pixels in images]
    return results, 1000 * (time.perf_counter() - started) / max(1, len(images))


def overlap(a: Box, b: Box) -> float:
    """Returns the area that two boxes share, as a part of what they cover together."""
    across = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    down = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    shared = max(across, 0.0) * max(down, 0.0)
    return shared / (a.width * a.height + b.width * b.height - shared)


def read(root: Path, most: int) -> list[tuple[str, np.ndarray]]:
    """Returns name and pixels of images, evenly spread over a folder or an archive."""
    files = open_files([root])
    names = [name for name in files.names() if is_image(name)]
    step = max(1, -(-len(names) // most))
    return [(name, decode_whole(files.read(name))) for name in names[::step]]


def read_boxes(path: Path) -> dict[str, list[Box]]:
    """Returns the boxes of each photo that a table names."""
    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            sides = [row.get(side) for side in Box._fields]
            boxes[row["name"]] += [Box(*map(float, sides))] if all(sides) else []
    return dict(boxes)


if __name__ == "__main__":
    main()
