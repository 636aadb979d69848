"""Convolutions of 3 x 3 by Winograd's algorithm, in graphs that OpenVINO runs on a CPU.

The algorithm computes `m x m` outputs at once with `(m + 2)^2` multiplications per input and
output channel instead of `9 m^2`: a fourth of them for m = 4. OpenVINO has no kernel of it; here
it consists of gathers and matrix products.

References:
    S. Winograd, Arithmetic Complexity of Computations, SIAM 1980; A. Lavin and S. Gray, Fast
    Algorithms for Convolutional Neural Networks, CVPR 2016, whose names for the matrices are used.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from openvino import opset13

_KERNEL = 3
_POINTS = (0, 1, -1, 2, -2)  # where polynomials are evaluated, besides infinity
_TILES = (2, 3, 4)  # sides of squares of outputs; with larger ones rounding errors grow
_MIN_CHANNELS = (64, 128)  # in and out: with fewer, gathers cost more than products save
_MIN_SAVED = 0.5  # of the multiplications


def use_winograd(model: Any) -> int:
    """Replaces the convolutions of a model that become faster; returns their number.

    Results differ by some 1e-5 of the largest. The transformed weights take up to four times the
    memory of the weights.

    Args:
        model: An `openvino.Model` of fixed shapes; it is changed.
    """
    replaced: dict[str, Any] = {}  # by the name of a result, the same result with channels last
    for convolution in _find_convolutions(model):
        source = convolution.source
        images = replaced.get(source.get_node().friendly_name)
        if images is None:
            images = opset13.transpose(source, [0, 2, 3, 1])
        result = opset13.transpose(_compute(convolution, images), [0, 3, 1, 2])
        replaced[result.friendly_name] = result.input_value(0)
        convolution.last.output(0).replace(result.output(0))
    model.validate_nodes_and_infer_types()
    return len(replaced)


@dataclass(frozen=True)
class _Convolution:
    """A convolution to replace, with the bias and the ReLU that follow it.

    Args:
        source: Its input, of shape `(n, c, h, w)`.
        weights: Shape `(k, c, 3, 3)`.
        padding: Zeros above and left of the input.
        shape: `(n, k, h', w')` of its output.
        bias: Shape `(k,)`.
        rectified: Whether a ReLU follows.
        last: The last node of all these.
    """

    source: Any
    weights: np.ndarray
    padding: tuple[int, int]
    shape: tuple[int, int, int, int]
    bias: np.ndarray
    rectified: bool
    last: Any


def _find_convolutions(model: Any) -> Iterator[_Convolution]:
    """Yields the convolutions to replace, in the order of computation."""
    for node in model.get_ordered_ops():
        if not _gains(node):
            continue
        weights = node.input_value(1).get_node().data
        outputs = len(weights)
        last, bias, rectified = node, np.zeros(outputs, "float32"), False
        follower = _only_follower(last)
        if follower is not None and follower.get_type_name() == "Add":
            added = follower.input_value(1).get_node()
            if added.get_type_name() == "Constant" and tuple(added.shape) == (1, outputs, 1, 1):
                last, bias = follower, added.data.reshape(-1)
                follower = _only_follower(last)
        if follower is not None and follower.get_type_name() == "Relu":
            last, rectified = follower, True
        shape, padding = tuple(node.shape), tuple(node.get_pads_begin())
        yield _Convolution(node.input_value(0), weights, padding, shape, bias, rectified, last)


def _gains(node: Any) -> bool:
    """Returns whether a node is a convolution that becomes faster."""
    if node.get_type_name() != "Convolution":
        return False
    kernel = node.input_value(1).get_node()
    fits = (
        kernel.get_type_name() == "Constant"
        and tuple(kernel.shape[2:]) == (_KERNEL, _KERNEL)
        and tuple(node.get_strides()) == tuple(node.get_dilations()) == (1, 1)
    )
    if not fits:
        return False
    outputs, inputs = kernel.shape[:2]
    height, width = node.shape[2:]
    saved = 1 - _multiplications(height, width, _tile(height, width)) / (
        _KERNEL**2 * height * width
    )
    wide = inputs >= _MIN_CHANNELS[0] and outputs >= _MIN_CHANNELS[1]
    return wide and saved >= _MIN_SAVED


def _tile(height: int, width: int) -> int:
    """Returns the side of the squares that cover a map with the fewest multiplications."""
    return min(_TILES, key=lambda tile: _multiplications(height, width, tile))


def _multiplications(height: int, width: int, tile: int) -> int:
    """Returns the multiplications per image and pair of channels, including borders of tiles."""
    return -(-height // tile) * -(-width // tile) * (tile + _KERNEL - 1) ** 2


def _only_follower(node: Any) -> Any:
    """Returns the only node that takes a node's output, or None."""
    targets = node.output(0).get_target_inputs()
    return next(iter(targets)).get_node() if len(targets) == 1 else None


def _compute(convolution: _Convolution, images: Any) -> Any:
    """Returns the node that computes a convolution of channels-last images, channels last."""
    n, k, height, width = convolution.shape
    tile = _tile(height, width)
    side = tile + _KERNEL - 1
    c = convolution.weights.shape[1]
    to_outputs, to_weights, to_inputs = (np.kron(matrix, matrix) for matrix in _transforms(tile))
    rows, columns = -(-height // tile), -(-width // tile)
    tiles = n * rows * columns

    # The inputs of each tile, neighbours overlapping: (side * side, tiles * c).
    high, wide = rows * tile + _KERNEL - 1, columns * tile + _KERNEL - 1
    _, input_height, input_width, _ = images.shape
    top, left = convolution.padding
    padded = opset13.pad(
        images,
        [0, top, left, 0],
        [0, high - input_height - top, wide - input_width - left, 0],
        "constant",
        opset13.constant(np.float32(0)),
    )
    y, x, image, row, column = np.ogrid[:side, :side, :n, :rows, :columns]
    places = (image * high + row * tile + y) * wide + column * tile + x
    gathered = _gather(padded, n * high * wide, c, places, (side * side, tiles * c))

    # A product of matrices for each of the side * side places of a tile.
    transformed = opset13.matmul(_constant(to_inputs), gathered, False, False)
    weights = convolution.weights.astype("float64").transpose(2, 3, 1, 0)
    products = opset13.matmul(
        opset13.reshape(transformed, [side * side, tiles, c], False),
        _constant((to_weights @ weights.reshape(-1, c * k)).reshape(side * side, c, k)),
        False,
        False,
    )
    products = opset13.reshape(products, [side * side, tiles * k], False)
    outputs = opset13.matmul(_constant(to_outputs), products, False, False)

    # The outputs in their places, without those beyond the border.
    image, y, x = np.ogrid[:n, :height, :width]
    within, number = y % tile * tile + x % tile, (image * rows + y // tile) * columns + x // tile
    places = within * tiles + number
    result = _gather(outputs, tile * tile * tiles, k, places, (n, height, width, k))
    result = opset13.add(result, _constant(convolution.bias))
    return opset13.relu(result) if convolution.rectified else result


def _gather(source: Any, rows: int, channels: int, places: np.ndarray, shape: Any) -> Any:
    """Returns rows of a node's numbers, one for each of the places, in another shape."""
    table = opset13.reshape(source, [rows, channels], False)
    indices = opset13.constant(places.reshape(-1).astype("int32"))
    return opset13.reshape(
        opset13.gather(table, indices, opset13.constant(np.int32(0))), list(shape), False
    )


def _constant(values: np.ndarray) -> Any:
    return opset13.constant(values.astype("float32"))


def _transforms(tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns A^T `(tile, side)`, G `(side, 3)` and B^T `(side, side)`, side = tile + 2.

    `A^T @ ((G @ g) * (B^T @ d))` correlates the numbers d with the kernel g.
    """
    side = tile + _KERNEL - 1
    points = np.array(_POINTS[: side - 1], "float64")
    gaps = points[:, None] - points + np.eye(side - 1)
    at_infinity = np.eye(1, tile, tile - 1), np.eye(1, _KERNEL, _KERNEL - 1)
    outputs = np.vstack([points[:, None] ** np.arange(tile), at_infinity[0]]).T
    kernel = np.vstack(
        [points[:, None] ** np.arange(_KERNEL) / gaps.prod(1)[:, None], at_infinity[1]]
    )
    # Output i is the sum over k of g[k] d[i + k]: that decides B^T.
    conditions = np.einsum("ij,jk->ikj", outputs, kernel).reshape(-1, side)
    shifts = np.array([np.eye(side)[i + k] for i in range(tile) for k in range(_KERNEL)])
    return outputs, kernel, np.linalg.lstsq(conditions, shifts, rcond=None)[0]
