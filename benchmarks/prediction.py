"""Prediction from an exported model: its cold start, a folder of faces, and a server under load.

    python benchmarks/prediction.py
    python benchmarks/prediction.py --format openvino --seconds 10

Two branches with random weights on drawn faces, which are taken whole. A folder is held
against the same runtime on crops in memory, and against `keras.Model.predict` one by one;
they take turns, figures are medians. The server is a process of its own, and so are its
clients; its throughput is held against the runtime's on batches of 32.
"""

import argparse
import http.client
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from machine import describe_machine, resident
from PIL import Image

from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras

from ensemble.commands.export.exporting import export_model  # noqa: E402
from ensemble.commands.predict.face_search import FaceSearch  # noqa: E402
from ensemble.commands.predict.photos import find_photos, read_frames  # noqa: E402
from ensemble.commands.predict.predictor import Predictor  # noqa: E402
from ensemble.data.synthetic_faces import EXPRESSIONS, draw_face  # noqa: E402
from ensemble.model.composition import build_model  # noqa: E402
from ensemble.model.runtimes import load_exported  # noqa: E402

_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure prediction and serving.")
    parser.add_argument("--branches", default="vgg16,densenet121")
    parser.add_argument("--format", default="onnx", choices=("onnx", "openvino", "litert"))
    parser.add_argument("--size", type=int, default=48, help="height and width in pixels")
    parser.add_argument("--images", type=int, default=320, help="in the folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60, help="of load on the server")
    args = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        pixels = draw_photos(place / "photos", args.images)
        ensemble = build_model(
            args.branches.split(","),
            classes=EXPRESSIONS,
            image_size=args.size,
            weights="random",
        )
        folder = export_model(ensemble, args.format, place / "exported").folder
        start_cold(folder, place / "photos", args.rounds)
        peak = predict_folder(ensemble.model, folder, place / "photos", pixels, args)
        serve(folder, pixels[0], peak, args)


def draw_photos(folder: Path, count: int) -> list[np.ndarray]:
    """Writes drawn faces of 96 pixels as JPEG and returns them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    faces = [draw_face(EXPRESSIONS[row % len(EXPRESSIONS)], rng, 96) for row in range(count)]
    for row, face in enumerate(faces):
        Image.fromarray(face).save(folder / f"{row:04d}.jpg")
    return faces


def start_cold(folder: Path, photos: Path, rounds: int) -> None:
    """Prints how long whole commands take."""
    photo = next(photos.iterdir())
    for name, words in (
        ("predict one photo", [str(folder), str(photo), "--faces", "none"]),
        ("predict --help", ["--help"]),
    ):
        command = [sys.executable, "-m", "ensemble.predict", *words]
        subprocess.run(command, check=True, capture_output=True)
        seconds = [
            timed(lambda: subprocess.run(command, check=True, capture_output=True))  # noqa: B023
            for _ in range(rounds)
        ]
        print(f"{name}: {median(seconds):.2f} s (of {rounds})")


def predict_folder(
    model: object,
    folder: Path,
    photos: Path,
    pixels: list[np.ndarray],
    args: argparse.Namespace,
) -> float:
    """Prints images a second of a folder, of its runtime and of Keras; returns the runtime's."""
    exported = load_exported(folder)
    predictor = Predictor(folder, search=FaceSearch())
    small = [Image.fromarray(face).resize((args.size, args.size)) for face in pixels]
    crops = np.stack([np.asarray(image, "float32") for image in small])
    few = crops[: max(8, args.images // 10)]

    def read() -> None:
        for _ in predictor.predict_all(read_frames(find_photos([str(photos)]))):
            pass

    def run() -> None:
        for start in range(0, len(crops), _BATCH):
            exported(crops[start : start + _BATCH])

    def one_by_one() -> None:
        for image in few:
            model.predict(image[None], verbose=0)  # type: ignore[attr-defined]

    ways: dict[str, tuple[Callable[[], None], int]] = {
        "folder of JPEG": (read, len(crops)),
        "runtime on crops": (run, len(crops)),
        "keras.Model.predict one by one": (one_by_one, len(few)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for work, _ in ways.values():
        work()
    for _ in range(args.rounds):
        for name, (work, count) in ways.items():
            rates[name].append(count / timed(work))
    own, peak, keras_rate = (median(rates[name]) for name in ways)
    for name in ways:
        print(f"{name}: {median(rates[name]):.1f} images/s")
    print(f"folder / runtime: {own / peak:.0%}; folder / one by one: {own / keras_rate:.1f}")
    return peak


def serve(folder: Path, face: np.ndarray, peak: float, args: argparse.Namespace) -> None:
    """Prints answers a second, their waiting times and the memory of a server under load."""
    buffer = io.BytesIO()
    Image.fromarray(face).save(buffer, "JPEG")
    command = [sys.executable, "-m", "ensemble.serve", str(folder), "--faces", "none"]
    server = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = int(server.stdout.readline().split("/ ")[0].rpartition(":")[2])
    ask(port, buffer.getvalue(), 3)
    before = resident(server.pid)
    workers = 2  # processes of clients; more would take the server's cores
    try:
        with ProcessPoolExecutor(workers) as pool:
            parts = [
                pool.submit(crowd, port, buffer.getvalue(), args.seconds, args.clients // workers)
                for _ in range(workers)
            ]
            done = [part.result() for part in parts]
        after = resident(server.pid)
    finally:
        server.terminate()
    waits = np.concatenate([part[0] for part in done])
    errors = sum(part[1] for part in done)
    rate = len(waits) / args.seconds
    p50, p99 = np.percentile(waits, [50, 99]) * 1000
    print(
        f"{args.clients} clients, {args.seconds:.0f} s: {rate:.1f} answers/s, {errors} errors, "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms; {rate / peak:.0%} of the runtime on batches of "
        f"{_BATCH}; memory {before:.0f} MB before, {after:.0f} MB after"
    )


def crowd(port: int, data: bytes, seconds: float, clients: int) -> tuple[np.ndarray, int]:
    """Returns seconds of each answer to some clients, and the number of errors."""
    with ThreadPoolExecutor(clients) as pool:
        several = list(pool.map(lambda _: ask(port, data, seconds), range(clients)))
    return np.concatenate([waits for waits, _ in several]), sum(errors for _, errors in several)


def ask(port: int, data: bytes, seconds: float) -> tuple[list[float], int]:
    """Asks again and again; returns seconds of each answer and the number of errors."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    waits, errors, end = [], 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        connection.request("POST", "/predict", data, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        content = answer.read()
        waits.append(time.perf_counter() - start)
        errors += answer.status != 200 or b"predicted" not in content
    return waits, errors


def timed(work: Callable[[], object]) -> float:
    """Returns the seconds that some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
