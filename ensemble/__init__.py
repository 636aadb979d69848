"""Composes branches and a head into an ensemble, trains it and evaluates it.

Everything exported here loads Keras on first use, and not before.
"""
# ruff: noqa: F401

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from configs.schema import ExperimentConfig
    from ensemble.commands.export.exporting import export_model, export_run
    from ensemble.commands.fuse.fusing import fuse_models, fuse_runs
    from ensemble.commands.predict.predictor import Prediction, Predictor
    from ensemble.commands.search.hypermodel import EnsembleHyperModel
    from ensemble.data.loading import Dataset, load_dataset
    from ensemble.data.registry import Location
    from ensemble.experiment import FitResult, fit
    from ensemble.features.extraction import fill_store
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

_EXPORTS = {
    "configs.schema": "ExperimentConfig",
    "ensemble.commands.export.exporting": "export_model export_run",
    "ensemble.commands.fuse.fusing": "fuse_models fuse_runs",
    "ensemble.commands.predict.predictor": "Prediction Predictor",
    "ensemble.commands.search.hypermodel": "EnsembleHyperModel",
    "ensemble.data.loading": "Dataset load_dataset",
    "ensemble.data.registry": "Location",
    "ensemble.experiment": "FitResult fit",
    "ensemble.features.extraction": "fill_store",
    "ensemble.features.frozen_branch": "FrozenBranch",
    "ensemble.features.store": "FeatureStore",
    "ensemble.metrics.evaluating": "evaluate_run",
    "ensemble.metrics.report": "Report",
    "ensemble.model.composition": "MultiBranchModel build_classifier build_extractor build_model "
    "compose",
    "ensemble.model.runtimes": "ExportedModel load_exported",
    "ensemble.runs.run": "Run",
    "ensemble.training.trainer": "train_model",
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)

# `python -m ensemble.train` runs `ensemble/commands/train/__main__.py`.
__path__.append(str(Path(__file__).parent / "commands"))


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ensemble' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def _check_siblings() -> None:
    """Raises ImportError if a user's file hides a package that comes with this one."""
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
