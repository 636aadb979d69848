"""VGG branches."""

from branches.registry import BranchSpec, register_branch

register_branch(
    BranchSpec(
        name="vgg16",
        builder="keras.applications:VGG16",
        preprocessing="caffe",
        min_size=32,
        reference="Simonyan and Zisserman, VGG, ICLR 2015, arXiv:1409.1556",
        weights_licence="CC BY 4.0 (VGG, Oxford)",
        stages={
            "block1": "block1_pool",
            "block2": "block2_pool",
            "block3": "block3_pool",
            "block4": "block4_pool",
            "block5": "block5_pool",
        },
    )
)
