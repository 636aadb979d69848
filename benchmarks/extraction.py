"""How fast frozen branches run: each engine against `keras.Model.predict`, side by side.

    python benchmarks/extraction.py
    python benchmarks/extraction.py --branches vgg16 --sizes 48 --rounds 9

`predict` runs with Keras's defaults, batches of 32, on the same model and the
same images, which are in memory. All take turns in every round, so that whatever
else the machine does meets all of them; figures are medians of the rounds. The
share of the peak is what a branch's convolutions and dense layers need, 2
operations for a multiply-add, against the fastest large float32 matrix product seen
in all rounds, of several libraries and sizes.
"""

import argparse
import importlib.util
import math
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
from machine import describe_machine

from configs.errors import ConfigError
from ensemble.cli.command_line import load_backend

load_backend()  # quietly, before anything imports Keras

import keras  # noqa: E402

from ensemble.features.engines import Engine, make_engine  # noqa: E402
from ensemble.model.composition import build_extractor  # noqa: E402
from ensemble.model.runtimes import import_openvino  # noqa: E402

_MATRICES = (512, 2048)  # rows and columns


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how fast frozen branches run.")
    parser.add_argument("--branches", default="vgg16,densenet121")
    parser.add_argument("--sizes", default="48,96", help="heights and widths in pixels")
    parser.add_argument("--engines", default="keras,openvino,openvino-direct")
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement, about")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{describe_machine()}\n")
    print("branch        size  runner                  images/s  of predict  of peak")
    for branch in args.branches.split(","):
        for size in map(int, args.sizes.split(",")):
            compare(branch, size, args.engines.split(","), args.seconds, args.rounds)


def compare(branch: str, size: int, names: list[str], seconds: float, rounds: int) -> None:
    """Prints the lines of one branch at one size."""
    extractor = build_extractor([branch], input_shape=(size, size, 3), weights="random")
    model = keras.Model(extractor.input, extractor.output[branch])
    runners = {"keras predict": lambda images: model.predict(images, verbose=0)}
    for name in names:
        try:
            engine = make_engine(model, name)
        except ConfigError as error:
            print(f"{name}: {error}")
        else:
            runners[engine.name] = lambda images, engine=engine: _extract(engine, images)
    images = np.random.default_rng(0).uniform(0, 255, (128, size, size, 3)).astype("float32")
    for run in runners.values():
        run(images)  # compiles
    some = max(1, round(seconds / _time(runners["keras predict"], images)))
    images = np.concatenate([images] * some)
    products = matrix_products()
    speeds = {name: [] for name in runners}
    peaks = []
    for _ in range(rounds):
        for name, run in runners.items():
            speeds[name].append(len(images) / _time(run, images))
            peaks += [
                (2 * rows**3 / min(_time(multiply) for _ in range(3)), f"{product}, {rows} rows")
                for (product, rows), multiply in products.items()
            ]
    peak, product = max(peaks)
    operations = 2 * multiply_adds(model)
    baseline = median(speeds["keras predict"])
    for name, values in speeds.items():
        speed = median(values)
        print(
            f"{branch:12}  {size:4}  {name:22}  {speed:8.1f}  {speed / baseline:10.2f}"
            f"  {operations * speed / peak:7.0%}",
            flush=True,
        )
    print(
        f"{branch:12}  {size:4}  {operations / 1e9:.2f} Gflop an image; "
        f"peak {peak / 1e9:.0f} Gflop/s ({product})"
    )


def multiply_adds(model: keras.Model) -> int:
    """Returns the multiply-adds of one image, in all convolutions and dense layers."""
    return sum(
        math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        for layer in model._flatten_layers()
        if hasattr(layer, "kernel")
    )


def matrix_products() -> dict[tuple[str, int], Callable[[], object]]:
    """Returns functions that multiply two float32 matrices, by library and number of rows."""
    products = {}
    for size in _MATRICES:
        matrix = np.random.default_rng(0).standard_normal((size, size), "float32")
        tensor = keras.ops.convert_to_tensor(matrix)
        products["numpy", size] = partial(np.matmul, matrix, matrix)
        products[keras.backend.backend(), size] = partial(_multiply, tensor)
        if importlib.util.find_spec("openvino"):
            openvino = import_openvino()
            from openvino import opset13

            left = opset13.parameter(matrix.shape, openvino.Type.f32)
            product = openvino.Model([opset13.matmul(left, matrix, False, False)], [left])
            settings = {"INFERENCE_PRECISION_HINT": "f32"}
            products["openvino", size] = partial(
                openvino.compile_model(product, "CPU", settings), matrix
            )
    return products


def _multiply(tensor: object) -> np.ndarray:
    return np.asarray(keras.ops.matmul(tensor, tensor))


def _extract(engine: Engine, images: np.ndarray) -> list[np.ndarray]:
    starts = range(0, len(images), engine.batch_size)
    batches = ((start, images[start : start + engine.batch_size]) for start in starts)
    return [features for _, features in engine.map(batches)]


def _time(function: Callable[..., object], *args: object) -> float:
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
