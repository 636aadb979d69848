"""Devices: called by their names, and asked for less where their memory is full."""

import os
import sys
from types import SimpleNamespace

import keras
import pytest

from configs.errors import ConfigError
from configs.schema import TrainingConfig
from ensemble.cli.command_line import load_backend
from ensemble.system import devices
from ensemble.system.devices import convert_memory_errors, has_gpu, is_out_of_memory, list_devices
from ensemble.training.cluster import distribute

pytestmark = pytest.mark.backend

H100, OTHER = "NVIDIA H100 80GB HBM3", "NVIDIA RTX A6000"
FAKES = {  # as each backend tells of two GPUs
    "tensorflow": SimpleNamespace(
        config=SimpleNamespace(
            list_physical_devices=lambda kind: [
                SimpleNamespace(name=f"/physical_device:{kind}:{n}", model=model)
                for n, model in enumerate((H100, OTHER))
            ],
            experimental=SimpleNamespace(
                get_device_details=lambda gpu: {
                    "compute_capability": (9, 0),
                    "device_name": gpu.model,
                }
            ),
        )
    ),
    "jax": SimpleNamespace(
        local_devices=lambda: [SimpleNamespace(device_kind=model) for model in (H100, OTHER)]
    ),
    "torch": SimpleNamespace(
        cuda=SimpleNamespace(device_count=lambda: 2, get_device_name=(H100, OTHER).__getitem__)
    ),
}


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_is_named():
    assert list_devices() == ["CPU"]


@pytest.mark.skipif(not has_gpu(), reason="there is no GPU")
def test_a_gpu_has_the_name_of_its_model():
    assert any(maker in list_devices()[0] for maker in ("NVIDIA", "AMD", "Apple", "Intel"))


@pytest.mark.parametrize("backend", FAKES)
def test_gpus_are_called_by_what_each_backend_says_of_them(backend, monkeypatch):
    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setitem(sys.modules, backend, FAKES[backend])

    assert list_devices() == [H100, OTHER]


def test_a_gpu_without_a_name_is_a_gpu(monkeypatch):
    nameless = SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: 0))
    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setitem(sys.modules, "torch", nameless)

    assert list_devices() == ["GPU"]


@pytest.mark.parametrize(
    ("place", "expected"), [("cuda:0", True), ("mps:0", True), ("TFRT_CPU_0", False)]
)
def test_a_gpu_is_known_by_where_its_numbers_lie(place, expected, monkeypatch):
    monkeypatch.setattr(keras.ops, "zeros", lambda *_: SimpleNamespace(device=place))

    assert has_gpu() == expected


def test_an_array_larger_than_any_memory_is_known_to_be_one():
    """The error is the backend's own."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        keras.ops.zeros((2**46,)) + 1  # 281 TB, beyond what can be addressed

    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes"),
        RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"),
        RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("Failed copying input tensor: Dst tensor is not initialized."),
        type("ResourceExhaustedError", (Exception,), {})("when allocating tensor"),
        MemoryError(),
    ],
    ids=lambda error: f"{type(error).__name__} {error}",
)
def test_what_libraries_say_of_full_memory_is_understood(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [ValueError("shapes do not fit"), KeyError("memory"), OSError("disk is full")]
)
def test_other_errors_are_not_of_memory(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, convert_memory_errors(32):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("batch_size", "way_out"),
    [
        (256, "--batch-size 128"),
        (33, "--batch-size 16"),
        (3, "--batch-size 2"),
        (2, "a smaller --image-size, fewer --branches or --fusion pooled"),
    ],
)
def test_full_memory_is_told_with_the_batch_size_to_try(batch_size, way_out, monkeypatch):
    monkeypatch.setattr(devices, "list_devices", lambda: [H100])
    full = RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand a long story")

    with pytest.raises(ConfigError) as caught, convert_memory_errors(batch_size):
        raise full

    assert str(caught.value) == (
        "`training.batch_size` is too large for the memory of NVIDIA H100 80GB HBM3. "
        f"Received: {batch_size}. Use {way_out}."
    )
    assert caught.value.__cause__ is full


def test_gpu_memory_grows_with_what_is_needed_unless_somebody_says_otherwise(monkeypatch):
    growth, preallocate = "TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.delenv(growth, raising=False)
    monkeypatch.setenv(preallocate, "true")

    load_backend()

    assert os.environ[growth] == "true"
    assert os.environ[preallocate] == "true"
    monkeypatch.delenv(preallocate)
    load_backend()
    assert os.environ[preallocate] == "false"


def test_xla_is_refused_where_it_cannot_be_chosen(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")

    with pytest.raises(ConfigError, match=r"training\.jit_compile.*Received: True"):
        distribute(TrainingConfig(jit_compile=True))
