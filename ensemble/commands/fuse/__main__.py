"""`python -m ensemble.fuse`: one model from several finished runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from configs.schema import ExperimentConfig
from ensemble.cli.checks import load_plugins
from ensemble.cli.command_line import load_backend, read_section, run_command
from ensemble.cli.flags import Parser
from ensemble.runs.run import Run


def main(argv: Sequence[str] | None = None) -> int:
    """Fuses the predictions, not the features, of finished runs."""
    return run_command(lambda: _fuse(argv))


def _fuse(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="python -m ensemble.fuse",
        description="Fuse the predictions of finished runs into one model, a run of its own. "
        "Fitted combiners are evaluated out of fold on the validation images.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder that ensemble.train wrote"
    )
    parser.add_argument(
        "--method",
        choices=("average", "weighted", "stacking"),
        default="average",
        help="mean of the probabilities, mean with fitted weights, or a logistic regression on "
        "them (default: average)",
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where the run is kept")
    parser.add_argument("--name", help="name of the run's folder")
    args = parser.parse_args(argv)
    if args.name:
        read_section(ExperimentConfig, {"name": args.name})
    runs = [Run.open(folder) for folder in args.runs]
    load_plugins(sorted({plugin for run in runs for plugin in run.config.plugins}))
    load_backend()
    from ensemble.commands.fuse.fusing import fuse_runs

    result = fuse_runs(runs, args.method, output=args.output, name=args.name)
    print(result.summary())


if __name__ == "__main__":
    sys.exit(main())
