"""Loss, optimizer and schedule of a model."""

from collections.abc import Iterator
from typing import Any

import keras

from configs.schema import TrainingConfig
from ensemble.model.optimizers import FusedAdam
from ensemble.training.distribution import Distribution
from ensemble.training.phase import Phase


def compile_model(model: keras.Model, phase: Phase, steps: int, distribution: Distribution) -> None:
    """Compiles a model for a phase whose epochs have this many steps."""
    config = phase.config
    tensorflow = keras.backend.backend() == "tensorflow"
    # Neither PyTorch nor a strategy of TensorFlow runs several steps at once.
    one_by_one = distribution.strategy if tensorflow else keras.backend.backend() == "torch"
    rate: Any = phase.learning_rate
    if config.schedule == "cosine":
        warmup = min(round(config.warmup_epochs * steps), phase.epochs * steps - 1)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate,
            phase.epochs * steps - warmup,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    optimizer: keras.optimizers.Optimizer = FusedAdam(
        factors=phase.factors,
        learning_rate=rate,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=config.epsilon,
        amsgrad=config.amsgrad,
        weight_decay=config.weight_decay or None,
        global_clipnorm=config.clip_norm,
        use_ema=config.ema > 0,
        ema_momentum=config.ema or 0.99,
    )
    if config.weight_decay:  # biases and scales have no size to keep down
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if phase.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    loss = keras.losses.CategoricalCrossentropy()
    if config.focal_gamma:
        loss = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=config.focal_gamma)
    model.compile(
        optimizer,
        loss,
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=config.jit_compile if tensorflow else "auto",
        steps_per_execution=1 if one_by_one else phase.steps_per_execution,
    )
    # Built here, so that the optimizer can be restored and all variables lie on all devices.
    optimizer.build(model.trainable_variables)
    target, weight = keras.ops.ones((1, *model.output_shape[1:])), keras.ops.ones(1)
    with keras.StatelessScope():
        model.compute_metrics(None, target, target, weight)


def make_schedule(config: TrainingConfig) -> Iterator[keras.callbacks.Callback]:
    """Yields callbacks that change weights or rate after an epoch; they precede early stopping."""
    if config.ema:
        yield keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    if config.schedule == "plateau":
        yield keras.callbacks.ReduceLROnPlateau(config.monitor, factor=0.5, patience=2)
