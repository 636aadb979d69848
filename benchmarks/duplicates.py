"""Time and peak memory of the search for images that stand in several splits.

    python benchmarks/duplicates.py
    python benchmarks/duplicates.py --data ferplus_train.zip,ferplus_valid.zip

The last tenth of the images is for validation; of these every tenth is replaced by a mirrored
and compressed copy of a training image. Each number of images is searched by a process of its
own, which reads and hashes every image and compares the splits. What is found beside the copies
is a false alarm among drawn faces, which are all different; photos may have copies of their own.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from machine import describe_machine
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from ensemble.data.decoding import decode
from ensemble.data.files import is_image, open_files
from ensemble.data.leakage import find_duplicates
from ensemble.data.loading import load_dataset
from ensemble.data.reading import inspect
from ensemble.data.registry import Location
from ensemble.data.synthetic_faces import EXPRESSIONS, draw_face


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the search for leaks between splits.")
    parser.add_argument("--images", default="8000,32000")
    parser.add_argument("--size", type=int, default=48, help="height and width in pixels")
    parser.add_argument("--data", help="images to take in random order; none: drawn faces")
    parser.add_argument("--share", type=float, default=0.1, help="of the images in validation")
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.search:
        print(json.dumps(search(args.search, args.size)))
        return
    print(describe_machine())
    print("images  reading, s  comparing, s  images/s  peak MB  planted  found  others")
    seconds = []
    counts = [int(count) for count in args.images.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "faces").mkdir()
        if args.data:
            copy_images(folder / "faces", args.data.split(","), args.size, max(counts))
        else:
            with ProcessPoolExecutor() as pool:
                draw = partial(save_face, folder / "faces", args.size)
                list(pool.map(draw, range(max(counts)), chunksize=256))
        for count in counts:
            planted = arrange(folder, count, round(args.share * count))
            found, peak = measure(folder / str(count), args.size)
            seconds.append(found["reading"] + found["comparing"])
            right = sum([first, second] in found["pairs"] for first, second in planted)
            print(
                f"{count:6}  {found['reading']:10.1f}  {found['comparing']:12.1f}  "
                f"{count / seconds[-1]:8.0f}  {peak / 1e6:7.0f}  {len(planted):7}  {right:5}  "
                f"{len(found['pairs']) - right:6}"
            )
    growth = counts[-1] / counts[0], seconds[-1] / seconds[0]
    print("{:.1f} times the images: {:.1f} times as long".format(*growth))


def save_face(folder: Path, size: int, number: int) -> None:
    """Saves a drawn face."""
    pixels = draw_face(EXPRESSIONS[number % 8], np.random.default_rng([11, number]))
    face = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    face.save(folder / f"{number}.png", compress_level=1)


def copy_images(folder: Path, roots: list[str], size: int, count: int) -> None:
    """Saves images of a data set by number, in random order."""
    files = open_files([Path(root) for root in roots])
    names = [name for name in files.names() if is_image(name)]
    if len(names) < count:
        raise SystemExit(f"there are {len(names)} images, and {count} are wanted")
    order = np.random.default_rng(11).permutation(len(names))
    for number, place in enumerate(order[:count]):
        pixels = decode(files.read(names[place]), size)
        Image.fromarray(pixels).save(folder / f"{number}.png", compress_level=1)


def arrange(folder: Path, count: int, held_out: int) -> list[tuple[str, str]]:
    """Links faces into splits, with copies planted; returns the pairs by number."""
    planted = []
    for number in range(count):
        part = "val" if number >= count - held_out else "train"
        path = folder / str(count) / part / EXPRESSIONS[number % 8] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if part == "val" and number % 10 == 0:
            source = number - (count - held_out)
            with Image.open(folder / "faces" / f"{source}.png") as face:
                copy = face.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            file = io.BytesIO()
            copy.save(file, "JPEG", quality=70)
            path.write_bytes(file.getvalue())
            planted.append((str(source), str(number)))
        else:
            os.link(folder / "faces" / f"{number}.png", path)
    return planted


def measure(folder: Path, size: int) -> tuple[dict, int]:
    """Returns what a search in a process of its own tells, and its peak memory in bytes."""
    command = [sys.executable, __file__, "--search", str(folder), "--size", str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit("the search failed")
    return json.loads(output), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def search(folder: Path, size: int) -> dict:
    """Reads the images of a folder and compares its splits, as a training does."""
    dataset = load_dataset(Location((folder,)))
    started = time.perf_counter()
    parts = {
        "train": inspect(dataset.train, size),
        "validation": inspect(dataset.validation, size),
    }
    read = time.perf_counter()
    repeats = find_duplicates(parts)
    return {
        "reading": read - started,
        "comparing": time.perf_counter() - read,
        "pairs": [[Path(r.name).stem, Path(r.other_name).stem] for r in repeats],
    }


if __name__ == "__main__":
    main()
