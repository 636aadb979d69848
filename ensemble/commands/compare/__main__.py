"""`python -m ensemble.compare`: runs and trials side by side."""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.cli.checks import load_plugins
from ensemble.cli.command_line import load_backend, run_command
from ensemble.cli.flags import Parser
from ensemble.commands.compare.candidates import read_candidates
from ensemble.runs.run import Run

if TYPE_CHECKING:
    from ensemble.commands.compare.candidates import Candidate


def main(argv: Sequence[str] | None = None) -> int:
    """Prints tables of runs and trials and writes them with pictures into a folder."""
    return run_command(lambda: _compare(argv))


def _compare(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="python -m ensemble.compare",
        description="Compare runs and the trials of searches, image by image, with the first one "
        "named; of a search that is its best trial. Runs that differ only in their seed are also "
        "reported as mean and deviation.",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="RUN|SEARCH",
        help="folder of a run, a trial or a search",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where tables and figures are kept (default: runs/comparison-TIME)",
    )
    parser.add_argument(
        "--no-timing",
        action="store_true",
        help="do not build and time the models where their branches differ",
    )
    args = parser.parse_args(argv)
    candidates = read_candidates(args.folders)
    load_plugins(sorted({name for each in candidates for name in each.config.plugins}))
    timed = not args.no_timing and _differ_in_branches(candidates)
    if timed:
        load_backend()
    from ensemble.commands.compare.comparing import write_comparison

    folder = args.output or Path("runs") / f"comparison-{datetime.now():%Y%m%d-%H%M%S}"
    text = write_comparison(candidates, Run(folder), timed=timed)
    print(f"{text}\n\n{folder}/ holds comparison.txt, comparison.csv and figures")


def _differ_in_branches(candidates: Sequence["Candidate"]) -> bool:
    return len({str(each.settings["model.branches"]) for each in candidates}) > 1


if __name__ == "__main__":
    sys.exit(main())
