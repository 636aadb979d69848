"""`python -m ensemble.report`: all evidence about runs in one HTML file."""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from configs.errors import RunError
from ensemble.cli.checks import load_plugins
from ensemble.cli.command_line import run_command
from ensemble.cli.flags import Parser
from ensemble.commands.compare.candidates import read_candidates
from ensemble.runs.run import Run


def main(argv: Sequence[str] | None = None) -> int:
    """Writes one page about some runs and prints where it lies."""
    return run_command(lambda: _report(argv))


def _report(argv: Sequence[str] | None) -> None:
    parser = Parser(
        prog="python -m ensemble.report",
        description="Write one HTML file about a run, or about several side by side: metrics with "
        "intervals, curves, confusion, mistakes, data, settings and environment. It opens from "
        "disk, needs no network and prints.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder that ensemble.train wrote"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where the page is kept (default: report.html in the run; of several runs "
        "runs/report-TIME.html)",
    )
    args = parser.parse_args(argv)
    _check_no_search(args.runs)
    candidates = read_candidates(args.runs)
    load_plugins(sorted({name for each in candidates for name in each.config.plugins}))
    from ensemble.commands.report.page import write_page

    page = write_page(candidates)
    path = args.output or _default_path(args.runs)
    Run(path.parent).write(path.name, page)
    print(f"{path} opens in any browser")


def _check_no_search(folders: Sequence[Path]) -> None:
    for folder in folders:
        if (folder / "search.yaml").is_file():
            raise RunError(
                f"{folder} is a search. Name runs, such as that of its best trial; "
                f"python -m ensemble.compare {folder} sets its trials side by side."
            )


def _default_path(runs: Sequence[Path]) -> Path:
    if len(runs) == 1:
        return runs[0] / "report.html"
    return Path("runs") / f"report-{datetime.now():%Y%m%d-%H%M%S}.html"


if __name__ == "__main__":
    sys.exit(main())
