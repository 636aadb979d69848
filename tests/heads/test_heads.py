"""Laws of heads: a fused feature map goes in, the logits' input comes out."""

import keras
import numpy as np
import pytest

from configs.errors import ConfigError
from ensemble.model.composition import build_classifier, build_extractor, feature_shapes
from heads.builder import build_head
from heads.checks import check_head
from heads.registry import HEADS, HeadSpec, head_names

pytestmark = pytest.mark.backend

STUDY = {"vgg16": (1, 1, 512), "densenet121": (1, 1, 1024), "resnet50": (1, 1, 2048)}


def layers_of(name: str, **options) -> list[keras.layers.Layer]:
    """Returns the layers of a head on a small map."""
    features = keras.Input((3, 3, 8))
    return keras.Model(features, build_head(name, features, **options)).layers[1:]


def parameters(layers: list[keras.layers.Layer]) -> dict[str, int]:
    """Returns class name to number of parameters, layers without any left out."""
    return {type(layer).__name__: layer.count_params() for layer in layers if layer.weights}


@pytest.mark.parametrize("name", head_names())
def test_head_keeps_its_contract(name):
    check_head(name)


def test_the_studys_head_has_the_studys_size():
    classifier = build_classifier(STUDY, classes=["neutral", "happy", "sad"])
    trainable = sum(int(np.prod(weight.shape)) for weight in classifier.trainable_weights)

    assert [
        (type(layer).__name__, layer.count_params()) for layer in classifier.layers if layer.weights
    ] == [("Dense", 1_835_520), ("BatchNormalization", 2_048), ("Dense", 1_539)]
    assert classifier.count_params() == 1_839_107
    assert trainable == 1_838_083


@pytest.mark.slow
def test_the_studys_branches_give_the_studys_features():
    extractor = build_extractor(list(STUDY), input_shape=(96, 96, 3), weights="random")

    assert feature_shapes(extractor) == STUDY


def test_the_studys_head_is_dense_batch_norm_dropout():
    flatten, dense, batch_norm, dropout = layers_of("dense")

    assert isinstance(flatten, keras.layers.Flatten)
    assert dense.units == 512
    assert dense.activation is keras.activations.relu
    assert isinstance(dense.kernel_initializer, keras.initializers.HeNormal)
    assert isinstance(batch_norm, keras.layers.BatchNormalization)
    assert dropout.rate == 0.2


def test_without_batch_norm_and_dropout_only_the_hidden_layer_is_left():
    flatten, dense = layers_of("dense", units=4, batch_norm=False, dropout=0)

    assert parameters([flatten, dense]) == {"Dense": 72 * 4 + 4}


def test_the_linear_head_adds_no_weights_of_its_own_but_batch_norms():
    assert parameters(layers_of("linear")) == {"BatchNormalization": 72 * 4}
    assert parameters(layers_of("linear", batch_norm=False)) == {}


def test_the_convolutional_head_sees_neighbours():
    assert parameters(layers_of("conv", filters=5)) == {
        "Conv2D": 3 * 3 * 8 * 5 + 5,
        "BatchNormalization": 5 * 4,
    }
    assert HEADS.get("conv").spatial


@pytest.mark.parametrize(
    "name", [spec.name for spec in HEADS if "kernel_initializer" in spec.build.__kwdefaults__]
)
@pytest.mark.parametrize(
    ("initializer", "kind"),
    [
        ("glorot_uniform", keras.initializers.GlorotUniform),
        ("orthogonal", keras.initializers.Orthogonal),
    ],
)
def test_the_initializer_reaches_the_layer(name, initializer, kind):
    layers = layers_of(name, kernel_initializer=initializer)

    assert [type(getattr(layer, "kernel_initializer", None)) for layer in layers].count(kind) == 1


def test_options_may_be_texts():
    _, dense, *_ = layers_of("dense", units="16", batch_norm="false")

    assert dense.units == 16


@pytest.mark.parametrize(
    "options",
    [
        {"dropuot": 0.3},
        {"dropout": 1},
        {"units": 0},
        {"kernel_initializer": "he"},
        {"activation": "softmax"},
    ],
)
def test_an_option_unknown_or_outside_its_limits_is_refused(options):
    with pytest.raises(ConfigError) as error:
        build_head("dense", keras.Input((1, 1, 8)), **options)

    assert "Head 'dense' cannot be built" in str(error.value)
    assert next(iter(options)) in str(error.value)


def test_all_wrong_options_are_told_at_once():
    with pytest.raises(ConfigError, match=r"units: .*dropout: .*depth: "):
        build_head("dense", keras.Input((1, 1, 8)), units=0, dropout=2, depth=1)


def test_an_unknown_head_is_refused_with_its_near_miss():
    with pytest.raises(ConfigError, match="Did you mean 'dense'"):
        build_head("dens", keras.Input((1, 1, 8)))


def test_a_head_of_the_users_own_is_a_function():
    def two_layers(features, *, width: int = 6):
        x = keras.layers.Flatten()(features)
        return keras.layers.Dense(width)(keras.layers.Dense(width)(x))

    with HEADS.temporary(HeadSpec("two_layers", two_layers, summary="two layers")):
        check_head("two_layers")
        classifier = build_classifier(
            {"net": (1, 1, 12)}, classes="ab", head="two_layers", head_options={"width": 3}
        )
        with pytest.raises(ConfigError, match="widht"):
            layers_of("two_layers", widht=3)

    assert classifier.count_params() == (12 * 3 + 3) + (3 * 3 + 3) + (3 * 2 + 2)
    assert "two_layers" not in HEADS


@pytest.mark.parametrize(
    ("head", "rule"),
    [
        (lambda features, *, width: features * width, "without a default: width"),
        (lambda features: features, "rank 4, not 2"),
    ],
)
def test_a_head_that_breaks_its_contract_is_found(head, rule):
    with HEADS.temporary(HeadSpec("broken", head, "none")), pytest.raises(AssertionError) as error:
        check_head("broken")

    assert rule in str(error.value)
