"""Records of a run's inputs: weights, images and splits, so that it can be reproduced."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from branches.checksums import file_checksum, weights_checksum
from configs.schema import ExperimentConfig, ModelConfig
from ensemble.data.inspection import Images
from ensemble.data.leakage import count_copies, describe_duplicates
from ensemble.data.loading import Dataset
from ensemble.data.reading import Inspection
from ensemble.features.frozen_branch import FrozenBranch
from ensemble.model.composition import MultiBranchModel
from ensemble.runs.reproduction import WEIGHTED
from ensemble.runs.run import Run

_PROTOCOL = {"classes", "faces", "merge", "protocol"}  # settings that affect images and labels
SPLIT_COLUMNS = ("path", "label", "split", "group", "weight", "sha256")


def split_rows(
    classes: Sequence[str], images: Images
) -> Iterator[tuple[str, str, str, str, float, str]]:
    """Yields the split as rows of a manifest, in `SPLIT_COLUMNS`, which `--labels` reads again."""
    parts = {"train": images.train, "validation": images.validation, "test": images.test}
    for part, inspection in parts.items():
        if inspection is None:
            continue
        split = inspection.readable
        for name, label, group, weight, digest in zip(
            split.names, split.labels, split.groups, split.weights, inspection.digests, strict=True
        ):
            yield name, classes[label], part, group or "", float(weight), digest.hex()


def save_model(
    run: Run, ensemble: MultiBranchModel, environment: Mapping[str, Any], **source: Any
) -> None:
    """Saves a run's model, with protocol and source inside.

    Args:
        run: The run.
        ensemble: Its trained model.
        environment: Content of `environment.json`.
        source: Further facts about the model's origin, as JSON values.
    """
    kept = ("seed", "git_commit", "backend", "packages")
    save = partial(
        ensemble.save,
        protocol=run.config.data.model_dump(mode="json", include=_PROTOCOL),
        source={"run": run.name, **source, **{name: environment.get(name) for name in kept}},
    )
    run.save("model.keras", save)


def record_weights(model: ModelConfig, extractor: keras.Model) -> dict[str, dict[str, str]]:
    """Returns source and checksums of each branch's weights, by branch label."""
    return {
        branch.label: _weights_record(
            model.weights_of(branch.label), extractor.get_layer(branch.layer_name)
        )
        for branch in model.branches
    }


def record_features(branches: Sequence[FrozenBranch]) -> dict[str, dict[str, Any]]:
    """Returns the engine of each branch and where its features are, by branch label."""
    return {
        branch.label: {
            "stored_as": branch.key.name,
            "engine": branch.engine,
            "extracted": branch.extracted,
            "reused": branch.reused,
        }
        for branch in branches
    }


def record_data(images: Images) -> dict[str, dict[str, Any]]:
    """Returns fingerprints of images, labels, weights and votes, whatever the names of images."""
    return {"train": _data_record(images.train), "validation": _data_record(images.validation)}


def describe_experiment(
    config: ExperimentConfig,
    dataset: Dataset,
    images: Images,
    ensemble: MultiBranchModel,
) -> dict[str, str]:
    """Returns the lines about data and model for a report: heading to text."""
    model = config.model
    trained = sum(int(np.prod(weight.shape)) for weight in ensemble.model.trainable_weights)
    weights = {model.weights_of(branch.label) for branch in model.branches}
    unfrozen = ", ".join(config.training.unfreeze)
    return {
        "Data": f"{dataset.name}, {len(images.train.readable)} training and "
        f"{len(images.validation.readable)} validation images",
        **dataset.facts,
        **_describe_leaks(images),
        **_describe_copies(images),
        "Image size": f"{config.data.image_size} x {config.data.image_size} pixels",
        "Views": f"{config.data.views} of each training image",
        "Branches": ", ".join(branch.label for branch in model.branches),
        "Weights": ", ".join(sorted(weights)),
        "Fusion and head": f"{model.fusion}, {model.head.name}",
        **({"Unfrozen": unfrozen} if unfrozen else {}),
        "Targets": config.targets,
        "Parameters": f"{ensemble.model.count_params():,}, of them {trained:,} trained",
        "Seed": str(config.seed),
    }


def _describe_leaks(images: Images) -> dict[str, str]:
    if not images.duplicates:
        return {}
    done = f"{images.dropped:,} training images left out" if images.dropped else "all left in"
    return {"In several splits": f"{describe_duplicates(images.duplicates)}; {done}"}


def _describe_copies(images: Images) -> dict[str, str]:
    parts = {"training": images.train, "validation": images.validation}
    copies = {name: count_copies(inspection) for name, inspection in parts.items()}
    counts = [f"{count:,} {name} images" for name, count in copies.items() if count]
    if not counts:
        return {}
    return {"Copies within a split": f"{' and '.join(counts)} repeat an earlier one"}


def _weights_record(source: str, branch: keras.Model) -> dict[str, str]:
    record = {"source": source, "sha256": weights_checksum(branch)}
    if source not in {"imagenet", "random"}:
        record["file_sha256"] = file_checksum(source)
    return record


def _data_record(inspection: Inspection) -> dict[str, Any]:
    split = inspection.readable
    rows = [
        digest + int(label).to_bytes(4, "big")
        for digest, label in zip(inspection.digests, split.labels, strict=True)
    ]
    record = {"images": len(split), "sha256": _digest_rows(rows)}
    if split.votes is None and (split.weights == 1).all():
        return record
    votes = np.zeros((len(split), 0)) if split.votes is None else split.votes
    values = np.column_stack([split.weights, votes])
    weighted = [row + each.astype("<f4").tobytes() for row, each in zip(rows, values, strict=True)]
    return {**record, WEIGHTED: _digest_rows(weighted)}


def _digest_rows(rows: Sequence[bytes]) -> str:
    """Returns a digest that does not depend on the order of rows."""
    return hashlib.sha256(b"".join(sorted(rows))).hexdigest()
