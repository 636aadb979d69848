"""The weights of a wide dense layer and Adam's moments of them, as machine code wants them."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from math import prod

import numpy as np

from ensemble.system.cores import count_cores
from ensemble.training.machine_code import ROWS, SIDE, compile_step

_LINE = 64  # bytes that a cache moves at a time


class WideWeights:
    """Multiplies batches by weights that learn from each of them, in one pass over the weights.

    Args:
        shape: `(features, units)` of the weights.
        batch_size: Of the largest batch.
        beta_1: Adam's decay of the first moment.
        beta_2: Adam's decay of the second moment.
        epsilon: Adam's guard against division by zero, > 0.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        batch_size: int,
        beta_1: float,
        beta_2: float,
        epsilon: float,
    ) -> None:
        self._step = compile_step()
        self._shape = shape
        self._adam = 1 - beta_1, 1 - beta_2, epsilon
        blocks, self._tiles = -(-shape[0] // ROWS), -(-shape[1] // self._step.columns)
        self._images = -(-batch_size // SIDE) * SIDE
        # What lies beyond features, units and images stays zero.
        self._values = [
            _aligned_zeros((blocks, self._tiles, ROWS, self._step.columns)) for _ in range(3)
        ]
        self._last, self._next = (_aligned_zeros((blocks * ROWS, self._images)) for _ in range(2))
        batch = self._tiles, self._images, self._step.columns
        self._gradient = _aligned_zeros(batch)
        threads = min(count_cores(), blocks)
        borders = [blocks * number // threads for number in range(threads + 1)]
        self._parts = list(zip(_aligned_zeros((threads, *batch)), pairwise(borders), strict=True))
        self._pool = ThreadPoolExecutor(threads)

    def write(self, arrays: Iterable[np.ndarray]) -> None:
        """Takes the weights and Adam's two moments over, each `(features, units)`, float32."""
        for array, values in zip(arrays, self._values, strict=True):
            for place, piece in self._pieces(values):
                piece[:] = array[place]

    def read(self) -> Iterator[np.ndarray]:
        """Yields what `write` took over, as it is now."""
        for values in self._values:
            array = np.empty(self._shape, "float32")
            for place, piece in self._pieces(values):
                array[place] = piece
            yield array

    def multiply(self, features: np.ndarray) -> np.ndarray:
        """Returns the product of a batch and the weights, shape `(images, units)`, float32.

        Args:
            features: Shape `(images, features)`, float32; none or more images.
        """
        return self._run(features, 0.0, 0.0, 0.0)

    def learn(self, gradient: np.ndarray, rate: float, features: np.ndarray) -> np.ndarray:
        """Updates the weights, then does as `multiply` does.

        Args:
            gradient: Of the loss with respect to the last product; more rows may be zeros.
            rate: Adam's step, corrected for the moments' beginning at zero.
            features: The next batch.
        """
        images, units = gradient.shape
        by_tile = self._gradient.transpose(1, 0, 2)
        by_tile[:] = 0
        flat = np.zeros((images, prod(by_tile.shape[1:])), "float32")
        flat[:, :units] = gradient
        by_tile[:images] = flat.reshape(images, *by_tile.shape[1:])
        return self._run(features, rate, *self._adam[:2])

    def _run(self, features: np.ndarray, *shares: float) -> np.ndarray:
        batch, images = np.ascontiguousarray(features, "float32"), len(features)
        if images < self._images:
            self._next[:] = 0
        arrays = *self._values, self._last, self._next, self._gradient
        addresses = [array.ctypes.data for array in arrays]
        sizes = self._tiles, self._images, images, self._shape[0]

        def work(product: np.ndarray, span: tuple[int, int]) -> np.ndarray:
            product[:] = 0
            places = *addresses, product.ctypes.data, batch.ctypes.data
            self._step.run(*places, *span, *sizes, *shares, self._adam[2])
            return product

        others = [self._pool.submit(work, *part) for part in self._parts[1:]]
        product = work(*self._parts[0])
        product = sum((other.result() for other in others), start=product)
        self._last, self._next = self._next, self._last
        return product.transpose(1, 0, 2).reshape(self._images, -1)[:images, : self._shape[1]]

    def _pieces(self, values: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """Yields where each tile lies in an array `(features, units)`, and what of it does."""
        features, units = self._shape
        for block, row in zip(values, range(0, features, ROWS), strict=True):
            for tile, column in zip(block, range(0, units, self._step.columns), strict=True):
                place = slice(row, row + ROWS), slice(column, column + self._step.columns)
                yield place, tile[: features - row, : units - column]


def _aligned_zeros(shape: Sequence[int]) -> np.ndarray:
    """Returns zeros, float32, from the start of a cache line, so that no vector lies in two."""
    size = prod(shape) * 4
    room = np.zeros(size + _LINE, "uint8")
    start = -room.ctypes.data % _LINE
    return room[start : start + size].view("float32").reshape(shape)
