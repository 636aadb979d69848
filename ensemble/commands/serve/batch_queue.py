"""Batches for the model out of the faces of several requests, run by one thread."""

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
    result: "asyncio.Future[np.ndarray]"


class BatchQueue:
    """Joins requests into batches for the model, without waiting for a batch to fill.

    The next batch gathers while one is computed, so batches grow with the load.

    Args:
        classify: Crops of shape `(faces, size, size, 3)` to rows, one per crop.
        batch: Number of faces of a full batch.
    """

    def __init__(self, classify: Callable[[np.ndarray], np.ndarray], *, batch: int = BATCH) -> None:
        self._classify = classify
        self._batch = batch
        self._waiting: asyncio.Queue[_Request] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "model")

    async def classify(self, crops: np.ndarray) -> np.ndarray:
        """Returns one row per crop, at least one; raises what the model raises for the batch."""
        result = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Request(crops, result))
        return await result

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
                except Exception as error:  # later batches go on
                    for request in requests:
                        if not request.result.done():
                            request.result.set_exception(error)
                    continue
                first = 0
                for request in requests:
                    last = first + len(request.crops)
                    if not request.result.done():  # its client may have left
                        request.result.set_result(rows[first:last])
                    first = last
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _gather(self) -> list[_Request]:
        """Waits for requests whose clients have not left."""
        requests: list[_Request] = []
        while not requests or (
            not self._waiting.empty() and sum(len(each.crops) for each in requests) < self._batch
        ):
            request = await self._waiting.get()
            if not request.result.done():
                requests.append(request)
        return requests
