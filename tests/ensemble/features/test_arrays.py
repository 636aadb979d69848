"""The memory is shared by all arrays, and freed with them."""

import numpy as np
import pytest

from configs.errors import StoreError
from ensemble.features import arrays
from ensemble.features.arrays import allocate, fits_memory


def test_all_arrays_together_take_half_of_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "_held", [0])
    monkeypatch.setattr(arrays, "memory_limit", lambda: 8000)

    def make() -> np.ndarray:
        return allocate((2, 1500), "uint8", folder=tmp_path, what="Images")

    first = make()
    view = first[1]
    second = make()
    assert not isinstance(first, np.memmap)
    assert isinstance(second, np.memmap)
    assert fits_memory(1000)
    assert not fits_memory(1001)

    del first
    assert isinstance(make(), np.memmap)  # a view keeps the array
    del view
    assert not isinstance(make(), np.memmap)


def test_an_unknown_memory_is_no_limit(monkeypatch):
    monkeypatch.setattr(arrays, "memory_limit", lambda: None)
    assert fits_memory(10**15)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "memory_limit", lambda: 1)
    with pytest.raises(StoreError, match="Free some space"):
        allocate((10**9, 10**9), "uint8", folder=tmp_path, what="Images")
