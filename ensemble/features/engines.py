"""Engines that run a frozen extractor: Keras anywhere, OpenVINO where it is faster."""

import importlib.util
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import keras
import numpy as np

from configs.errors import ConfigError, reason_of
from configs.schema import EngineName, Precision
from ensemble.model.conversion import to_openvino
from ensemble.model.precision import in_precision
from ensemble.model.runtimes import import_openvino
from ensemble.system.devices import has_gpu, is_out_of_memory

Tag = TypeVar("Tag")

log = logging.getLogger(__name__)


class Engine(Protocol):
    """Runs a frozen branch over any number of images.

    Args:
        family: Engines of one family agree to rounding; see `engine_family`.
        name: What ran, for the records: "keras (tensorflow)", "openvino 2026.4.1".
        batch_size: Largest and best number of images in a batch.
    """

    family: str
    name: str
    batch_size: int

    def map(self, batches: Iterable[tuple[Tag, np.ndarray]]) -> Iterator[tuple[Tag, np.ndarray]]:
        """Runs batches in order, reading only a few of them ahead.

        Args:
            batches: A tag, which comes back with the features, and images of
                shape `(n, h, w, 3)`, uint8 or float32, n at most `batch_size`.

        Yields:
            The tag, and float32 features of shape `(n, h', w', c)`.
        """
        ...


def engine_family(engine: EngineName, precision: Precision) -> str:
    """Returns "openvino", or Keras with backend and device, such as "keras-tensorflow-cpu".

    Features of two families may differ by 1e-3. If OpenVINO fails to convert a model, Keras
    runs it although "openvino" was expected.
    """
    by_default = engine == "auto" and not has_gpu() and not _openvino_obstacle(precision)
    if engine.startswith("openvino") or by_default:
        return OpenVinoEngine.family
    return f"keras-{keras.backend.backend()}-{'gpu' if has_gpu() else 'cpu'}"


def make_engine(
    model: keras.Model, engine: EngineName, *, precision: Precision = "float32"
) -> Engine:
    """Returns an engine that runs a frozen branch with its current weights.

    Args:
        model: Image `(h, w, 3)`, RGB of 0..255, to one feature map `(h', w', c)`.
        engine: "auto": OpenVINO where it is installed, the backend is TensorFlow, there is no
            GPU, the precision is float32 and the model can be converted; else Keras.
            "openvino-direct": without Winograd's algorithm.
        precision: Precision of the computation; features are float32. OpenVINO computes in
            float32 only.

    Raises:
        ConfigError: If OpenVINO is required and not available, or if the model cannot be
            rebuilt in the precision.
    """
    if engine_family(engine, precision) == OpenVinoEngine.family:
        if obstacle := _openvino_obstacle(precision):
            raise ConfigError(obstacle)
        try:
            return OpenVinoEngine(model, winograd=engine != "openvino-direct")
        except ConfigError as error:
            if engine != "auto":
                raise
            log.warning("%s", error)
    return KerasEngine(model, precision)


class KerasEngine:
    """Runs a branch with Keras, on any backend and device.

    Args:
        model: Image to one feature map.
        precision: Precision of the computation; `map` raises a ConfigError if a feature is out
            of the range of float16.

    Raises:
        ConfigError: If the model cannot be rebuilt in the precision.
    """

    def __init__(self, model: keras.Model, precision: Precision = "float32") -> None:
        details = [keras.backend.backend()]
        if precision == "float32":
            runner = keras.Model(model.input, model.output)  # compiling leaves `model` as it was
        else:
            runner = in_precision(model, precision)
            runner.trainable = False
            details.append(precision)
        # XLA makes TensorFlow slower on a CPU, and everything else faster.
        slow_jit = keras.backend.backend() == "tensorflow" and not has_gpu()
        runner.compile(jit_compile=False if slow_jit else "auto")
        self.family = engine_family("keras", precision)
        self.name = f"keras ({', '.join(details)})"
        self.batch_size = 256 if has_gpu() else 32
        self._runner = runner
        self._precision = precision
        self._max_images = self.batch_size  # that fit into the device's memory at once
        self._padded_size = 0  # images in the largest batch yet, to which later ones are padded

    def map(self, batches: Iterable[tuple[Tag, np.ndarray]]) -> Iterator[tuple[Tag, np.ndarray]]:
        for tag, images in batches:
            yield tag, self._run(images.astype("float32", copy=False))

    def _run(self, images: np.ndarray) -> np.ndarray:
        while True:
            size = self._max_images
            parts = [images[i : i + size] for i in range(0, len(images), size)]
            try:
                return np.concatenate([self._predict(part) for part in parts])
            except Exception as error:  # each backend has a class of its own for it
                if not is_out_of_memory(error) or size == 1:
                    raise
                self._max_images = max(1, min(size, len(images)) // 2)
                self._padded_size = 0
                log.warning(
                    "The device's memory is full: continuing with %d images at once.",
                    self._max_images,
                )

    def _predict(self, images: np.ndarray) -> np.ndarray:
        self._padded_size = max(self._padded_size, len(images))  # few shapes to compile
        features = self._runner.predict_on_batch(_pad(images, self._padded_size))[: len(images)]
        if self._precision == "float16" and not np.isfinite(features).all():
            raise ConfigError(
                f"{self._runner.name!r} leaves the range of float16. Use bfloat16 or float32."
            )
        return np.asarray(features, "float32")


class OpenVinoEngine:
    """Runs a branch on the CPU, compiled by OpenVINO in float32; the backend is TensorFlow.

    Args:
        model: Image to one feature map.
        winograd: Whether wide convolutions are computed by Winograd's algorithm.

    Raises:
        ConfigError: If OpenVINO cannot convert the model.
    """

    family = "openvino"

    def __init__(self, model: keras.Model, *, winograd: bool = True) -> None:
        openvino = import_openvino()
        from ensemble.features.winograd import use_winograd

        version = openvino.__version__.partition("-")[0]
        self.name = f"openvino {version}" + ("" if winograd else " direct")
        self.batch_size = 8  # a core's work stays in its cache
        try:
            converted = to_openvino(model, self.batch_size)
            if winograd:
                use_winograd(converted)
            # Throughput: each core has batches of its own. Newer CPUs would compute in bfloat16.
            settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
            self._compiled = openvino.Core().compile_model(converted, "CPU", settings)
        except Exception as error:  # converters fail in every way
            raise ConfigError(
                f"OpenVINO cannot convert {model.name!r} ({reason_of(error)}); "
                "the engine 'keras' runs it."
            ) from error

    def map(self, batches: Iterable[tuple[Tag, np.ndarray]]) -> Iterator[tuple[Tag, np.ndarray]]:
        # One request more than run at once, so that no core waits while a batch is handed over.
        requests = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1
        idle = [self._compiled.create_infer_request() for _ in range(requests)]
        pending: deque[tuple[Tag, int, Any]] = deque()

        def finish() -> tuple[Tag, np.ndarray]:
            tag, images, request = pending.popleft()
            request.wait()
            idle.append(request)
            return tag, request.get_output_tensor().data[:images].copy()

        for tag, images in batches:
            request = idle.pop()
            request.get_input_tensor().data[:] = _pad(images, self.batch_size)
            request.start_async()
            pending.append((tag, len(images), request))
            if not idle:
                yield finish()
        while pending:
            yield finish()


def _openvino_obstacle(precision: Precision) -> str | None:
    """Returns why OpenVINO is not available, in a sentence, or None if it is."""
    if keras.backend.backend() != "tensorflow":
        return (
            "The engine 'openvino' needs the backend tensorflow. "
            f"Received: {keras.backend.backend()}. Use the engine 'keras'."
        )
    if precision != "float32":
        return (
            "The engine 'openvino' computes in float32. "
            f"Received: {precision}. Use the engine 'keras'."
        )
    if importlib.util.find_spec("openvino") is None:
        return (
            "The engine 'openvino' is not installed. Use the engine 'keras', or "
            "pip install 'multibranch-ensemble[cpu]'."
        )
    return None


def _pad(images: np.ndarray, batch_size: int) -> np.ndarray:
    missing = batch_size - len(images)
    return np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)]) if missing else images
