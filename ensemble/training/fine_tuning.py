"""The second phase: stages of branches are trained together with the head, on images."""

import logging
from pathlib import Path

import keras
import numpy as np

from branches.builder import unfreeze
from configs.schema import ExperimentConfig
from ensemble.data.batches import Examples
from ensemble.data.loading import Split
from ensemble.data.reading import stream
from ensemble.features.arrays import allocate
from ensemble.model.composition import MultiBranchModel
from ensemble.model.precision import in_precision
from ensemble.system.progress import progress_bar
from ensemble.training.augmentation import Augmentation
from ensemble.training.history import History
from ensemble.training.phase import Phase, Session
from ensemble.training.trainer import train_phase

log = logging.getLogger(__name__)

NAME = "fine-tuning"

_BATCH = 64  # images decoded or evaluated at a time
_STEPS = 16  # per block: some seconds on a slow machine


def load_pixels(split: Split, image_size: int, folder: Path) -> np.ndarray:
    """Decodes the images of a split.

    Args:
        split: The images, all readable.
        image_size: Height and width in pixels.
        folder: Where they lie if they are too many for the memory.

    Returns:
        Uint8, shape `(1, images, image_size, image_size, 3)`, RGB of 0..255.

    Raises:
        DataError: If an image can no longer be read.
        StoreError: If the disk has no room for them.
    """
    shape = (1, len(split), image_size, image_size, 3)
    pixels = allocate(shape, "uint8", folder=folder, what="Decoded images")
    with progress_bar("Decoding", len(split)) as bar:
        for rows, images in stream(split, image_size, batch_size=_BATCH):
            pixels[0, rows] = images
            bar.update(len(images))
    return pixels


def unfreeze_branches(ensemble: MultiBranchModel, config: ExperimentConfig) -> None:
    """Makes the stages named in `config.training.unfreeze` trainable, and no others.

    BatchNorm is trained where the settings ask for it, and in a branch that is trained
    as a whole from random weights, whose statistics mean nothing yet.

    Raises:
        ConfigError: If a branch has no such stage.
    """
    ensemble.extractor.trainable = True
    for branch in config.model.branches:
        stages = config.unfrozen.get(branch.label)
        model = ensemble.extractor.get_layer(branch.layer_name)
        if stages is None:
            model.trainable = False
            continue
        fresh = config.model.weights_of(branch.label) == "random" and "all" in stages
        unfreeze(model, stages, batch_norm=fresh or config.training.fine_tuning.batch_norm)


def named_input(ensemble: MultiBranchModel) -> keras.Model:
    """Returns the composed model as one that takes `{"image": ...}`, as examples hold it."""
    image = keras.Input(ensemble.model.input_shape[1:], name="image")
    return keras.Model({"image": image}, ensemble.classifier(ensemble.extractor(image)))


def fine_tune(
    ensemble: MultiBranchModel,
    data: tuple[Examples, Examples],
    config: ExperimentConfig,
    session: Session,
    history: History | None = None,
) -> History:
    """Trains the unfrozen stages and the classifier on images, augmented anew in each epoch.

    Args:
        ensemble: The model, its classifier trained by the first phase.
        data: Training and validation images, under the input name "image".
        config: Settings; without a first phase its rate and epochs are taken.
        session: What accompanies the training.
        history: The epochs of the first phase.
    """
    unfreeze_branches(ensemble, config)
    settings = config.training if config.from_scratch else config.training.fine_tuning
    precision = config.training.fine_tuning.precision
    model = named_input(ensemble)
    if precision != "float32":
        model = in_precision(model, precision)
    count = sum(int(np.prod(v.shape)) for v in ensemble.extractor.trainable_variables)
    log.info("fine-tuning: %s weights of branches are trained too", f"{count:,}")
    phase = Phase(
        NAME,
        config.training,
        config.seed,
        settings.epochs,
        settings.learning_rate,
        factors=_factors(model, config),
        augment=Augmentation(config.data.augment),
        validation_batch=_BATCH,
        steps_per_execution=_STEPS,
        precision=precision,
    )
    history = train_phase(model, data, phase, session, history)
    if precision != "float32":
        ensemble.model.set_weights(model.get_weights())
    return history


def _factors(model: keras.Model, config: ExperimentConfig) -> list[float] | None:
    """Returns the factor of each trainable variable's learning rate, None if all are 1."""
    chosen = config.training.fine_tuning.factors
    if not chosen:
        return None
    factors = {}
    for branch in config.model.branches:
        layer = model.get_layer("extractor").get_layer(branch.layer_name)
        for variable in layer.trainable_variables:
            factors[id(variable)] = chosen.get(branch.label, 1.0)
    return [factors.get(id(variable), 1.0) for variable in model.trainable_variables]
