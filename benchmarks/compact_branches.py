"""Two branches small enough to learn from random weights on a CPU: `plain` and `residual`.

    python -m ensemble.train --plugins benchmarks/compact_branches.py --branches plain,residual \\
        --weights random --unfreeze all ...

Both see 48-pixel faces as 6 x 6 maps of 128 channels; the first stacks convolutions, the
second adds what each block learns to what it was given. About 250,000 weights each.
"""

from typing import Any

from branches import BranchSpec, register_branch

_WIDTHS = (32, 64, 128)


def build_plain(input_shape: tuple[int, int, int], **_: Any) -> Any:
    """A stack of 3 x 3 convolutions in the manner of VGG, with BatchNorm."""
    import keras

    image = keras.Input(input_shape)
    x = _convolve(image, 24, "stem", strides=2)
    for index, width in enumerate(_WIDTHS):
        x = _convolve(x, width, f"block{index}_1", strides=1 if index == 0 else 2)
        x = _convolve(x, width, f"block{index}_2")
    return keras.Model(image, x)


def build_residual(input_shape: tuple[int, int, int], **_: Any) -> Any:
    """Blocks of two convolutions around which their input is led, as in ResNet."""
    import keras

    image = keras.Input(input_shape)
    x = _convolve(image, 24, "stem", strides=2)
    for index, width in enumerate(_WIDTHS):
        strides = 1 if index == 0 else 2
        around = keras.layers.Conv2D(width, 1, strides, name=f"block{index}_around")(x)
        x = _convolve(x, width, f"block{index}_1", strides=strides)
        x = keras.layers.Conv2D(width, 3, padding="same", name=f"block{index}_2_conv")(x)
        x = keras.layers.Add(name=f"block{index}_add")([around, x])
        x = keras.layers.BatchNormalization(name=f"block{index}_norm")(x)
        x = keras.layers.Activation("relu", name=f"block{index}_relu")(x)
    return keras.Model(image, x)


def _convolve(x: Any, width: int, name: str, strides: int = 1) -> Any:
    import keras

    x = keras.layers.Conv2D(width, 3, strides, padding="same", use_bias=False, name=f"{name}_conv")(
        x
    )
    x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
    return keras.layers.Activation("relu", name=f"{name}_relu")(x)


for name, build, reference in (
    ("plain", build_plain, "after Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556"),
    ("residual", build_residual, "after He et al., CVPR 2016, arXiv:1512.03385"),
):
    register_branch(
        BranchSpec(
            name=name,
            builder=build,
            preprocessing="tf",
            min_size=16,
            reference=reference,
            weights_licence="none: random weights alone",
        )
    )
