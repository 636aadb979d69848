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
        # Called after their last blocks, as all other layers have automatic names.
        stages={
            "mixed2": "mixed2",  # stem and blocks 0 to 2: grid of 35 x 35 at 299 pixels
            "mixed7": "mixed7",  # blocks 3 to 7: 17 x 17
            "mixed10": "mixed10",  # blocks 8 to 10: 8 x 8
        },
    )
)
