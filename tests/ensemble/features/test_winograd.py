"""Winograd's algorithm: what convolutions compute, only where it is faster."""

import importlib.util

import keras
import numpy as np
import pytest

from ensemble.model.composition import build_extractor
from ensemble.model.conversion import to_openvino
from ensemble.model.runtimes import import_openvino

if importlib.util.find_spec("openvino") is None:
    pytest.skip("needs the package openvino", allow_module_level=True)

openvino = import_openvino()

from openvino import opset13  # noqa: E402

from ensemble.features import winograd  # noqa: E402
from ensemble.features.winograd import use_winograd  # noqa: E402

CHANNELS = 64, 128


class Graph:
    """A graph of convolutions that grows by one node after another.

    Args:
        shape: `(n, c, h, w)` of the input.
    """

    def __init__(self, *shape):
        self._random = np.random.default_rng(0)
        self._input = opset13.parameter(shape, np.float32)
        self._image = self._random.standard_normal(shape, "float32")
        self.last = self._input

    def convolve(self, filters=CHANNELS[1], kernel=3, begin=(1, 1), end=(1, 1), **settings):
        channels = self.last.shape[1]
        weights = self._random.standard_normal((filters, channels, kernel, kernel), "float32")
        strides = [settings.get("stride", 1)] * 2
        dilations = [settings.get("dilation", 1)] * 2
        weights = opset13.constant(weights / np.float32(np.sqrt(channels)))
        self.last = opset13.convolution(
            self.last, weights, strides, list(begin), list(end), dilations
        )
        return self

    def add(self):
        bias = self._random.standard_normal((1, self.last.shape[1], 1, 1), "float32")
        self.last = opset13.add(self.last, opset13.constant(3 * bias))
        return self

    def rectify(self):
        self.last = opset13.relu(self.last)
        return self

    def join(self, node):
        self.last = opset13.add(self.last, node)
        return self

    def replace(self, replacements=1):
        """Checks how many convolutions are replaced, and that the result stays what it was."""
        model = openvino.Model([self.last], [self._input])
        expected = self._run(model)
        assert use_winograd(model) == replacements
        features = self._run(model)
        assert np.abs(features - expected).max() <= 1e-4 * np.abs(expected).max()
        return [node.get_type_name() for node in model.get_ordered_ops()]

    def _run(self, model):
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        return openvino.compile_model(model, "CPU", settings)(self._image)[0]


@pytest.mark.parametrize("tile", [2, 3, 4])
def test_its_transforms_correlate_a_signal_with_a_kernel(tile):
    outputs, weights, inputs = winograd._transforms(tile)
    random = np.random.default_rng(tile)
    signal, kernel = random.standard_normal(tile + 2), random.standard_normal(3)

    result = outputs @ ((weights @ kernel) * (inputs @ signal))

    np.testing.assert_allclose(result, np.correlate(signal, kernel), rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", [(2, 2), (3, 3), (6, 6), (12, 12), (5, 7), (8, 3), (13, 25)])
def test_a_map_of_any_size_comes_out_the_same(size):
    types = Graph(3, CHANNELS[0], *size).convolve().replace()

    assert "Convolution" not in types


@pytest.mark.parametrize(
    ("begin", "end"), [((0, 0), (0, 0)), ((1, 0), (0, 1)), ((0, 1), (1, 0)), ((2, 2), (2, 2))]
)
def test_any_padding_is_kept(begin, end):
    Graph(2, CHANNELS[0], 9, 10).convolve(begin=begin, end=end).replace()


def test_what_follows_on_the_same_channels_is_kept():
    Graph(2, CHANNELS[0], 6, 6).convolve().add().replace()
    Graph(2, CHANNELS[0], 6, 6).convolve().rectify().replace()
    Graph(2, CHANNELS[0], 6, 6).convolve().add().rectify().replace()


def test_channels_stay_last_from_one_to_the_next():
    graph = Graph(2, CHANNELS[0], 6, 6)
    for _ in range(3):
        graph.convolve().add().rectify()

    types = graph.replace(3)

    assert types.count("Transpose") == 2  # at both ends


def test_a_result_that_is_needed_twice_is_kept_for_both():
    graph = Graph(2, CHANNELS[0], 6, 6).convolve()
    shortcut = graph.last
    graph.rectify().convolve().join(shortcut).rectify().replace(2)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": 1, "begin": (0, 0), "end": (0, 0)},
        {"kernel": 5, "begin": (2, 2), "end": (2, 2)},
        {"stride": 2},
        {"dilation": 2},
        {"filters": CHANNELS[1] - 1},
    ],
)
def test_other_convolutions_are_left_alone(settings):
    types = Graph(2, CHANNELS[0], 6, 6).convolve(**settings).replace(0)

    assert "Convolution" in types


def test_where_little_is_saved_nothing_is_replaced():
    Graph(2, CHANNELS[0] - 1, 6, 6).convolve().replace(0)
    Graph(2, CHANNELS[0], 1, 1).convolve().replace(0)  # 9 multiplications, of which 8 are by zero


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs TensorFlow")
@pytest.mark.parametrize(("branch", "replaced"), [("vgg16", 11), ("densenet121", 0)])
def test_branches_of_wide_convolutions_gain(branch, replaced):
    extractor = build_extractor([branch], input_shape=(48, 48, 3), weights="random")
    model = keras.Model(extractor.input, extractor.output[branch])

    assert use_winograd(to_openvino(model, 8)) == replaced
