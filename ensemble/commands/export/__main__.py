"""`python -m ensemble.export`: writes a run's model for another runtime."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ensemble.cli.checks import load_plugins
from ensemble.cli.command_line import load_backend, run_command
from ensemble.cli.flags import Parser
from ensemble.model.runtimes import RUNTIMES, check_packages
from ensemble.runs.run import Run


def main(argv: Sequence[str] | None = None) -> int:
    """Exports a run's model with scaling and calibration inside."""
    return run_command(lambda: _export(argv))


def _export(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="python -m ensemble.export",
        description="Write a run's model for another runtime. Pixel scaling and calibration are "
        "inside; model.json beside it names classes, image size and checksums.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that ensemble.train wrote")
    parser.add_argument("--format", choices=tuple(RUNTIMES), required=True)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where to; an earlier export is replaced (default: RUN/exported/FORMAT)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="run the export on fixed images, and keep it only if it agrees with Keras: all "
        "probabilities to 1e-4, all most probable classes",
    )
    args = parser.parse_args(argv)
    check_packages(args.format, verify=args.verify)
    run = Run.open(args.run)
    load_plugins(run.config.plugins)
    load_backend()
    from ensemble.commands.export.exporting import export_run

    export = export_run(run, args.format, args.output, verify=args.verify)
    if export.difference is not None:
        print(f"largest difference from Keras: {export.difference:.1e}")
    print(f"{export.folder}/ holds the model ({export.size / 1e6:.1f} MB) and model.json")


if __name__ == "__main__":
    sys.exit(main())
