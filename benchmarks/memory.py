"""Peak memory of an extraction, which must not grow with the number of images.

    python benchmarks/memory.py
    python benchmarks/memory.py --branch vgg16 --images 2000,28000

Each number of images is extracted by a process of its own, from an empty store.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import describe_machine
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the peak memory of an extraction.")
    parser.add_argument("--branch", default="densenet121")
    parser.add_argument("--size", type=int, default=48, help="height and width in pixels")
    parser.add_argument("--images", default="2000,28000")
    args = parser.parse_args()
    print(describe_machine())
    counts = [int(count) for count in args.images.split(",")]
    peaks = []
    print("images  peak MB")
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            images = make_images(Path(folder) / str(count), count)
            peaks.append(extract(images, args.branch, args.size))
            print(f"{count:6}  {peaks[-1] / 1e6:7.0f}")
    print(f"largest / smallest: {max(peaks) / min(peaks):.3f}")


def extract(images: Path, branch: str, size: int) -> int:
    """Returns the most memory in bytes that an extraction held at any time."""
    command = [
        sys.executable, "-m", "ensemble.extract", "--branches", branch, "--weights", "random",
        "--image-size", str(size), "--views", "1", "--data", str(images),
        "--cache", str(images / "store"),
    ]  # fmt: skip
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit("the extraction failed")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def make_images(folder: Path, count: int) -> Path:
    """Saves small pictures of noise in two class folders."""
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (48, 48), dtype=np.uint8)
        Image.fromarray(pixels).save(path, compress_level=0)
    return folder


if __name__ == "__main__":
    main()
