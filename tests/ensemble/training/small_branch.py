"""A plugin with a quick branch; on TensorFlow it also makes several devices of the CPU."""

import os
from typing import Any

from branches import BranchSpec, register_branch


def build_small(input_shape: tuple[int, int, int], **_: Any) -> Any:
    from keras import Input, Model, layers

    image = Input(input_shape)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="stem_conv")(image)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.Conv2D(12, 3, strides=2, activation="relu", name="body_conv")(x)
    return Model(image, x, name="small_backbone")


def split_cpu(count: int) -> None:
    import tensorflow as tf

    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)


register_branch(
    BranchSpec(
        name="small",
        builder=build_small,
        preprocessing="tf",
        min_size=8,
        reference="none",
        stages={"stem": "stem_bn", "body": "body_conv"},
    )
)
if "TENSORFLOW_CPUS" in os.environ:
    split_cpu(int(os.environ["TENSORFLOW_CPUS"]))
