"""Stores the features of a training ahead of it."""

import time

from configs.schema import ExperimentConfig
from ensemble.data.inspection import (
    check_readable,
    inspect_dataset,
    log_duplicates,
    log_problems,
)
from ensemble.faces.store import read_dataset
from ensemble.features.extraction import (
    build_frozen,
    describe_branch,
    fill_branches,
    freeze_branches,
    log_start,
)


def fill_store(config: ExperimentConfig) -> str:
    """Extracts the features that a training with these settings would, and stores them.

    Returns:
        Lines that say what was done, for the screen.

    Raises:
        UserError: If data, weights or the store cannot be used.
    """
    dataset = read_dataset(config.data, config.seed)
    extractor, model = build_frozen(config, dataset)
    log_start(config, dataset)
    images = inspect_dataset(dataset, config.data)
    log_problems(images.problems, "")
    log_duplicates(images, "")
    check_readable(dataset, images)

    started = time.perf_counter()
    branches = freeze_branches(extractor, model, config.features)
    fill_branches(branches, images, config)
    lines = [describe_branch(branch) for branch in branches]
    return "\n".join([*lines, f"took {time.perf_counter() - started:.0f} s"])
