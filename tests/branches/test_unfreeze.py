"""Laws of unfreezing: training moves what was named, and nothing else of the branch."""

from collections.abc import Iterator
from dataclasses import replace

import keras
import numpy as np
import pytest

from branches.builder import backbone_of, build_branch, freeze, unfreeze
from branches.checks import check_branch
from branches.registry import BRANCHES, BranchSpec, branch_names, check_stages, spec_of_model
from configs.errors import ConfigError

pytestmark = pytest.mark.backend

STEM = {"stem_conv/kernel", "stem_conv/bias"}
NORM = {f"stem_bn/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance")}
BODY = {"body_conv/kernel", "body_conv/bias"}


class ConvNorm(keras.layers.Layer):
    """A composite layer, with a BatchNormalization that no model lists."""

    def __init__(self, **options):
        super().__init__(**options)
        self.conv = keras.layers.Conv2D(4, 3, activation="relu", name="conv")
        self.norm = keras.layers.BatchNormalization(name="norm")

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build(self.conv.compute_output_shape(shape))

    def call(self, images):
        return self.norm(self.conv(images))

    def compute_output_shape(self, shape):
        return self.conv.compute_output_shape(shape)


def build_nested(*, input_shape, **_):
    """A backbone with one BatchNormalization in a composite layer and one in a model."""
    image = keras.Input(input_shape)
    x = ConvNorm(name="composite")(image)
    inside = keras.Input(x.shape[1:])
    block = keras.Model(inside, ConvNorm(name="deep")(inside), name="block")
    return keras.Model(image, keras.layers.MaxPooling2D(name="pool")(block(x)))


@pytest.fixture
def nested() -> Iterator[str]:
    """The name of a branch without named stages whose BatchNormalization lies deep."""
    spec = BranchSpec("nested", build_nested, "tf", min_size=8, reference="none")
    with BRANCHES.temporary(spec):
        yield spec.name


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (["stem"], STEM),
        (["body"], BODY),
        (["body", "stem"], STEM | BODY),
        (["all"], STEM | BODY),
        (["last:1"], BODY),
        (["last:2"], BODY),
        (["last:3"], STEM | BODY),
        (["last:1", "stem"], STEM | BODY),
    ],
)
def test_training_moves_the_unfrozen_weights_alone(tiny, stages, expected):
    assert _moved(unfreeze(_build(tiny), stages)) == expected


@pytest.mark.parametrize(
    ("stages", "expected"),
    [(["stem"], STEM | NORM), (["body"], BODY), (["last:2"], NORM | BODY)],
)
def test_batch_norm_moves_where_asked_and_unfrozen(tiny, stages, expected):
    assert _moved(unfreeze(_build(tiny), stages, batch_norm=True)) == expected


def test_nested_batch_norm_stays_frozen(nested):
    convolutions = {
        f"{block}/conv/{part}" for block in ("composite", "deep") for part in ("kernel", "bias")
    }

    moved = _moved(unfreeze(_build(nested), ["all"]))
    assert moved == convolutions

    moved = _moved(unfreeze(_build(nested), ["all"], batch_norm=True))
    assert len(moved - convolutions) == 8
    assert {path.rpartition("/")[2] for path in moved} >= {"moving_mean", "moving_variance"}


def test_unfreezing_takes_the_place_of_an_earlier_one(tiny):
    branch = unfreeze(_build(tiny), ["all"], batch_norm=True)

    assert _moved(unfreeze(branch, ["body"])) == BODY
    assert not freeze(branch).trainable_variables


def test_a_branch_inside_a_frozen_extractor_is_unfrozen(tiny):
    branches = [_build(tiny), _build(tiny, tag="b")]
    image = keras.Input((16, 16, 3))
    maps = keras.layers.Concatenate()([branch(image) for branch in branches])
    extractor = freeze(keras.Model(image, maps))

    extractor.trainable = True
    freeze(branches[0])
    unfreeze(branches[1], ["body"])
    before = [_weights(branch) for branch in branches]
    _train(extractor)

    assert _changes(before[0], branches[0]) == set()
    assert _changes(before[1], branches[1]) == BODY
    assert len(extractor.trainable_variables) == len(BODY)


def test_a_saved_branch_is_unfrozen_alike(tiny, tmp_path):
    path = tmp_path / "branch.keras"
    unfreeze(_build(tiny, tag="b"), ["body"]).save(path)
    loaded = keras.saving.load_model(path)

    assert {weight.path for weight in loaded.trainable_variables} == BODY
    assert _moved(unfreeze(loaded, ["stem"])) == STEM


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            ["bodi"],
            "Unknown tiny stage 'bodi'. Did you mean 'body'? Known: all, body, last:N, stem.",
        ),
        (["last5"], "Unknown tiny stage 'last5'. Did you mean 'last:N'?"),
        (["last:0"], "1 or more. Received: 'last:0'. Use, for example, last:10."),
        (["last:-2"], "1 or more. Received: 'last:-2'."),
        (["last:2.5"], "1 or more. Received: 'last:2.5'."),
        (["last:"], "1 or more. Received: 'last:'."),
        (["body", "bodi", "last:x"], "Received: 'last:x'."),
        (["last:x", "bodi"], "Did you mean 'body'?"),
        ("all", "Stages to unfreeze are a list. Received: 'all'. Use ['all']."),
    ],
)
def test_a_mistaken_stage_is_told_before_a_network_is_built(tiny, stages, message):
    with pytest.raises(ConfigError) as error:
        check_stages(BRANCHES.get(tiny), stages)

    assert message in str(error.value)


def test_all_that_can_be_right_without_a_network_is_let_through(tiny):
    check_stages(BRANCHES.get(tiny), ["stem", "body", "all", "last:1", "last:1000"])


def test_without_named_stages_the_end_and_all_are_left(nested):
    spec = BRANCHES.get(nested)

    check_stages(spec, ["all", "last:2"])
    with pytest.raises(ConfigError) as error:
        check_stages(spec, ["conv5"])

    assert str(error.value) == (
        "Branch 'nested' has no named stages, so only 'all' and 'last:N' work. Received: 'conv5'."
    )


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["bodi"], "Did you mean 'body'"),
        (["last:5"], r"Branch 'tiny' has 4 layers\. Received: 'last:5'\. Use last:4 at most"),
    ],
)
def test_a_mistake_leaves_the_branch_as_it_was(tiny, stages, message):
    branch = unfreeze(_build(tiny), ["stem"])

    with pytest.raises(ConfigError, match=message):
        unfreeze(branch, stages)

    assert {weight.path for weight in branch.trainable_variables} == STEM


@pytest.mark.parametrize("stages", [[], ["last:1"]])
def test_unfreezing_nothing_that_learns_is_refused(nested, stages):
    branch = _build(nested)

    with pytest.raises(ConfigError, match="hold no weights to train"):
        unfreeze(branch, stages)

    assert not branch.trainable_variables


def test_unfreezing_batch_norm_alone_must_be_asked_for(tiny):
    spec = replace(BRANCHES.get(tiny), name="split", stages={"a": "stem_conv", "b": "stem_bn"})
    with BRANCHES.temporary(spec):
        branch = _build("split")

        with pytest.raises(ConfigError, match=r"besides BatchNormalization\. Received: b\."):
            unfreeze(branch, ["b"])
        assert _moved(unfreeze(branch, ["b"], batch_norm=True)) == NORM


def test_a_stage_that_ends_at_no_layer_is_refused(tiny):
    with BRANCHES.temporary(replace(BRANCHES.get(tiny), name="lost", stages={"a": "absent"})):
        branch = _build("lost")

        with pytest.raises(ConfigError, match="ends at layer 'absent', which its backbone lacks"):
            unfreeze(branch, ["a"])
        assert _moved(unfreeze(branch, ["all"])) == STEM | BODY


def test_the_spec_is_found_by_the_name_of_the_model(tiny):
    spec = BRANCHES.get(tiny)
    longer = replace(spec, name="tiny_b")

    assert spec_of_model("tiny") is spec_of_model("tiny_b") is spec_of_model("tiny_b_c") is spec
    with BRANCHES.temporary(longer):
        assert spec_of_model("tiny") is spec
        assert spec_of_model("tiny_b") is spec_of_model("tiny_b_c") is longer
    with pytest.raises(ConfigError, match="Unknown branch 'tinyb'"):
        spec_of_model("tinyb")


@pytest.mark.parametrize(
    ("stages", "broken"),
    [
        ({"stem": "stem_bn", "body": "absent"}, "end at layers that the backbone lacks"),
        ({"body": "body_conv", "stem": "stem_bn"}, "not in the order of layers"),
        ({"stem": "body_conv", "body": "body_conv"}, "not in the order of layers"),
        ({"stem": "stem_bn"}, "the last stage ends before the backbone"),
        ({"all": "body_conv"}, "names reserved for unfreezing"),
        ({"stem": "stem_bn", "last:1": "body_conv"}, "names reserved for unfreezing"),
        ({"a": "stem_conv", "b": "stem_bn", "c": "body_conv"}, "no weights to train besides"),
    ],
)
def test_the_contract_refuses_stages_that_cut_wrongly(tiny, stages, broken):
    with (
        BRANCHES.temporary(replace(BRANCHES.get(tiny), name="cut", stages=stages)),
        pytest.raises(AssertionError, match=broken),
    ):
        check_branch("cut")


@pytest.mark.parametrize("name", branch_names())
def test_every_branch_of_the_project_names_its_stages(name):
    assert len(BRANCHES.get(name).stages) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", branch_names())
def test_a_stage_of_a_published_network_trains_alone(name):
    stages = list(BRANCHES.get(name).stages)
    branch = _build(name)
    for stage, batch_norm in ((stages[-2], False), (stages[-1], True)):
        norms, others = _weights_of_stage(branch, stage)

        moved = _moved(unfreeze(branch, [stage], batch_norm=batch_norm), eagerly=True)

        assert moved <= (norms | others if batch_norm else others)
        # Under BatchNorm in training a bias has no gradient, so it need not move.
        assert {path for path in others if "kernel" in path or not norms} <= moved
        statistics = {path for path in norms if "moving" in path}
        assert moved & statistics == (statistics if batch_norm else set())


def _build(name: str, **options) -> keras.Model:
    side = max(16, BRANCHES.get(name).min_size)
    return build_branch(name, input_shape=(side, side, 3), weights="random", **options)


def _weights_of_stage(branch: keras.Model, stage: str) -> tuple[set[str], set[str]]:
    """Returns the paths of a stage's BatchNorm weights and of its others.

    The graph tells them: they are all that the stage's last layer depends on
    and the last layer of the stage before does not.
    """
    backbone, ends = backbone_of(branch), spec_of_model(branch.name).stages
    before = list(ends)[list(ends).index(stage) - 1]
    depends, depended = (
        keras.Model(backbone.input, backbone.get_layer(ends[end]).output).layers
        for end in (stage, before)
    )
    norms, others = set(), set()
    for layer in {*depends} - {*depended}:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        (norms if is_norm else others).update(weight.path for weight in layer.weights)
    return norms, others


def _moved(branch: keras.Model, *, eagerly: bool = False) -> set[str]:
    """Returns the paths of those weights of a branch that a few steps change by a bit."""
    before = _weights(branch)
    _train(branch, eagerly=eagerly)
    return _changes(before, branch)


def _changes(before: dict[str, np.ndarray], branch: keras.Model) -> set[str]:
    return {
        path for path, value in _weights(branch).items() if not np.array_equal(value, before[path])
    }


def _weights(branch: keras.Model) -> dict[str, np.ndarray]:
    values = {w.path: np.array(keras.ops.convert_to_numpy(w)) for w in branch.weights}
    assert len(values) == len(branch.weights)
    return values


def _train(branch: keras.Model, *, eagerly: bool = False) -> None:
    """Trains a classifier on a branch, as one layer of it, on random images.

    A large network takes a few steps sooner eagerly than it is compiled.
    """
    image = keras.Input(branch.input_shape[1:])
    pooled = keras.layers.GlobalAveragePooling2D()(branch(image))
    model = keras.Model(image, keras.layers.Dense(2)(pooled))
    model.compile("adam", "mse", run_eagerly=eagerly, jit_compile=False)
    generator = np.random.default_rng(0)
    images = generator.uniform(0, 255, (8, *branch.input_shape[1:])).astype("float32")
    model.fit(images, generator.normal(size=(8, 2)), batch_size=4, verbose=0)
