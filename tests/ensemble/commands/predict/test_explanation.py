from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from branches.builder import backbone_of
from branches.registry import BRANCHES, BranchSpec
from ensemble.commands.predict.explanation import Explainer, part_masks
from ensemble.model.composition import MultiBranchModel, build_model

SIZE, GRID = 32, 8
RED, GREEN = (5, 2), (1, 6)  # row and column of the part in which a spot lies


def build_eye(input_shape: tuple[int, int, int], **_: Any) -> Any:
    """A backbone that weighs the colours of each 2 x 2 pixels."""
    from keras import Input, Model, layers

    image = Input(input_shape)
    x = layers.AveragePooling2D(2)(image)
    return Model(image, layers.Conv2D(1, 1, name="colours")(x), name="eye_backbone")


@pytest.fixture
def eye() -> Iterator[str]:
    spec = BranchSpec("eye", build_eye, preprocessing="none", min_size=8, reference="none")
    with BRANCHES.temporary(spec):
        yield spec.name


@pytest.fixture
def image() -> np.ndarray:
    """A grey image with a red and a green spot, each of one part's size."""
    pixels = np.full((SIZE, SIZE, 3), 100, np.uint8)
    side = SIZE // GRID
    for (row, column), colour in ((RED, (255, 0, 0)), (GREEN, (0, 255, 0))):
        pixels[row * side : (row + 1) * side, column * side : (column + 1) * side] = colour
    return pixels


def make_model(fusion: str, *colours: tuple[float, float, float]) -> MultiBranchModel:
    """A model whose class "spot" is the more probable the more its branches see of a colour."""
    labels = ["eye", "eye:b"][: len(colours)]
    ensemble = build_model(
        labels, classes=["no", "spot"], image_size=SIZE, weights="random", fusion=fusion,
        head="linear",
    )  # fmt: skip
    for label, colour in zip(labels, colours, strict=True):
        branch = ensemble.extractor.get_layer(label.replace(":", "_"))
        kernel = np.array(colour, "float32").reshape(1, 1, 3, 1) / 255
        backbone_of(branch).get_layer("colours").set_weights([kernel, np.zeros(1, "float32")])
    logits = ensemble.classifier.get_layer("logits")
    numbers = logits.kernel.shape[0]
    kernel = np.zeros((numbers, 2), "float32")
    kernel[:, 1] = 60 * len(colours) / numbers
    logits.set_weights([kernel, np.array([0, 3], "float32")])
    return ensemble


def place_of_peak(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(place) for place in np.unravel_index(values.argmax(), values.shape))


@pytest.mark.parametrize("fusion", ["pooled", "grid", "flat"])
def test_each_branch_points_at_the_spot_that_it_sees(eye, image, fusion):
    ensemble = make_model(fusion, (2, -1, -1), (-1, 1.9, -1))

    explanation = Explainer(ensemble, GRID).explain(image, "spot")

    assert place_of_peak(explanation.branches["eye"]) == RED
    assert place_of_peak(explanation.branches["eye:b"]) == GREEN
    assert place_of_peak(explanation.fused) == RED  # by far
    assert explanation.fused[GREEN] > 0
    assert explanation.fused.shape == (GRID, GRID)


def test_values_are_what_the_log_odds_lose(eye, image):
    ensemble = make_model("pooled", (2, -1, -1))
    cover = part_masks(GRID, image)[RED[0] * GRID + RED[1]][..., None]
    hidden = image * (1 - cover) + image.mean(axis=(0, 1)) * cover

    explanation = Explainer(ensemble, GRID).explain(image, "spot")

    # By hand: the log odds are 3 + 60 * mean(2 r - g - b) / 255, and 3 cancels.
    weights = np.array([2, -1, -1]) / 255
    expected = 60 * ((image - hidden) @ weights).mean()
    assert explanation.fused[RED] == pytest.approx(expected, rel=1e-3)


def test_one_branch_alone_explains_as_the_whole(eye, image):
    explanation = Explainer(make_model("pooled", (2, -1, -1))).explain(image)

    np.testing.assert_allclose(explanation.fused, explanation.branches["eye"], atol=1e-5)


def test_what_speaks_for_one_of_two_classes_speaks_against_the_other(eye, image):
    ensemble = make_model("pooled", (2, -1, -1))

    spot, no = (Explainer(ensemble, GRID).explain(image, label).fused for label in ("spot", "no"))

    np.testing.assert_allclose(spot, -no, atol=1e-4)


def test_the_most_probable_class_is_explained_unless_one_is_named(eye, image):
    assert Explainer(make_model("pooled", (2, -1, -1))).explain(image).label == "spot"


def test_a_part_is_covered_wholly_and_its_rim_softly():
    masks = part_masks(4, np.zeros((16, 16, 3)))

    assert masks.shape == (16, 16, 16)
    # Row and column 1: pixels 4 to 7 belong to it; outside the cover falls over 4 pixels.
    line = [0.125, 0.375, 0.625, 0.875, 1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125, 0, 0, 0, 0]
    np.testing.assert_allclose(masks[1 * 4 + 1], np.outer(line, line), atol=1e-6)


def test_an_answer_that_is_sure_is_explained_like_any_other(eye, image):
    ensemble = make_model("pooled", (2, -1, -1))
    doubtful = Explainer(ensemble, GRID).explain(image, "spot")
    kernel, bias = ensemble.classifier.get_layer("logits").get_weights()
    ensemble.classifier.get_layer("logits").set_weights([kernel, bias + np.array([0, 500])])

    sure = Explainer(ensemble, GRID).explain(image, "spot")

    assert ensemble.model(image[None].astype("float32"))[0, 1] == 1
    np.testing.assert_allclose(sure.fused, doubtful.fused, atol=1e-3)
