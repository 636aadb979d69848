import gc
import itertools
import math
import weakref

import keras
import numpy as np
import pytest

from configs.errors import ConfigError
from configs.schema import TrainingConfig
from ensemble.data.batches import Examples, sample_order
from ensemble.model.composition import build_classifier, build_model
from ensemble.model.fusion import adapt_scales
from ensemble.training.callbacks import EpochLogs
from ensemble.training.distribution import SINGLE_DEVICE
from ensemble.training.phase import Phase, TrainingBatches
from ensemble.training.targets import one_hot
from ensemble.training.trainer import predict_examples, train_model

pytestmark = pytest.mark.backend

# On PyTorch dropout draws from the generator of the process, from which `fit` draws too.
COMPARABLE_DROPOUT = 0.0 if keras.backend.backend() == "torch" else 0.2


@pytest.fixture
def data() -> Examples:
    """Three views of 40 images, bright ones in class 1."""
    generator = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.int32) % 2
    images = generator.uniform(0, 150, (3, 40, 16, 16, 3)) + 100 * labels[:, None, None, None]
    return Examples({"image": images.astype("float32")}, one_hot(labels, 2), np.ones(40, "float32"))


def extracted(ensemble, data: Examples) -> Examples:
    views = [ensemble.extractor.predict(view, verbose=0)["tiny"] for view in data.inputs["image"]]
    return Examples({"tiny": np.stack(views)}, data.targets, data.weights)


def train_frozen_branches(
    ensemble, data: Examples, config: TrainingConfig, seed: int
) -> list[float]:
    """The naive way: the frozen extractor runs at every step. Returns each epoch's loss."""
    image = keras.Input((16, 16, 3), name="image")
    model = keras.Model({"image": image}, ensemble.model(image))
    model.compile(
        keras.optimizers.Adam(config.learning_rate, epsilon=config.epsilon),
        "categorical_crossentropy",
    )
    losses = []
    for epoch in range(1, config.epochs + 1):
        rows, views = sample_order(data, seed=seed, epoch=epoch)
        history = model.fit(
            {"image": data.inputs["image"][views, rows]},
            data.targets[rows],
            sample_weight=data.weights[rows],
            batch_size=config.batch_size,
            shuffle=False,
            verbose=0,
        )
        losses += history.history["loss"]
    return losses


def test_stored_features_train_exactly_as_frozen_branches_at_every_step(tiny, data):
    config = TrainingConfig(epochs=3, batch_size=16, patience=9)
    trained = []
    for way in ("features", "images"):
        keras.utils.set_random_seed(5)
        ensemble = build_model(
            [tiny],
            classes="ab",
            image_size=16,
            weights="random",
            head_options={"dropout": COMPARABLE_DROPOUT},
        )
        keras.utils.set_random_seed(6)
        if way == "features":
            features = extracted(ensemble, data)
            history = train_model(ensemble.classifier, features, features, config, seed=7)
            trained.append(history.epochs["loss"])
        else:
            trained.append(train_frozen_branches(ensemble, data, config, seed=7))

    np.testing.assert_allclose(trained[0], trained[1], rtol=1e-4)


def test_the_same_seed_gives_the_same_history(tiny, data):
    def history(seed: int) -> dict:
        keras.utils.set_random_seed(seed)
        ensemble = build_model([tiny], classes="ab", image_size=16, weights="random", seed=1)
        features = extracted(ensemble, data)
        config = TrainingConfig(epochs=3, batch_size=16)
        epochs = train_model(ensemble.classifier, features, features, config, seed=seed).epochs
        return {name: values for name, values in epochs.items() if name != "seconds"}

    assert history(1) == history(1)
    assert history(1) != history(2)


def test_the_best_epochs_weights_are_kept_and_named(tiny, data):
    ensemble = build_model([tiny], classes="ab", image_size=16, weights="random")
    features = extracted(ensemble, data)
    wrong = Examples(features.inputs, 1 - features.targets, features.weights)

    # Against inverted labels validation only gets worse, so an early epoch is best.
    history = train_model(
        ensemble.classifier,
        features,
        wrong,
        TrainingConfig(epochs=30, batch_size=16, patience=2, monitor="val_loss"),
        seed=1,
    )

    losses = history.epochs["val_loss"]
    assert history.best_epoch == int(np.argmin(losses)) + 1
    assert len(losses) == history.best_epoch + 2
    probabilities = predict_examples(ensemble.classifier, wrong)
    kept = -np.log((probabilities * wrong.targets).sum(axis=1)).mean()
    np.testing.assert_allclose(kept, min(losses), rtol=1e-4)


def test_optimizer_settings_reach_adam(tiny, data):
    ensemble = build_model([tiny], classes="ab", image_size=16, weights="random")
    features = extracted(ensemble, data)
    config = TrainingConfig(
        epochs=1, learning_rate=1e-4, beta_1=0.8, beta_2=0.9, epsilon=0.1, amsgrad=True
    )

    train_model(ensemble.classifier, features, features, config, seed=1)

    adam = ensemble.classifier.optimizer
    np.testing.assert_allclose(float(adam.learning_rate), 1e-4, rtol=1e-6)
    assert (adam.beta_1, adam.beta_2, adam.epsilon, adam.amsgrad) == (0.8, 0.9, 0.1, True)


def train_from(values, targets: np.ndarray) -> tuple[dict, np.ndarray]:
    """Trains on features of one branch and returns the history and what it then predicts."""
    keras.utils.set_random_seed(1)
    classifier = build_classifier({"a": values.shape[2:]}, classes="ab", standardize=True)
    data = Examples({"a": values}, targets, np.ones(len(targets), "float32"))
    config = TrainingConfig(epochs=3, batch_size=8)
    adapt_scales(classifier, data.inputs)
    history = dict(train_model(classifier, data, data, config, seed=2).epochs)
    del history["seconds"]
    return history, predict_examples(classifier, data)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_neither_place_nor_precision_of_storage_changes_a_training(data, dtype, tmp_path):
    stored = data.inputs["image"].astype(dtype)
    history, probabilities = train_from(stored.astype("float32"), data.targets)

    mapped = np.memmap(tmp_path / "features", dtype, "w+", shape=stored.shape)
    mapped[:] = stored
    streamed_history, streamed_probabilities = train_from(mapped, data.targets)

    for name, values in history.items():
        np.testing.assert_allclose(streamed_history[name], values, rtol=1e-5)
    np.testing.assert_allclose(streamed_probabilities, probabilities, rtol=1e-4)


def test_nothing_of_a_training_stays_in_memory(data):
    def train():
        classifier = build_classifier({"image": (16, 16, 3)}, classes="ab")
        config = TrainingConfig(epochs=1, batch_size=16)
        train_model(classifier, data, data, config, seed=1)
        return weakref.ref(classifier)

    trained = train()
    gc.collect()

    assert trained() is None


def test_weights_count_in_the_loss(tiny, data):
    ensemble = build_model([tiny], classes="ab", image_size=16, weights="random")
    features = extracted(ensemble, data)
    only_ones = Examples(features.inputs, features.targets, features.targets[:, 1])

    train_model(
        ensemble.classifier, only_ones, features, TrainingConfig(epochs=20, patience=30), seed=1
    )
    logits = ensemble.classifier.get_layer("logits").get_weights()[1]

    assert logits[1] > logits[0]


def test_a_training_that_diverges_ends_with_the_rate_to_try(tiny, data):
    ensemble = build_model(["tiny"], classes=["dark", "bright"], image_size=16, weights="random")
    config = TrainingConfig(epochs=5, batch_size=8, learning_rate=3e38)
    examples = extracted(ensemble, data)

    with pytest.raises(ConfigError, match=r"learning rate of 3e\+38\. Use .* 3e\+37\."):
        train_model(ensemble.classifier, examples, examples, config, seed=1)


@pytest.mark.parametrize(
    ("losses", "fails"),
    [
        ([9.0, 0.5, 0.4], False),
        ([0.5, 0.9, 2.0], False),
        ([0.5, 3.5], True),
        ([math.nan], True),
        ([0.5, math.inf], True),
    ],
)
def test_a_loss_that_starts_high_or_falls_is_no_divergence(losses, fails, data):
    logs = EpochLogs(Phase("head", TrainingConfig(), seed=1, epochs=3, learning_rate=0.01), data)

    def check() -> None:
        for epoch, loss in enumerate(losses, start=1):
            logs.check(epoch, loss, 0.5)

    if fails:
        with pytest.raises(ConfigError, match=r"Use a lower one, such as 0\.001"):
            check()
    else:
        check()


class Counting(keras.callbacks.Callback):
    """Records the calls of hooks, and stops after two epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.logs: dict[str, float] = {}

    def on_train_begin(self, logs=None) -> None:
        self.seen.append("begin")

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.seen.append("batch")

    def on_test_end(self, logs=None) -> None:
        self.seen.append("test")

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.seen.append(f"epoch {epoch}")
        self.logs = dict(logs)
        self.model.stop_training = epoch == 1

    def on_train_end(self, logs=None) -> None:
        self.seen.append("end")


def test_any_callback_of_keras_takes_part(data, tmp_path):
    classifier = build_classifier({"image": (16, 16, 3)}, classes="ab")
    config = TrainingConfig(epochs=9, batch_size=16)
    counting = Counting()
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")

    history = train_model(classifier, data, data, config, seed=1, callbacks=[counting, log])

    epochs = [["batch", "test", f"epoch {number}"] for number in range(2)]
    seen = [name for name, _ in itertools.groupby(counting.seen)]  # PyTorch ends each batch
    assert seen == ["begin", *epochs[0], *epochs[1], "end"]
    assert len(history) == 2
    last = {name: values[-1] for name, values in history.epochs.items() if name != "seconds"}
    assert counting.logs == pytest.approx(last)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_each_epoch_uses_every_image_once(data):
    numbers = np.broadcast_to(np.arange(40.0).reshape(1, 40, 1, 1, 1), (3, 40, 1, 1, 1))
    numbered = Examples({"image": np.array(numbers)}, data.targets, data.weights)
    phase = Phase("head", TrainingConfig(batch_size=16), seed=1, epochs=2, learning_rate=0.01)
    batches = TrainingBatches(numbered, phase, SINGLE_DEVICE)
    orders = []
    for epoch in (1, 2):
        batches.start_epoch(epoch)
        used = [batches[step][0]["image"] for step in range(len(batches))]
        orders.append(np.concatenate(used).ravel().tolist())

    assert all(sorted(order) == list(range(40)) for order in orders)
    assert orders[0] != orders[1]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only here it is a choice")
def test_xla_computes_what_tensorflow_does_without_it(data):
    """Dropout aside, for which XLA generates other numbers."""
    histories = []
    for choice in (True, False):
        keras.utils.set_random_seed(1)
        options = {"units": 8, "dropout": 0.0}
        model = build_classifier({"image": (16, 16, 3)}, classes="ab", head_options=options)
        config = TrainingConfig(epochs=2, batch_size=16, jit_compile=choice)
        histories.append(train_model(model, data, data, config, seed=1).epochs["loss"])

    np.testing.assert_allclose(*histories, rtol=1e-3)
