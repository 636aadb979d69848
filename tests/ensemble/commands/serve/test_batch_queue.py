import asyncio
import threading
from collections.abc import Awaitable

import numpy as np
import pytest

from ensemble.commands.serve.batch_queue import BatchQueue


class Model:
    """Answers each crop with its first pixel and remembers the sizes of its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        self.gate.wait(10)
        self.sizes.append(len(crops))
        self.threads.add(threading.current_thread().name)
        if (crops == 13).any():
            raise ValueError("unlucky")
        return crops[:, 0, 0, :1].astype(float)


def crops(*values: int) -> np.ndarray:
    return np.stack([np.full((4, 4, 3), value, np.uint8) for value in values])


async def serve(queue: BatchQueue, work: Awaitable) -> object:
    worker = asyncio.create_task(queue.run())
    try:
        return await asyncio.wait_for(work, 10)
    finally:
        worker.cancel()


def test_what_arrives_together_is_one_batch_and_each_gets_its_own():
    model = Model()
    queue = BatchQueue(model, batch=6)

    async def work() -> list[np.ndarray]:
        return await asyncio.gather(
            queue.classify(crops(1, 2)), queue.classify(crops(3)), queue.classify(crops(4, 5, 6))
        )

    answers = asyncio.run(serve(queue, work()))

    assert [answer[:, 0].tolist() for answer in answers] == [[1, 2], [3], [4, 5, 6]]
    assert model.sizes == [6]
    assert model.threads == {"model_0"}


def test_batches_grow_while_the_model_is_busy():
    model = Model()
    queue = BatchQueue(model, batch=32)
    model.gate.clear()

    async def work() -> list[np.ndarray]:
        first = asyncio.create_task(queue.classify(crops(0)))
        await asyncio.sleep(0.1)
        others = [asyncio.create_task(queue.classify(crops(value))) for value in range(1, 9)]
        await asyncio.sleep(0.05)
        model.gate.set()
        return await asyncio.gather(first, *others)

    answers = asyncio.run(serve(queue, work()))

    assert [answer.item() for answer in answers] == list(range(9))
    assert model.sizes == [1, 8]


def test_a_batch_that_fails_ends_no_later_one():
    queue = BatchQueue(Model())

    async def work() -> np.ndarray:
        with pytest.raises(ValueError, match="unlucky"):
            await queue.classify(crops(13))
        return await queue.classify(crops(14))

    assert asyncio.run(serve(queue, work())).item() == 14


def test_who_has_gone_is_not_computed_for():
    model = Model()
    queue = BatchQueue(model)

    async def work() -> np.ndarray:
        gone = asyncio.create_task(queue.classify(crops(1, 1, 1)))
        await asyncio.sleep(0)
        gone.cancel()
        return await queue.classify(crops(2))

    assert asyncio.run(serve(queue, work())).item() == 2
    assert model.sizes == [1]
