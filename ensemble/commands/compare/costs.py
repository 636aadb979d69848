"""Cost of a model: its parameters and its time per image."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.commands.compare.candidates import Candidate
from ensemble.system.progress import progress_bar

BATCH = 32  # images
_SINGLES, _BATCHES = 10, 3  # timed calls, of which the shortest counts


@dataclass(frozen=True)
class Cost:
    """Weights of a model, frozen ones included, and seconds per image, alone and in a batch."""

    parameters: int
    single: float
    batch: float


def measure_costs(candidates: Sequence[Candidate]) -> list[Cost]:
    """Measures the model of each candidate, models of one build only once.

    A trial keeps no model: one is built like it, with random weights, which
    takes the same time.

    Raises:
        UserError: If a model cannot be loaded or built.
    """
    known: dict[str, Cost] = {}
    with progress_bar("Timing models", len(candidates)) as bar:
        for candidate in candidates:
            build = _build_of(candidate)
            if build not in known:
                known[build] = _measure(candidate)
            bar.update()
    return [known[_build_of(candidate)] for candidate in candidates]


def describe_measurement() -> str:
    """Returns how times are measured, and on what, in a sentence."""
    import keras

    from ensemble.system.devices import list_devices

    return (
        f"Time is that of the whole model by Keras on {', '.join(list_devices())} with "
        f"{keras.config.backend()}, images in memory: after one call, the shortest of "
        f"{_SINGLES} calls with one image and of {_BATCHES} calls with {BATCH}."
    )


def _build_of(candidate: Candidate) -> str:
    if candidate.fusion is not None:
        return candidate.name
    model = candidate.config.model.model_dump(mode="json", exclude={"weights"})
    size, classes = candidate.config.data.image_size, len(candidate.predictions.classes)
    return json.dumps([model, size, classes])


def _measure(candidate: Candidate) -> Cost:
    import keras

    from ensemble.model.composition import build_model

    keras.utils.clear_session()
    model = candidate.config.model
    if (candidate.run.folder / "model.keras").is_file():
        ensemble = candidate.run.load_model()
    else:
        ensemble = build_model(
            candidate.branches,
            classes=candidate.predictions.classes,
            image_size=candidate.config.data.image_size,
            weights="random",
            fusion=model.fusion,
            standardize=model.standardize,
            head=model.head.name,
            head_options=model.head.options,
        )
    shape = BATCH, ensemble.image_size, ensemble.image_size, 3
    images = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
    predict = ensemble.model.predict_on_batch
    return Cost(
        ensemble.model.count_params(),
        _shortest_seconds(lambda: predict(images[:1]), _SINGLES),
        _shortest_seconds(lambda: predict(images), _BATCHES) / BATCH,
    )


def _shortest_seconds(call: Callable[[], object], times: int) -> float:
    call()  # compiles
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)  # other work on the machine can only add
