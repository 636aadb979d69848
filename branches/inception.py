"""Inception branches."""

from branches.registry import BranchSpec, register_branch

register_branch(
    BranchSpec(
        name="inception_v3",
        builder="keras.applications:InceptionV3",
        preprocessing="tf",
        min_size=75,
        reference="Szegedy et al., Inception-v3, CVPR 2016, arXiv:1512.00567",
        weights_licence="Apache-2.0 (TensorFlow)",
    )
)
