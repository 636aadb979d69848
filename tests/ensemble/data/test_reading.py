"""Images come in order, decoded in as many threads as make it faster."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ensemble.data import reading as pipeline
from ensemble.data.loading import Split
from ensemble.data.reading import inspect, stream


class Shelf:
    """Images of one colour each, the tens of which cannot be read."""

    def read(self, name: str) -> np.ndarray:
        if name.endswith("0"):
            raise OSError("the disk is gone")
        return np.full((8, 8, 3), int(name), "uint8")


def split_of(numbers: list[int]) -> Split:
    names, count = tuple(map(str, numbers)), len(numbers)
    ones = np.ones(count, "float32")
    return Split(Shelf(), names, np.zeros(count, "int32"), ones, (None,) * count)


@pytest.fixture
def threads(monkeypatch) -> list[int]:
    """The threads of each pool that is made, on a machine of three cores."""
    found = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, count: int) -> None:
            found.append(count)
            super().__init__(count)

    monkeypatch.setattr(pipeline, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(pipeline, "count_cores", lambda: 3)
    return found


@pytest.mark.parametrize(("limit", "expected"), [(0.0, 3), (60.0, 1)], ids=["slow", "quick"])
def test_quick_images_are_decoded_by_one_thread(limit, expected, threads, monkeypatch):
    monkeypatch.setattr(pipeline, "_QUICK", limit)

    found = inspect(split_of(list(range(200))), 4)
    batches = list(stream(found.readable, 4, batch_size=8))

    assert threads == [expected] * 2
    assert found.readable.names == tuple(str(n) for n in range(200) if n % 10)
    assert [problem.name for problem in found.problems] == [str(n) for n in range(0, 200, 10)]
    colours = np.concatenate([images[:, 0, 0, 0] for _, images in batches])
    assert colours.tolist() == [n for n in range(200) if n % 10]


@pytest.mark.parametrize("numbers", [[], [7], [10]])
def test_few_images_are_read_too(numbers, threads):
    found = inspect(split_of(numbers), 4)

    assert len(found.readable) + len(found.problems) == len(numbers)
    assert len(list(stream(found.readable, 4, batch_size=8))) == len(found.readable)
