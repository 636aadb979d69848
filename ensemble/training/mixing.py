"""Mixing of images in pairs, and of their targets alike."""

import numpy as np


def mix(
    images: np.ndarray,
    targets: np.ndarray,
    generator: np.random.Generator,
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Mixes each image with a partner from the same batch.

    MixUp blends the two; CutMix replaces a rectangle of one by the same place of the
    other. Where both are wanted, a coin decides for each image. A target keeps the share
    that its image keeps of its pixels.

    Args:
        images: Float32, shape `(n, h, w, c)`.
        targets: Float32, shape `(n, num_classes)`.
        generator: Source of all random values.
        mixup: Alpha of the Beta distribution of the share in MixUp; 0: no MixUp.
        cutmix: Alpha of the Beta distribution of the share in CutMix; 0: no CutMix.

    Returns:
        Images and targets of the same shapes, float32.

    Source:
        Zhang et al., mixup, ICLR 2018, arXiv:1710.09412. Yun et al., CutMix, ICCV 2019,
        arXiv:1905.04899.
    """
    if not (mixup or cutmix) or not len(images):
        return images, targets
    partners = generator.permutation(len(images))
    if mixup and cutmix:
        blended = _blends(images.shape, generator, mixup)
        coins = generator.random((len(images), 1, 1, 1)) < 0.5
        kept = np.where(coins, blended, _cuts(images.shape, generator, cutmix))
    elif mixup:
        kept = _blends(images.shape, generator, mixup)
    else:
        kept = _cuts(images.shape, generator, cutmix)
    shares = kept.mean(axis=(1, 2), dtype="float64")[:, 0, None].astype("float32")
    return (
        kept * images + (1 - kept) * images[partners],
        shares * targets + (1 - shares) * targets[partners],
    )


def _blends(shape: tuple[int, ...], generator: np.random.Generator, alpha: float) -> np.ndarray:
    """Samples a share for each image; result of shape `(n, 1, 1, 1)`."""
    return generator.beta(alpha, alpha, (shape[0], 1, 1, 1)).astype("float32")


def _cuts(shape: tuple[int, ...], generator: np.random.Generator, alpha: float) -> np.ndarray:
    """Samples a rectangle for each image: 0 in it, 1 around it; shape `(n, h, w, 1)`."""
    images, height, width = shape[:3]
    sides = np.sqrt(1 - generator.beta(alpha, alpha, images))  # as shares of the image's
    inside = np.ones((images, height, width), bool)
    for axis, length in ((1, height), (2, width)):
        centres = generator.uniform(0, length, images)
        pixels = np.arange(length) + 0.5
        near = np.abs(pixels - centres[:, None]) < sides[:, None] * length / 2
        inside &= np.expand_dims(near, 3 - axis)
    return (~inside[..., None]).astype("float32")
