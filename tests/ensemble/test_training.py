import keras
import numpy as np
import pytest

from configs.errors import ConfigError
from configs.schema import TrainingConfig
from ensemble import features as features_module
from ensemble.datasets.loading import Split
from ensemble.features import LabelledFeatures, ViewBatches, extract
from ensemble.model import build_model
from ensemble.training import predict_features, train_classifier


@pytest.fixture
def data() -> LabelledFeatures:
    """Three views of 40 images, bright ones in class 1."""
    generator = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.int32) % 2
    images = generator.uniform(0, 150, (3, 40, 16, 16, 3)) + 100 * labels[:, None, None, None]
    return LabelledFeatures({"image": images.astype("float32")}, labels, np.ones(40, "float32"))


def extracted(ensemble, data: LabelledFeatures) -> LabelledFeatures:
    views = [ensemble.extractor.predict(view, verbose=0)["tiny"] for view in data.inputs["image"]]
    return LabelledFeatures({"tiny": np.stack(views)}, data.labels, data.weights)


def train_frozen_branches(ensemble, data: LabelledFeatures, config: TrainingConfig, seed: int):
    """The naive way: the frozen extractor runs at every step."""
    image = keras.Input((16, 16, 3), name="image")
    model = keras.Model({"image": image}, ensemble.model(image))
    model.compile(
        keras.optimizers.Adam(config.learning_rate, epsilon=config.epsilon),
        "sparse_categorical_crossentropy",
    )
    batches = ViewBatches(data, batch_size=config.batch_size, seed=seed)
    return model.fit(batches, epochs=config.epochs, shuffle=False, verbose=0).history


def test_stored_features_train_exactly_as_frozen_branches_at_every_step(tiny, data):
    config = TrainingConfig(epochs=3, batch_size=16, patience=9)
    trained = []
    for way in ("features", "images"):
        keras.utils.set_random_seed(5)
        ensemble = build_model([tiny], classes="ab", image_size=16, weights="random")
        keras.utils.set_random_seed(6)
        if way == "features":
            features = extracted(ensemble, data)
            history = train_classifier(
                ensemble.classifier, features, features, config, seed=7
            ).epochs
        else:
            history = train_frozen_branches(ensemble, data, config, seed=7)
        trained.append(history["loss"])

    np.testing.assert_allclose(trained[0], trained[1], rtol=1e-5)


def test_the_same_seed_gives_the_same_history(tiny, data):
    def history(seed: int) -> dict:
        keras.utils.set_random_seed(seed)
        ensemble = build_model([tiny], classes="ab", image_size=16, weights="random", seed=1)
        features = extracted(ensemble, data)
        config = TrainingConfig(epochs=3, batch_size=16)
        epochs = train_classifier(ensemble.classifier, features, features, config, seed=seed).epochs
        return {name: values for name, values in epochs.items() if name != "seconds"}

    assert history(1) == history(1)
    assert history(1) != history(2)


def test_the_best_epochs_weights_are_kept_and_named(tiny, data):
    ensemble = build_model([tiny], classes="ab", image_size=16, weights="random")
    features = extracted(ensemble, data)
    wrong = LabelledFeatures(features.inputs, 1 - features.labels, features.weights)

    # Against inverted labels validation only gets worse, so an early epoch is best.
    history = train_classifier(
        ensemble.classifier,
        features,
        wrong,
        TrainingConfig(epochs=30, batch_size=16, patience=2, monitor="val_loss"),
        seed=1,
    )

    losses = history.epochs["val_loss"]
    assert history.best_epoch == int(np.argmin(losses)) + 1
    assert len(losses) == history.best_epoch + 2
    probabilities = predict_features(ensemble.classifier, wrong)
    kept = -np.log(probabilities[np.arange(40), wrong.labels]).mean()
    np.testing.assert_allclose(kept, min(losses), rtol=1e-4)


def test_optimizer_settings_reach_adam(tiny, data):
    ensemble = build_model([tiny], classes="ab", image_size=16, weights="random")
    features = extracted(ensemble, data)
    config = TrainingConfig(
        epochs=1, learning_rate=1e-4, beta_1=0.8, beta_2=0.9, epsilon=0.1, amsgrad=True
    )

    train_classifier(ensemble.classifier, features, features, config, seed=1)

    adam = ensemble.classifier.optimizer
    np.testing.assert_allclose(float(adam.learning_rate), 1e-4, rtol=1e-6)
    assert (adam.beta_1, adam.beta_2, adam.epsilon, adam.amsgrad) == (0.8, 0.9, 0.1, True)


def test_every_image_comes_once_an_epoch_in_an_order_of_its_own():
    numbers = np.arange(10)
    batches = ViewBatches(
        LabelledFeatures({"x": np.stack([numbers, numbers + 100])}, numbers, np.ones(10)),
        batch_size=4,
        seed=1,
    )

    orders, views = [], []
    for _ in range(5):
        seen = np.concatenate([batches[index][0]["x"] for index in range(len(batches))])
        orders.append(tuple(seen % 100))
        views.append(tuple(seen >= 100))
        batches.on_epoch_end()

    assert all(sorted(order) == list(numbers) for order in orders)
    assert len(set(orders)) == 5
    assert len(set(views)) > 1


def test_features_that_cannot_fit_are_refused_before_the_work(tiny, monkeypatch):
    extractor = build_model([tiny], classes="ab", image_size=16, weights="random").extractor
    monkeypatch.setattr(features_module, "_memory", lambda: 10_000)
    split = Split(None, ("a",) * 500, np.zeros(500, np.int32), np.ones(500, np.float32), ())

    with pytest.raises(ConfigError, match="--fusion pooled"):
        extract(extractor, split, [b""] * 500)


def test_weights_count_in_the_loss(tiny, data):
    ensemble = build_model([tiny], classes="ab", image_size=16, weights="random")
    features = extracted(ensemble, data)
    only_ones = LabelledFeatures(
        features.inputs, features.labels, features.labels.astype("float32")
    )

    train_classifier(
        ensemble.classifier, only_ones, features, TrainingConfig(epochs=20, patience=30), seed=1
    )
    logits = ensemble.classifier.get_layer("logits").get_weights()[1]

    assert logits[1] > logits[0]
