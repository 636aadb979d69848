"""DenseNet branches."""

from branches.registry import BranchSpec, register_branch

register_branch(
    BranchSpec(
        name="densenet121",
        builder="keras.applications:DenseNet121",
        preprocessing="torch",
        min_size=32,
        reference="Huang et al., DenseNet, CVPR 2017, arXiv:1608.06993",
        weights_licence="BSD 3-Clause (DenseNet authors)",
        stages={
            "conv1": "pool1",
            "conv2": "pool2_pool",
            "conv3": "pool3_pool",
            "conv4": "pool4_pool",
            "conv5": "relu",
        },
    )
)
