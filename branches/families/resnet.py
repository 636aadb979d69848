"""ResNet branches."""

from branches.registry import BranchSpec, register_branch

register_branch(
    BranchSpec(
        name="resnet50",
        builder="keras.applications:ResNet50",
        preprocessing="caffe",
        min_size=32,
        reference="He et al., ResNet, CVPR 2016, arXiv:1512.03385",
        weights_licence="MIT (Kaiming He)",
        stages={
            "conv1": "pool1_pool",
            "conv2": "conv2_block3_out",
            "conv3": "conv3_block4_out",
            "conv4": "conv4_block6_out",
            "conv5": "conv5_block3_out",
        },
    )
)
