"""Composes branches and a head into an ensemble, trains it and judges it.

Everything exported here loads Keras on first use, and not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from configs.schema import ExperimentConfig
    from ensemble.datasets.loading import Dataset, load_dataset
    from ensemble.datasets.registry import Location
    from ensemble.evaluation import evaluate_run
    from ensemble.experiment import FitResult, fit
    from ensemble.exporting import export_model, export_run
    from ensemble.features import FrozenBranch
    from ensemble.fusing import fuse_models, fuse_runs
    from ensemble.model import (
        MultiBranchModel,
        build_classifier,
        build_extractor,
        build_model,
        compose,
    )
    from ensemble.prediction import Prediction, Predictor
    from ensemble.preparation import fill_store
    from ensemble.report import Report
    from ensemble.run import Run
    from ensemble.runtimes import ExportedModel, load_exported
    from ensemble.store import FeatureStore
    from ensemble.training import train_model

_HOME = {
    "Dataset": "ensemble.datasets.loading",
    "ExperimentConfig": "configs.schema",
    "ExportedModel": "ensemble.runtimes",
    "FeatureStore": "ensemble.store",
    "FitResult": "ensemble.experiment",
    "FrozenBranch": "ensemble.features",
    "Location": "ensemble.datasets.registry",
    "MultiBranchModel": "ensemble.model",
    "Prediction": "ensemble.prediction",
    "Predictor": "ensemble.prediction",
    "Report": "ensemble.report",
    "Run": "ensemble.run",
    "build_classifier": "ensemble.model",
    "build_extractor": "ensemble.model",
    "build_model": "ensemble.model",
    "compose": "ensemble.model",
    "evaluate_run": "ensemble.evaluation",
    "export_model": "ensemble.exporting",
    "export_run": "ensemble.exporting",
    "fill_store": "ensemble.preparation",
    "fit": "ensemble.experiment",
    "fuse_models": "ensemble.fusing",
    "fuse_runs": "ensemble.fusing",
    "load_dataset": "ensemble.datasets.loading",
    "load_exported": "ensemble.runtimes",
    "train_model": "ensemble.training",
}

__all__ = [
    "Dataset",
    "ExperimentConfig",
    "ExportedModel",
    "FeatureStore",
    "FitResult",
    "FrozenBranch",
    "Location",
    "MultiBranchModel",
    "Prediction",
    "Predictor",
    "Report",
    "Run",
    "build_classifier",
    "build_extractor",
    "build_model",
    "compose",
    "evaluate_run",
    "export_model",
    "export_run",
    "fill_store",
    "fit",
    "fuse_models",
    "fuse_runs",
    "load_dataset",
    "load_exported",
    "train_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ensemble' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
