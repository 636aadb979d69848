"""The second phase: only what is unfrozen is trained."""

import csv
from collections.abc import Callable

import keras
import numpy as np
import pytest

from configs.errors import ConfigError
from configs.schema import ExperimentConfig, TrainingConfig
from ensemble.commands.train.__main__ import main as train
from ensemble.data.batches import Examples
from ensemble.experiment import fit
from ensemble.model.composition import MultiBranchModel, build_model
from ensemble.training.fine_tuning import fine_tune, unfreeze_branches
from ensemble.training.history import History
from ensemble.training.phase import Session
from ensemble.training.targets import one_hot
from ensemble.training.trainer import train_model

pytestmark = pytest.mark.backend

MakeConfig = Callable[..., ExperimentConfig]


@pytest.fixture
def data() -> Examples:
    """40 images, bright ones in class 1."""
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = generator.integers(0, 150, (1, 40, 16, 16, 3)) + 100 * labels[:, None, None, None]
    return Examples({"image": images.astype("uint8")}, one_hot(labels, 2), np.ones(40, "float32"))


def build(tiny: str, branches: int = 1, dropout: float = 0.2) -> MultiBranchModel:
    keras.utils.set_random_seed(1)
    return build_model(
        [tiny, f"{tiny}:b"][:branches],
        classes=["dark", "bright"],
        image_size=16,
        weights="random",
        head_options={"dropout": dropout},
    )


def settings(
    unfreeze: str, labels: str = "tiny", weights: str = "random", **fine
) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "data": {"image_size": 16},
            "model": {"branches": labels, "weights": weights},
            "training": {
                "batch_size": 8,
                "unfreeze": unfreeze,
                "fine_tuning": {"epochs": 2, "learning_rate": 1e-2, **fine},
            },
        }
    )


def weights_by_layer(ensemble: MultiBranchModel) -> dict[str, list[np.ndarray]]:
    """Returns the weights of each layer of each branch."""
    return {
        f"{branch.name}/{number}-{type(layer).__name__}": layer.get_weights()
        for branch in ensemble.extractor.layers
        if isinstance(branch, keras.Model)
        for number, layer in enumerate(branch.layers[-1].layers)
        if layer.weights
    }


def moved(ensemble: MultiBranchModel, before: dict[str, list[np.ndarray]]) -> set[str]:
    """Returns the names of layers of which any weight is another than it was."""
    return {
        name
        for name, weights in weights_by_layer(ensemble).items()
        if any(not np.array_equal(w, b) for w, b in zip(weights, before[name], strict=True))
    }


def test_what_is_unfrozen_moves_and_the_rest_is_bit_identical(tiny, data):
    ensemble = build(tiny, branches=2)
    before = weights_by_layer(ensemble)
    assert len(before) == 6

    fine_tune(ensemble, (data, data), settings("tiny:b:last:1", "tiny,tiny:b"), Session())

    assert moved(ensemble, before) == {list(before)[-1]}
    assert list(before)[-1].startswith("tiny_b/")


def test_moving_statistics_stay_unless_asked(tiny, data):
    ensembles = [build(tiny), build(tiny)]
    before = weights_by_layer(ensembles[0])
    (normalization,) = (name for name in before if "BatchNorm" in name)
    config = settings("last:3", weights="random")

    fine_tune(ensembles[0], (data, data), config, Session())
    fine_tune(ensembles[1], (data, data), settings("last:3", batch_norm=True), Session())

    assert normalization not in moved(ensembles[0], before)
    assert len(moved(ensembles[0], before)) == 2
    assert normalization in moved(ensembles[1], before)


def test_a_branch_from_scratch_learns_wholly(tiny, data):
    ensemble = build(tiny)
    before = weights_by_layer(ensemble)
    config = settings("all")
    assert config.from_scratch

    fine_tune(ensemble, (data, data), config, Session())

    assert moved(ensemble, before) == set(before)


def test_one_phase_takes_the_settings_of_the_first(make_config: MakeConfig):
    result = fit(
        make_config(model={"standardize": False}, training={"unfreeze": "all", "epochs": 3})
    )

    assert result.history.phases == ("fine-tuning",) * 3
    assert result.history.epochs["learning_rate"] == pytest.approx([1e-3] * 3)


def test_a_factor_slows_its_branch_alone(tiny, data):
    ensemble = build(tiny, branches=2)
    before = weights_by_layer(ensemble)

    fine_tune(
        ensemble, (data, data), settings("last:1", "tiny,tiny:b", factors={"tiny": 0.0}), Session()
    )

    assert moved(ensemble, before) == {list(before)[-1]}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_fewer_bits_train_float32_weights(tiny, data, precision):
    ensemble = build(tiny)
    before = weights_by_layer(ensemble)

    history = fine_tune(ensemble, (data, data), settings("last:1", precision=precision), Session())

    assert moved(ensemble, before) == {list(before)[-1]}
    assert {w.dtype for w in ensemble.model.get_weights()} == {np.dtype("float32")}
    answers = ensemble.model.predict(data.inputs["image"][0].astype("float32"), verbose=0)
    loss = -np.log((answers * data.targets).sum(axis=1)).mean()
    assert loss == pytest.approx(history.epochs["val_loss"][history.best_epoch - 1], abs=0.01)


def test_the_second_phase_follows_the_first(make_config: MakeConfig):
    fine = {"epochs": 2, "learning_rate": 1e-4}
    result = fit(make_config(training={"epochs": 3, "unfreeze": "last:1", "fine_tuning": fine}))

    epochs = result.history.epochs
    assert result.history.phases == ("head",) * 3 + ("fine-tuning",) * 2
    assert result.history.second_phase == 4
    assert epochs["learning_rate"] == pytest.approx([1e-3] * 3 + [1e-4] * 2)
    assert result.history.best_epoch == int(np.argmax(epochs["val_accuracy"])) + 1
    assert epochs["val_loss"][3] < 0.3  # a head that starts anew is at 0.69
    with (result.run.folder / "history.csv").open(newline="") as file:
        assert [row["phase"] for row in csv.DictReader(file)] == list(result.history.phases)


def test_a_second_phase_that_finds_nothing_better_changes_nothing(tiny, data):
    ensemble = build(tiny)
    before = ensemble.model.get_weights()
    perfect = {"val_accuracy": 1.0, "loss": 0.0}
    history = History("val_accuracy").with_epoch("head", perfect, best_epoch=1)

    history = fine_tune(ensemble, (data, data), settings("last:1"), Session(), history)

    assert len(history) == 3
    assert history.best_epoch == 1
    for weights, expected in zip(ensemble.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, expected)


def test_fine_tuning_takes_the_steps_of_keras(tiny, data):
    """The same as `fit` on the composed model, with the batches in the same order."""
    from ensemble.data.batches import sample_order

    config = settings("last:1", batch_norm=False).model_copy(update={"seed": 3})
    # On PyTorch dropout draws from the generator of the process, from which `fit` draws too.
    dropout = 0.0 if keras.backend.backend() == "torch" else 0.2
    ensemble, other = build(tiny, dropout=dropout), build(tiny, dropout=dropout)
    keras.utils.set_random_seed(5)
    plain = config.data.augment.model_copy(update={"rotation": 0.0, "horizontal_flip": False})
    config = config.model_copy(update={"data": config.data.model_copy(update={"augment": plain})})
    history = fine_tune(ensemble, (data, data), config, Session())

    unfreeze_branches(other, config)
    model = other.model
    model.compile(keras.optimizers.Adam(1e-2), "categorical_crossentropy")
    keras.utils.set_random_seed(5)
    losses = []
    for epoch in (1, 2):
        rows = sample_order(data, seed=3, epoch=epoch).rows
        images = data.inputs["image"][0, rows].astype("float32")
        losses += model.fit(
            images, data.targets[rows], batch_size=8, shuffle=False, verbose=0
        ).history["loss"]

    np.testing.assert_allclose(history.epochs["loss"], losses, rtol=1e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--unfreeze", "vgg16:blok5"], "'block5'"),
        (["--unfreeze", "resnet50:conv5"], "resnet50:conv5"),
        (["--unfreeze", "last:0"], "last:0"),
        (["--training.fine_tuning.factors", "resnet50=2"], "not a branch of this model"),
        (["--training.fine_tuning.factors", "2"], "BRANCH=FACTOR"),
        (["--unfreeze", "all", "--weights", "random", "--standardize"], "--standardize"),
        (["--track", "wandb"], "'tensorboard' or 'mlflow'"),
    ],
)
def test_invalid_settings_are_reported_before_anything_is_read(flags, message, capsys):
    assert train(["--branches", "vgg16,densenet121", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_losses_are_those_computed_by_hand(data):
    """Cross-entropy and focal loss of soft targets, weighted."""
    image = keras.Input((1, 1, 2), name="image")
    model = keras.Model({"image": image}, keras.layers.Softmax()(keras.layers.Flatten()(image)))
    logits = np.log(np.array([[0.9, 0.1], [0.3, 0.7]], "float32"))
    targets = np.array([[0.8, 0.2], [0.0, 1.0]], "float32")
    weights = np.array([1.0, 3.0], "float32")
    examples = Examples({"image": logits[None, :, None, None]}, targets, weights)

    losses = {}
    for gamma in (0.0, 2.0):
        config = TrainingConfig(epochs=1, batch_size=2, focal_gamma=gamma, monitor="val_loss")
        losses[gamma] = train_model(model, examples, examples, config, seed=1).epochs["val_loss"][0]

    # Sum over classes of -target * (1 - p)**gamma * log(p), mean over images by weight / images.
    first = -0.8 * np.log(0.9) - 0.2 * np.log(0.1)
    second = -np.log(0.7)
    assert losses[0.0] == pytest.approx((first + 3 * second) / 2, rel=1e-5)
    first = -0.8 * 0.1**2 * np.log(0.9) - 0.2 * 0.9**2 * np.log(0.1)
    second = -(0.3**2) * np.log(0.7)
    assert losses[2.0] == pytest.approx((first + 3 * second) / 2, rel=1e-5)


def test_a_stage_that_only_the_network_can_refuse_is_reported(tiny, data):
    with pytest.raises(ConfigError, match="last:99"):
        fine_tune(build(tiny), (data, data), settings("last:99"), Session())
