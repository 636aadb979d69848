"""Composes branches and a head into an ensemble, trains it and judges it.

Everything exported here loads Keras on first use, and not before.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from configs.schema import ExperimentConfig
    from ensemble.commands.export.exporting import export_model, export_run
    from ensemble.commands.extract.filling import fill_store
    from ensemble.commands.fuse.fusing import fuse_models, fuse_runs
    from ensemble.commands.predict.predictor import Prediction, Predictor
    from ensemble.commands.search.hypermodel import EnsembleHyperModel
    from ensemble.data.loading import Dataset, load_dataset
    from ensemble.data.registry import Location
    from ensemble.experiment import FitResult, fit
    from ensemble.features.frozen_branch import FrozenBranch
    from ensemble.features.store import FeatureStore
    from ensemble.metrics.evaluating import evaluate_run
    from ensemble.metrics.report import Report
    from ensemble.model.composition import (
        MultiBranchModel,
        build_classifier,
        build_extractor,
        build_model,
        compose,
    )
    from ensemble.model.runtimes import ExportedModel, load_exported
    from ensemble.runs.run import Run
    from ensemble.training.trainer import train_model

_HOME = {
    "Dataset": "ensemble.data.loading",
    "EnsembleHyperModel": "ensemble.commands.search.hypermodel",
    "ExperimentConfig": "configs.schema",
    "ExportedModel": "ensemble.model.runtimes",
    "FeatureStore": "ensemble.features.store",
    "FitResult": "ensemble.experiment",
    "FrozenBranch": "ensemble.features.frozen_branch",
    "Location": "ensemble.data.registry",
    "MultiBranchModel": "ensemble.model.composition",
    "Prediction": "ensemble.commands.predict.predictor",
    "Predictor": "ensemble.commands.predict.predictor",
    "Report": "ensemble.metrics.report",
    "Run": "ensemble.runs.run",
    "build_classifier": "ensemble.model.composition",
    "build_extractor": "ensemble.model.composition",
    "build_model": "ensemble.model.composition",
    "compose": "ensemble.model.composition",
    "evaluate_run": "ensemble.metrics.evaluating",
    "export_model": "ensemble.commands.export.exporting",
    "export_run": "ensemble.commands.export.exporting",
    "fill_store": "ensemble.commands.extract.filling",
    "fit": "ensemble.experiment",
    "fuse_models": "ensemble.commands.fuse.fusing",
    "fuse_runs": "ensemble.commands.fuse.fusing",
    "load_dataset": "ensemble.data.loading",
    "load_exported": "ensemble.model.runtimes",
    "train_model": "ensemble.training.trainer",
}

__all__ = [
    "Dataset",
    "EnsembleHyperModel",
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


# `python -m ensemble.train` runs `ensemble/commands/train/__main__.py`.
__path__.append(str(Path(__file__).parent / "commands"))


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ensemble' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def _check_siblings() -> None:
    """Raises ImportError if a file of the user's hides a package that comes with this one."""
    for name in ("branches", "configs", "heads"):
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin and origin.parents[1] != Path(__file__).resolve().parents[1]:
            raise ImportError(
                f"{origin} hides the package {name!r} of this program. Rename that file, or take "
                "its folder off the Python path."
            )


_PROGRAM = Path(sys.argv[0]).stem if sys.argv else ""  # "-m" until Python has found the command

# `python -m` puts the working folder before all packages; a file heads.py or yaml.py there must
# not take the place of a package, but a module there may still be named with --plugins.
if _PROGRAM == "-m" and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))
try:
    _check_siblings()
except ImportError as error:
    if _PROGRAM not in {"-m", "ensemble"}:
        raise
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)
