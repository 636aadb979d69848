"""Devices and processes are made of the CPU, in processes of their own, before a backend starts."""

import csv
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import ConfigError
from configs.schema import TrainingConfig
from ensemble.data.batches import Order
from ensemble.training.cluster import distribute
from ensemble.training.distribution import SINGLE_DEVICE, Distribution

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = Path(__file__).with_name("small_branch.py")
QUICK = "--xla_backend_optimization_level=0"  # compiling takes longer than running
CPUS = {
    "tensorflow": lambda count: {"TENSORFLOW_CPUS": str(count)},
    "jax": lambda count: {"XLA_FLAGS": f"{QUICK} --xla_force_host_platform_device_count={count}"},
}

PROBE = """
import json, runpy, sys
runpy.run_path(sys.argv[1])
from ensemble.cli.command_line import load_backend
load_backend()
import keras, numpy as np
from configs.errors import ConfigError
from configs.schema import TrainingConfig
from ensemble.data.batches import Examples
from ensemble.model.composition import build_classifier
from ensemble.training.cluster import distribute
from ensemble.training.phase import Phase, Session
from ensemble.training.trainer import train_phase

def refusal(**settings):
    try:
        distribute(TrainingConfig(**settings))
    except ConfigError as error:
        return str(error)

def count_devices(model):
    if keras.backend.backend() == "tensorflow":
        return model.distribute_strategy.num_replicas_in_sync
    return len(model.trainable_variables[0].value.devices())

class Counting(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.devices, self.steps = count_devices(self.model), self.params["steps"]

config, counting = TrainingConfig(devices="3", batch_size=6, epochs=1), Counting()
session = Session(callbacks=[counting], distribution=distribute(config))
features, targets = np.ones((1, 14, 1, 1, 4)), np.eye(2, dtype="float32")[np.arange(14) % 2]
data = Examples({"a": features.astype("float32")}, targets, np.ones(14, "float32"))
model, phase = build_classifier({"a": (1, 1, 4)}, classes="ab"), Phase("head", config, 1, 1, 0.1)
history = train_phase(model, (data, data), phase, session)
print(json.dumps({
    "trained": [counting.devices, counting.steps, len(history)],
    "many": refusal(devices="4"),
    "batch": refusal(devices="all", batch_size=32),
    "clip": refusal(devices="all", batch_size=33, clip_norm=1.0),
}))
"""


@pytest.fixture(scope="module", params=["tensorflow", "jax"])
def backend(request) -> str:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds 24 reddish and 24 bluish pictures, so that the last batches are smaller."""
    folder = tmp_path_factory.mktemp("distribution")
    generator = np.random.default_rng(0)
    for label, channel, count in (("blue", 2, 24), ("red", 0, 24)):
        (folder / "colours" / label).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 160, (24, 24, 3), dtype=np.uint8)
            pixels[..., channel] += 40
            Image.fromarray(pixels).save(folder / "colours" / label / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def alone(backend: str, folder: Path) -> dict[str, np.ndarray]:
    """The history of one device; that of two is made meanwhile."""
    processes = [
        train(backend, folder, f"{backend}-alone"),
        train(backend, folder, f"{backend}-two", "all", **CPUS[backend](2)),
    ]
    for process in processes:
        finish(process)
    return history(folder, f"{backend}-alone")


def start(backend: str, folder: Path, flags: list[str], **environment: str) -> subprocess.Popen:
    cache = str(folder / f"cache-{backend}")
    return subprocess.Popen(
        [sys.executable, "-m", "ensemble.train", "--cache", cache, *flags],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": QUICK, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(
    backend: str, folder: Path, name: str, devices: str = "1", **environment: str
) -> subprocess.Popen:
    """Trains both phases without dropout, whose masks may differ, and with a moving average."""
    settings = {
        "plugins": PLUGIN,
        "branches": "small",
        "weights": "random",
        "data": folder / "colours",
        "image-size": 16,
        "views": 2,
        "standardize": "true",
        "features.engine": "keras",
        "epochs": 3,
        "batch-size": 8,
        "patience": 9,
        "model.head.units": 16,
        "model.head.dropout": 0,
        "training.ema": 0.5,
        "training.weight_decay": 0.01,
        "unfreeze": "body",
        "training.fine_tuning.epochs": 2,
        "training.fine_tuning.learning_rate": 0.001,
        "devices": devices,
        "output": folder / "runs",
        "name": name,
    }
    flags = [text for flag, value in settings.items() for text in (f"--{flag}", str(value))]
    return start(backend, folder, flags, **environment)


def train_on_two_machines(backend: str, folder: Path, name: str) -> list[subprocess.Popen]:
    """Starts two processes that find each other on the loopback."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    return [
        train(
            backend,
            folder,
            name,
            "all",
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": process}}
            ),
            KERAS_DISTRIBUTION_JOB_ADDRESSES=addresses[0],
            KERAS_DISTRIBUTION_NUM_PROCESSES="2",
            KERAS_DISTRIBUTION_PROCESS_ID=str(process),
        )
        for process in (0, 1)
    ]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def finish(process: subprocess.Popen) -> str:
    """Waits for a process to end well and returns what it printed."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-3000:]
    return output


def history(folder: Path, name: str) -> dict[str, np.ndarray]:
    with (folder / "runs" / name / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == ["head"] * 3 + ["fine-tuning"] * 2
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_two_devices_give_the_history_of_one(backend, folder, alone):
    assert_same(history(folder, f"{backend}-two"), alone)


@pytest.mark.slow
def test_two_processes_give_the_history_of_one_and_one_of_them_reports(backend, folder, alone):
    first, second = train_on_two_machines(backend, folder, f"{backend}-processes")
    output, silent = finish(first), finish(second)

    assert_same(history(folder, f"{backend}-processes"), alone)
    assert f"{backend}-processes on colours" in output
    assert "colours" not in silent


@pytest.mark.slow
def test_killed_processes_are_resumed_by_any_number_of_devices(backend, folder, alone):
    name = f"{backend}-killed"
    processes = train_on_two_machines(backend, folder, name)
    run = folder / "runs" / name
    deadline = time.monotonic() + 100
    while not (run / "checkpoint.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in processes:
        process.kill()
        process.communicate()
    assert not (run / "report.md").exists()

    flags = ["--resume", str(run), "--devices", "2"]
    finish(start(backend, folder, flags, **CPUS[backend](2)))

    assert_same(history(folder, name), alone)


@pytest.mark.slow
def test_all_devices_train_and_what_cannot_be_done_is_refused(backend):
    process = subprocess.run(
        [sys.executable, "-c", PROBE, str(PLUGIN)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend, **CPUS[backend](3)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    found = json.loads(process.stdout.splitlines()[-1])

    assert found["trained"] == [3, 3, 1]  # devices, steps, epochs
    assert "Received: 4. Use at most 3" in found["many"]
    assert "Received: 32. Use 33." in found["batch"]
    if backend == "tensorflow":
        assert "clip_norm" in found["clip"]
    else:
        assert found["clip"] is None


def test_one_device_is_what_it_would_be_anyway():
    assert distribute(TrainingConfig()) is SINGLE_DEVICE
    assert (SINGLE_DEVICE.replicas, SINGLE_DEVICE.processes, SINGLE_DEVICE.writes) == (1, 1, True)


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(ConfigError, match=r"Received: 99\. "):
        distribute(TrainingConfig(devices="99"))


@pytest.mark.parametrize("devices", ["0", "-1", "two", "1.5", ""])
def test_devices_are_a_number_or_all(devices):
    with pytest.raises(ValueError, match="devices"):
        TrainingConfig(devices=devices)


def test_an_order_is_filled_up_with_its_first_images():
    order = Order(np.arange(7) + 10, np.arange(7) % 2)

    filled = Distribution(replicas=3).fill_up(order)

    assert filled.rows.tolist() == [10, 11, 12, 13, 14, 15, 16, 10, 11]
    assert filled.views.tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(("size", "expected"), [(1, 3), (3, 3), (4, 6), (256, 258)])
def test_batches_are_rounded_up_to_whole_parts(size, expected):
    assert Distribution(replicas=3).round_up(size) == expected
