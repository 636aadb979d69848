"""Machine code for a step of a wide dense layer, compiled by LLVM for the CPU at hand.

A step computes the gradient of the weights, updates Adam's two moments and the
weights by it, and multiplies the next batch by the new weights. Written as
operations on whole arrays each of these passes over memory by itself, and for a
layer on many features the passes take longer than the arithmetic. Here all of it
happens to a tile of the weights while the tile is in the core's cache.

Sources: D. P. Kingma and J. Ba, Adam, ICLR 2015; K. Goto and R. van de Geijn,
Anatomy of High-Performance Matrix Multiplication, ACM TOMS 2008, for products whose
sums stay in registers.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from llvmlite import binding, ir

ROWS = 128  # of a tile: its weights and moments fit into a core's second cache
SIDE = 4  # rows or images whose sums are kept in registers at a time

_FLOAT, _INTEGER, _POINTER = ir.FloatType(), ir.IntType(64), ir.FloatType().as_pointer()


class Step(NamedTuple):
    """A step compiled for this CPU.

    Args:
        columns: Of a tile.
        run: Changes tiles `first` to `last` of rows. Takes the addresses of float32
            arrays: weights, first and second moments `(tiles of rows, tiles of columns,
            ROWS, columns)`; the features of the batch before, `(rows, images)`, and room
            for those of the next one; the gradient with respect to the last product,
            `(tiles of columns, images, columns)`; where the next product is added up, of
            the same shape; the next batch, `(count, width)`. Then first, last, the tiles of
            columns, the images, which SIDE divides, count and width. Then Adam's step,
            1 - beta_1, 1 - beta_2 and epsilon.
        engine: Where the code lies.
    """

    columns: int
    run: Callable[..., None]
    engine: Any


@cache
def compile_step() -> Step:
    """Compiles the step; it takes a tenth of a second."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features = binding.get_host_cpu_features()
    # Sums fill the registers: sixteen of 512 bits, or eight of 256.
    lanes, vectors = (16, 4) if features.get("avx512f") else (8, 2)
    module = binding.parse_assembly(str(_write_step(lanes, vectors)))
    module.verify()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features.flatten(), opt=3
    )
    passes = binding.create_pass_builder(
        machine, binding.create_pipeline_tuning_options(speed_level=3)
    )
    passes.getModulePassManager().run(module, passes)
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    kinds = [ctypes.c_void_p] * 8 + [ctypes.c_int64] * 6 + [ctypes.c_float] * 4
    function = ctypes.CFUNCTYPE(None, *kinds)(engine.get_function_address("step"))
    return Step(lanes * vectors, function, engine)


def _write_step(lanes: int, vectors: int) -> ir.Module:
    """Returns the step as LLVM's intermediate code, for tiles of `lanes * vectors` columns."""
    columns = lanes * vectors
    module = ir.Module("step")
    kinds = [_POINTER] * 8 + [_INTEGER] * 6 + [_FLOAT] * 4
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "step")
    for argument in function.args[:8]:
        argument.add_attribute("noalias")
    weights, means, squares, features, next_features, gradient, product, batch = function.args[:8]
    first, last, tiles, images, count, width = function.args[8:14]
    write = _Writer(function, lanes)
    rate, mean_share, square_share, epsilon = map(write.repeat, function.args[14:])
    at, many = write.plus, write.times

    with write.loop(last, start=first) as (block, _):
        row_start = many(block, ROWS)
        feature_start = many(row_start, images)
        rows = write.least(ROWS, write.minus(width, row_start))
        with write.loop(rows) as (row, _), write.loop(count) as (image, _):
            number = write.load_number(batch, at(many(image, width), row_start, row))
            write.store_number(number, next_features, at(feature_start, many(row, images), image))
        with write.loop(tiles) as (tile, _):
            tile_start = many(at(many(block, tiles), tile), ROWS * columns)
            image_start = many(many(tile, images), columns)

            with write.loop(ROWS, by=SIDE) as (row, _):
                zeros = [write.zero] * (SIDE * vectors)
                with write.loop(images, carry=zeros) as (image, sums):
                    places = [
                        at(image_start, many(image, columns), vector * lanes)
                        for vector in range(vectors)
                    ]
                    losses = [write.load(gradient, place) for place in places]
                    for side in range(SIDE):
                        place = at(feature_start, many(at(row, side), images), image)
                        feature = write.load_repeated(features, place)
                        for vector, loss in enumerate(losses, start=side * vectors):
                            sums[vector] = write.multiply_add(feature, loss, sums[vector])

                for number, slope in enumerate(sums):
                    side, vector = divmod(number, vectors)
                    place = at(tile_start, many(at(row, side), columns), vector * lanes)
                    mean = write.approach(write.load(means, place), slope, mean_share)
                    write.store(mean, means, place)
                    square = write.load(squares, place)
                    square = write.approach(square, write.multiply(slope, slope), square_share)
                    write.store(square, squares, place)
                    step = write.divide(
                        write.multiply(rate, mean), write.add(write.root(square), epsilon)
                    )
                    write.store(write.subtract(write.load(weights, place), step), weights, place)

            with write.loop(images, by=SIDE) as (image, _):
                places = [
                    at(image_start, many(at(image, side), columns), vector * lanes)
                    for side in range(SIDE)
                    for vector in range(vectors)
                ]
                before = [write.load(product, place) for place in places]
                with write.loop(ROWS, carry=before) as (row, sums):
                    row_start = at(tile_start, many(row, columns))
                    values = [
                        write.load(weights, at(row_start, vector * lanes))
                        for vector in range(vectors)
                    ]
                    for side in range(SIDE):
                        place = at(feature_start, many(row, images), image, side)
                        feature = write.load_repeated(next_features, place)
                        for vector, value in enumerate(values, start=side * vectors):
                            sums[vector] = write.multiply_add(feature, value, sums[vector])
                for value, place in zip(sums, places, strict=True):
                    write.store(value, product, place)
    write.end()
    return module


class _Writer:
    """Writes loops, and arithmetic on vectors of floats, into a function."""

    def __init__(self, function: ir.Function, lanes: int) -> None:
        self._function = function
        self._builder = ir.IRBuilder(function.append_basic_block())
        self._vector = ir.VectorType(_FLOAT, lanes)
        self._fused, self._root = (
            ir.Function(
                function.module,
                ir.FunctionType(self._vector, [self._vector] * arguments),
                f"llvm.{name}.v{lanes}f32",
            )
            for name, arguments in (("fmuladd", 3), ("sqrt", 1))
        )
        self.zero = ir.Constant(self._vector, [0.0] * lanes)
        self.add, self.subtract = self._builder.fadd, self._builder.fsub
        self.multiply, self.divide = self._builder.fmul, self._builder.fdiv
        self.end = self._builder.ret_void

    @contextmanager
    def loop(
        self, stop: Any, *, start: Any = 0, by: int = 1, carry: Sequence[Any] = ()
    ) -> Iterator[tuple[Any, list[Any]]]:
        """Repeats what is written within, for an index from `start` to below `stop`.

        Yields the index and the carried values. What is put in their places goes into
        the next repetition; after the loop they are those of the last one.
        """
        before = self._builder.block
        head, body, after = (self._function.append_basic_block() for _ in range(3))
        self._builder.branch(head)
        self._builder.position_at_end(head)
        index = self._builder.phi(_INTEGER)
        index.add_incoming(_integer(start), before)
        carried = [self._builder.phi(value.type) for value in carry]
        for phi, value in zip(carried, carry, strict=True):
            phi.add_incoming(value, before)
        goes_on = self._builder.icmp_signed("<", index, _integer(stop))
        self._builder.cbranch(goes_on, body, after)
        self._builder.position_at_end(body)
        values: list[Any] = list(carried)
        yield index, values
        index.add_incoming(self.plus(index, by), self._builder.block)
        for phi, value in zip(carried, values, strict=True):
            phi.add_incoming(value, self._builder.block)
        values[:] = carried
        self._builder.branch(head)
        self._builder.position_at_end(after)

    def plus(self, first: Any, *others: Any) -> Any:
        """Returns the sum of integers."""
        for other in others:
            first = self._builder.add(first, _integer(other))
        return first

    def minus(self, first: Any, second: Any) -> Any:
        """Returns the difference of two integers."""
        return self._builder.sub(first, second)

    def least(self, first: int, second: Any) -> Any:
        """Returns the smaller one of two integers."""
        is_less = self._builder.icmp_signed("<", second, _integer(first))
        return self._builder.select(is_less, second, _integer(first))

    def times(self, first: Any, second: Any) -> Any:
        """Returns the product of two integers."""
        return self._builder.mul(first, _integer(second))

    def load(self, array: Any, place: Any) -> Any:
        """Returns the vector that begins at a place of an array."""
        return self._builder.load(self._vector_at(array, place), align=4)

    def store(self, value: Any, array: Any, place: Any) -> None:
        """Puts a vector where `load` reads it."""
        self._builder.store(value, self._vector_at(array, place), align=4)

    def load_number(self, array: Any, place: Any) -> Any:
        """Returns the number at a place of an array."""
        return self._builder.load(self._builder.gep(array, [place]))

    def store_number(self, number: Any, array: Any, place: Any) -> None:
        """Puts a number where `load_number` reads it."""
        self._builder.store(number, self._builder.gep(array, [place]))

    def load_repeated(self, array: Any, place: Any) -> Any:
        """Returns the number at a place, as often as a vector has room for it."""
        return self.repeat(self.load_number(array, place))

    def repeat(self, number: Any) -> Any:
        """Returns a vector of equal numbers."""
        nothing, first = ir.Constant(self._vector, ir.Undefined), ir.IntType(32)(0)
        vector = self._builder.insert_element(nothing, number, first)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self._vector.count), None)
        return self._builder.shuffle_vector(vector, nothing, mask)

    def multiply_add(self, first: Any, second: Any, third: Any) -> Any:
        """Returns `first * second + third`."""
        return self._builder.call(self._fused, [first, second, third])

    def approach(self, value: Any, target: Any, share: Any) -> Any:
        """Returns a value moved towards another by a share of the distance."""
        return self.multiply_add(self.subtract(target, value), share, value)

    def root(self, value: Any) -> Any:
        """Returns square roots."""
        return self._builder.call(self._root, [value])

    def _vector_at(self, array: Any, place: Any) -> Any:
        return self._builder.bitcast(self._builder.gep(array, [place]), self._vector.as_pointer())


def _integer(number: Any) -> Any:
    return _INTEGER(number) if isinstance(number, int) else number
