"""Faces of several requests share a batch, and one thread alone runs the model."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")

BATCH = 32  # faces


@dataclass(frozen=True, eq=False)
class _Request:
    crops: np.ndarray
    answer: "asyncio.Future[np.ndarray]"


class BatchQueue:
    """Joins what arrives at about the same time into batches for the model.

    While a batch is computed the next one gathers, so batches grow with the load, and
    none is waited for: the answers of one are sent while the next is computed.

    Args:
        classify: Crops of shape `(faces, size, size, 3)` to rows, one for each.
        batch: Faces at which a batch is full.
    """

    def __init__(
        self,
        classify: Callable[[np.ndarray], np.ndarray],
        *,
        batch: int = BATCH,
    ) -> None:
        self._classify = classify
        self._batch = batch
        self._waiting: asyncio.Queue[_Request] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "model")

    async def classify(self, crops: np.ndarray) -> np.ndarray:
        """Returns one row for each crop, at least one, as soon as a batch has held them.

        Raises:
            Exception: What the model raised for that batch.
        """
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Request(crops, answer))
        return await answer

    async def call(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Calls a function in the model's thread, between two batches."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, work, *arguments)

    async def run(self) -> None:
        """Computes batches until it is cancelled."""
        try:
            while True:
                requests = await self._gather()
                try:
                    rows = await self.call(
                        self._classify, np.concatenate([request.crops for request in requests])
                    )
                except Exception as error:  # one batch that fails ends no later one
                    for request in requests:
                        if not request.answer.done():
                            request.answer.set_exception(error)
                    continue
                first = 0
                for request in requests:
                    last = first + len(request.crops)
                    if not request.answer.done():  # its client may have gone
                        request.answer.set_result(rows[first:last])
                    first = last
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _gather(self) -> list[_Request]:
        requests = [await self._waiting.get()]
        while (
            not self._waiting.empty()
            and sum(len(request.crops) for request in requests) < self._batch
        ):
            requests.append(self._waiting.get_nowait())
        return [request for request in requests if not request.answer.done()] or (
            await self._gather()
        )
